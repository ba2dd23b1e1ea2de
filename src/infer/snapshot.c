// Owns: the file of a session (docs/SESSIONS.md): safetensors with the state as it lies in memory,
// and everything small as text in the metadata, floats in hexadecimal so that nothing is rounded.
#include "infer/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char format_name[] = "mmamba-session-1";

// Everything in the config that the arithmetic or the tokens depend on: two configs with one hash
// compute the same thing from the same weights.
static void config_hash(const struct mm_config *c, char out[33]) {
    struct mm_buf b = {NULL, 0, 0};
    const struct mm_stack_config *stacks[2] = {&c->embed, &c->llm};
    for (int i = 0; i < 2; i++) {
        const struct mm_stack_config *s = stacks[i];
        mm_buf_addf(&b, "%lld %lld %lld %lld %lld %lld %a %a %d %a %lld %d%d%d %lld\n",
                    (long long)s->n_blocks, (long long)s->D, (long long)s->H, (long long)s->G,
                    (long long)s->P, (long long)s->F, s->rms_eps, s->rope_theta,
                    (int)s->rope_scaling, s->rope_factor, (long long)s->max_positions, s->use_A,
                    s->use_D, s->use_qknorm, (long long)s->K);
    }
    for (int64_t i = 0; i < mm_config_blocks(c); i++)
        mm_buf_addf(&b, "%d", (int)c->mixers[i]);
    mm_buf_addf(&b, "\n%lld %lld %d %d %lld %lld %lld", (long long)c->V, (long long)c->n_special,
                c->normalize_encoder_output, c->shuffle_post, (long long)c->image_size,
                (long long)c->patch, (long long)c->img_context_id);
    const XXH128_hash_t h = XXH3_128bits(b.data, b.len);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
    mm_buf_free(&b);
}

// ---- the tensors of a state ---------------------------------------------------------------------

enum { per_block = 4 };  // S, conv, k, v; a block has two of them

struct part {
    char name[32];
    struct mm_view v;  // NULL: this block has none
};

// The parts of block i as far as they are used; the two stacks may differ in length.
static void parts_of(struct part out[per_block], const struct mm_state *s, int64_t i) {
    const struct mm_block_state *b = &s->blocks[i];
    const bool attention = s->model->blocks[i].mixer == mm_mixer_mha;
    const int64_t rows = i < s->model->config.embed.n_blocks ? s->n_embed : s->n_llm;
    const char *const names[per_block] = {"S", "conv", "k", "v"};
    const struct mm_view views[per_block] = {
        b->S, b->conv, attention && rows > 0 ? mm_view_rows(b->k, 0, rows) : MM_NONE,
        attention && rows > 0 ? mm_view_rows(b->v, 0, rows) : MM_NONE};
    for (int j = 0; j < per_block; j++) {
        snprintf(out[j].name, sizeof out[j].name, "block_%03d.%s", (int)i, names[j]);
        out[j].v = views[j];
    }
}

// In the file everything is f32, so that any backend can go on from it.
static struct mm_st_tensor tensor_of(const struct part *p, const void *data) {
    struct mm_st_tensor t = {.name = p->name, .dtype = mm_dtype_f32, .n_axes = p->v.n_axes};
    memcpy(t.shape, p->v.shape, sizeof p->v.shape);
    t.data = data;
    t.bytes = (size_t)mm_view_count(p->v) * sizeof(float);
    return t;
}

static float *download_part(struct mm_backend *be, struct mm_view v) {
    const int64_t n = mm_view_count(v);
    float *values = mm_xmalloc((size_t)n * sizeof *values);
    if (v.dtype == mm_dtype_f32) {
        be->download(be, values, v.data, (size_t)n * sizeof *values);
        return values;
    }
    void *stored = mm_xmalloc(mm_view_bytes(v));
    be->download(be, stored, v.data, mm_view_bytes(v));
    mm_to_f32(values, stored, v.dtype, n);
    free(stored);
    return values;
}

static void upload_part(struct mm_backend *be, struct mm_view v, const float *values) {
    const int64_t n = mm_view_count(v);
    if (v.dtype == mm_dtype_f32) {
        be->upload(be, v.data, values, (size_t)n * sizeof *values);
        return;
    }
    void *stored = mm_xmalloc(mm_view_bytes(v));
    mm_from_f32(stored, v.dtype, values, n);
    be->upload(be, v.data, stored, mm_view_bytes(v));
    free(stored);
}

// ---- saving -------------------------------------------------------------------------------------

struct metadata {
    struct mm_st_meta items[24];
    char *values[24];
    int n;
};

static void put(struct metadata *m, const char *key, char *value) {
    m->items[m->n] = (struct mm_st_meta){key, value};
    m->values[m->n++] = value;
}

