// y (T, N) = x (T, K) w (N, K)^T + bias for the few rows of a decoding step, T = 1..4: a walk
// through the weight at the speed of memory.
#ifndef MM_OPS_CPU_GEMV_H
#define MM_OPS_CPU_GEMV_H

#include "ops/cpu/cpu.h"

// bias (N) f32 or NULL. The weight is widened in registers; x stays f32.
void mm_gemv(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
             const float *bias);

#endif
