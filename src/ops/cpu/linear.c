// Dense products: where training spends its time. Up to eight rows (decoding) go to the
// matrix-vector kernels of gemv.h, more with quantized weights to quant_linear.c, all others to
// product.h.
#include "ops/cpu/gemv.h"
#include "ops/cpu/product.h"
#include "ops/cpu/quant_linear.h"

enum { rows_gemv_max = mm_gemv_most };

static struct mm_side side(struct mm_view v, bool by_k) {
    return (struct mm_side){v.data, v.dtype, v.ld, by_k};
}

struct bias_job {
    struct mm_view y;
    const float *bias;
};

static void bias_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bias_job *j = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        memcpy(mm_view_at(j->y, r, 0), j->bias, (size_t)mm_view_cols(j->y) * sizeof(float));
    }
}

void mm_linear_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                       struct mm_view bias) {
    const float *b = mm_cpu_vector(be, mm_scratch_b, bias);
    if (be->error.code) return;
    if (x.shape[0] <= rows_gemv_max) {
        mm_gemv(be, y, x, w, b);
        return;
    }
    if (mm_dtype_quantized(w.dtype)) {
        mm_quant_linear(be, y, x, w, b);
        return;
    }
    if (b) {  // the product is added to rows of bias
        struct bias_job j = {y, b};
        mm_parallel_for(be->pool, y.shape[0], 64, bias_rows, &j);
    }
    mm_dense_product(be, &(struct mm_dense){.c = y.data,
                                            .ldc = y.ld,
                                            .m = x.shape[0],
                                            .n = w.shape[0],
                                            .k = mm_view_cols(x),
                                            .a = side(x, false),
                                            .b = side(w, false),
                                            .accumulate = b != NULL});
}

void mm_linear_add_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                           struct mm_view w, struct mm_view add) {
    mm_linear_fwd_cpu(be, y, x, w, MM_NONE);
    mm_add_cpu(be, y, y, add);
}

void mm_linear_bwd_x_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                         struct mm_view w, bool accumulate) {
    mm_dense_product(be, &(struct mm_dense){.c = dx.data,
                                            .ldc = dx.ld,
                                            .m = dy.shape[0],
                                            .n = mm_view_cols(w),
                                            .k = mm_view_cols(dy),
                                            .a = side(dy, false),
                                            .b = side(w, true),
                                            .accumulate = accumulate});
}

struct dbias_job {
    float *dbias;
    struct mm_view dy;
};

// Sums over t in blocks of 64 rows, so that a long sum keeps its small terms.
static void dbias_columns(void *arg, int64_t begin, int64_t end, int thread) {
    enum { width = 64, block = 64 };
    const struct dbias_job *j = arg;
    const int64_t cols = mm_view_cols(j->dy), rows = j->dy.shape[0];
    (void)thread;
    for (int64_t c = begin * width; c < end * width && c < cols; c += width) {
        const int64_t n = cols - c < width ? cols - c : width;
        for (int64_t t0 = 0; t0 < rows; t0 += block) {
            float sum[width] = {0};
            for (int64_t t = t0; t < rows && t < t0 + block; t++) {
                const float *dy = mm_view_at(j->dy, t, c);
                for (int64_t i = 0; i < n; i++)
                    sum[i] += dy[i];
            }
            for (int64_t i = 0; i < n; i++)
                j->dbias[c + i] += sum[i];
        }
    }
}

void mm_linear_bwd_w_cpu(struct mm_backend *be, struct mm_view dw, struct mm_view dbias,
                         struct mm_view dy, struct mm_view x, enum mm_dtype how) {
    if (dy.shape[0] == 0) return;
    if (dbias.data) {
        struct dbias_job b = {dbias.data, dy};
        mm_parallel_for(be->pool, (mm_view_cols(dy) + 63) / 64, 2, dbias_columns, &b);
    }
    mm_dense_product(be, &(struct mm_dense){.c = dw.data,
                                            .ldc = dw.ld,
                                            .m = dw.shape[0],
                                            .n = mm_view_cols(dw),
                                            .k = dy.shape[0],
                                            .a = side(dy, true),
                                            .b = side(x, true),
                                            .round = how == mm_dtype_bf16,
                                            .accumulate = true});
}
