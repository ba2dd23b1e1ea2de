// Rounding to bf16 as convert_x86.c and convert_arm.c both compile it.
#ifndef MM_OPS_CPU_CONVERT_BITS_H
#define MM_OPS_CPU_CONVERT_BITS_H

#include <stdint.h>
#include <string.h>

// Round to nearest even without a branch, so that loops over it vectorise; NaN stays NaN.
static inline __attribute__((always_inline)) uint32_t mm_round_bits(uint32_t u) {
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const uint32_t quiet = (u >> 16) | 0x40u;
    return (u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
}

static inline __attribute__((always_inline)) void mm_round_to_bf16(uint16_t *restrict dst,
                                                                   const float *restrict src,
                                                                   int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &src[i], sizeof u);
        dst[i] = (uint16_t)mm_round_bits(u);
    }
}

// dst may be src.
static inline __attribute__((always_inline)) void mm_round_by_bf16(float *dst, const float *src,
                                                                   int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &src[i], sizeof u);
        u = mm_round_bits(u) << 16;
        memcpy(&dst[i], &u, sizeof u);
    }
}

#endif
