// The feed-forward half of a block, of the reference's own operations.
#include "ops/cpu/cpu.h"
#include "ops/ffn_by_ops.h"

void mm_ffn_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                    struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    enum { most = 512 };  // rows at a time
    const int64_t T = h.shape[0], n = T < most ? T : most;
    const size_t elements = (size_t)(n * (2 * w1.shape[0] + mm_view_cols(y)));
    void *room = mm_cpu_scratch(be, mm_scratch_ffn, elements * sizeof(float));
    if (room) mm_ffn_by_ops(be, y, x, h, w1, w3, w2, room, n);
}
