#include "train/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/memory.h"
#include "io/chat.h"
#include "io/file.h"
#include "io/json.h"
#include "train/run_internal.h"

// ---- opening ------------------------------------------------------------------------------------

static enum mm_code open_tokenizer(struct mm_run_context *c, const struct mm_config *config,
                                   struct mm_error *err) {
    struct mm_chat_special special;
    MM_TRY(mm_tokenizer_open(&c->tokenizer, c->assets, err));
    MM_TRY(mm_tokenizer_check_vocab(c->tokenizer, config->V + config->n_special, c->assets, err));
    MM_TRY(mm_chat_special_find(&special, c->tokenizer, c->assets, err));
    if (special.img_context != config->img_context_id) {
        return mm_fail(err, mm_code_input,
                       "%s: config.json has 'img_context_token_id' %lld, the tokenizer gives "
                       "<IMG_CONTEXT> the id %d; they must be the same",
                       c->assets, (long long)config->img_context_id, (int)special.img_context);
    }
    return mm_code_ok;
}

static enum mm_code hash_data(struct mm_run_context *c, const struct mm_config *config,
                              struct mm_error *err) {
    const struct mm_data_options d = mm_run_data_options(c, c->opt->distill ? 1 : 0, config);
    struct mm_data *data;
    MM_TRY(mm_data_open(&data, c->opt->data, c->tokenizer, c->assets, &d, err));
    uint8_t hash[16];
    mm_data_hash(data, hash);
    for (int i = 0; i < 16; i++)
        snprintf(c->data_hash + 2 * i, 3, "%02x", hash[i]);
    mm_info("%lld samples in %s", (long long)mm_data_samples(data), c->opt->data);
    mm_data_close(data);
    return mm_code_ok;
}

static enum mm_code open_models(struct mm_run_context *c, struct mm_error *err) {
    const struct mm_run_options *o = c->opt;
    c->assets = mm_model_folder(o->model ? o->model : o->config);
    if (o->model) {
        struct mm_model *m = o->distill ? &c->teacher : &c->student;
        MM_TRY(mm_model_load(m, c->be, o->model, o->recipe.compute, err));
        if (o->distill) {
            c->has_teacher = true;
        } else {
            c->has_student = true;
        }
        MM_TRY(mm_model_refuse_quantized(m, "rounded weights cannot be trained from", err));
        mm_model_hash(m, c->model_hash);
        return open_tokenizer(c, &m->config, err);
    }
    char *path = mm_path_is_folder(o->config) ? mm_path_join(o->config, "config.json")
                                              : mm_xstrdup(o->config);
    struct mm_config config = {0};
    const enum mm_code code = mm_config_read(&config, path, err);
    free(path);
    if (code) return code;
    mm_model_init(&c->student, &config, c->be, o->recipe.compute);
    mm_config_deinit(&config);
    c->has_student = true;
    MM_TRY(mm_model_alloc(&c->student, err));
    mm_model_randomize(&c->student, o->recipe.seed);
    mm_model_hash(&c->student, c->model_hash);
    return open_tokenizer(c, &c->student.config, err);
}

// The student as stage `stage` starts: carved, then what earlier stages of this run trained. In
// stages 1 and 2 every block is converted; stage 3 puts the kept ones back.
static enum mm_code make_student(struct mm_run_context *c, int stage, struct mm_error *err) {
    if (c->has_student) mm_model_deinit(&c->student);
    c->has_student = false;
    bool none[mm_max_blocks] = {false};
    MM_TRY(mm_model_carve(&c->student, &c->teacher, stage == 3 ? c->keep : none, c->opt->init,
                          c->opt->recipe.seed, err));
    c->has_student = true;
    char *previous = mm_run_previous_stage(c->opt, stage);
    if (previous == NULL) return mm_code_ok;
    struct mm_st *st;
    enum mm_code code = mm_st_open(&st, previous, err);
    if (!code) {
        code = mm_model_apply(&c->student, st, true, err);
        mm_st_close(st);
    }
    free(previous);
    return code;
}

// ---- the stages ---------------------------------------------------------------------------------

static enum mm_code run_stages(struct mm_run_context *c, struct mm_error *err) {
    const struct mm_run_options *o = c->opt;
    const int first = o->distill ? 1 : 0, last = o->distill ? 3 : 0;
    for (int stage = c->at.stage; stage <= last; stage++) {
        if (stage < first || (o->distill && !o->stages[stage])) continue;
        if (c->at.stage != stage) {
            c->at.stage = stage;
            c->at.step = 0;
        }
        if (o->distill) MM_TRY(make_student(c, stage, err));
        MM_TRY(mm_run_stage(c, stage, err));
        if (stage == last || !o->distill) break;
        c->at.stage = stage + 1;
        c->at.step = 0;
        MM_TRY(mm_run_save_checkpoint(c, NULL, err));
    }
    // killed between the last stage and the result: what that stage left is the student
    if (o->distill && !c->has_student) MM_TRY(make_student(c, mm_run_done, err));
    return mm_code_ok;
}

