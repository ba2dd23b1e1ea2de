// Conversions between float types on AArch64. Plain loops; what every AArch64 has is enough for the
// speed of memory, so the levels do not differ.
#include "ops/cpu/convert.h"
#include "ops/cpu/convert_bits.h"

void mm_convert_keep_bf16(enum mm_isa isa, uint16_t *dst, const float *src, int64_t n) {
    (void)isa;
    mm_round_to_bf16(dst, src, n);
}

void mm_convert_to_bf16(enum mm_isa isa, uint16_t *dst, const float *src, int64_t n) {
    (void)isa;
    mm_round_to_bf16(dst, src, n);
}

void mm_convert_round_bf16(float *dst, const float *src, int64_t n) {
    mm_round_by_bf16(dst, src, n);
}

static void bf16_to_f32(float *restrict dst, const uint16_t *restrict src, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        dst[i] = mm_bf16_to_f32(src[i]);
}

static void f16_to_f32(float *restrict dst, const __fp16 *restrict src, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        dst[i] = (float)src[i];
}

void mm_convert_to_f32(enum mm_isa isa, float *dst, const void *src, enum mm_dtype dtype,
                       int64_t n) {
    (void)isa;
    if (dtype == mm_dtype_f32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
    } else if (dtype == mm_dtype_f16) {
        f16_to_f32(dst, src, n);
    } else {
        bf16_to_f32(dst, src, n);
    }
}
