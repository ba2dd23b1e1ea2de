// What attention's kernels on Hopper share: whether they can run, and maps of operands for the copy
// engine.
#ifndef MM_OPS_CUDA_ATTENTION_HOPPER_CUH
#define MM_OPS_CUDA_ATTENTION_HOPPER_CUH

#include "ops/cuda/attention.cuh"
#include "ops/cuda/hopper.cuh"

// Whether the code for sm_90a was loaded: asked once.
bool mm_hopper_here(struct mm_backend *be);
// x (T, heads, P) in boxes of `rows` rows and 64 columns of a head.
bool mm_tile_map_of(CUtensorMap *map, struct mm_view x, int rows);

#endif
