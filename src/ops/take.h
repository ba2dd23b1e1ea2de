// Dense views on memory taken from an arena. On a dry arena they have no data, only shapes.
#ifndef MM_OPS_TAKE_H
#define MM_OPS_TAKE_H

#include "base/arena.h"
#include "ops/ops.h"

static inline struct mm_view mm_take(struct mm_arena *a, enum mm_dtype t, int64_t n) {
    return mm_view1(mm_arena_take(a, (size_t)n * mm_dtype_bytes(t)), t, n);
}
static inline struct mm_view mm_take1(struct mm_arena *a, int64_t n) {
    return mm_take(a, mm_dtype_f32, n);
}
// (rows, cols) and (rows, b, c) of a dtype that the caller chooses: activations
static inline struct mm_view mm_take_as2(struct mm_arena *a, enum mm_dtype t, int64_t rows,
                                         int64_t cols) {
    return mm_view2(mm_take(a, t, rows * cols).data, t, rows, cols);
}
static inline struct mm_view mm_take_as3(struct mm_arena *a, enum mm_dtype t, int64_t rows,
                                         int64_t b, int64_t c) {
    return mm_view3(mm_take(a, t, rows * b * c).data, t, rows, b, c);
}
static inline struct mm_view mm_take2(struct mm_arena *a, int64_t rows, int64_t cols) {
    return mm_view2(mm_take1(a, rows * cols).data, mm_dtype_f32, rows, cols);
}
static inline struct mm_view mm_take3(struct mm_arena *a, int64_t rows, int64_t b, int64_t c) {
    return mm_view3(mm_take1(a, rows * b * c).data, mm_dtype_f32, rows, b, c);
}
static inline struct mm_view mm_take4(struct mm_arena *a, int64_t n, int64_t b, int64_t c,
                                      int64_t d) {
    return mm_view4(mm_take1(a, n * b * c * d).data, mm_dtype_f32, n, b, c, d);
}

#endif
