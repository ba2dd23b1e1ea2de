// Codes of quantized formats in NEON registers.
#ifndef MM_OPS_CPU_QUANT_NEON_H
#define MM_OPS_CPU_QUANT_NEON_H

#include <arm_neon.h>
#include <string.h>
#include "base/quant.h"

// One block of mm_quantize_x: n <= 128 floats to 128 codes, zeros at the end; returns r.
static inline float mm_neon_code_block(int8_t *codes, const float *x, int64_t n) {
    float some[mm_quant_block];
    if (n < mm_quant_block) {
        memset(some, 0, sizeof some);
        memcpy(some, x, (size_t)n * sizeof *x);
        x = some;
    }
    float32x4_t most4 = vdupq_n_f32(0.0f);
    for (int i = 0; i < mm_quant_block; i += 4)
        most4 = vmaxnmq_f32(most4, vabsq_f32(vld1q_f32(x + i)));
    const float most = vmaxnmvq_f32(most4), by = most > 1e-36f ? 127.0f / most : 0.0f;
    for (int i = 0; i < mm_quant_block; i += 16) {
        int32x4_t c[4];
        for (int v = 0; v < 4; v++)
            c[v] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4 * v), by));
        const int16x8_t low = vcombine_s16(vmovn_s32(c[0]), vmovn_s32(c[1]));
        const int16x8_t high = vcombine_s16(vmovn_s32(c[2]), vmovn_s32(c[3]));
        vst1q_s8(codes + i, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }
    return most / 127.0f;
}

// Sixteen codes of q4: `i` counts vectors of a block; 0 to 3 are the low halves of its 64 bytes.
static inline int8x16_t mm_neon_q4(const uint8_t *codes, uint16_t factors, int i) {
    const uint8x16_t bytes = vld1q_u8(codes + i % 4 * 16);
    const uint8x16_t c = i < 4 ? vandq_u8(bytes, vdupq_n_u8(15)) : vshrq_n_u8(bytes, 4);
    const int8x16_t u = vdupq_n_s8((int8_t)(factors >> (i / 2 * 4) & 15));
    return vmulq_s8(vsubq_s8(vreinterpretq_s8_u8(c), vdupq_n_s8(8)), u);
}

static inline void mm_neon_expand_q4(int8_t *w8, const uint8_t *codes, uint16_t factors) {
    for (int i = 0; i < 8; i++)
        vst1q_s8(w8 + 16 * i, mm_neon_q4(codes, factors, i));
}

#endif
