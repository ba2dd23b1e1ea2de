// Owns: opening a model folder for answering, and the checks that its parts belong together.
#include "infer/engine.h"

#include <stdlib.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/json.h"

enum { default_max_new_tokens = 1024 };

// Settings that the folder recommends. Without "do_sample" answers are greedy, as in the published
// generate().
static enum mm_code read_generation_config(struct mm_engine *e, const char *folder,
                                           struct mm_error *err) {
    e->answer = (struct mm_generation){default_max_new_tokens, 0};
    e->sampling = MM_SAMPLING_GREEDY;
    char *path = mm_path_join(folder, "generation_config.json");
    json_t *o = NULL;
    enum mm_code code = mm_code_ok;
    struct mm_sampling how = MM_SAMPLING_GREEDY;
    how.temperature = 1.0;
    bool do_sample = false;
    if (mm_path_exists(path)) {
        code = mm_json_load(&o, path, err);
        if (!code) {
            code = mm_json_int(o, "max_new_tokens", 1, INT32_MAX, false, &e->answer.max_new_tokens,
                               path, err);
        }
        if (!code) {
            code = mm_json_int(o, "min_new_tokens", 0, INT32_MAX, false, &e->answer.min_new_tokens,
                               path, err);
        }
        if (!code) code = mm_json_bool(o, "do_sample", false, &do_sample, path, err);
        if (!code) {
            code = mm_json_float(o, "temperature", 0, 100, false, &how.temperature, path, err);
        }
        if (!code) code = mm_json_int(o, "top_k", 0, INT32_MAX, false, &how.top_k, path, err);
        if (!code) code = mm_json_float(o, "top_p", 0, 1, false, &how.top_p, path, err);
        if (!code) code = mm_json_float(o, "min_p", 0, 1, false, &how.min_p, path, err);
        if (!code) {
            code = mm_json_float(o, "repetition_penalty", 0.01, 100, false, &how.repetition_penalty,
                                 path, err);
        }
        if (!code && e->answer.min_new_tokens > e->answer.max_new_tokens) {
            code = mm_fail(err, mm_code_input,
                           "%s: 'min_new_tokens' is %lld, must not be above 'max_new_tokens', %lld",
                           path, (long long)e->answer.min_new_tokens,
                           (long long)e->answer.max_new_tokens);
        }
    }
    if (!code && do_sample) e->sampling = how;
    e->sampling.repetition_penalty = how.repetition_penalty;
    json_decref(o);
    free(path);
    return code;
}

static enum mm_code check_tokenizer(struct mm_engine *e, const char *folder, struct mm_error *err) {
    const struct mm_config *c = &e->model.config;
    MM_TRY(mm_tokenizer_check_vocab(e->tok, c->V + c->n_special, folder, err));
    MM_TRY(mm_chat_special_find(&e->special, e->tok, folder, err));
    if (e->special.img_context != c->img_context_id) {
        return mm_fail(err, mm_code_input,
                       "%s: config.json has 'img_context_token_id' %lld, the tokenizer gives "
                       "<IMG_CONTEXT> the id %d; they must be the same",
                       folder, (long long)c->img_context_id, (int)e->special.img_context);
    }
    if (e->special.im_end >= c->V) {
        return mm_fail(err, mm_code_input,
                       "%s: the tokenizer gives <|im_end|> the id %d, which the model, with %lld "
                       "outputs, could never say; no answer would end",
                       folder, (int)e->special.im_end, (long long)c->V);
    }
    return mm_code_ok;
}

static int64_t longest_piece(const struct mm_engine *e) {
    size_t longest = 0;
    struct mm_buf text = {NULL, 0, 0};
    for (int64_t id = 0; id < e->model.config.V; id++) {
        mm_buf_reset(&text);
        mm_tokenizer_piece(e->tok, (int32_t)id, false, &text);
        if (text.len > longest) longest = text.len;
    }
    mm_buf_free(&text);
    return (int64_t)longest;
}

enum mm_code mm_engine_open(struct mm_engine **out, struct mm_backend *be, const char *folder,
                            int dtype, struct mm_error *err) {
    *out = NULL;
    struct mm_engine *e = mm_xcalloc(1, sizeof *e);
    e->be = be;
    be->scan_rounds = true;
    // the tokenizer first: it is small, and weights without one cannot answer
    enum mm_code code = mm_path_is_folder(folder)
                            ? mm_tokenizer_open(&e->tok, folder, err)
                            : mm_fail(err, mm_code_input,
                                      "%s: not a model folder (wanted: a folder with config.json, "
                                      "model.safetensors and the tokenizer's files)",
                                      folder);
    if (!code) code = read_generation_config(e, folder, err);
    if (!code) code = mm_model_load(&e->model, be, folder, dtype, err);
    if (!code) code = check_tokenizer(e, folder, err);
    if (!code) mm_st_prefetch(e->model.source);
    if (code) {
        mm_engine_close(e);
        return code;
    }
    e->tile_tokens = mm_config_tile_tokens(&e->model.config);
    e->longest_piece = longest_piece(e);
    mm_sample_scratch_init(&e->scratch, e->model.config.V);
    *out = e;
    return mm_code_ok;
}

void mm_engine_close(struct mm_engine *e) {
    if (e == NULL) return;
    mm_piece_memory_deinit(&e->memory);
    mm_stepper_deinit(&e->stepper);
    free(e->rows);
    free(e->drawn);
    mm_sample_scratch_deinit(&e->scratch);
    if (e->model.be) mm_model_deinit(&e->model);
    mm_tokenizer_close(e->tok);
    free(e->pixels);
    free(e);
}

enum mm_code mm_engine_copy_weights(struct mm_engine *e, struct mm_error *err) {
    return mm_st_copy_to_memory(e->model.source, err);
}

const char *mm_engine_hash(struct mm_engine *e) {
    if (e->hash[0] == '\0') mm_model_hash(&e->model, e->hash);
    return e->hash;
}
