// Elements of views for the plain reference: any float type in, f32 between, one at a time.
#ifndef MM_OPS_CPU_REF_REF_H
#define MM_OPS_CPU_REF_REF_H

#include "ops/cpu/cpu.h"

static inline float ref_get(struct mm_view v, int64_t row, int64_t col) {
    const void *p = mm_view_at(v, row, col);
    if (v.dtype == mm_dtype_f32) return *(const float *)p;
    if (v.dtype == mm_dtype_bf16) return mm_bf16_to_f32(*(const uint16_t *)p);
    return mm_f16_to_f32(*(const uint16_t *)p);
}

static inline void ref_put(struct mm_view v, int64_t row, int64_t col, float x) {
    void *p = mm_view_at(v, row, col);
    if (v.dtype == mm_dtype_f32) {
        *(float *)p = x;
    } else if (v.dtype == mm_dtype_bf16) {
        *(uint16_t *)p = mm_f32_to_bf16(x);
    } else {
        *(uint16_t *)p = mm_f32_to_f16(x);
    }
}

static inline int32_t ref_int(struct mm_view v, int64_t row) {
    return *(const int32_t *)mm_view_at(v, row, 0);
}

// Products with a bf16 weight may round the other operand to bf16; the reference never does.
static inline float ref_round(float x, enum mm_dtype product) {
    return product == mm_dtype_bf16 ? mm_bf16_to_f32(mm_f32_to_bf16(x)) : x;
}

#endif
