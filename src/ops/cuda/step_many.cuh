// A token step of many sequences: of more than MMAMBA_CUDA_FEW, by itself four on Hopper and eight,
// which one walk of step_token.cu takes, elsewhere.
#ifndef MM_OPS_CUDA_STEP_MANY_CUH
#define MM_OPS_CUDA_STEP_MANY_CUH

#include "ops/cuda/cuda.h"

// Of quantized weights so many sequences at a time.
enum { mm_step_many_codes = 128 };
// Whether all matrices are bf16, or quantized where this device multiplies codes of many rows
// (Hopper), and mm_step_fits.
bool mm_step_many_fits(struct mm_backend *be, const struct mm_step *s);
// Products of all rows at once, and kernels over all rows for what lies between. The number of rows
// is padded to the next power of two, 16 at least, and a product adds up in an order that depends
// on that number and its sizes only: so a sequence gets the same bits whoever is beside it, as long
// as that power stays the same. Between two of them, and against steps of few sequences, it differs
// by roundings (f32 sums in another order), which next to quantized weights can tip codes over.
// More than mm_step_many_codes of those are padded to as many each time.
void mm_step_many(struct mm_backend *be, const struct mm_step *s);
void mm_step_many_free(struct mm_backend *be);

#endif