// A result in the dtype the model came in.
static enum mm_dtype result_dtype(const struct mm_model *m) {
    return strcmp(m->config.torch_dtype, "float32") == 0   ? mm_dtype_f32
           : strcmp(m->config.torch_dtype, "float16") == 0 ? mm_dtype_f16
                                                           : mm_dtype_bf16;
}

static enum mm_code save_result(struct mm_run_context *c, struct mm_error *err) {
    char *folder = mm_run_path(c->opt, "model");
    enum mm_code code =
        mm_model_save(&c->student, folder, result_dtype(&c->student), c->assets, err);
    free(folder);
    if (code) return code;
    c->at.stage = mm_run_done;
    c->at.step = 0;
    return mm_run_save_checkpoint(c, NULL, err);
}

static void close_run(struct mm_run_context *c) {
    if (c->log) fclose(c->log);
    if (c->has_student) mm_model_deinit(&c->student);
    if (c->has_teacher) mm_model_deinit(&c->teacher);
    if (c->tokenizer) mm_tokenizer_close(c->tokenizer);
    free(c->assets);
}

static enum mm_code run(struct mm_run_context *c, struct mm_error *err) {
    const struct mm_run_options *o = c->opt;
    MM_TRY(open_models(c, err));
    const struct mm_config *config = o->distill ? &c->teacher.config : &c->student.config;
    if (o->distill) {
        MM_TRY(mm_keep_parse(o->keep, mm_config_blocks(config), c->keep, err));
    }
    MM_TRY(hash_data(c, config, err));
    MM_TRY(mm_run_begin_folder(c, err));
    c->at.stage = o->distill ? 1 : 0;
    if (o->resume) MM_TRY(mm_run_load_checkpoint(c, err));
    MM_TRY(mm_run_open_log(c, err));
    if (c->at.stage == mm_run_done) {
        mm_info("%s: this run is finished", o->out);
        return mm_code_ok;
    }
    MM_TRY(run_stages(c, err));
    return save_result(c, err);
}

enum mm_code mm_run(const struct mm_run_options *options, struct mm_backend *be,
                    struct mm_run_summary *summary, struct mm_error *err) {
    struct mm_run_context c = {.opt = options, .be = be};
    const enum mm_code code = run(&c, err);
    *summary = (struct mm_run_summary){
        .steps = c.at.total_steps,
        .tokens = c.at.tokens,
        .skipped_samples = c.at.cursor.skipped,
        .loss = c.at.loss,
        .seconds = c.at.seconds,
        .planned_bytes = c.planned_bytes,
        .peak_bytes = mm_memory_peak(),
        .operations_per_s = c.seconds > 0.0 ? c.operations / c.seconds : 0.0,
    };
    close_run(&c);
    return code;
}

// ---- reading a run again ------------------------------------------------------------------------

bool mm_run_is_folder(const char *path) {
    char *file = mm_path_join(path, "run.json");
    const bool is = mm_path_exists(file);
    free(file);
    return is;
}

static enum mm_code open_distilled(struct mm_model *model, struct mm_model *teacher,
                                   const char *folder, int stage, const json_t *run,
                                   struct mm_backend *be, struct mm_error *err) {
    const char *path = json_string_value(json_object_get(run, "model"));
    const char *keep_text = json_string_value(json_object_get(run, "keep"));
    const char *init_text = json_string_value(json_object_get(run, "init"));
    const int init = init_text ? mm_init_parse(init_text) : -1;
    if (path == NULL || keep_text == NULL || init < 0) {
        return mm_fail(err, mm_code_input, "%s/run.json: 'model', 'keep' or 'init' is missing",
                       folder);
    }
    char name[64];
    snprintf(name, sizeof name, "stage%d.safetensors", stage);
    char *file = mm_path_join(folder, name);
    struct mm_st *st = NULL;
    bool keep[mm_max_blocks] = {false};
    // as run: f32 copies of what was trained, the rest as the teacher stores it
    enum mm_code code = mm_st_open(&st, file, err);
    if (!code) code = mm_model_load(teacher, be, path, mm_dtype_f32, err);
    if (!code && stage == 3) code = mm_keep_parse(keep_text, teacher->n_blocks, keep, err);
    if (!code) code = mm_model_carve(model, teacher, keep, (enum mm_init)init, 0, err);
    if (!code) code = mm_model_apply(model, st, false, err);
    mm_st_close(st);
    free(file);
    return code;
}

