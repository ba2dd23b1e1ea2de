// The feed-forward half of a block made of the other operations of the same table, some rows at a
// time: the reference of it, and what the fast path does where it has no better one.
#include "ops/cpu/cpu.h"

enum { rows_most = 512 };  // at a time

void mm_ffn_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                    struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    const int64_t T = h.shape[0], D = mm_view_cols(y), F = w1.shape[0];
    const int64_t most = T < rows_most ? T : rows_most;
    float *room = mm_cpu_scratch(be, mm_scratch_ffn, (size_t)(most * (2 * F + D)) * sizeof *room);
    if (!room) return;
    for (int64_t t = 0; t < T; t += most) {
        const int64_t n = T - t < most ? T - t : most;
        const struct mm_view a = mm_view2(room, mm_dtype_f32, n, F),
                             b = mm_view2(room + most * F, mm_dtype_f32, n, F),
                             o = mm_view2(room + 2 * most * F, mm_dtype_f32, n, D),
                             some = mm_view_rows(h, t, n);
        be->ops->linear_fwd(be, a, some, w1, MM_NONE);
        be->ops->linear_fwd(be, b, some, w3, MM_NONE);
        be->ops->swiglu_fwd(be, a, a, b);
        be->ops->linear_fwd(be, o, a, w2, MM_NONE);
        be->ops->add(be, mm_view_rows(y, t, n), mm_view_rows(x, t, n), o);
    }
}
