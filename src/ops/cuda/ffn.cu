// The feed-forward half of a block, made of the other operations.
#include "ops/cuda/cuda.h"

#include <stdlib.h>

extern "C" {
#include "ops/ffn_by_ops.h"
}

// Memory where the operands are: the device's, or under the mirror the host's.
void mm_ffn_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                     struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    if (h.shape[0] == 0) return;
    const int64_t n = mm_ffn_by_ops_elements(h.shape[0], mm_view_cols(y), w1.shape[0]);
    const size_t bytes = (size_t)n * mm_dtype_bytes(h.dtype);
    const bool mirror = mm_cuda_of(be)->mirror;
    void *room = mirror ? calloc(1, bytes) : mm_cuda_scratch(be, mm_cuda_slot_ffn, bytes);
    if (!room) {
        mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a feed-forward layer");
        return;
    }
    mm_ffn_by_ops(be, y, x, h, w1, w3, w2, room);
    if (mirror) free(room);
}
