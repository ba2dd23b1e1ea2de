// Products of bf16 and int8 on the matrix tiles of the processor (AMX).
#ifndef MM_OPS_CPU_AMX_H
#define MM_OPS_CPU_AMX_H

#include "ops/cpu/tiles.h"

// Whether the processor has tiles of both types and the kernel lets this process use them (it is
// asked).
bool mm_amx_available(void);

// Around the work of a thread.
void mm_amx_begin(void);
void mm_amx_end(void);

// C = A B of bf16. No room.
void mm_amx_bf16_multiply(const struct mm_tiles *p, const struct mm_tiles_part *part);

// C = sum over blocks of 128 k of r s (A B) of int8: p->with is a struct mm_tiles_quant, and each
// panel of B ends with its scales.
enum { mm_amx_int8_rows = 128, mm_amx_int8_room = 2 * mm_amx_int8_rows * mm_panel * 4 + 4096 };
void mm_amx_int8_multiply(const struct mm_tiles *p, const struct mm_tiles_part *part);

#endif
