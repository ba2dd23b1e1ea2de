// Body of the matrix-vector kernels with float weights, widened in registers; x stays f32. The
// including file gives
//   LANES, vec                  floats of a vector, and the vector
//   STREAMS(t)                  weight rows that go side by side with t rows of x, at most 4
//   AMD_STREAMS(type, t, small) the same on AMD's processors; small: x leaves room in the first
//                               cache
//   AMD_FAR(type, small)        and whether weights are brought to the second cache only; both
//                               may be left out
//   add_lanes(v)                the sum of a vector
//   load_w(w, at, type)         LANES weights of a float type as f32
//   load_w_some(w, at, type, n) n < LANES of them, then zeros
//   load_x(x)                   LANES floats
//   load_x_some(x, n)           n < LANES floats, then zeros
//   FLOATS                      the name of the table
#include "ops/cpu/kernel_gemv.h"

INLINE void rows_of_streams(float *y, int64_t ldy, int64_t apart, const struct mm_gemv_x *x,
                            const char *const *w, int streams, bool far, int t_dim,
                            enum mm_dtype type) {
    vec sum[most_streams][mm_gemv_most];
    for (int s = 0; s < streams; s++) {
        for (int t = 0; t < t_dim; t++)
            sum[s][t] = (vec){0};
    }
    const int size = type == mm_dtype_f32 ? 4 : 2;
    const int64_t k_dim = x->k, whole = k_dim / LANES * LANES;
    const float *xs = x->x;
    const int64_t ldx = x->ld;
    // a cache line at a time, so that there is one prefetch for each
    const int step = line / size / LANES;
    int64_t k = 0;
    for (; k + step * LANES <= whole; k += step * LANES) {
        for (int s = 0; s < streams; s++)
            bring(w[s] + k * size + ahead, far);
        for (int i = 0; i < step; i++) {
            const int64_t at = k + i * LANES;
            vec wv[most_streams];
            for (int s = 0; s < streams; s++)
                wv[s] = load_w(w[s], at, type);
            for (int t = 0; t < t_dim; t++) {
                const vec xv = load_x(xs + t * ldx + at);
                for (int s = 0; s < streams; s++)
                    sum[s][t] += wv[s] * xv;
            }
        }
    }
    for (; k < whole; k += LANES) {
        for (int s = 0; s < streams; s++) {
            const vec wv = load_w(w[s], k, type);
            for (int t = 0; t < t_dim; t++)
                sum[s][t] += wv * load_x(xs + t * ldx + k);
        }
    }
    if (k < k_dim) {
        const int n = (int)(k_dim - k);
        for (int s = 0; s < streams; s++) {
            const vec wv = load_w_some(w[s], k, type, n);
            for (int t = 0; t < t_dim; t++)
                sum[s][t] += wv * load_x_some(xs + t * ldx + k, n);
        }
    }
    for (int s = 0; s < streams; s++) {
        for (int t = 0; t < t_dim; t++)
            y[t * ldy + s * apart] = add_lanes(sum[s][t]);
    }
}

INLINE int64_t row_bytes_of(struct mm_view w, enum mm_dtype type) {
    return w.ld * (type == mm_dtype_f32 ? 4 : 2);
}

ROWS_OF(f32)
ROWS_OF(bf16)
ROWS_OF(f16)

const struct mm_gemv_floats FLOATS = {.rows = {NAMES_OF(f32), NAMES_OF(bf16), NAMES_OF(f16)}};
