// The state of one sequence: what a Mamba-2 block remembers has a fixed size; only attention blocks
// that were kept hold keys and values that grow.
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct block_bytes {
    size_t S, conv;  // fixed
    size_t row;      // of k, and of v, a token
};

static size_t rounded(size_t n) {
    return (n + mm_arena_align - 1) / mm_arena_align * mm_arena_align;
}

static struct block_bytes bytes_of(const struct mm_model *m, const struct mm_block *b) {
    const struct mm_stack_config *s = b->stack;
    struct block_bytes r = {0};
    if (b->mixer == mm_mixer_mamba2) {
        r.S = (size_t)(s->H * s->P * s->P) * sizeof(float);
        r.conv = (size_t)((s->K - 1) * (2 * s->G + s->H) * s->P) * sizeof(float);
    } else {
        r.row = (size_t)(s->G * s->P) * mm_dtype_bytes(mm_model_act(m));
    }
    return r;
}

size_t mm_model_state_bytes(const struct mm_model *m) {
    size_t n = 0;
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const struct block_bytes b = bytes_of(m, &m->blocks[i]);
        n += rounded(b.S) + rounded(b.conv);
    }
    return n;
}

size_t mm_model_cache_bytes_per_token(const struct mm_model *m) {
    size_t n = 0;
    for (int64_t i = 0; i < m->n_blocks; i++)
        n += 2 * bytes_of(m, &m->blocks[i]).row;
    return n;
}

enum mm_code mm_state_init(struct mm_state *s, struct mm_model *m, struct mm_error *err) {
    *s = (struct mm_state){.model = m, .fixed_bytes = mm_model_state_bytes(m)};
    if (s->fixed_bytes > 0) MM_TRY(m->be->alloc(m->be, s->fixed_bytes, &s->fixed, err));
    s->blocks = mm_xcalloc((size_t)m->n_blocks, sizeof *s->blocks);
    char *at = s->fixed;
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const struct mm_block *b = &m->blocks[i];
        const struct mm_stack_config *c = b->stack;
        const struct block_bytes n = bytes_of(m, b);
        struct mm_block_state *t = &s->blocks[i];
        if (b->mixer == mm_mixer_mha) continue;
        t->S = mm_view4(at, mm_dtype_f32, 1, c->H, c->P, c->P);
        at += rounded(n.S);
        if (n.conv > 0) {  // K = 1 looks at no row before
            t->conv = mm_view3(at, mm_dtype_f32, 1, c->K - 1, (2 * c->G + c->H) * c->P);
            at += rounded(n.conv);
        }
    }
    return mm_code_ok;
}

void mm_state_deinit(struct mm_state *s) {
    if (s->model == NULL) return;
    struct mm_backend *be = s->model->be;
    if (s->fixed) be->release(be, s->fixed, s->fixed_bytes);
    if (s->cache) be->release(be, s->cache, s->cache_bytes);
    if (s->parts.at) be->release_parts(be, &s->parts);
    free(s->blocks);
    *s = (struct mm_state){0};
}

void mm_state_clear(struct mm_state *s) {
    if (s->fixed) {
        mm_fill(s->model->be,
                mm_view1(s->fixed, mm_dtype_f32, (int64_t)(s->fixed_bytes / sizeof(float))), 0.0f);
    }
    s->n_embed = s->n_llm = 0;
}

// Rows that block i's cache holds: the two stacks may differ in length.
static int64_t rows_used(const struct mm_state *s, int64_t i) {
    return i < s->model->config.embed.n_blocks ? s->n_embed : s->n_llm;
}

// Where memory can grow, k and v of each kept block have a part of it, and never move.
static enum mm_code grow(struct mm_state *s, int64_t tokens, struct mm_error *err) {
    struct mm_model *m = s->model;
    size_t widest = 0;
    s->parts.n = 0;
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const size_t row = bytes_of(m, &m->blocks[i]).row;
        if (row > 0) s->parts.n += 2;
        if (row > widest) widest = row;
    }
    MM_TRY(m->be->grow(m->be, &s->parts, widest * (size_t)tokens, err));
    s->cap = (int64_t)(s->parts.bytes / widest);
    char *at = s->parts.at;
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const struct mm_stack_config *c = m->blocks[i].stack;
        if (bytes_of(m, &m->blocks[i]).row == 0) continue;
        s->blocks[i].k = mm_view3(at, mm_model_act(m), s->cap, c->G, c->P);
        s->blocks[i].v = mm_view3(at + s->parts.room, mm_model_act(m), s->cap, c->G, c->P);
        at += 2 * s->parts.room;
    }
    return mm_code_ok;
}

enum mm_code mm_state_reserve(struct mm_state *s, int64_t tokens, struct mm_error *err) {
    struct mm_model *m = s->model;
    const size_t per_token = mm_model_cache_bytes_per_token(m);
    if (per_token == 0 || tokens <= s->cap) return mm_code_ok;
    if (m->be->grow) return grow(s, tokens, err);
    int64_t cap = s->cap ? s->cap : 256;
    while (cap < tokens)
        cap += cap / 2;
    struct mm_backend *be = m->be;
    void *cache;
    const size_t bytes = per_token * (size_t)cap;
    MM_TRY(be->alloc(be, bytes, &cache, err));
    char *at = cache;
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const struct mm_stack_config *c = m->blocks[i].stack;
        const size_t row = bytes_of(m, &m->blocks[i]).row;
        if (row == 0) continue;
        struct mm_view *kv[2] = {&s->blocks[i].k, &s->blocks[i].v};
        for (int j = 0; j < 2; j++) {
            if (kv[j]->data) be->move(be, at, kv[j]->data, row * (size_t)rows_used(s, i));
            *kv[j] = mm_view3(at, mm_model_act(m), cap, c->G, c->P);
            at += row * (size_t)cap;
        }
    }
    if (s->cache) {
        MM_TRY(mm_backend_sync(be, err));
        be->release(be, s->cache, s->cache_bytes);
    }
    s->cache = cache;
    s->cache_bytes = bytes;
    s->cap = cap;
    return mm_code_ok;
}

enum mm_code mm_state_copy(struct mm_state *to, const struct mm_state *from, struct mm_error *err) {
    struct mm_backend *be = from->model->be;
    const int64_t rows = from->n_embed > from->n_llm ? from->n_embed : from->n_llm;
    to->n_embed = to->n_llm = 0;  // nothing of the old rows is kept
    MM_TRY(mm_state_reserve(to, rows, err));
    if (from->fixed_bytes > 0) be->move(be, to->fixed, from->fixed, from->fixed_bytes);
    for (int64_t i = 0; i < from->model->n_blocks; i++) {
        const size_t bytes =
            bytes_of(from->model, &from->model->blocks[i]).row * (size_t)rows_used(from, i);
        if (bytes == 0) continue;
        be->move(be, to->blocks[i].k.data, from->blocks[i].k.data, bytes);
        be->move(be, to->blocks[i].v.data, from->blocks[i].v.data, bytes);
    }
    to->n_embed = from->n_embed;
    to->n_llm = from->n_llm;
    return mm_backend_sync(be, err);
}
