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
// Bytes from p on in up to five dimensions, in boxes; strides of all but the first.
bool mm_boxes_of(CUtensorMap *map, const void *p, int n, const cuuint64_t *dims,
                 const cuuint64_t *strides, const cuuint32_t *box);

#endif
