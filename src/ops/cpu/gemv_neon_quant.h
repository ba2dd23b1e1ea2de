// Body of gemv_neonquant.c and gemv_neondot.c: matrix-vector products with quantized weights for
// AArch64. QUANT is the name of the table; what differs is one instruction.
#include <arm_neon.h>
#include "ops/cpu/gemv.h"
#include "ops/cpu/vmath.h"

#define LANES 4
#define STREAMS(t) ((t) <= 4 ? 2 : 1)
#define QBYTES 16
#define SHIFT(type) 0
#define FACTORS 1
typedef float32x4_t vec;
typedef int8x16_t qvec;
typedef int32x4_t ivec;
typedef int8x16_t part;

MM_VINLINE float add_lanes(vec v) {
    return vaddvq_f32(v);
}

MM_VINLINE qvec load_codes(const char *codes) {
    return vld1q_s8((const int8_t *)codes);
}

MM_VINLINE part q8_part(const char *codes, int i) {
    return load_codes(codes + i * QBYTES);
}

MM_VINLINE part q4_part(const char *codes, const uint32_t *u, int i) {
    const uint8x16_t both = vld1q_u8((const uint8_t *)codes + i % 4 * QBYTES);
    const uint8x16_t c = i < 4 ? vandq_u8(both, vdupq_n_u8(15)) : vshrq_n_u8(both, 4);
    const int8x16_t factor = vdupq_n_s8((int8_t)u[i / 2 * mm_gemv_super]);
    return vmulq_s8(vsubq_s8(vreinterpretq_s8_u8(c), vdupq_n_s8(8)), factor);
}

// Two products of at most 127 * 127 fit 16 bits.
MM_VINLINE ivec dot_part(ivec sums, part w, qvec x, enum mm_dtype type) {
    (void)type;
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sums, w, x);
#else
    const int16x8_t pairs = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpadalq_s16(sums, vmlal_high_s8(pairs, w, x));
#endif
}

MM_VINLINE ivec dot_first(part w, qvec x, enum mm_dtype type) {
    return dot_part(vdupq_n_s32(0), w, x, type);
}

MM_VINLINE vec sums_float(ivec sums) {
    return vcvtq_f32_s32(sums);
}

MM_VINLINE void halves(float *f, const uint16_t *h) {
    for (int i = 0; i < mm_gemv_super; i += LANES)
        vst1q_f32(f + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h + i))));
}

MM_VINLINE void code_some(int8_t *codes, const float *x, float by, int n) {
    float some[LANES] = {0};
    memcpy(some, x, (size_t)n * sizeof *x);
    int32_t c[LANES];
    vst1q_s32(c, vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(some), by)));
    for (int i = 0; i < n; i++)
        codes[i] = (int8_t)c[i];
}

#include "ops/cpu/kernel_gemv_quant.h"
