// What the tests of operations share: the two backends side by side, operands with guarded
// memory, comparison, finite differences.
#ifndef MM_TESTS_OPS_OPS_TEST_H
#define MM_TESTS_OPS_OPS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/rng.h"
#include "ops/cpu/cpu.h"
#include "ops/under_test.h"
#include "tolerance.h"

enum { max_blocks = 64, guard_bytes = 256, n_sizes_max = 8 };

struct block {
    unsigned char *base;
    size_t bytes;
};

// One test's world: a fast backend, the reference, and the memory of the operands.
struct world {
    struct mm_backend *be[2];  // fast, reference
    struct block blocks[max_blocks];
    int n_blocks;
    struct mm_rng rng;
};

static inline struct mm_backend *open_isa(enum mm_isa isa, int n_threads) {
    struct mm_backend *be;
    struct mm_error err = {0};
    if (open_under_test(&be, isa, n_threads, &err)) fail_msg("%s", err.text);
    be->product = mm_dtype_bf16;  // held to the same tolerances
    return be;
}

static inline void world_open(struct world *w, enum mm_isa isa, int n_threads) {
    memset(w, 0, sizeof *w);
    w->be[0] = open_isa(isa, n_threads);
    w->be[1] = open_isa(mm_isa_plain, 1);
    w->rng = mm_rng_make(7, (uint64_t)isa);
}

// Every byte around the operands must still be poison.
static inline void world_clear(struct world *w) {
    struct mm_error err = {0};
    for (int b = 0; b < 2; b++) {
        if (w->be[b] && mm_backend_sync(w->be[b], &err)) fail_msg("%s", err.text);
    }
    for (int i = 0; i < w->n_blocks; i++) {
        const struct block *k = &w->blocks[i];
        for (size_t at = 0; at < guard_bytes; at++) {
            assert_int_equal(k->base[at], 0xff);
            assert_int_equal(k->base[k->bytes - 1 - at], 0xff);
        }
        free(k->base);
    }
    w->n_blocks = 0;
}

static inline void world_close(struct world *w) {
    world_clear(w);
    for (int b = 0; b < 2; b++)
        mm_backend_close(w->be[b]);
}

// A poisoned view (all bits set: NaN in every float type) with `pad` poisoned elements after each
// row.
static inline struct mm_view make(struct world *w, enum mm_dtype dtype, int64_t rows, int64_t cols,
                                  int64_t pad) {
    assert_true(w->n_blocks < max_blocks);
    const size_t body = (size_t)(rows * (cols + pad)) * mm_dtype_bytes(dtype);
    struct block k = {NULL, body + 2 * guard_bytes};
    k.base = mm_xmalloc(k.bytes);
    memset(k.base, 0xff, k.bytes);
    w->blocks[w->n_blocks++] = k;
    struct mm_view v = mm_view2(k.base + guard_bytes, dtype, rows, cols);
    v.ld = cols + pad;
    return v;
}

static inline float get(struct mm_view v, int64_t row, int64_t col) {
    float x;
    mm_to_f32(&x, mm_view_at(v, row, col), v.dtype, 1);
    return x;
}

static inline void put(struct mm_view v, int64_t row, int64_t col, float x) {
    mm_from_f32(mm_view_at(v, row, col), v.dtype, &x, 1);
}

// Normal numbers times `scale`; `coarse` ones are exact in bf16.
static inline void randomize(struct world *w, struct mm_view v, double scale, bool coarse) {
    for (int64_t r = 0; r < v.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(v); c++) {
            const float x = (float)(mm_rng_normal(&w->rng) * scale);
            put(v, r, c, coarse ? mm_bf16_to_f32(mm_f32_to_bf16(x)) : x);
        }
    }
}

static inline struct mm_view random_view(struct world *w, enum mm_dtype dtype, int64_t rows,
                                         int64_t cols, int64_t pad, double scale) {
    const struct mm_view v = make(w, dtype, rows, cols, pad);
    randomize(w, v, scale, false);
    return v;
}

static inline struct mm_view vector_of(struct mm_view v) {
    return mm_view1(v.data, v.dtype, v.shape[0]);
}

static inline struct mm_view random_vector(struct world *w, enum mm_dtype dtype, int64_t n,
                                           double scale) {
    return vector_of(random_view(w, dtype, n, 1, 0, scale));
}

static inline struct mm_view empty_vector(struct world *w, int64_t n) {
    return vector_of(make(w, mm_dtype_f32, n, 1, 0));
}

// Whole numbers in [low, end).
static inline struct mm_view random_ids(struct world *w, int64_t n, int32_t low, int32_t end) {
    const struct mm_view v = vector_of(make(w, mm_dtype_i32, n, 1, 0));
    for (int64_t i = 0; i < n; i++) {
        ((int32_t *)v.data)[i] = low + (int32_t)mm_rng_below(&w->rng, (uint32_t)(end - low));
    }
    return v;
}

