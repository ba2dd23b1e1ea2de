// The feed-forward half of a block, of the reference's own operations.
#include "ops/cpu/cpu.h"
#include "ops/ffn_by_ops.h"

void mm_ffn_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                    struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    const int64_t n = mm_ffn_by_ops_elements(h.shape[0], mm_view_cols(y), w1.shape[0]);
    void *room = mm_cpu_scratch(be, mm_scratch_ffn, (size_t)n * sizeof(float));
    if (room) mm_ffn_by_ops(be, y, x, h, w1, w3, w2, room);
}
