// Products of codes: what the layout of both operands (quant_linear_x86.c) and the multiplications
// of each instruction set know of each other. base/quant.h says what the product is.
#ifndef MM_OPS_CPU_TILES_QUANT_H
#define MM_OPS_CPU_TILES_QUANT_H

#include "ops/cpu/tiles.h"

// Behind the tiles of a panel of B lie, for each block of 128 k, the scales of its 32 columns.
struct mm_tiles_quant {
    const float *r;        // (blocks, ldr) scales of A
    const int32_t *start;  // (blocks, ldr) what the sums of a row begin with, where B is unsigned
    int64_t ldr;           // rows of A, rounded up to panels
};

#endif
