// Dense products on AArch64, all our own. Both operands are first laid out in panels of 8 rows of A
// and 12 columns of B, cut along k; then tiles of 8 x 12 of C are summed in registers. The order of
// every sum is fixed by k alone.
//
// A level multiplies what it can: floats (every AArch64), bf16 where there is bfmmla, int8 by smmla
// or sdot; without either, int8 codes are multiplied as floats, in which their sums over a block of
// 128 are exact too.
#ifndef MM_OPS_CPU_PRODUCT_NEON_H
#define MM_OPS_CPU_PRODUCT_NEON_H

#include "ops/cpu/product.h"

enum { mm_neon_rows = 8, mm_neon_cols = 12 };

// C (8, 12) = A B, or C += A B, over k of two panels.
typedef void mm_neon_tile_fn(const void *a, const void *b, int64_t k, float *c, int64_t ldc,
                             bool add);
mm_neon_tile_fn mm_neon_tile_bf16;  // product_neonbf16.c; k a multiple of 4

// C (8, 12) += sum over n blocks of 128 k of (scale of the row) (scale of the column) A B, with
// panels as quant_linear_neon.c lays them out for each.
typedef void mm_neon_blocks_fn(const char *a, const char *b, int64_t n, float *c, int64_t ldc);
mm_neon_blocks_fn mm_neon_blocks_f32;   // product_neon.c
mm_neon_blocks_fn mm_neon_blocks_dot;   // product_neondot.c
mm_neon_blocks_fn mm_neon_blocks_i8mm;  // product_neonbf16.c

#endif
