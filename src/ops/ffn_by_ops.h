// The feed-forward half of a block made of a backend's other operations, some rows at a time: the
// reference of it, and what a backend does where it has no better one. In a header, because
// plug-ins do not link the program.
#ifndef MM_OPS_FFN_BY_OPS_H
#define MM_OPS_FFN_BY_OPS_H

#include "ops/ops.h"

// `room` takes n (2 F + D) elements of the type of h: n rows at a time.
static inline void mm_ffn_by_ops(struct mm_backend *be, struct mm_view y, struct mm_view x,
                                 struct mm_view h, struct mm_view w1, struct mm_view w3,
                                 struct mm_view w2, void *room, int64_t n) {
    const int64_t T = h.shape[0], D = mm_view_cols(y), F = w1.shape[0];
    const size_t each = mm_dtype_bytes(h.dtype);
    for (int64_t t = 0; t < T; t += n) {
        const int64_t rows = T - t < n ? T - t : n;
        const struct mm_view a = mm_view2(room, h.dtype, rows, F);
        const struct mm_view b = mm_view2((char *)room + (size_t)(n * F) * each, h.dtype, rows, F);
        const struct mm_view o =
            mm_view2((char *)room + (size_t)(2 * n * F) * each, h.dtype, rows, D);
        const struct mm_view some = mm_view_rows(h, t, rows);
        be->ops->linear_fwd(be, a, some, w1, MM_NONE);
        be->ops->linear_fwd(be, b, some, w3, MM_NONE);
        be->ops->swiglu_fwd(be, a, a, b);
        be->ops->linear_fwd(be, o, a, w2, MM_NONE);
        be->ops->add(be, mm_view_rows(y, t, rows), mm_view_rows(x, t, rows), o);
    }
}

#endif
