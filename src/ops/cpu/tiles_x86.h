// The multiplications of tiles on vectors: tiles_avx2.c, tiles_avx512.c and tiles_avx512bf16.c
// compile kernel_tiles.h.
#ifndef MM_OPS_CPU_TILES_X86_H
#define MM_OPS_CPU_TILES_X86_H

#include "ops/cpu/tiles.h"

typedef void mm_tiles_multiply_fn(const struct mm_tiles *p, const struct mm_tiles_part *part);

// C = A B of bf16. No room.
mm_tiles_multiply_fn mm_avx512_bf16_multiply;

// C = sum over blocks of 128 k of r s (A B) of codes: p->with is a struct mm_tiles_quant. No room.
// Codes of 8 bits, those of B larger by 128, which `start` makes good; or of 16.
mm_tiles_multiply_fn mm_vnni_int8_multiply, mm_avx512_int16_multiply, mm_avx2_int16_multiply;

#endif