static void put_int(struct metadata *m, const char *key, int64_t v) {
    put(m, key, mm_xasprintf("%lld", (long long)v));
}

static void put_float(struct metadata *m, const char *key, double v) {
    put(m, key, mm_xasprintf("%a", v));
}

static void put_u64(struct metadata *m, const char *key, uint64_t v) {
    put(m, key, mm_xasprintf("%016llx", (unsigned long long)v));
}

// What is not UTF-8 the tokenizer reads as U+FFFD, and JSON cannot hold.
static char *whole_characters(const char *text) {
    struct mm_utf8_stream utf8 = {0};
    struct mm_buf out = {NULL, 0, 0};
    mm_utf8_stream_add(&utf8, text, strlen(text), &out);
    mm_utf8_stream_end(&utf8, &out);
    return out.data ? out.data : mm_xstrdup("");
}

static void describe(struct metadata *m, struct mm_session *s) {
    struct mm_buf text = {NULL, 0, 0};
    char hash[33];
    config_hash(&s->e->model.config, hash);
    mm_session_text(s, &text);
    put(m, "format", mm_xstrdup(format_name));
    put(m, "weights", mm_xstrdup(mm_engine_hash(s->e)));
    put(m, "weights_dtype", mm_xstrdup(mm_model_dtype_name(&s->e->model)));
    put(m, "config", mm_xstrdup(hash));
    put_int(m, "n_fed", s->n_fed);
    put_int(m, "n_answered", s->n_answered);
    put_int(m, "answer_from", s->answer_from);
    put_int(m, "n_turns", s->n_turns);
    put_int(m, "finished", s->finished);
    put_float(m, "temperature", s->sampling.temperature);
    put_int(m, "top_k", s->sampling.top_k);
    put_float(m, "top_p", s->sampling.top_p);
    put_float(m, "min_p", s->sampling.min_p);
    put_float(m, "repetition_penalty", s->sampling.repetition_penalty);
    put_u64(m, "rng_seed", s->rng.seed);
    put_u64(m, "rng_stream", s->rng.stream);
    put_u64(m, "rng_counter", s->rng.counter);
    put(m, "system", whole_characters(s->system));
    put(m, "text", text.data ? text.data : mm_xstrdup(""));
}

enum mm_code mm_session_save(struct mm_session *s, const char *path, struct mm_error *err) {
    MM_TRY(mm_session_check(s, err));
    MM_TRY(mm_session_settle(s, err));
    if (s->n_pictures > 0) MM_TRY(mm_session_prefill(s, NULL, err));
    struct mm_backend *be = s->e->be;
    MM_TRY(mm_backend_sync(be, err));
    const int64_t L = s->e->model.n_blocks;
    struct part(*parts)[per_block] = mm_xcalloc((size_t)L, sizeof *parts);
    struct mm_st_tensor *t = mm_xcalloc((size_t)(2 + per_block * L), sizeof *t);
    void **copies = mm_xcalloc((size_t)(2 + per_block * L), sizeof *copies);
    int n = 0;
    for (int64_t i = 0; i < L; i++) {
        parts_of(parts[i], &s->state, i);
        for (int j = 0; j < per_block; j++) {
            struct part *p = &parts[i][j];
            if (p->v.data == NULL) continue;
            t[n] = tensor_of(p, p->v.data);
            if (!be->host_memory || p->v.dtype != mm_dtype_f32) {
                t[n].data = copies[n] = download_part(be, p->v);
            }
            n++;
        }
    }
    if (s->ids.n > 0) {
        t[n++] = (struct mm_st_tensor){"ids",      mm_dtype_i32, 1,
                                       {s->ids.n}, s->ids.data,  (size_t)s->ids.n * 4};
    }
    if (s->have_logits) {
        const int64_t V = s->e->model.config.V;
        t[n++] = (struct mm_st_tensor){"logits", mm_dtype_f32, 1, {V}, s->logits, (size_t)V * 4};
    }
    struct metadata m = {.n = 0};
    describe(&m, s);
    enum mm_code code = mm_backend_sync(be, err);
    if (!code) code = mm_st_write(path, t, n, m.items, m.n, err);
    for (int i = 0; i < m.n; i++)
        free(m.values[i]);
    for (int i = 0; i < n; i++)
        free(copies[i]);
    free(copies);
    free(t);
    free(parts);
    return code;
}

// ---- loading ------------------------------------------------------------------------------------

struct reading {
    const struct mm_st *st;
    const char *path;
    struct mm_error *err;
    enum mm_code code;  // the first failure; later reads do nothing
    int n_used;         // tensors that belong to the session
};

