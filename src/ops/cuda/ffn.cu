// The feed-forward half of a block: three products, of which the last is added to x, and silu(a) b
// between them. Some rows at a time, so that memory does not grow with T: products of 2048 rows
// take a tenth longer a row on an H100, of 8192 no less.
#include "ops/cuda/cuda.h"

enum { ffn_rows = 4096 };

void mm_ffn_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                     struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    const int64_t T = h.shape[0], F = w1.shape[0];
    const int64_t most = T < ffn_rows ? T : ffn_rows;
    if (T == 0) return;
    const size_t bytes = ((size_t)(most * F) * mm_dtype_bytes(h.dtype) + 255) / 256 * 256;
    char *room = (char *)mm_cuda_scratch(be, mm_cuda_slot_ffn, 2 * bytes);
    for (int64_t t = 0; t < T && room; t += most) {
        const int64_t n = T - t < most ? T - t : most;
        const struct mm_view a = mm_view2(room, h.dtype, n, F),
                             b = mm_view2(room + bytes, h.dtype, n, F),
                             some = mm_view_rows(h, t, n);
        mm_linear_fwd_cuda(be, a, some, w1, MM_NONE);
        mm_linear_fwd_cuda(be, b, some, w3, MM_NONE);
        mm_swiglu_fwd_cuda(be, a, a, b);
        mm_linear_add_fwd_cuda(be, mm_view_rows(y, t, n), a, w2, mm_view_rows(x, t, n));
    }
}
