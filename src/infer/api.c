// The public API, include/mmamba.h: checks of what callers may get wrong, defaults, and nothing
// else; the work is done by engine, session and snapshot.
#include <mmamba.h>
#include <stdlib.h>
#include <string.h>

#include "infer/snapshot.h"

struct mmamba_engine {
    struct mm_backend *be;
    struct mm_engine *e;
};
struct mmamba_session {
    struct mm_session *s;
};

// One list of codes and of finishes, seen from both sides.
_Static_assert((int)mmamba_code_usage == (int)mm_code_usage &&
                   (int)mmamba_code_interrupted == (int)mm_code_interrupted &&
                   (int)mmamba_code_device == (int)mm_code_device &&
                   (int)mmamba_code_input == (int)mm_code_input,
               "codes");
_Static_assert((int)mmamba_finish_cancelled == (int)mm_finish_cancelled &&
                   (int)mmamba_finish_length == (int)mm_finish_length,
               "finishes");
_Static_assert(sizeof((struct mmamba_error){0}.text) == sizeof((struct mm_error){0}.text), "text");

static enum mmamba_code give(struct mmamba_error *err, enum mm_code code,
                             const struct mm_error *e) {
    if (err) {
        err->code = (enum mmamba_code)code;
        memcpy(err->text, code ? e->text : "", code ? sizeof err->text : 1);
    }
    return (enum mmamba_code)code;
}

const char *mmamba_version(void) {
    return MMAMBA_VERSION;
}

// ---- engine -------------------------------------------------------------------------------------

static enum mm_code open_backend(struct mm_backend **be, const struct mmamba_engine_options *o,
                                 struct mm_error *err) {
    if (o->n_threads < 0 || o->n_threads > 4096) {
        return mm_fail(err, mm_code_usage, "n_threads is %d, must be 0 to 4096", o->n_threads);
    }
    return mm_backend_open(be, o->backend ? o->backend : "auto", o->n_threads, err);
}

enum mmamba_code mmamba_engine_open(struct mmamba_engine **engine, const char *folder,
                                    const struct mmamba_engine_options *options,
                                    struct mmamba_error *err) {
    const struct mmamba_engine_options none = {NULL, 0, NULL};
    const struct mmamba_engine_options *o = options ? options : &none;
    struct mm_error e1;
    *engine = NULL;
    const int dtype = o->dtype ? mm_dtype_parse(o->dtype) : -1;
    if (o->dtype && dtype != mm_dtype_f32 && dtype != mm_dtype_bf16 && dtype != mm_dtype_f16) {
        return give(
            err,
            mm_fail(&e1, mm_code_usage, "dtype is '%.40s', must be f32, bf16 or f16", o->dtype),
            &e1);
    }
    struct mmamba_engine *made = mm_xcalloc(1, sizeof *made);
    enum mm_code code = open_backend(&made->be, o, &e1);
    if (!code) code = mm_engine_open(&made->e, made->be, folder, dtype, &e1);
    if (code) {
        mmamba_engine_close(made);
    } else {
        *engine = made;
    }
    return give(err, code, &e1);
}

void mmamba_engine_close(struct mmamba_engine *engine) {
    if (engine == NULL) return;
    mm_engine_close(engine->e);
    if (engine->be) mm_backend_close(engine->be);
    free(engine);
}

void mmamba_engine_describe(struct mmamba_engine *engine, struct mmamba_engine_info *info) {
    const struct mm_model *m = &engine->e->model;
    *info = (struct mmamba_engine_info){
        .n_blocks = m->n_blocks,
        .n_parameters = mm_model_n_parameters(m),
        .weight_bytes = (int64_t)mm_model_weight_bytes(m),
        .state_bytes = (int64_t)mm_model_state_bytes(m),
        .cache_bytes_per_token = (int64_t)mm_model_cache_bytes_per_token(m),
        .tile_tokens = engine->e->tile_tokens,
    };
    for (int64_t i = 0; i < m->n_blocks; i++)
        info->n_attention_blocks += m->blocks[i].mixer == mm_mixer_mha;
    memcpy(info->weights_hash, mm_engine_hash(engine->e), sizeof info->weights_hash);
    memcpy(info->device, engine->be->device, sizeof info->device);
}

// ---- session ------------------------------------------------------------------------------------

static struct mm_session_options session_options(const struct mmamba_session_options *o) {
    struct mm_session_options r = MM_SESSION_OPTIONS;
    if (o == NULL) return r;
    r.system = o->system;
    r.max_tiles = o->max_tiles;
    r.piece_tokens = o->piece_tokens;
    if (o->n_rewind != 0) r.n_marks = o->n_rewind == -1 ? 0 : o->n_rewind;
    return r;
}

static struct mmamba_session *wrap(struct mm_session *s) {
    struct mmamba_session *session = mm_xmalloc(sizeof *session);
    session->s = s;
    return session;
}

enum mmamba_code mmamba_session_new(struct mmamba_session **session, struct mmamba_engine *engine,
                                    const struct mmamba_session_options *options,
                                    struct mmamba_error *err) {
    const struct mm_session_options o = session_options(options);
    struct mm_error e1;
    struct mm_session *s;
    const enum mm_code code = mm_session_new(&s, engine->e, &o, &e1);
    *session = code ? NULL : wrap(s);
    return give(err, code, &e1);
}

void mmamba_session_free(struct mmamba_session *session) {
    if (session == NULL) return;
    mm_session_free(session->s);
    free(session);
}

