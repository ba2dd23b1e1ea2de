// Tiles of products of int8 by sdot (entered only where mm_cpu_isa says that the processor has it):
// each of four sums gets the product of four elements with four of a chosen row.
#include <arm_neon.h>
#include "ops/cpu/product_neon.h"

#define ROW(r, x, lane)                                      \
    exact[r][0] = vdotq_laneq_s32(exact[r][0], b0, x, lane); \
    exact[r][1] = vdotq_laneq_s32(exact[r][1], b1, x, lane); \
    exact[r][2] = vdotq_laneq_s32(exact[r][2], b2, x, lane);

void mm_neon_blocks_dot(const char *a, const char *b, int64_t n, float *c, int64_t ldc) {
    for (int64_t i = 0; i < n; i++) {
        int32x4_t exact[mm_neon_rows][3];
#pragma GCC unroll 8
        for (int r = 0; r < mm_neon_rows; r++)
            exact[r][0] = exact[r][1] = exact[r][2] = vdupq_n_s32(0);
        for (int k = 0; k < mm_quant_block; k += 4, a += 4 * mm_neon_rows, b += 4 * mm_neon_cols) {
            const int8_t *ai = (const int8_t *)a, *bi = (const int8_t *)b;
            const int8x16_t b0 = vld1q_s8(bi), b1 = vld1q_s8(bi + 16), b2 = vld1q_s8(bi + 32);
            const int8x16_t low = vld1q_s8(ai), high = vld1q_s8(ai + 16);
            ROW(0, low, 0)
            ROW(1, low, 1)
            ROW(2, low, 2)
            ROW(3, low, 3)
            ROW(4, high, 0)
            ROW(5, high, 1)
            ROW(6, high, 2)
            ROW(7, high, 3)
        }
        const float *scale_a = (const float *)a, *scale_b = (const float *)b;
#pragma GCC unroll 8
        for (int r = 0; r < mm_neon_rows; r++) {
#pragma GCC unroll 3
            for (int v = 0; v < 3; v++) {
                float *to = c + r * ldc + 4 * v;
                const float32x4_t by = vmulq_n_f32(vld1q_f32(scale_b + 4 * v), scale_a[r]);
                vst1q_f32(to, vfmaq_f32(vld1q_f32(to), vcvtq_f32_s32(exact[r][v]), by));
            }
        }
        a += mm_neon_rows * sizeof(float), b += mm_neon_cols * sizeof(float);
    }
}
