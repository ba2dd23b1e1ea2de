// What the bodies of the matrix-vector kernels share (kernel_gemv_floats.h, kernel_gemv_quant.h):
// the walk down a range of weight rows. A row is one stream; `streams` of them, each walking down
// rows of its own, go side by side, and each is prefetched ahead of itself, across the ends of
// rows.

enum { ahead = 4096, line = 64, most_streams = 4 };
#define INLINE static inline __attribute__((always_inline))

// Rows w[s] of `streams` streams times t_dim rows of x into y[t * ldy + s * apart]. far: what is
// ahead is brought to the second cache only.
typedef void side_by_side(float *y, int64_t ldy, int64_t apart, const struct mm_gemv_x *x,
                          const char *const *w, int streams, bool far, int t_dim,
                          enum mm_dtype type);

// The range is cut into `streams` equal runs, and what is left over.
INLINE void walk(float *y, int64_t ldy, const struct mm_gemv_x *x, const char *w, int64_t row_bytes,
                 int64_t begin, int64_t end, int streams, bool far, int t_dim, enum mm_dtype type,
                 side_by_side *rows) {
    const int64_t run = (end - begin) / streams;
    const char *at[most_streams] = {NULL};
    for (int s = 0; s < streams; s++)
        at[s] = w + (begin + s * run) * row_bytes;
    for (int64_t i = 0; i < run; i++) {
        rows(y + i, ldy, run, x, at, streams, far, t_dim, type);
        for (int s = 0; s < streams; s++)
            at[s] += row_bytes;
    }
    for (int64_t i = run * streams; i < end - begin; i++) {
        at[0] = w + (begin + i) * row_bytes;
        rows(y + i, ldy, 0, x, at, 1, far, t_dim, type);
    }
}

INLINE void bring(const char *p, bool far) {
    if (far) {
        __builtin_prefetch(p, 0, 2);
    } else {
        __builtin_prefetch(p, 0, 3);
    }
}

#ifndef AMD_STREAMS
#define AMD_STREAMS(type, t, small) STREAMS(t)
#define AMD_FAR(type, small) false
#endif

// A function for each T, so that the loops unroll.
#define ROWS(type, t)                                                                          \
    static void rows_##type##_##t(float *y, int64_t ldy, const struct mm_gemv_x *x,            \
                                  struct mm_view w, int64_t begin, int64_t end) {              \
        const int64_t bytes = row_bytes_of(w, mm_dtype_##type);                                \
        const enum mm_gemv_way way = mm_gemv_way_of(x->k);                                     \
        if (way == mm_gemv_usual) {                                                            \
            walk(y, ldy, x, w.data, bytes, begin, end, STREAMS(t), false, t, mm_dtype_##type,  \
                 rows_of_streams);                                                             \
        } else if (way == mm_gemv_amd_small) {                                                 \
            walk(y, ldy, x, w.data, bytes, begin, end, AMD_STREAMS(mm_dtype_##type, t, true),  \
                 AMD_FAR(mm_dtype_##type, true), t, mm_dtype_##type, rows_of_streams);         \
        } else {                                                                               \
            walk(y, ldy, x, w.data, bytes, begin, end, AMD_STREAMS(mm_dtype_##type, t, false), \
                 AMD_FAR(mm_dtype_##type, false), t, mm_dtype_##type, rows_of_streams);        \
        }                                                                                      \
    }
#define ROWS_OF(type) \
    ROWS(type, 1)     \
    ROWS(type, 2)     \
    ROWS(type, 3) ROWS(type, 4) ROWS(type, 5) ROWS(type, 6) ROWS(type, 7) ROWS(type, 8)
#define NAMES_OF(type)                                                                       \
    {                                                                                        \
        rows_##type##_1, rows_##type##_2, rows_##type##_3, rows_##type##_4, rows_##type##_5, \
            rows_##type##_6, rows_##type##_7, rows_##type##_8                                \
    }
