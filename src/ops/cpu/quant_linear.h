// y (T, N) = x (T, K) w (N, K)^T + bias for quantized w, as base/quant.h defines the product.
#ifndef MM_OPS_CPU_QUANT_LINEAR_H
#define MM_OPS_CPU_QUANT_LINEAR_H

#include "ops/cpu/cpu.h"

// bias (N) f32 or NULL. Any T.
void mm_quant_linear(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                     const float *bias);
// y += (silu(h w1^T) * (h w3^T)) w2^T. More than a few rows; x86-64 only.
void mm_quant_ffn(struct mm_backend *be, struct mm_view y, struct mm_view h, struct mm_view w1,
                  struct mm_view w3, struct mm_view w2);

#endif
