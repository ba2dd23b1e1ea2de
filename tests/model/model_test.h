// What the tests of whole models share: a backend of a given instruction set, the objective run on
// a packed batch, comparison of tensors.
#ifndef MM_TESTS_MODEL_MODEL_TEST_H
#define MM_TESTS_MODEL_MODEL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "model/model.h"
#include "ops/cpu/cpu.h"
#include "ops/under_test.h"
#include "tolerance.h"
#include "train/objective.h"

static struct mm_error err;

#define OK(call)                                            \
    do {                                                    \
        if ((call) != mm_code_ok) fail_msg("%s", err.text); \
    } while (0)

static inline struct mm_backend *open_isa(enum mm_isa isa, int n_threads) {
    struct mm_backend *be;
    OK(open_under_test(&be, isa, n_threads, &err));
    return be;
}

// Largest difference over the largest value of `want`; NaN is infinitely far.
static inline double distance(const float *is, const float *want, int64_t n) {
    double worst = 0.0, top = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)is[i] - (double)want[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
        top = fmax(top, fabs((double)want[i]));
    }
    return worst == 0.0 ? 0.0 : worst / top;
}

static inline void expect_near(const char *what, const float *is, const float *want, int64_t n,
                               double tolerance) {
    const double d = distance(is, want, n);
    if (!(d <= tolerance)) {
        fail_msg("%s: off by %.3g of the largest value, allowed %.3g", what, d, tolerance);
    }
}

// Packed sequences with their pictures, on the host.
struct batch {
    int64_t n_seqs, n_tiles;
    const int32_t *ids, *start, *targets;
    const float *pixels;
};

// Runs an objective once; the gradients are added to g.
static inline struct mm_objective_result run_objective(struct mm_objective *o,
                                                       const struct batch *b, struct mm_grads *g) {
    struct mm_model *m = o->student;
    struct mm_backend *be = m->be;
    const int64_t T = b->start[b->n_seqs], S = m->config.image_size;
    struct mm_arena host, device;
    const size_t bytes = mm_objective_plan(o, g, T, b->n_seqs, b->n_tiles);
    OK(mm_arena_init(&host, mm_layout_host_bytes(m, T, b->n_seqs, b->n_tiles), &err));
    OK(mm_arena_init(&device, bytes, &err));
    struct mm_objective_input in = {.targets = b->targets, .n_seqs = b->n_seqs};
    OK(mm_layout_make(&in.layout, m, &host, &device, b->ids, b->start, b->n_seqs, b->n_tiles, 0, 0,
                      "batch", &err));
    const size_t n = (size_t)(b->n_tiles * 3 * S * S) * sizeof(float);
    in.pixels = mm_view4(mm_arena_take(&device, n), mm_dtype_f32, b->n_tiles, 3, S, S);
    if (n > 0) be->upload(be, in.pixels.data, b->pixels, n);
    struct mm_objective_result r;
    OK(mm_objective_run(o, &in, g, &device, &r, &err));
    mm_arena_deinit(&host);
    mm_arena_deinit(&device);
    return r;
}

#endif
