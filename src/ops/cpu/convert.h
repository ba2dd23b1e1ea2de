// Conversions between float types at the speed of memory, by instruction set.
#ifndef MM_OPS_CPU_CONVERT_H
#define MM_OPS_CPU_CONVERT_H

#include "ops/cpu/cpu.h"

// Round to nearest even. On x86 from avx512bf16 on, denormals become zero.
void mm_convert_to_bf16(enum mm_isa isa, uint16_t *dst, const float *src, int64_t n);
// The same, and denormals stay.
void mm_convert_keep_bf16(enum mm_isa isa, uint16_t *dst, const float *src, int64_t n);
// The value after a trip through bf16. dst may be src.
void mm_convert_round_bf16(float *dst, const float *src, int64_t n);
// n elements of f32, bf16 or f16.
void mm_convert_to_f32(enum mm_isa isa, float *dst, const void *src, enum mm_dtype dtype,
                       int64_t n);

#endif