// One output for each backend: both poisoned, or both with the same random content.
struct out {
    struct mm_view v[2];
};

static inline struct out poisoned(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    return (struct out){
        {make(w, mm_dtype_f32, rows, cols, pad), make(w, mm_dtype_f32, rows, cols, pad)}};
}

static inline struct out poisoned_vector(struct world *w, int64_t n) {
    return (struct out){{empty_vector(w, n), empty_vector(w, n)}};
}

static inline void copy_view(struct mm_view to, struct mm_view from) {
    for (int64_t r = 0; r < to.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(to); c++)
            put(to, r, c, get(from, r, c));
    }
}

// Two copies of x, for operations in place or that add.
static inline struct out copies(struct world *w, struct mm_view x, int64_t pad) {
    struct out o = poisoned(w, x.shape[0], mm_view_cols(x), pad);
    for (int b = 0; b < 2; b++) {
        copy_view(o.v[b], x);
        if (x.n_axes == 1) o.v[b] = vector_of(o.v[b]);
    }
    return o;
}

static inline struct out accumulating(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    return copies(w, random_view(w, mm_dtype_f32, rows, cols, 0, 1.0), pad);
}

static inline struct out accumulating_vector(struct world *w, int64_t n) {
    return copies(w, random_vector(w, mm_dtype_f32, n, 1.0), 0);
}

// Fast against reference: largest difference over largest value, NaN nowhere, padding untouched.
// The largest value counts as `least` at least.
static inline void expect_close_over(const char *what, struct out o, double tolerance,
                                     double least) {
    const struct mm_view a = o.v[0], b = o.v[1];
    double worst = 0.0, top = least;
    for (int64_t r = 0; r < b.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(b); c++) {
            const double x = (double)get(a, r, c), y = (double)get(b, r, c);
            if (!isfinite(x) || !isfinite(y)) {
                fail_msg("%s (%lld, %lld): fast %g, reference %g", what, (long long)r, (long long)c,
                         x, y);
            }
            worst = fmax(worst, fabs(x - y));
            top = fmax(top, fabs(y));
        }
        for (int64_t c = mm_view_cols(b); c < a.ld && r + 1 < b.shape[0]; c++) {
            const unsigned char *p = mm_view_at(a, r, c);
            if (*p != 0xff) fail_msg("%s wrote past the end of row %lld", what, (long long)r);
        }
    }
    if (worst > tolerance * top) {
        fail_msg("%s: off by %.3g of the largest value %.3g, allowed %.3g", what, worst / top, top,
                 tolerance);
    }
}

static inline void expect_close(const char *what, struct out o, double tolerance) {
    expect_close_over(what, o, tolerance, 0.0);
}

static inline struct mm_view heads_view(struct mm_view v, int64_t n_heads) {
    return mm_view_split(v, n_heads, mm_view_cols(v) / n_heads);
}

static inline struct mm_segs segs_from(const int32_t *start, int64_t n) {
    return (struct mm_segs){n, start, start};
}

// ---- finite differences ----

// The gradient dx of loss(ctx) by x, at up to 60 elements spread over x, against central
// differences. The loss must be a double sum, so that only the outputs' own rounding is seen.
static inline void expect_gradient(const char *what, double (*loss)(void *), void *ctx,
                                   struct mm_view x, struct mm_view dx) {
    const int64_t cols = mm_view_cols(x), n = x.shape[0] * cols;
    const int64_t stride = n > 60 ? n / 60 | 1 : 1;
    const double h = 1e-2;
    double top = 0.0;
    for (int64_t i = 0; i < n; i++)
        top = fmax(top, fabs((double)get(dx, i / cols, i % cols)));
    assert_true(top > 0.0);
    for (int64_t i = 0; i < n; i += stride) {
        const float old = get(x, i / cols, i % cols);
        put(x, i / cols, i % cols, old + (float)h);
        const double above = loss(ctx), hi = (double)get(x, i / cols, i % cols);
        put(x, i / cols, i % cols, old - (float)h);
        const double below = loss(ctx), lo = (double)get(x, i / cols, i % cols);
        put(x, i / cols, i % cols, old);
        const double want = (above - below) / (hi - lo);
        const double is = (double)get(dx, i / cols, i % cols);
        if (!(fabs(is - want) <= tol_difference * top)) {
            fail_msg("%s: gradient (%lld, %lld) is %g, differences give %g (largest %g)", what,
                     (long long)(i / cols), (long long)(i % cols), is, want, top);
        }
    }
}

// sum of y * r in double
static inline double project(struct mm_view y, struct mm_view r) {
    double sum = 0.0;
    for (int64_t i = 0; i < y.shape[0]; i++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++)
            sum += (double)get(y, i, c) * (double)get(r, i, c);
    }
    return sum;
}

#endif