// Random weights of a config, or of the model a run started from, in f32.
static enum mm_code open_start(struct mm_model *model, const json_t *run, struct mm_backend *be,
                               struct mm_error *err) {
    const char *path = json_string_value(json_object_get(run, "model"));
    if (path) return mm_model_load(model, be, path, mm_dtype_f32, err);
    const char *from = json_string_value(json_object_get(run, "config"));
    if (from == NULL) {
        return mm_fail(err, mm_code_input, "run.json: names neither 'model' nor 'config'");
    }
    char *file = mm_path_is_folder(from) ? mm_path_join(from, "config.json") : mm_xstrdup(from);
    struct mm_config config = {0};
    const enum mm_code code = mm_config_read(&config, file, err);
    free(file);
    if (code) return code;
    mm_model_init(model, &config, be, mm_dtype_f32);
    mm_config_deinit(&config);
    MM_TRY(mm_model_alloc(model, err));
    mm_model_randomize(model, (uint64_t)json_integer_value(
                                  json_object_get(json_object_get(run, "recipe"), "seed")));
    return mm_code_ok;
}

// A supervised run that is not finished: the masters of its last checkpoint.
static enum mm_code open_unfinished(struct mm_model *model, const char *folder, const json_t *run,
                                    struct mm_backend *be, struct mm_error *err) {
    char *path = mm_path_join(folder, "checkpoint.safetensors");
    struct mm_st *st;
    enum mm_code code = mm_st_open(&st, path, err);
    free(path);
    if (code) return code;
    code = open_start(model, run, be, err);
    int found = 0;
    for (int i = 0; !code && i < model->n_params; i++) {
        char name[128];
        snprintf(name, sizeof name, "w.%s", model->params[i].name);
        const struct mm_st_tensor *t = mm_st_find(st, name);
        if (t == NULL) continue;
        if (t->dtype != mm_dtype_f32 ||
            t->bytes != (size_t)mm_view_count(model->params[i].w) * sizeof(float)) {
            code = mm_fail(err, mm_code_input, "%s: tensor '%s' is not of this run's model",
                           mm_st_path(st), name);
            break;
        }
        if (model->params[i].borrowed) code = mm_model_own(model, i, err);
        if (!code) be->upload(be, model->params[i].w.data, t->data, t->bytes);
        found++;
    }
    if (!code && found == 0) {
        code = mm_fail(err, mm_code_input, "%s: holds no weights yet", mm_st_path(st));
    }
    if (!code) mm_info("%s: not finished; this is its last checkpoint", folder);
    mm_st_close(st);
    return code;
}

enum mm_code mm_run_open_model(struct mm_model *model, struct mm_model *teacher, char **assets,
                               const char *folder, int stage, struct mm_backend *be,
                               struct mm_error *err) {
    *assets = NULL;
    char *path = mm_path_join(folder, "run.json");
    json_t *run;
    enum mm_code code = mm_json_load(&run, path, err);
    free(path);
    if (code) return code;
    const char *kind = json_string_value(json_object_get(run, "kind"));
    const bool distill = kind && strcmp(kind, "distill") == 0;
    if (stage == 0 || !distill) {
        char *result = mm_path_join(folder, "model");
        if (stage != 0) {
            code = mm_fail(err, mm_code_input, "%s: supervised training has no stage %d", folder,
                           stage);
        } else if (!mm_path_is_folder(result) && !distill) {
            code = open_unfinished(model, folder, run, be, err);
        } else if (!mm_path_is_folder(result)) {
            code = mm_fail(err, mm_code_input,
                           "%s: this run is not finished (no folder 'model'); --resume finishes "
                           "it, or name a stage that is done",
                           folder);
        } else {
            code = mm_model_load(model, be, result, -1, err);
        }
        const char *from = json_string_value(json_object_get(run, distill ? "model" : "config"));
        if (from == NULL) from = json_string_value(json_object_get(run, "model"));
        *assets = !mm_path_is_folder(result) && from ? mm_model_folder(from) : mm_xstrdup(result);
        free(result);
    } else {
        code = open_distilled(model, teacher, folder, stage, run, be, err);
        const char *from = json_string_value(json_object_get(run, "model"));
        if (from) *assets = mm_model_folder(from);
    }
    json_decref(run);
    return code;
}
