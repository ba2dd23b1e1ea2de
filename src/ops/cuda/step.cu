// A token step, made of the other operations: a launch for each. One graph of them all is open.
#include "ops/cuda/cuda.h"

#include <stdlib.h>

extern "C" {
#include "ops/step_by_ops.h"
}

// Memory where the operands are: the device's, or under the mirror the host's.
void mm_decode_step_cuda(struct mm_backend *be, const struct mm_step *s) {
    const size_t floats = (size_t)mm_step_by_ops_floats(s) * sizeof(float),
                 at = (floats + 63) / 64 * 64;
    const bool mirror = mm_cuda_of(be)->mirror;
    char *room = mirror ? (char *)calloc(1, at + 64)
                        : (char *)mm_cuda_scratch(be, mm_cuda_slot_step, at + 64);
    if (!room) {
        mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
        return;
    }
    mm_step_by_ops(be, s, (float *)room, (int32_t *)(room + at));
    if (mirror) free(room);
}
