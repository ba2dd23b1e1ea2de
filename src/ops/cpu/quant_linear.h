// y (T, N) = x (T, K) w (N, K)^T + bias for quantized w, as base/quant.h defines the product.
#ifndef MM_OPS_CPU_QUANT_LINEAR_H
#define MM_OPS_CPU_QUANT_LINEAR_H

#include "ops/cpu/cpu.h"

// bias (N) f32 or NULL. Any T.
void mm_quant_linear(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                     const float *bias);

#endif
