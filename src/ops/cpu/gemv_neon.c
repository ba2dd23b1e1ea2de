// Matrix-vector products of decoding on AArch64. Each thread takes a range of weight rows; a step
// of the inner loop widens eight weights of each of four rows and multiplies them with T rows of x.
// Every element is summed by one thread in one order: results do not depend on the threads.
#include <arm_neon.h>
#include "ops/cpu/gemv.h"

#define INLINE static inline __attribute__((always_inline))

enum { rows_at_once = 4 };

struct gemv_job {
    struct mm_view y, x, w;
    const float *bias;
};

INLINE float32x4x2_t load8(const void *w, int64_t at, enum mm_dtype type) {
    if (type == mm_dtype_f32) {
        const float *p = (const float *)w + at;
        return (float32x4x2_t){{vld1q_f32(p), vld1q_f32(p + 4)}};
    }
    const uint16x8_t h = vld1q_u16((const uint16_t *)w + at);
    if (type == mm_dtype_f16) {
        const float16x8_t f = vreinterpretq_f16_u16(h);
        return (float32x4x2_t){{vcvt_f32_f16(vget_low_f16(f)), vcvt_high_f32_f16(f)}};
    }
    return (float32x4x2_t){{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16)),
                            vreinterpretq_f32_u32(vshll_high_n_u16(h, 16))}};
}

INLINE float load1(const void *w, int64_t at, enum mm_dtype type) {
    if (type == mm_dtype_f32) return ((const float *)w)[at];
    if (type == mm_dtype_f16) return (float)((const __fp16 *)w)[at];
    return mm_bf16_to_f32(((const uint16_t *)w)[at]);
}

// n_rows weight rows from `row`, times t_dim rows of x; both are constants when inlined. With few
// rows of x there are registers for two sums an element, and the adders wait less.
INLINE void block(const struct gemv_job *j, int64_t row, const int n_rows, const int t_dim,
                  const enum mm_dtype type) {
    const int second = t_dim <= 2 ? 1 : 0;
    float32x4_t sum[rows_at_once][4][2];
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < t_dim; t++)
            sum[r][t][0] = sum[r][t][1] = vdupq_n_f32(0.0f);
    }
    const int64_t k_dim = mm_view_cols(j->x), whole = k_dim / 8 * 8;
    const float *x = j->x.data;
    for (int64_t k = 0; k < whole; k += 8) {
        float32x4x2_t xv[4];
        for (int t = 0; t < t_dim; t++)
            xv[t] = load8(x, t * j->x.ld + k, mm_dtype_f32);
        for (int r = 0; r < n_rows; r++) {
            const float32x4x2_t wv = load8(j->w.data, (row + r) * j->w.ld + k, type);
            for (int t = 0; t < t_dim; t++) {
                sum[r][t][0] = vfmaq_f32(sum[r][t][0], wv.val[0], xv[t].val[0]);
                sum[r][t][second] = vfmaq_f32(sum[r][t][second], wv.val[1], xv[t].val[1]);
            }
        }
    }
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < t_dim; t++) {
            float s = vaddvq_f32(vaddq_f32(sum[r][t][0], sum[r][t][1]));
            for (int64_t k = whole; k < k_dim; k++) {
                s += load1(j->w.data, (row + r) * j->w.ld + k, type) * x[t * j->x.ld + k];
            }
            ((float *)j->y.data)[t * j->y.ld + row + r] = s + (j->bias ? j->bias[row + r] : 0.0f);
        }
    }
}

// ---- one function for each (type, T), so that the loops above unroll ----

#define ROWS(type, t_dim)                                                                     \
    static void rows_##type##_##t_dim(const struct gemv_job *j, int64_t begin, int64_t end) { \
        int64_t row = begin;                                                                  \
        for (; row + rows_at_once <= end; row += rows_at_once)                                \
            block(j, row, rows_at_once, t_dim, mm_dtype_##type);                              \
        for (; row < end; row++)                                                              \
            block(j, row, 1, t_dim, mm_dtype_##type);                                         \
    }
#define ROWS_OF_TYPE(type) ROWS(type, 1) ROWS(type, 2) ROWS(type, 3) ROWS(type, 4)
ROWS_OF_TYPE(f32)
ROWS_OF_TYPE(bf16)
ROWS_OF_TYPE(f16)

typedef void rows_fn(const struct gemv_job *, int64_t, int64_t);
#define NAMES(type) \
    { rows_##type##_1, rows_##type##_2, rows_##type##_3, rows_##type##_4 }
static rows_fn *const rows[3][4] = {NAMES(f32), NAMES(bf16), NAMES(f16)};

static void gemv_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct gemv_job *j = arg;
    (void)thread;
    const int64_t n_dim = j->w.shape[0];
    begin *= rows_at_once;
    end = end * rows_at_once < n_dim ? end * rows_at_once : n_dim;
    rows[j->w.dtype][j->x.shape[0] - 1](j, begin, end);
}

void mm_gemv(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
             const float *bias) {
    if (x.shape[0] == 0) return;
    struct gemv_job j = {y, x, w, bias};
    // Below some 60,000 weights waking a second thread costs more than it saves.
    const int64_t blocks = (w.shape[0] + rows_at_once - 1) / rows_at_once;
    mm_parallel_for(be->pool, blocks, 1 + 8192 / mm_view_cols(x), gemv_rows, &j);
}