static void wrong(struct reading *r, const char *key, const char *seen, const char *wanted) {
    if (r->code) return;
    r->code = mm_fail(r->err, mm_code_input, "%s: metadata '%s' is %s%.60s%s, wanted %s", r->path,
                      key, seen ? "'" : "", seen ? seen : "missing", seen ? "'" : "", wanted);
}

static const char *get(struct reading *r, const char *key) {
    const char *value = mm_st_metadata(r->st, key);
    if (value == NULL) wrong(r, key, NULL, "a value");
    return value ? value : "";
}

static int64_t get_int(struct reading *r, const char *key, int64_t max) {
    const char *value = get(r, key);
    char *end;
    errno = 0;
    const long long v = strtoll(value, &end, 10);
    if (r->code == mm_code_ok && (end == value || *end || errno || v < 0 || v > max)) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "an integer in 0..%lld", (long long)max);
        wrong(r, key, value, wanted);
    }
    return r->code ? 0 : v;
}

static uint64_t get_u64(struct reading *r, const char *key) {
    const char *value = get(r, key);
    char *end;
    errno = 0;
    const unsigned long long v = strtoull(value, &end, 16);
    if (r->code == mm_code_ok && (strlen(value) != 16 || *end || errno)) {
        wrong(r, key, value, "16 hexadecimal digits");
    }
    return r->code ? 0 : v;
}

static double get_float(struct reading *r, const char *key) {
    const char *value = get(r, key);
    char *end;
    const double v = strtod(value, &end);
    if (r->code == mm_code_ok && (end == value || *end)) wrong(r, key, value, "a number");
    return r->code ? 0.0 : v;
}

static const struct mm_st_tensor *get_tensor(struct reading *r, const char *name,
                                             enum mm_dtype dtype, int n_axes,
                                             const int64_t *shape) {
    const struct mm_st_tensor *t = mm_st_find(r->st, name);
    if (r->code) return NULL;
    bool fits = t && t->dtype == dtype && t->n_axes == n_axes;
    for (int i = 0; fits && i < n_axes; i++)
        fits = t->shape[i] == shape[i];
    r->n_used++;
    if (fits) return t;
    r->code =
        mm_fail(r->err, mm_code_input,
                "%s: tensor '%s' is %s; this session needs %s of %lld x "
                "%lld x %lld x %lld",
                r->path, name, t ? "of another type or shape" : "missing", mm_dtype_st_name(dtype),
                (long long)shape[0], (long long)(n_axes > 1 ? shape[1] : 1),
                (long long)(n_axes > 2 ? shape[2] : 1), (long long)(n_axes > 3 ? shape[3] : 1));
    return NULL;
}

static void check_model(struct reading *r, struct mm_engine *e) {
    const char *format = mm_st_metadata(r->st, "format");
    if (format == NULL || strcmp(format, format_name) != 0) {
        wrong(r, "format", format, "'mmamba-session-1': this is no session");
        return;
    }
    char hash[33];
    config_hash(&e->model.config, hash);
    const char *config = get(r, "config"), *weights = get(r, "weights"),
               *dtype = get(r, "weights_dtype");
    if (r->code) return;
    if (strcmp(config, hash) != 0) {
        r->code = mm_fail(r->err, mm_code_input,
                          "%s: the session belongs to a model of another config (%.32s); that of "
                          "%s is %s",
                          r->path, config, e->model.path, hash);
    } else if (strcmp(weights, mm_engine_hash(e)) != 0) {
        r->code = mm_fail(r->err, mm_code_input,
                          "%s: the session belongs to other weights (%.32s, in %.8s); those of %s "
                          "are %s, in %s",
                          r->path, weights, dtype, e->model.path, mm_engine_hash(e),
                          mm_model_dtype_name(&e->model));
    }
}

// The ids, and from them how many rows each stack has seen.
static void get_ids(struct reading *r, struct mm_session *s) {
    const struct mm_config *c = &s->e->model.config;
    const struct mm_st_tensor *t = mm_st_find(r->st, "ids");
    if (r->code || t == NULL) return;  // nothing was said
    const int64_t n = t->shape[0];
    const int64_t most = INT32_MAX / (c->shuffle_post ? 4 : 1) - 1;
    if (t->dtype != mm_dtype_i32 || t->n_axes != 1 || n < 1 || n > most) {
        r->code = mm_fail(r->err, mm_code_input,
                          "%s: tensor 'ids' is no list of 1..%lld numbers of type I32", r->path,
                          (long long)most);
        return;
    }
    r->n_used++;
    s->ids.data = mm_xmalloc(t->bytes);
    memcpy(s->ids.data, t->data, t->bytes);
    s->ids.n = s->ids.cap = n;
    for (int64_t i = 0; r->code == mm_code_ok && i < n; i++) {
        const int32_t id = s->ids.data[i];
        if (id < 0 || id >= c->V + c->n_special) {
            r->code = mm_fail(r->err, mm_code_input,
                              "%s: 'ids' holds %d at position %lld; the vocabulary has %lld",
                              r->path, (int)id, (long long)i, (long long)(c->V + c->n_special));
        }
    }
}

