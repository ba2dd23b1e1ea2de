// Matrix-vector products with float weights for AArch64.
#include <arm_neon.h>
#include "ops/cpu/gemv.h"
#include "ops/cpu/vmath.h"

#define FLOATS mm_gemv_floats_neon
#define LANES 4
#define STREAMS(t) ((t) <= 6 ? 4 : 3)
typedef float32x4_t vec;

MM_VINLINE float add_lanes(vec v) {
    return vaddvq_f32(v);
}

MM_VINLINE vec load_x(const float *x) {
    return vld1q_f32(x);
}

MM_VINLINE vec load_x_some(const float *x, int n) {
    float some[LANES] = {0};
    memcpy(some, x, (size_t)n * sizeof *x);
    return vld1q_f32(some);
}

MM_VINLINE vec load_w(const char *w, int64_t at, enum mm_dtype type) {
    if (type == mm_dtype_f32) return vld1q_f32((const float *)w + at);
    const uint16x4_t h = vld1_u16((const uint16_t *)w + at);
    if (type == mm_dtype_f16) return vcvt_f32_f16(vreinterpret_f16_u16(h));
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}

MM_VINLINE vec load_w_some(const char *w, int64_t at, enum mm_dtype type, int n) {
    const size_t size = type == mm_dtype_f32 ? 4 : 2;
    char some[LANES * 4] = {0};
    memcpy(some, w + (size_t)at * size, (size_t)n * size);
    return load_w(some, 0, type);
}

#include "ops/cpu/kernel_gemv_floats.h"
