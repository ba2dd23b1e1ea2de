// Operands for the tests of the mixer: rows with gaps, everything poisoned with NaN before it is
// written, and the comparisons. One program includes it once.
#ifndef MM_TESTS_OPS_MIXER_HELP_H
#define MM_TESTS_OPS_MIXER_HELP_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "cmocka_all.h"
#include "base/rng.h"
#include "ops/cpu/cpu.h"
#include "ops/under_test.h"

struct tens {
    struct mm_view v;
    float *base;
    int64_t count;  // rows * ld
};

static const uint32_t poison = 0x7fc0deadu;  // a NaN

static inline struct tens tens_new(int64_t rows, int64_t a, int64_t b, int64_t gap) {
    struct tens x = {mm_view3(NULL, mm_dtype_f32, rows, a, b), NULL, 0};
    x.v.ld = a * b + gap;
    x.count = rows * x.v.ld;
    x.base = malloc((size_t)(x.count + 1) * sizeof *x.base);
    assert_non_null(x.base);
    for (int64_t i = 0; i <= x.count; i++) {
        memcpy(x.base + i, &poison, sizeof poison);
    }
    x.v.data = x.base;
    return x;
}

static inline struct mm_view flat(struct tens x) {
    return mm_view_flat(x.v);
}
static inline struct mm_view vector(struct tens x) {
    return mm_view1(x.base, mm_dtype_f32, x.v.shape[1]);
}

static inline float *tens_at(struct tens x, int64_t row, int64_t col) {
    return x.base + row * x.v.ld + col;
}

static inline void tens_normal(struct tens x, struct mm_rng *rng, double scale) {
    for (int64_t r = 0; r < x.v.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(x.v); c++) {
            *tens_at(x, r, c) = (float)(scale * mm_rng_normal(rng));
        }
    }
}

// exp(U(log lo, log hi))
static inline void tens_log_uniform(struct tens x, struct mm_rng *rng, double lo, double hi) {
    for (int64_t r = 0; r < x.v.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(x.v); c++) {
            *tens_at(x, r, c) = (float)exp(mm_rng_uniform(rng, log(lo), log(hi)));
        }
    }
}

static inline void tens_copy(struct tens to, struct tens from) {
    assert_int_equal(to.count, from.count);
    memcpy(to.base, from.base, (size_t)from.count * sizeof *to.base);
}

// Nothing was written between the rows or behind the last one.
static inline void check_gaps(struct tens x, const char *name) {
    const int64_t cols = mm_view_cols(x.v);
    for (int64_t i = 0; i <= x.count; i++) {
        uint32_t bits;
        if (i < x.count && i % x.v.ld < cols) continue;
        memcpy(&bits, x.base + i, sizeof bits);
        if (bits != poison) fail_msg("%s: written outside its rows at %lld", name, (long long)i);
    }
}

// Largest difference, relative to the largest element of `want`; poison left over fails.
static inline void check_close(struct tens got, struct tens want, double tolerance,
                               const char *name) {
    double worst = 0.0, largest = 1e-30;
    check_gaps(got, name);
    for (int64_t r = 0; r < want.v.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(want.v); c++) {
            const double a = (double)*tens_at(got, r, c), b = (double)*tens_at(want, r, c);
            if (!isfinite(a) || !isfinite(b)) {
                fail_msg("%s[%lld][%lld] is %g, wanted %g", name, (long long)r, (long long)c, a, b);
            }
            worst = fmax(worst, fabs(a - b));
            largest = fmax(largest, fabs(b));
        }
    }
    if (worst > tolerance * largest) {
        fail_msg("%s: off by %.3g of its largest value %.3g, allowed %.3g", name, worst / largest,
                 largest, tolerance);
    }
}

static inline void check_same_bits(struct tens a, struct tens b, const char *name) {
    assert_int_equal(a.count, b.count);
    if (memcmp(a.base, b.base, (size_t)a.count * sizeof *a.base)) {
        fail_msg("%s: the bits differ", name);
    }
}

// Gradient `grad` of `loss` with respect to x by central differences: no element may be off by
// more than `tolerance` of the largest difference quotient.
typedef double loss_fn(void *arg);
static inline void check_gradient(struct tens x, struct tens grad, loss_fn *loss, void *arg,
                                  double tolerance, const char *name) {
    const int64_t rows = x.v.shape[0], cols = mm_view_cols(x.v);
    double largest = 1e-30, worst = 0.0;
    int64_t at = 0;
    for (int64_t i = 0; i < rows * cols; i++) {
        float *p = tens_at(x, i / cols, i % cols);
        const float old = *p, h = 4e-3f * fmaxf(fabsf(old), 0.25f);
        *p = old + h;
        const double up = loss(arg), x_up = (double)*p;
        *p = old - h;
        const double down = loss(arg), x_down = (double)*p;
        *p = old;
        const double want = (up - down) / (x_up - x_down);
        const double off = fabs(want - (double)*tens_at(grad, i / cols, i % cols));
        largest = fmax(largest, fabs(want));
        if (!(off <= worst)) worst = off, at = i;
    }
    if (!(worst <= tolerance * largest)) {
        fail_msg("d%s: element %lld is off by %.3g of the largest, %.3g", name, (long long)at,
                 worst / largest, largest);
    }
}

static inline double weighted_sum(struct tens y, struct tens weight) {
    double sum = 0.0;
    for (int64_t r = 0; r < y.v.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y.v); c++) {
            sum += (double)*tens_at(y, r, c) * (double)*tens_at(weight, r, c);
        }
    }
    return sum;
}

// ---- packed sequences ----

enum { max_seqs = 16 };

struct packed {
    int32_t start[max_seqs + 1];
    int64_t n;
};

static inline void pack_lengths(struct packed *p, const int *lengths, int n) {
    p->start[0] = 0;
    for (int i = 0; i < n; i++) {
        p->start[i + 1] = p->start[i] + lengths[i];
    }
    p->n = n;
}
static inline struct mm_segs segs_of(const struct packed *p) {
    return (struct mm_segs){p->n, p->start, p->start};
}

// ---- backends ----

// The fast instruction sets that are here, the best first (oneDNN keeps the first limit it is given
// for the whole process); a test goes through all. Index -1 stands for the reference.
static inline int n_fast_isas(void) {
    return best_under_test();
}
static inline enum mm_isa fast_isa(int i) {
    return i < 0 ? mm_isa_plain : (enum mm_isa)(n_fast_isas() - i);
}

static inline struct mm_backend *open_isa(enum mm_isa isa, int n_threads) {
    struct mm_backend *be;
    struct mm_error err;
    if (open_under_test(&be, isa, n_threads, &err) != mm_code_ok) fail_msg("%s", err.text);
    be->product = mm_dtype_bf16;  // held to the same tolerances
    return be;
}

#endif
