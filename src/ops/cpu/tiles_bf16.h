// Products of bf16 matrices on tiles: AMX, and AVX-512 with BF16.
#ifndef MM_OPS_CPU_TILES_BF16_H
#define MM_OPS_CPU_TILES_BF16_H

#include "ops/cpu/product.h"

// Both sides f32 or bf16; f32 is rounded on the way into the tiles. The order of every sum is fixed
// by k alone. k >= 1. Takes scratch c and d.
void mm_tiles_bf16_product(struct mm_backend *be, const struct mm_dense *d);

// Two products and a third one of silu(first) * second, see mm_tiles_ffn. Of `gate` and `up` c is
// not looked at, of `down` a.
void mm_tiles_bf16_ffn(struct mm_backend *be, const struct mm_dense *gate,
                       const struct mm_dense *up, const struct mm_dense *down);

#endif
