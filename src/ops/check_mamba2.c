// The door of mm_mamba2_fwd, which no table holds: not every backend has it.
#include <stdio.h>
#include <stdlib.h>
#include "ops/ops.h"

#define WANT(condition)                                                                    \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "mmamba: bug: mm_mamba2_fwd: %s does not hold\n", #condition); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

static bool f32(struct mm_view v, int64_t rows, int64_t cols) {
    return v.dtype == mm_dtype_f32 && v.shape[0] == rows && mm_view_cols(v) == cols &&
           v.ld >= cols && (v.data || rows == 0);
}

static bool vector(struct mm_view v, int64_t n) {
    return f32(v, n, 1) && v.ld == 1;
}

bool mm_mamba2_fwd(struct mm_backend *be, struct mm_view o, const struct mm_mamba2 *m) {
    if (!be->mamba2_fwd) return false;
    if (!be->error.code) {
        const int64_t G = m->G, H = m->H, P = m->P, C = (2 * G + H) * P, T = o.shape[0];
        WANT(G > 0 && P > 0 && H > 0 && H % G == 0);
        WANT(f32(o, T, H * P) && f32(m->z, T, C + H * P + H));
        WANT(m->segs.n > 0 && m->segs.start[0] == 0 && m->segs.start[m->segs.n] == T);
        const int64_t K = mm_view_cols(m->conv_w);
        WANT(f32(m->conv_w, C, K) && m->conv_w.ld == K && vector(m->conv_b, C));
        WANT(vector(m->dt_bias, H) && vector(m->a_log, H));
        WANT(!m->d.data || vector(m->d, H));
        WANT(!m->norm_w.data || vector(m->norm_w, P));
        WANT(!m->conv.data || K == 1 || f32(m->conv, m->segs.n, (K - 1) * C));
        WANT(!m->S.data || f32(m->S, m->segs.n, H * P * P));
    }
    return be->mamba2_fwd(be, o, m);
}
