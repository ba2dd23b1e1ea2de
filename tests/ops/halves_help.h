// Operands for tests of backends that take activations of bf16: every operand is f32 or bf16 by
// lot on the fast side, and the same values in f32 on the reference's.
#ifndef MM_TESTS_OPS_HALVES_HELP_H
#define MM_TESTS_OPS_HALVES_HELP_H

#include "ops_test.h"

static inline struct mm_view by_lot(struct world *w, int64_t rows, int64_t cols) {
    static const int64_t pads[] = {0, 3, 8, 0};
    const enum mm_dtype t = mm_rng_below(&w->rng, 4) ? mm_dtype_bf16 : mm_dtype_f32;
    return make(w, t, rows, cols, pads[mm_rng_below(&w->rng, 4)]);
}

static inline struct out act_out(struct world *w, int64_t rows, int64_t cols) {
    return (struct out){{by_lot(w, rows, cols), make(w, mm_dtype_f32, rows, cols, 0)}};
}

static inline struct out act_in(struct world *w, int64_t rows, int64_t cols, double scale) {
    const struct out o = act_out(w, rows, cols);
    randomize(w, o.v[1], scale, true);
    copy_view(o.v[0], o.v[1]);
    return o;
}

// (rows, n, p)
static inline struct out in_heads(struct out o, int64_t n) {
    for (int b = 0; b < 2; b++)
        o.v[b] = heads_view(o.v[b], n);
    return o;
}
static inline struct out act_heads(struct world *w, int64_t rows, int64_t n, int64_t p,
                                   double scale) {
    return in_heads(act_in(w, rows, n * p, scale), n);
}
static inline struct out out_heads(struct world *w, int64_t rows, int64_t n, int64_t p) {
    return in_heads(act_out(w, rows, n * p), n);
}

// f32 on both sides, the same values
static inline struct out full_in(struct world *w, int64_t rows, int64_t cols, double scale) {
    const struct mm_view v = random_view(w, mm_dtype_f32, rows, cols, 0, scale);
    return (struct out){{v, v}};
}
static inline struct mm_view full_vector(struct world *w, int64_t n, double scale) {
    return random_vector(w, mm_dtype_f32, n, scale);
}

// Outputs of bf16 are rounded once more than outputs of f32.
static inline void expect_halves(const char *what, struct out o, double tolerance) {
    expect_close(what, o, o.v[0].dtype == mm_dtype_bf16 ? tol_halves + tolerance : tolerance);
}

// Runs `test` over sizes on a backend that takes halves; skipped where there is none. With
// MMAMBA_TEST_FEW over a sixth of them: under a sanitizer.
static inline void for_sizes(void (*test)(struct world *, int64_t rows, int64_t cols)) {
    static const int64_t rows[] = {1, 7, 65, 200}, cols[] = {8, 33, 64, 264};
    if (!testing_cuda()) {
        skip();
        return;
    }
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    w.be[0]->activations = mm_dtype_bf16;
    for (int i = 0; i < 48; i += test_few() ? 7 : 1) {
        test(&w, rows[i % 4], cols[i / 4 % 4]);
        world_clear(&w);
    }
    world_close(&w);
}

#endif
