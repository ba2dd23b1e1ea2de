// Element types, and half precision (IEEE 754 binary16) by integer arithmetic: the same bits on
// every machine, whatever it has in hardware.
#include "base/dtype.h"

#include <assert.h>
#include <stdbool.h>

static const struct {
    const char *name, *st_name;
} dtypes[mm_dtype_count] = {
    [mm_dtype_f32] = {"f32", "F32"}, [mm_dtype_bf16] = {"bf16", "BF16"},
    [mm_dtype_f16] = {"f16", "F16"}, [mm_dtype_i32] = {"i32", "I32"},
    [mm_dtype_i64] = {"i64", "I64"}, [mm_dtype_u8] = {"u8", "U8"},
};

const char *mm_dtype_name(enum mm_dtype dtype) {
    if (dtype == mm_dtype_q8) return "q8";
    if (dtype == mm_dtype_q4) return "q4";
    assert((unsigned)dtype < mm_dtype_count);
    return dtypes[dtype].name;
}

const char *mm_dtype_st_name(enum mm_dtype dtype) {
    assert((unsigned)dtype < mm_dtype_count);
    return dtypes[dtype].st_name;
}

int mm_dtype_parse(const char *text) {
    for (int i = 0; i < mm_dtype_count; i++) {
        if (!strcmp(text, dtypes[i].name) || !strcmp(text, dtypes[i].st_name)) {
            return i;
        }
    }
    return -1;
}

static inline float bits_to_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t f32_to_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float mm_f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t u = (uint32_t)(h & 0x7fffu) << 13;  // exponent and mantissa in f32's places
    const uint32_t exponent = u & 0x0f800000u;
    u += 112u << 23;  // bias 127 instead of 15
    if (exponent == 0x0f800000u) {
        u += 112u << 23;  // infinity or NaN: f32's largest exponent
    } else if (exponent == 0) {
        // Zero or subnormal, m * 2^-24: as 2^-14 * (1 + m / 1024) less 2^-14, which is exact.
        u = f32_to_bits(bits_to_f32(u + (1u << 23)) - bits_to_f32(113u << 23));
    }
    return bits_to_f32(u | sign);
}

uint16_t mm_f32_to_f16(float f) {
    uint32_t u = f32_to_bits(f);
    const uint32_t sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) {  // NaN: quiet, the payload's top bits kept
        return (uint16_t)(sign | 0x7e00u | ((u >> 13) & 0x1ffu));
    }
    if (u >= 0x477ff000u) {  // 65520, halfway between the largest f16 and 2^16, and above
        return (uint16_t)(sign | 0x7c00u);
    }
    if (u < 0x38800000u) {
        // Below 2^-14: adding 0.5 puts the unit of f16's subnormals, 2^-24, at the last bit of
        // the sum, so that the addition itself rounds to nearest even.
        return (uint16_t)(sign | (f32_to_bits(bits_to_f32(u) + 0.5f) - f32_to_bits(0.5f)));
    }
    u += 0xfffu + ((u >> 13) & 1u);  // nearest, ties to even; a carry moves the exponent up
    return (uint16_t)(sign | ((u - (112u << 23)) >> 13));
}

void mm_to_f32(float *dst, const void *src, enum mm_dtype dtype, int64_t n) {
    const uint16_t *half = src;
    switch (dtype) {
        case mm_dtype_f32:
            if (n > 0) memcpy(dst, src, (size_t)n * sizeof *dst);
            return;
        case mm_dtype_bf16:
            for (int64_t i = 0; i < n; i++) {
                dst[i] = mm_bf16_to_f32(half[i]);
            }
            return;
        case mm_dtype_f16:
            for (int64_t i = 0; i < n; i++) {
                dst[i] = mm_f16_to_f32(half[i]);
            }
            return;
        default:
            assert(false && "mm_to_f32 takes float types");
    }
}

void mm_from_f32(void *dst, enum mm_dtype dtype, const float *src, int64_t n) {
    uint16_t *half = dst;
    switch (dtype) {
        case mm_dtype_f32:
            if (n > 0) memcpy(dst, src, (size_t)n * sizeof *src);
            return;
        case mm_dtype_bf16:
            for (int64_t i = 0; i < n; i++) {
                half[i] = mm_f32_to_bf16(src[i]);
            }
            return;
        case mm_dtype_f16:
            for (int64_t i = 0; i < n; i++) {
                half[i] = mm_f32_to_f16(src[i]);
            }
            return;
        default:
            assert(false && "mm_from_f32 takes float types");
    }
}
