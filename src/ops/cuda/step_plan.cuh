// A model as token steps see it, on the device, kept from token to token.
#ifndef MM_OPS_CUDA_STEP_PLAN_CUH
#define MM_OPS_CUDA_STEP_PLAN_CUH

#include "ops/cuda/step.cuh"

struct mm_step_plan {
    // what it was made of
    struct mm_step_block *blocks;
    int64_t n_blocks, l2_before;
    struct mm_view norm, output;
    float eps;
    struct mm_step_device device;
    char *work;  // on the device
    size_t bytes;
    int cols;  // sequences of a walk, at most; 0: the kernel cannot do this model
    int n_kinds, rounds, local_blocks;
    bool exact, exact_last;  // something in a quantized model is not quantized; last projections
    enum mm_dtype weights;   // as mm_step_launch wants it
    int warps;               // that multiply: what shared memory is cut for, with args.n
    unsigned meeting;        // the next
    struct mm_step_state *states;  // (blocks, cols) as they are on the device
    struct mm_step_args args;      // what does not change from token to token
};

// Whether the kernel can do it: types, alignment, sizes.
bool mm_step_fits(const struct mm_step *s);
// The plan of this model, made where it is another than last time. NULL: be->error says why.
struct mm_step_plan *mm_step_plan_of(struct mm_backend *be, const struct mm_step *s,
                                     const struct mm_step_device *device);
// Cuts shared memory for n <= cols sequences.
bool mm_step_plan_cut(struct mm_step_plan *p, int n);
void mm_step_plan_free(struct mm_backend *be);

#endif