static void get_progress(struct reading *r, struct mm_session *s) {
    const struct mm_config *c = &s->e->model.config;
    const int64_t n = s->ids.n;
    s->n_fed = get_int(r, "n_fed", n);
    s->n_answered = get_int(r, "n_answered", n);
    s->answer_from = get_int(r, "answer_from", n);
    s->n_turns = get_int(r, "n_turns", INT32_MAX);
    s->finished = get_int(r, "finished", 1) == 1;
    if (r->code) return;
    int64_t n_img = 0;
    for (int64_t i = 0; i < n; i++) {
        if (s->ids.data[i] != c->img_context_id) continue;
        n_img++;
        if (i >= s->n_fed) wrong(r, "n_fed", get(r, "n_fed"), "all pictures to have been read");
    }
    if (n_img % s->e->tile_tokens != 0) {
        wrong(r, "n_fed", get(r, "n_fed"), "whole tiles in 'ids'");
    }
    s->state.n_llm = s->n_fed;
    s->state.n_embed = s->n_fed + (c->shuffle_post ? 3 * n_img : 0);
    s->have_logits = s->n_fed > 0;
}

static void get_sampling(struct reading *r, struct mm_session *s) {
    s->sampling = (struct mm_sampling){get_float(r, "temperature"), get_int(r, "top_k", INT32_MAX),
                                       get_float(r, "top_p"), get_float(r, "min_p"),
                                       get_float(r, "repetition_penalty")};
    s->rng = (struct mm_rng){get_u64(r, "rng_seed"), get_u64(r, "rng_stream"),
                             get_u64(r, "rng_counter")};
    if (r->code == mm_code_ok) r->code = mm_sampling_check(&s->sampling, r->path, r->err);
}

static void get_state(struct reading *r, struct mm_session *s) {
    struct mm_backend *be = s->e->be;
    const int64_t rows = s->state.n_embed > s->state.n_llm ? s->state.n_embed : s->state.n_llm;
    const int64_t n_embed = s->state.n_embed, n_llm = s->state.n_llm;
    if (r->code) return;
    s->state.n_embed = s->state.n_llm = 0;  // no rows yet that growing would have to move
    r->code = mm_state_reserve(&s->state, rows, r->err);
    s->state.n_embed = n_embed;
    s->state.n_llm = n_llm;
    for (int64_t i = 0; i < s->e->model.n_blocks && r->code == mm_code_ok; i++) {
        struct part parts[per_block];
        parts_of(parts, &s->state, i);
        for (int j = 0; j < per_block; j++) {
            const struct mm_view v = parts[j].v;
            if (v.data == NULL) continue;
            const struct mm_st_tensor *t =
                get_tensor(r, parts[j].name, mm_dtype_f32, v.n_axes, v.shape);
            if (t) upload_part(be, v, t->data);
        }
    }
    const int64_t V = s->e->model.config.V;
    if (s->have_logits) {
        const struct mm_st_tensor *t = get_tensor(r, "logits", mm_dtype_f32, 1, &V);
        if (t) memcpy(s->logits, t->data, t->bytes);
    }
    if (r->code == mm_code_ok && r->n_used != mm_st_count(r->st)) {
        r->code = mm_fail(r->err, mm_code_input, "%s: %d tensors that are no part of this session",
                          r->path, mm_st_count(r->st) - r->n_used);
    }
    if (r->code == mm_code_ok) r->code = mm_backend_sync(be, r->err);
}

enum mm_code mm_session_load(struct mm_session **out, struct mm_engine *e,
                             const struct mm_session_options *options, const char *path,
                             struct mm_error *err) {
    *out = NULL;
    struct mm_st *st;
    MM_TRY(mm_st_open(&st, path, err));
    struct reading r = {.st = st, .path = path, .err = err};
    check_model(&r, e);
    struct mm_session_options o = *options;
    o.system = get(&r, "system");
    struct mm_session *s = NULL;
    if (r.code == mm_code_ok) r.code = mm_session_new(&s, e, &o, err);
    if (s) {
        get_ids(&r, s);
        get_progress(&r, s);
        get_sampling(&r, s);
        get_state(&r, s);
    }
    mm_st_close(st);
    if (r.code) {
        mm_session_free(s);
        return r.code;
    }
    *out = s;
    return mm_code_ok;
}
