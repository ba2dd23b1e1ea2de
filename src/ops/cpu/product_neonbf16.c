// Tiles of products by the matrix instructions of ARMv8.6 (entered only where mm_cpu_isa says that
// the processor has them): bfmmla adds the product of 2 x 4 and 4 x 2 elements to 2 x 2 sums, smmla
// that of 2 x 8 and 8 x 2.
#include <arm_neon.h>
#include "ops/cpu/product_neon.h"

enum { row_pairs = mm_neon_rows / 2, col_pairs = mm_neon_cols / 2 };

// Rows 2 p and 2 p + 1 of C from sums of 2 x 2.
static inline __attribute__((always_inline)) void put_rows(float *c, int64_t ldc,
                                                           const float32x4_t sum[col_pairs],
                                                           bool add) {
#pragma GCC unroll 3
    for (int v = 0; v < col_pairs / 2; v++) {
        const float64x2_t left = vreinterpretq_f64_f32(sum[2 * v]);
        const float64x2_t right = vreinterpretq_f64_f32(sum[2 * v + 1]);
        float32x4_t upper = vreinterpretq_f32_f64(vzip1q_f64(left, right));
        float32x4_t lower = vreinterpretq_f32_f64(vzip2q_f64(left, right));
        if (add) {
            upper = vaddq_f32(upper, vld1q_f32(c + 4 * v));
            lower = vaddq_f32(lower, vld1q_f32(c + ldc + 4 * v));
        }
        vst1q_f32(c + 4 * v, upper);
        vst1q_f32(c + ldc + 4 * v, lower);
    }
}

void mm_neon_tile_bf16(const void *a_panel, const void *b_panel, int64_t k, float *c, int64_t ldc,
                       bool add) {
    const bfloat16_t *a = a_panel, *b = b_panel;
    float32x4_t sum[row_pairs][col_pairs];
#pragma GCC unroll 4
    for (int r = 0; r < row_pairs; r++) {
#pragma GCC unroll 6
        for (int v = 0; v < col_pairs; v++)
            sum[r][v] = vdupq_n_f32(0.0f);
    }
    for (int64_t i = 0; i < k; i += 4, a += 4 * mm_neon_rows, b += 4 * mm_neon_cols) {
        bfloat16x8_t rows[row_pairs];
#pragma GCC unroll 4
        for (int r = 0; r < row_pairs; r++)
            rows[r] = vld1q_bf16(a + 8 * r);
#pragma GCC unroll 6
        for (int v = 0; v < col_pairs; v++) {
            const bfloat16x8_t cols = vld1q_bf16(b + 8 * v);
#pragma GCC unroll 4
            for (int r = 0; r < row_pairs; r++)
                sum[r][v] = vbfmmlaq_f32(sum[r][v], rows[r], cols);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < row_pairs; r++)
        put_rows(c + 2 * r * ldc, ldc, sum[r], add);
}

void mm_neon_blocks_i8mm(const char *a, const char *b, int64_t n, float *c, int64_t ldc) {
    float32x4_t sum[row_pairs][col_pairs];
#pragma GCC unroll 4
    for (int r = 0; r < row_pairs; r++) {
#pragma GCC unroll 6
        for (int v = 0; v < col_pairs; v++)
            sum[r][v] = vdupq_n_f32(0.0f);
    }
    for (int64_t i = 0; i < n; i++) {
        int32x4_t exact[row_pairs][col_pairs];
#pragma GCC unroll 4
        for (int r = 0; r < row_pairs; r++) {
#pragma GCC unroll 6
            for (int v = 0; v < col_pairs; v++)
                exact[r][v] = vdupq_n_s32(0);
        }
        for (int k = 0; k < mm_quant_block; k += 8, a += 8 * mm_neon_rows, b += 8 * mm_neon_cols) {
            int8x16_t rows[row_pairs];
#pragma GCC unroll 4
            for (int r = 0; r < row_pairs; r++)
                rows[r] = vld1q_s8((const int8_t *)a + 16 * r);
#pragma GCC unroll 6
            for (int v = 0; v < col_pairs; v++) {
                const int8x16_t cols = vld1q_s8((const int8_t *)b + 16 * v);
#pragma GCC unroll 4
                for (int r = 0; r < row_pairs; r++)
                    exact[r][v] = vmmlaq_s32(exact[r][v], rows[r], cols);
            }
        }
        const float *scale_a = (const float *)a, *scale_b = (const float *)b;
#pragma GCC unroll 4
        for (int r = 0; r < row_pairs; r++) {
            const float32x4_t row =
                vcombine_f32(vld1_dup_f32(scale_a + 2 * r), vld1_dup_f32(scale_a + 2 * r + 1));
#pragma GCC unroll 6
            for (int v = 0; v < col_pairs; v++) {
                const float32x2_t pair = vld1_f32(scale_b + 2 * v);
                const float32x4_t by = vmulq_f32(row, vcombine_f32(pair, pair));
                sum[r][v] = vfmaq_f32(sum[r][v], vcvtq_f32_s32(exact[r][v]), by);
            }
        }
        a += mm_neon_rows * sizeof(float), b += mm_neon_cols * sizeof(float);
    }
#pragma GCC unroll 4
    for (int r = 0; r < row_pairs; r++)
        put_rows(c + 2 * r * ldc, ldc, sum[r], true);
}
