// Element types of tensors, and conversions of the two half-width floats.
#ifndef MM_BASE_DTYPE_H
#define MM_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "files are mapped and used as they are: mmamba runs on little-endian machines only");

enum mm_dtype {
    mm_dtype_f32,
    mm_dtype_bf16,
    mm_dtype_f16,
    mm_dtype_i32,
    mm_dtype_i64,
    mm_dtype_u8,
    mm_dtype_count,  // above: element types, as safetensors has them
    // Rows of quantized weights (base/quant.h): only a product takes them.
    mm_dtype_q8 = mm_dtype_count,
    mm_dtype_q4,
};

// Bytes of one element; 0 for q8 and q4, whose rows mm_quant_row_bytes measures. Inline: addressing
// calls it everywhere.
static inline size_t mm_dtype_bytes(enum mm_dtype dtype) {
    static const unsigned char bytes[] = {4, 2, 2, 4, 8, 1, 0, 0};
    return bytes[dtype];
}
const char *mm_dtype_name(enum mm_dtype dtype);  // "f32", "bf16", ..., "q4": as on the command line
const char *mm_dtype_st_name(enum mm_dtype dtype);  // "F32", "BF16", ... as in safetensors
int mm_dtype_parse(const char *text);               // either spelling; -1 when unknown

static inline float mm_bf16_to_f32(uint16_t h) {
    const uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

// Round to nearest, ties to even; NaN stays NaN.
static inline uint16_t mm_f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)((u >> 16) | 0x40u);
    }
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float mm_f16_to_f32(uint16_t h);
uint16_t mm_f32_to_f16(float f);  // round to nearest even; overflow gives infinity

// n elements of any float dtype to and from f32. Source and destination do not overlap.
void mm_to_f32(float *dst, const void *src, enum mm_dtype dtype, int64_t n);
void mm_from_f32(void *dst, enum mm_dtype dtype, const float *src, int64_t n);

#endif
