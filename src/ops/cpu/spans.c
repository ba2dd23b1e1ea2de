// Elementwise work on views of one shape, over the threads.
#include <math.h>
#include "ops/cpu/kernels.h"

enum { piece = 4096 };  // elements of a span of a dense view

struct spans_job {
    const struct mm_view *views;
    int n_views;
    bool dense;
    int64_t rows, cols;  // a dense view is one row
    mm_span_fn *fn;
    mm_span_sum_fn *sum_fn;
    double *sums;  // one a span
    void *ctx;
};

static void run_spans(void *arg, int64_t begin, int64_t end, int thread) {
    const struct spans_job *j = arg;
    (void)thread;
    for (int64_t s = begin; s < end; s++) {
        void *at[mm_spans_max] = {NULL};
        for (int i = 0; i < j->n_views; i++) {
            const struct mm_view v = j->views[i];
            if (!v.data) continue;
            at[i] = j->dense ? (char *)v.data + (size_t)(s * piece) * mm_dtype_bytes(v.dtype)
                             : mm_view_at(v, s, 0);
        }
        const int64_t left = j->cols - s * piece;
        const int64_t n = !j->dense ? j->cols : left < piece ? left : piece;
        if (j->fn) j->fn(j->ctx, at, n);
        if (j->sum_fn) j->sums[s] = j->sum_fn(j->ctx, at, n);
    }
}

// The number of spans.
static int64_t lay_out(struct spans_job *j) {
    const struct mm_view first = j->views[0];
    j->dense = true;
    for (int i = 0; i < j->n_views; i++) {
        const struct mm_view v = j->views[i];
        if (v.data && v.shape[0] > 1 && v.ld != mm_view_cols(v)) j->dense = false;
    }
    j->rows = j->dense ? 1 : first.shape[0];
    j->cols = j->dense ? mm_view_count(first) : mm_view_cols(first);
    return j->dense ? (j->cols + piece - 1) / piece : j->rows;
}

static int64_t grain_of(const struct spans_job *j) {
    return j->dense ? 4 : 1 + 4 * piece / j->cols;
}

void mm_for_spans(struct mm_backend *be, const struct mm_view *views, int n_views, mm_span_fn *fn,
                  void *ctx) {
    struct spans_job j = {.views = views, .n_views = n_views, .fn = fn, .ctx = ctx};
    if (mm_view_count(views[0]) == 0) return;
    const int64_t n = lay_out(&j);
    mm_parallel_for(be->pool, n, grain_of(&j), run_spans, &j);
}

double mm_sum_spans(struct mm_backend *be, const struct mm_view *views, int n_views,
                    mm_span_sum_fn *fn, void *ctx) {
    struct spans_job j = {.views = views, .n_views = n_views, .sum_fn = fn, .ctx = ctx};
    if (mm_view_count(views[0]) == 0) return 0.0;
    const int64_t n = lay_out(&j);
    j.sums = mm_cpu_scratch(be, mm_scratch_f, (size_t)n * sizeof *j.sums);
    if (!j.sums) return NAN;
    mm_parallel_for(be->pool, n, grain_of(&j), run_spans, &j);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += j.sums[i];
    return sum;
}
