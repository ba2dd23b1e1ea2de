// What operations take: views of tensors.
#ifndef MM_OPS_VIEW_H
#define MM_OPS_VIEW_H

#include <stdbool.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/quant.h"

// A tensor somewhere in a backend's memory. Axis 0 counts rows, `ld` elements apart; the inner
// axes are dense. A view borrows; it never owns.
struct mm_view {
    void *data;
    int64_t shape[4];  // unused axes are 1
    int64_t ld;        // elements from one row to the next, >= shape[1] * shape[2] * shape[3]
    int n_axes;
    enum mm_dtype dtype;
};

static inline struct mm_view mm_view4(void *data, enum mm_dtype t, int64_t a, int64_t b, int64_t c,
                                      int64_t d) {
    return (struct mm_view){data, {a, b, c, d}, b * c * d, 4, t};
}
static inline struct mm_view mm_view3(void *data, enum mm_dtype t, int64_t a, int64_t b,
                                      int64_t c) {
    return (struct mm_view){data, {a, b, c, 1}, b * c, 3, t};
}
static inline struct mm_view mm_view2(void *data, enum mm_dtype t, int64_t a, int64_t b) {
    return (struct mm_view){data, {a, b, 1, 1}, b, 2, t};
}
static inline struct mm_view mm_view1(void *data, enum mm_dtype t, int64_t a) {
    return (struct mm_view){data, {a, 1, 1, 1}, 1, 1, t};
}
#define MM_NONE ((struct mm_view){0})
static inline int64_t mm_view_cols(struct mm_view v) {  // elements of a row
    return v.shape[1] * v.shape[2] * v.shape[3];
}
static inline int64_t mm_view_count(struct mm_view v) {  // elements of the view
    return v.shape[0] * mm_view_cols(v);
}
// The place of an element; of a row of quantized weights only (col = 0) the beginning.
static inline void *mm_view_at(struct mm_view v, int64_t row, int64_t col) {
    if (mm_dtype_quantized(v.dtype)) {
        return (char *)v.data + row * mm_quant_row_bytes(v.dtype, mm_view_cols(v));
    }
    return (char *)v.data + (size_t)(row * v.ld + col) * mm_dtype_bytes(v.dtype);
}
// Bytes of a dense view.
static inline size_t mm_view_bytes(struct mm_view v) {
    if (mm_dtype_quantized(v.dtype)) {
        return (size_t)(v.shape[0] * mm_quant_row_bytes(v.dtype, mm_view_cols(v)));
    }
    return (size_t)mm_view_count(v) * mm_dtype_bytes(v.dtype);
}
// Rows [begin, begin + n); the data pointer of a NULL view (dry run) stays NULL.
static inline struct mm_view mm_view_rows(struct mm_view v, int64_t begin, int64_t n) {
    if (v.data) v.data = mm_view_at(v, begin, 0);
    v.shape[0] = n;
    return v;
}
// Columns [begin, begin + n) of a 2-axis view, as a 2-axis view with the same ld.
static inline struct mm_view mm_view_cut(struct mm_view v, int64_t begin, int64_t n) {
    if (v.data) v.data = mm_view_at(v, 0, begin);
    v.shape[1] = n;
    return v;
}
// A 2-axis view of (rows, b * c) seen as (rows, b, c), ld kept.
static inline struct mm_view mm_view_split(struct mm_view v, int64_t b, int64_t c) {
    v.shape[1] = b, v.shape[2] = c, v.shape[3] = 1, v.n_axes = 3;
    return v;
}
// Any view as (rows, everything else), ld kept.
static inline struct mm_view mm_view_flat(struct mm_view v) {
    v.shape[1] = mm_view_cols(v), v.shape[2] = v.shape[3] = 1, v.n_axes = 2;
    return v;
}

#endif
