// The feed-forward half of a block: three products, of which the last is added to x, and silu(a) b
// between them. Some rows at a time, so that memory does not grow with T. Of many rows the first
// two products make half of the columns at a time, for memory's sake as well. Tiles of a product
// have 128 rows and 256 columns and come in pairs of rows, so 64 rows for each multiprocessor and
// widths of 2048 and 4096 fill all of them evenly; half as many rows do not.
#include "ops/cuda/cuda.h"

enum { column_step = 256 };

void mm_ffn_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                     struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    const int64_t T = h.shape[0], F = w1.shape[0], many = 64 * (int64_t)mm_cuda_of(be)->sms;
    const int64_t rows = T < many ? T : many;
    const int64_t half = (F / 2 + column_step - 1) / column_step * column_step;
    const int64_t cols = rows > many / 2 ? half : F;
    if (T == 0) return;
    const size_t each = mm_dtype_bytes(h.dtype);
    const size_t bytes = ((size_t)(rows * F) * each + 255) / 256 * 256;
    char *room =
        (char *)mm_cuda_scratch(be, mm_cuda_slot_ffn, bytes + (size_t)(rows * cols) * each);
    for (int64_t t = 0; t < T && room; t += rows) {
        const int64_t n = T - t < rows ? T - t : rows;
        const struct mm_view s = mm_view2(room, h.dtype, n, F), some = mm_view_rows(h, t, n);
        for (int64_t c = 0; c < F; c += cols) {
            const int64_t m = F - c < cols ? F - c : cols;
            const struct mm_view a = mm_view_cut(s, c, m),
                                 b = mm_view2(room + bytes, h.dtype, n, m);
            mm_linear_fwd_cuda(be, a, some, mm_view_rows(w1, c, m), MM_NONE);
            mm_linear_fwd_cuda(be, b, some, mm_view_rows(w3, c, m), MM_NONE);
            mm_swiglu_fwd_cuda(be, a, a, b);
        }
        mm_linear_add_fwd_cuda(be, mm_view_rows(y, t, n), s, w2, mm_view_rows(x, t, n));
    }
}
