// What the tests of a token step share: a random model of blocks of both kinds, sequences with
// states of their own, some steps of them, and comparison.
#ifndef MM_TESTS_OPS_STEP_HELP_H
#define MM_TESTS_OPS_STEP_HELP_H

#include <pthread.h>

#include "ops_test.h"

enum { most_seqs = 130, some_seqs = 11, most_blocks = 5, n_steps = 3 };
static int64_t cap = 1400;  // rows of a cache

// ---- a random model ----

struct shape {
    int64_t D, H, G, P, F, V, K;
    bool halves;  // gates and dt of quantized models are bf16 in every block
    bool alike;   // the output has the type of the others; else it is q8 where they are q4
};

struct model {
    struct shape shape;
    struct mm_step_block blocks[most_blocks];
    struct mm_view norm, output;
    void *memory[256];
    int n_memory;
};

static inline void *room(struct model *m, size_t bytes) {
    assert_true(m->n_memory < 256);
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    return m->memory[m->n_memory++] = p;
}

static inline void model_free(struct model *m) {
    for (int i = 0; i < m->n_memory; i++)
        free(m->memory[i]);
}

static struct mm_view vector(struct model *m, struct mm_rng *rng, int64_t n, double mean,
                             double spread) {
    float *p = room(m, (size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        p[i] = (float)(mean + spread * mm_rng_normal(rng));
    return mm_view1(p, mm_dtype_f32, n);
}

static struct mm_view matrix(struct model *m, struct mm_rng *rng, enum mm_dtype type, int64_t n,
                             int64_t k) {
    float *row = mm_xmalloc((size_t)k * sizeof *row);
    struct mm_view v = mm_view2(NULL, type, n, k);
    const size_t bytes = mm_dtype_quantized(type) ? (size_t)mm_quant_row_bytes(type, k)
                                                  : (size_t)k * mm_dtype_bytes(type);
    v.data = room(m, bytes * (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < k; j++)
            row[j] = (float)(mm_rng_normal(rng) / sqrt((double)k));
        if (mm_dtype_quantized(type)) {
            mm_quantize_row(mm_view_at(v, i, 0), type, row, NULL, k);
        } else {
            mm_from_f32(mm_view_at(v, i, 0), type, row, k);
        }
    }
    free(row);
    return v;
}

// `fancy`: everything that a config can switch on, and nothing that it can switch off.
static void make_block(struct model *m, struct mm_rng *rng, int i, bool attention, bool fancy,
                       enum mm_dtype type) {
    const struct shape *s = &m->shape;
    const int64_t channels = (2 * s->G + s->H) * s->P, hp = s->H * s->P;
    struct mm_step_block *b = &m->blocks[i];
    *b = (struct mm_step_block){.attention = attention,
                                .stack = i >= 2,
                                .H = s->H,
                                .G = s->G,
                                .P = s->P,
                                .F = s->F,
                                .eps = 1e-5f,
                                .pos_scale = i >= 2 ? 0.5f : 1.0f};
    b->attention_norm = vector(m, rng, s->D, 1, 0.1);
    b->ffn_norm = vector(m, rng, s->D, 1, 0.1);
    b->wo = matrix(m, rng, type, s->D, hp);
    b->w1 = matrix(m, rng, type, s->F, s->D);
    b->w3 = matrix(m, rng, type, s->F, s->D);
    b->w2 = matrix(m, rng, type, s->D, s->F);
    if (attention) {
        b->in[0] = matrix(m, rng, type, channels, s->D);
        return;
    }
    if (mm_dtype_quantized(type)) {  // gates and dt are kept
        b->in[0] = matrix(m, rng, type, channels, s->D);
        // the GPU's products by themselves round what meets bf16, and that tips codes over; its
        // token step does not, which takes quantized heads of whole blocks
        const bool halves =
            testing_cuda() ? s->halves && s->P == mm_quant_block : s->halves || i % 2;
        b->in[1] = matrix(m, rng, halves ? mm_dtype_bf16 : mm_dtype_f32, hp + s->H, s->D);
    } else {
        b->in[0] = matrix(m, rng, type, channels + hp + s->H, s->D);
    }
    b->conv_w =
        mm_view2(vector(m, rng, channels * s->K, 0, 0.7).data, mm_dtype_f32, channels, s->K);
    b->conv_b = vector(m, rng, channels, 0, 0.2);
    b->dt_bias = vector(m, rng, s->H, -2, 1);
    b->g_norm = vector(m, rng, s->P, 1, 0.1);
    b->a_log = vector(m, rng, s->H, 0.5, 0.5);
    if (!fancy) return;
    b->d = vector(m, rng, s->H, 0, 1);
    b->q_norm_w = vector(m, rng, s->P, 1, 0.2), b->q_norm_b = vector(m, rng, s->P, 0, 0.2);
    b->k_norm_w = vector(m, rng, s->P, 1, 0.2), b->k_norm_b = vector(m, rng, s->P, 0, 0.2);
    b->g_norm = b->a_log = MM_NONE;
}

static inline void make_model(struct model *m, struct shape shape, enum mm_dtype type,
                              uint64_t seed) {
    *m = (struct model){.shape = shape};
    struct mm_rng rng = mm_rng_make(seed, 3);
    make_block(m, &rng, 0, false, false, type);
    make_block(m, &rng, 1, true, false, type);
    make_block(m, &rng, 2, false, true, type);
    make_block(m, &rng, 3, true, false, type);
    make_block(m, &rng, 4, false, false, type);
    m->norm = vector(m, &rng, shape.D, 1, 0.1);
    const bool eight = type == mm_dtype_q4 && !shape.alike;
    m->output = matrix(m, &rng, eight ? mm_dtype_q8 : type, shape.V, shape.D);
}

// Blocks of kept attention become copies of their neighbours: a model that has none goes by kernels
// of its own.
static inline void without_attention(struct model *m) {
    m->blocks[1] = m->blocks[0], m->blocks[3] = m->blocks[4];
}

// ---- sequences ----

struct seqs {
    struct mm_step_seq seq[most_seqs];
    struct mm_block_state blocks[most_seqs][most_blocks];
    float *memory[most_seqs];
    size_t floats;
};

// n sequences are shared out among some threads: run(of, first, number).
struct share {
    void (*run)(void *of, int first, int n);
    void *of;
    int first, n;
};

static inline void *share_thread(void *part) {
    const struct share *p = part;
    if (p->n > 0) p->run(p->of, p->first, p->n);
    return NULL;
}

static inline void share_out(int n, void (*run)(void *of, int first, int n), void *of) {
    enum { most = 8 };
    struct share parts[most];
    pthread_t threads[most];
    const int count = n < 2 * most ? 2 : most;
    for (int i = 0; i < count; i++) {
        const int first = n * i / count;
        parts[i] = (struct share){run, of, first, n * (i + 1) / count - first};
        assert_int_equal(pthread_create(&threads[i], NULL, share_thread, &parts[i]), 0);
    }
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

// What sequence t begins with, as many numbers of it as were ever asked for: they are the same in
// every call, and making them takes longer than all that is done with them.
static struct {
    float *numbers;
    size_t n;
} beginnings[most_seqs];

static inline void seqs_fill(void *of, int first, int n) {
    struct seqs *q = of;
    for (int t = first; t < first + n; t++) {
        if (beginnings[t].n < q->floats) {
            struct mm_rng rng = mm_rng_make(5, (uint64_t)t);
            beginnings[t].n = q->floats;
            beginnings[t].numbers =
                mm_xrealloc(beginnings[t].numbers, q->floats * sizeof *beginnings[t].numbers);
            for (size_t i = 0; i < q->floats; i++)
                beginnings[t].numbers[i] = (float)(0.5 * mm_rng_normal(&rng));
        }
        memcpy(q->memory[t], beginnings[t].numbers, q->floats * sizeof *q->memory[t]);
    }
}

// Sequence i has lengths and states of its own, the same in every call.
static inline void seqs_init(struct seqs *q, const struct model *m, const int64_t *past, int n) {
    const struct shape *s = &m->shape;
    const int64_t before = (s->K - 1) * (2 * s->G + s->H) * s->P, state = s->H * s->P * s->P;
    q->floats = (size_t)(most_blocks * (state + before) + 4 * cap * s->G * s->P);
    for (int t = 0; t < n; t++)
        q->memory[t] = mm_xmalloc(q->floats * sizeof *q->memory[t]);
    share_out(n, seqs_fill, q);
    for (int t = 0; t < n; t++) {
        float *at = q->memory[t];
        for (int i = 0; i < most_blocks; i++) {
            struct mm_block_state *b = &q->blocks[t][i];
            *b = (struct mm_block_state){0};
            if (m->blocks[i].attention) {
                b->k = mm_view3(at, mm_dtype_f32, cap, s->G, s->P), at += cap * s->G * s->P;
                b->v = mm_view3(at, mm_dtype_f32, cap, s->G, s->P), at += cap * s->G * s->P;
            } else {
                b->S = mm_view4(at, mm_dtype_f32, 1, s->H, s->P, s->P), at += state;
                if (before) b->conv = mm_view3(at, mm_dtype_f32, 1, s->K - 1, before / (s->K - 1));
                at += before;
            }
        }
        q->seq[t] = (struct mm_step_seq){
            q->blocks[t], {past[t], past[t] / 2}, {10000.0f, t % 3 ? 500.0f : 2000.0f}};
    }
}

static inline void seqs_free(struct seqs *q, int n) {
    for (int t = 0; t < n; t++)
        free(q->memory[t]);
}

// Keys and values rounded to bf16; `narrow`: also kept so.
static inline void round_caches(struct seqs *q, const struct model *m, int n, bool narrow) {
    const int64_t count = cap * m->shape.G * m->shape.P;
    uint16_t *halves = mm_xmalloc((size_t)count * sizeof *halves);
    for (int t = 0; t < n; t++) {
        for (int i = 0; i < most_blocks; i++) {
            struct mm_view *kv[2] = {&q->blocks[t][i].k, &q->blocks[t][i].v};
            for (int j = 0; j < 2 && m->blocks[i].attention; j++) {
                mm_from_f32(halves, mm_dtype_bf16, kv[j]->data, count);
                if (narrow) {
                    memcpy(kv[j]->data, halves, (size_t)count * sizeof *halves);
                    kv[j]->dtype = mm_dtype_bf16;
                } else {
                    mm_to_f32(kv[j]->data, halves, mm_dtype_bf16, count);
                }
            }
        }
    }
    free(halves);
}

// The last of them without logits. A sanitizer of a GPU takes seconds for each.
static inline int steps_taken(void) {
    return testing_cuda() && test_few() ? 2 : n_steps;
}

struct result {
    struct mm_view hidden[n_steps], logits[n_steps];
};

static inline void result_init(struct result *r, const struct model *m, int n) {
    for (int i = 0; i < n_steps; i++) {
        r->hidden[i] = mm_view2(mm_xcalloc((size_t)(n * m->shape.D), sizeof(float)), mm_dtype_f32,
                                n, m->shape.D);
        r->logits[i] = mm_view2(mm_xcalloc((size_t)(n * m->shape.V), sizeof(float)), mm_dtype_f32,
                                n, m->shape.V);
    }
}

static inline void result_free(struct result *r) {
    for (int i = 0; i < n_steps; i++)
        free(r->hidden[i].data), free(r->logits[i].data);
}

// Some steps of sequences [first, first + n) into the same rows of the result. stops (n) or NULL:
// the step with which each one has stopped.
static inline void go_stopping(struct mm_backend *be, const struct model *m, struct seqs *q,
                               int first, int n, const int *stops, struct result *r) {
    const int64_t D = m->shape.D;
    float *x = mm_xmalloc((size_t)(n * D) * sizeof *x);
    int32_t stopped[most_seqs];
    for (int i = 0; i < steps_taken(); i++) {
        for (int t = 0; stops && t < n; t++)
            stopped[t] = i >= stops[t] ? 1 + t : 0;
        for (int t = 0; t < n; t++) {
            struct mm_rng rng = mm_rng_make((uint64_t)i, (uint64_t)(first + t));
            for (int64_t j = 0; j < D; j++)
                x[t * D + j] = (float)mm_rng_normal(&rng);
        }
        const struct mm_step s = {
            .blocks = m->blocks,
            .n_blocks = most_blocks,
            .l2_before = i == 0 ? 2 : -1,
            .norm = m->norm,
            .eps = 1e-5f,
            .seqs = &q->seq[first],
            .n_seqs = n,
            .x = mm_view2(x, mm_dtype_f32, n, D),
            .hidden = mm_view_rows(r->hidden[i], first, n),
            .output = i == steps_taken() - 1 ? MM_NONE : m->output,
            .logits = i == steps_taken() - 1 ? MM_NONE : mm_view_rows(r->logits[i], first, n),
            .stopped = stops ? mm_view1(stopped, mm_dtype_i32, n) : MM_NONE};
        mm_decode_step(be, &s);
        for (int t = first; t < first + n; t++)
            q->seq[t].past[0]++, q->seq[t].past[1]++;
    }
    struct mm_error err = {0};
    if (mm_backend_sync(be, &err)) fail_msg("%s", err.text);
    free(x);
}

static inline void go(struct mm_backend *be, const struct model *m, struct seqs *q, int first,
                      int n, struct result *r) {
    go_stopping(be, m, q, first, n, NULL, r);
}

// ---- the reference ----

// What products of bf16 weights make of the numbers that they multiply. Where a norm is before them
// a backend may round what the row's own factor has multiplied, or what it is still to multiply:
// then it is applied to the sums.
enum rounding { rounds_nothing, rounds_rows, rounds_before_factors };

// Of a thread: a backend of the reference whose products round.
static _Thread_local struct {
    const struct mm_ops *plain;
    struct mm_ops ops;
    const struct model *m;
    const void *rounded;  // a row that is not to be rounded again
    bool alone;           // no product added to the row that is normed next
    bool before_factors;
} rounder;

static inline float rounded_bf16(float x) {
    uint16_t half;
    mm_from_f32(&half, mm_dtype_bf16, &x, 1);
    mm_to_f32(&x, &half, mm_dtype_bf16, 1);
    return x;
}

static inline void rounding_linear(struct mm_backend *be, struct mm_view y, struct mm_view x,
                                   struct mm_view w, struct mm_view bias) {
    const int64_t cols = mm_view_cols(x);
    if (w.dtype != mm_dtype_bf16 || x.data == rounder.rounded) {
        rounder.plain->linear_fwd(be, y, x, w, bias);
        return;
    }
    assert_int_equal(mm_view_count(x), cols);
    float *row = mm_xmalloc((size_t)cols * sizeof *row);
    for (int64_t i = 0; i < cols; i++)
        row[i] = rounded_bf16(((const float *)x.data)[i]);
    rounder.plain->linear_fwd(be, y, mm_view2(row, mm_dtype_f32, 1, cols), w, bias);
    free(row);
}

static inline void rounding_rmsnorm(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                                    struct mm_view x, struct mm_view w, float eps) {
    const bool last = w.data == rounder.m->norm.data, alone = rounder.alone || last;
    rounder.plain->rmsnorm_fwd(be, y, rinv, x, w, eps);
    rounder.alone = last;
    rounder.rounded = NULL;
    if (!rounder.before_factors || alone) return;
    const int64_t cols = mm_view_cols(x);
    const float *of = x.data, *by = w.data;
    double squares = 0.0;
    for (int64_t i = 0; i < cols; i++)
        squares += (double)of[i] * of[i];
    const double factor = 1.0 / sqrt(squares / (double)cols + eps);
    for (int64_t i = 0; i < cols; i++)
        ((float *)y.data)[i] = (float)(factor * rounded_bf16(of[i] * by[i]));
    rounder.rounded = y.data;
}

static inline void rounding_l2norm(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                                   struct mm_view x) {
    rounder.plain->l2norm_fwd(be, y, rinv, x);
    rounder.alone = true;
}

// The same by the reference, which takes one sequence after the other on one thread: some threads
// have a backend each.
struct reference_work {
    const struct model *m;
    struct seqs *q;
    struct result *r;
    enum rounding rounding;
};

static inline void reference_part(void *of, int first, int n) {
    const struct reference_work *w = of;
    struct mm_backend *be = open_isa(mm_isa_plain, 1);
    const struct mm_ops *plain = be->ops;
    if (w->rounding != rounds_nothing) {
        rounder.plain = plain, rounder.ops = *plain, rounder.m = w->m, rounder.alone = true;
        rounder.before_factors = w->rounding == rounds_before_factors;
        rounder.ops.linear_fwd = rounding_linear;
        rounder.ops.rmsnorm_fwd = rounding_rmsnorm;
        rounder.ops.l2norm_fwd = rounding_l2norm;
        be->ops = &rounder.ops;
    }
    go(be, w->m, w->q, first, n, w->r);
    be->ops = plain;
    mm_backend_close(be);
}

static inline void go_reference(const struct model *m, struct seqs *q, int n,
                                enum rounding rounding, struct result *r) {
    struct reference_work w = {m, q, r, rounding};
    share_out(n, reference_part, &w);
}

static const struct shape shapes[] = {
    {48, 4, 2, 12, 100, 77, 2, false, false},    // nothing is a whole vector
    {128, 4, 2, 32, 256, 65, 2, false, false},   // everything is
    {40, 3, 1, 16, 33, 5, 1, false, false},      // no convolution before; rows below a block
    {20, 2, 2, 34, 2200, 29, 4, false, false},   // rows of more blocks than are prepared at once
    {264, 4, 1, 64, 4104, 300, 4, true, false},  // what a GPU takes whole, with ends of all kinds
    {256, 2, 2, 128, 1000, 2200, 2, true, false},
    {512, 2, 1, 128, 768, 300, 4, true, false},  // quantized, what a GPU takes of many sequences
    // more heads share keys than a block of threads takes
    {256, 8, 1, 64, 264, 70, 4, true, false},
    // a GPU's warps share sums of so many columns, unevenly
    {1312, 2, 2, 128, 992, 300, 4, true, false},
    {2048, 3, 3, 128, 992, 2200, 4, true, true},  // of one sequence, what groups of warps take
};
static const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16, mm_dtype_q8,
                                      mm_dtype_q4};

static inline void states_close(const struct seqs *a, const struct seqs *b, int n,
                                double tolerance) {
    for (int t = 0; t < n; t++) {
        const int64_t floats = (int64_t)a->floats;
        const struct out o = {{mm_view2(a->memory[t], mm_dtype_f32, 1, floats),
                               mm_view2(b->memory[t], mm_dtype_f32, 1, floats)}};
        expect_close("states", o, tolerance);
    }
}

static inline void results_close(const struct result *a, const struct result *b, double tolerance) {
    for (int i = 0; i < steps_taken(); i++) {
        expect_close("hidden", (struct out){{a->hidden[i], b->hidden[i]}}, tolerance);
        if (i < steps_taken() - 1)
            expect_close("logits", (struct out){{a->logits[i], b->logits[i]}}, tolerance);
    }
}

// The largest difference of results and states over the largest value of each view; what is not
// finite is as far off as can be.
static inline double views_off(struct mm_view a, struct mm_view b) {
    double worst = 0.0, top = 0.0;
    for (int64_t r = 0; r < b.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(b); c++) {
            const double x = (double)get(a, r, c), y = (double)get(b, r, c);
            if (!isfinite(x) || !isfinite(y)) return INFINITY;
            worst = fmax(worst, fabs(x - y)), top = fmax(top, fabs(y));
        }
    }
    return top > 0.0 ? worst / top : worst > 0.0 ? INFINITY : 0.0;
}
static inline double all_off(const struct result *r, const struct result *want, struct seqs *q,
                             struct seqs *want_seqs, int n) {
    double off = 0.0;
    for (int i = 0; i < steps_taken(); i++) {
        off = fmax(off, views_off(r->hidden[i], want->hidden[i]));
        if (i < steps_taken() - 1) off = fmax(off, views_off(r->logits[i], want->logits[i]));
    }
    const int64_t floats = (int64_t)q->floats;
    for (int t = 0; t < n; t++)
        off = fmax(off, views_off(mm_view1(q->memory[t], mm_dtype_f32, floats),
                                  mm_view1(want_seqs->memory[t], mm_dtype_f32, floats)));
    return off;
}

// Sequences that stop keep their states to the bit, and the others have the same numbers to the bit
// as if none had stopped.
static inline void stops_alone(struct mm_backend *be, const struct model *m, const int64_t *past,
                               int n, const int *stops) {
    struct seqs q, all, before;
    struct result r, want;
    seqs_init(&q, m, past, n), seqs_init(&all, m, past, n);
    result_init(&r, m, n), result_init(&want, m, n);
    go(be, m, &all, 0, n, &want);
    go_stopping(be, m, &q, 0, n, stops, &r);
    const size_t bytes = q.floats * sizeof(float);
    for (int steps = 0; steps <= steps_taken(); steps++) {  // what the states are after so many
        int at[most_seqs];
        struct result ignored;
        for (int t = 0; t < n; t++)
            at[t] = steps;
        seqs_init(&before, m, past, n), result_init(&ignored, m, n);
        go_stopping(be, m, &before, 0, n, at, &ignored);
        for (int t = 0; t < n; t++) {
            if (steps != (stops[t] < steps_taken() ? stops[t] : steps_taken())) continue;
            assert_memory_equal(q.memory[t], before.memory[t], bytes);
            if (steps == steps_taken()) assert_memory_equal(q.memory[t], all.memory[t], bytes);
        }
        seqs_free(&before, n), result_free(&ignored);
    }
    for (int i = 0; i < steps_taken(); i++) {
        const struct mm_view *pairs[2][2] = {{&r.hidden[i], &want.hidden[i]},
                                             {&r.logits[i], &want.logits[i]}};
        for (int t = 0; t < n; t++) {
            for (int k = 0; k < (i < steps_taken() - 1 ? 2 : 1) && i < stops[t]; k++) {
                const struct out o = {
                    {mm_view_rows(*pairs[k][0], t, 1), mm_view_rows(*pairs[k][1], t, 1)}};
                expect_close("a row beside one that stopped", o, tol_exact);
            }
        }
    }
    result_free(&r), result_free(&want);
    seqs_free(&q, n), seqs_free(&all, n);
}

// A block of kept attention whose caches are bf16, against one with the same numbers in floats:
// what else there is goes the same way, so only what the new key and value are rounded to differs,
// and what that tips over.
static inline void block_of_halves(struct mm_backend *be, struct shape shape, uint64_t seed,
                                   int n) {
    int64_t past[most_seqs];
    struct model m;
    struct seqs q[2];
    struct out hidden;
    for (int t = 0; t < n; t++)
        past[t] = 200 + t * 131;  // one key among so many
    make_model(&m, shape, mm_dtype_bf16, seed);
    struct mm_rng rng = mm_rng_make(seed, 11);
    const struct mm_view x = vector(&m, &rng, n * shape.D, 0, 1);
    for (int k = 0; k < 2; k++) {
        seqs_init(&q[k], &m, past, n);
        round_caches(&q[k], &m, n, k == 0);
        for (int t = 0; t < n; t++)
            q[k].seq[t].blocks = &q[k].blocks[t][1];
        be->activations = k == 0 ? mm_dtype_bf16 : mm_dtype_f32;
        const size_t bytes = (size_t)(n * shape.D) * sizeof(float);
        hidden.v[k] = mm_view2(room(&m, bytes), mm_dtype_f32, n, shape.D);
        memset(hidden.v[k].data, 0xff, bytes);
        const struct mm_step s = {.blocks = &m.blocks[1],
                                  .n_blocks = 1,
                                  .l2_before = -1,
                                  .norm = m.norm,
                                  .eps = 1e-5f,
                                  .seqs = q[k].seq,
                                  .n_seqs = n,
                                  .x = mm_view2(x.data, mm_dtype_f32, n, shape.D),
                                  .hidden = hidden.v[k]};
        mm_decode_step(be, &s);
        struct mm_error err = {0};
        if (mm_backend_sync(be, &err)) fail_msg("%s", err.text);
    }
    expect_close("hidden", hidden, tol_new_key_rounded);
    for (int k = 0; k < 2; k++)
        seqs_free(&q[k], n);
    model_free(&m);
}

static inline double tolerance_of(enum mm_dtype type) {
    if (mm_dtype_quantized(type)) return tol_step_quantized;
    return testing_cuda() && type == mm_dtype_bf16 ? tol_step_bf16_rounded : tol_step;
}

#endif
