#include "bench/ceilings.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"

static const double seconds_of[mm_ceiling_count] = {0.4, 0.12, 0.12, 0.12};

enum mm_ceiling mm_bench_product_of(enum mm_dtype weights) {
    return mm_dtype_quantized(weights) ? mm_ceiling_int8
           : weights == mm_dtype_bf16  ? mm_ceiling_bf16
                                       : mm_ceiling_f32;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double mm_bench_median(const double *values, int n) {
    if (n == 0) return 0.0;
    double *sorted = mm_xmalloc((size_t)n * sizeof *sorted);
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    const double m = n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
    free(sorted);
    return m;
}

double mm_bench_last(const struct mm_bench_rate *r) {
    return r->n > 0 ? r->samples[r->n - 1] : 0.0;
}

static void add_best(struct mm_bench_rate *r, double rate, const char *how) {
    if (rate <= r->best) return;
    r->best = rate;
    r->how = how;
}

static enum mm_code sample(struct mm_bench_ceilings *c, struct mm_backend *be,
                           enum mm_ceiling which, struct mm_error *err) {
    struct mm_bench_rate *r = &c->of[which];
    double rate = 0.0;
    const char *how = NULL;
    MM_TRY(be->gauges->ceiling(be, which, seconds_of[which], &rate, &how, err));
    add_best(r, rate, how);
    if (r->n < mm_bench_samples_max) r->samples[r->n++] = rate;
    return mm_code_ok;
}

// ---- the large product --------------------------------------------------------------------------

struct product {
    struct mm_view x, w, y;
    void *block;
    size_t bytes;
};

static enum mm_code product_new(struct product *p, struct mm_backend *be, enum mm_dtype t,
                                int64_t T, int64_t N, int64_t K, struct mm_error *err) {
    p->w = mm_view2(NULL, t, N, K);
    const size_t w = (mm_view_bytes(p->w) + 63) / 64 * 64;
    const size_t x = (size_t)(T * K) * sizeof(float), y = (size_t)(T * N) * sizeof(float);
    p->bytes = w + x + y;
    MM_TRY(be->alloc(be, p->bytes, &p->block, err));  // zeros: as fast as other numbers
    char *at = p->block;
    p->w.data = at;
    p->x = mm_view2(at + w, mm_dtype_f32, T, K);
    p->y = mm_view2(at + w + x, mm_dtype_f32, T, N);
    return mm_code_ok;
}

// The best time of several for products of a size that takes a while, whatever the machine.
static enum mm_code large_product(struct mm_backend *be, enum mm_dtype t, double *rate,
                                  struct mm_error *err) {
    static const int64_t sizes[][3] = {{128, 512, 512}, {512, 2048, 1024}, {1024, 8192, 2048}};
    *rate = 0.0;
    for (int i = 0; i < 3; i++) {
        const int64_t T = sizes[i][0], N = sizes[i][1], K = sizes[i][2];
        struct product p;
        MM_TRY(product_new(&p, be, t, T, N, K, err));
        double best = 1e30;
        enum mm_code code = mm_code_ok;
        const double until = mm_now() + 0.08;
        for (int k = 0; !code && (k < 2 || mm_now() < until); k++) {
            const double from = mm_now();
            mm_linear_fwd(be, p.y, p.x, p.w, MM_NONE);
            code = mm_backend_sync(be, err);
            const double took = mm_now() - from;
            if (took < best) best = took;
        }
        be->release(be, p.block, p.bytes);
        if (code) return code;
        const double ops = 2.0 * (double)T * (double)N * (double)K;
        if (ops / best > *rate) *rate = ops / best;
        if (best > 0.04) break;  // larger ones would only take longer
    }
    return mm_code_ok;
}

enum mm_code mm_bench_ceilings_all(struct mm_bench_ceilings *c, struct mm_backend *be,
                                   struct mm_error *err) {
    static const enum mm_dtype types[mm_ceiling_count] = {
        [mm_ceiling_f32] = mm_dtype_f32,
        [mm_ceiling_bf16] = mm_dtype_bf16,
        [mm_ceiling_int8] = mm_dtype_q8,
    };
    for (int i = 0; i < mm_ceiling_count; i++) {
        MM_TRY(sample(c, be, (enum mm_ceiling)i, err));
        if (i == mm_ceiling_read) continue;
        double rate;
        MM_TRY(large_product(be, types[i], &rate, err));
        add_best(&c->of[i], rate, "a large product of the engine");
    }
    // bf16 can always be widened: where its own instructions are slower, f32's are the ceiling
    add_best(&c->of[mm_ceiling_bf16], c->of[mm_ceiling_f32].best, c->of[mm_ceiling_f32].how);
    return mm_code_ok;
}

enum mm_code mm_bench_ceilings_again(struct mm_bench_ceilings *c, struct mm_backend *be,
                                     enum mm_ceiling product, struct mm_error *err) {
    MM_TRY(sample(c, be, mm_ceiling_read, err));
    return sample(c, be, product, err);
}
