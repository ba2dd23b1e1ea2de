// How the reference of the mixer reads operands: one element at a time, whatever its type.
#ifndef MM_OPS_CPU_REF_MIXER_H
#define MM_OPS_CPU_REF_MIXER_H

#include "ops/ops.h"

// Element (row, col) of a view of any float type; 0 for an absent view.
static inline double mm_ref_get(struct mm_view v, int64_t row, int64_t col) {
    if (!v.data) return 0.0;
    if (v.dtype == mm_dtype_f32) return (double)((const float *)v.data)[row * v.ld + col];
    float f;
    mm_to_f32(&f, mm_view_at(v, row, col), v.dtype, 1);
    return (double)f;
}

// The same of an f32 view, writable.
static inline float *mm_ref_f32(struct mm_view v, int64_t row, int64_t col) {
    return (float *)v.data + row * v.ld + col;
}

static inline double mm_ref_sigmoid(double x) {
    return 1.0 / (1.0 + __builtin_exp(-x));
}

#endif