enum mmamba_code mmamba_session_add_turn(struct mmamba_session *session, const char *text,
                                         const struct mmamba_picture *pictures, int n_pictures,
                                         struct mmamba_error *err) {
    struct mm_error e1;
    enum mm_code code = mm_code_ok;
    const int n = n_pictures > 0 ? n_pictures : 0;
    struct mm_picture *p = mm_xcalloc((size_t)n, sizeof *p);
    for (int i = 0; i < n && !code; i++) {
        p[i] = (struct mm_picture){.path = pictures[i].path,
                                   .bytes = pictures[i].bytes,
                                   .n_bytes = pictures[i].n_bytes,
                                   .name = pictures[i].name};
        if ((p[i].path != NULL) == (p[i].bytes != NULL)) {
            code = mm_fail(&e1, mm_code_usage, "picture %d: one of path and bytes is wanted, %s",
                           i + 1, p[i].path ? "both are given" : "none is given");
        }
    }
    if (!code) code = mm_session_add_turn(session->s, text, p, n, &e1);
    free(p);
    return give(err, code, &e1);
}

void mmamba_session_get_sampling(const struct mmamba_session *session,
                                 struct mmamba_sampling *sampling) {
    const struct mm_sampling *h = &session->s->sampling;
    *sampling = (struct mmamba_sampling){h->temperature, h->top_k, h->top_p, h->min_p,
                                         h->repetition_penalty};
}

enum mmamba_code mmamba_session_set_sampling(struct mmamba_session *session,
                                             const struct mmamba_sampling *sampling,
                                             struct mmamba_error *err) {
    const struct mm_sampling how = {sampling->temperature, sampling->top_k, sampling->top_p,
                                    sampling->min_p, sampling->repetition_penalty};
    struct mm_error e1;
    return give(err, mm_session_set_sampling(session->s, &how, &e1), &e1);
}

void mmamba_session_set_seed(struct mmamba_session *session, uint64_t seed) {
    mm_session_set_seed(session->s, seed);
}

// ---- generate -----------------------------------------------------------------------------------

const char *mmamba_finish_name(enum mmamba_finish finish) {
    return mm_finish_name((enum mm_finish)finish);
}

enum mmamba_code mmamba_session_generate(struct mmamba_session *session,
                                         const struct mmamba_generation *generation,
                                         const struct mmamba_listener *listener,
                                         struct mmamba_answer *answer, struct mmamba_error *err) {
    struct mm_generation g = session->s->e->answer;
    if (generation && generation->max_new_tokens != 0) {
        g.max_new_tokens = generation->max_new_tokens;
        // the model's own least gives way to what the caller allows at most
        if (g.min_new_tokens > g.max_new_tokens) g.min_new_tokens = 0;
    }
    if (generation && generation->min_new_tokens != 0) {
        g.min_new_tokens = generation->min_new_tokens;
    }
    struct mm_listener l = {NULL, NULL, NULL};
    if (listener) l = (struct mm_listener){listener->read, listener->text, listener->arg};
    struct mm_answer a = {0};
    struct mm_error e1;
    const enum mm_code code = mm_session_generate(session->s, &g, &l, &a, &e1);
    *answer = (struct mmamba_answer){.text = code ? "" : a.text,
                                     .n_bytes = code ? 0 : a.n_bytes,
                                     .finish = (enum mmamba_finish)a.finish,
                                     .prompt_tokens = a.prompt_tokens,
                                     .new_tokens = a.new_tokens,
                                     .ttft_s = a.ttft_s,
                                     .decode_tok_s = a.decode_tok_s};
    return give(err, code, &e1);
}

// ---- snapshot -----------------------------------------------------------------------------------

enum mmamba_code mmamba_session_save(struct mmamba_session *session, const char *path,
                                     struct mmamba_error *err) {
    struct mm_error e1;
    return give(err, mm_session_save(session->s, path, &e1), &e1);
}

enum mmamba_code mmamba_session_load(struct mmamba_session **session, struct mmamba_engine *engine,
                                     const struct mmamba_session_options *options, const char *path,
                                     struct mmamba_error *err) {
    const struct mm_session_options o = session_options(options);
    struct mm_error e1;
    struct mm_session *s;
    const enum mm_code code = mm_session_load(&s, engine->e, &o, path, &e1);
    *session = code ? NULL : wrap(s);
    return give(err, code, &e1);
}

enum mmamba_code mmamba_session_fork(struct mmamba_session **copy,
                                     const struct mmamba_session *session,
                                     struct mmamba_error *err) {
    struct mm_error e1;
    struct mm_session *s;
    const enum mm_code code = mm_session_fork(&s, session->s, &e1);
    *copy = code ? NULL : wrap(s);
    return give(err, code, &e1);
}

enum mmamba_code mmamba_session_rewind(struct mmamba_session *session, int n,
                                       struct mmamba_error *err) {
    struct mm_error e1;
    return give(err, mm_session_rewind(session->s, n, &e1), &e1);
}

void mmamba_session_describe(const struct mmamba_session *session,
                             struct mmamba_session_info *info) {
    const struct mm_session *s = session->s;
    *info = (struct mmamba_session_info){.n_turns = s->n_turns,
                                         .n_tokens = s->ids.n,
                                         .n_rewind = s->n_marks,
                                         .state_bytes = (int64_t)s->state.fixed_bytes,
                                         .cache_bytes = mm_session_cache_bytes(s)};
}

char *mmamba_session_text(const struct mmamba_session *session) {
    struct mm_buf text = {NULL, 0, 0};
    mm_session_text(session->s, &text);
    return text.data ? text.data : mm_xstrdup("");
}

void mmamba_text_free(char *text) {
    free(text);
}
