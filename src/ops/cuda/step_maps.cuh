// What the copy engine of Hopper knows of a model's matrices.
#ifndef MM_OPS_CUDA_STEP_MAPS_CUH
#define MM_OPS_CUDA_STEP_MAPS_CUH

#include "ops/cuda/step.cuh"

// Bytes that the maps of so many blocks and the output take.
size_t mm_step_maps_bytes(int n_layers);
// Describes all matrices, in `room` on the device, and says so in a->maps; once more as groups of
// warps take them, behind those, in a->group_maps. Where the card has no such engine, or there is a
// matrix that it cannot copy, or groups cannot share out, there are none. `weights`: of the kernel.
// False: be->error says why.
bool mm_step_maps_make(struct mm_backend *be, struct mm_step_args *a, char *room, int weights,
                       const struct mm_step_model *model, const struct mm_step_layer *layers);

#endif
