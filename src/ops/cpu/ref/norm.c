// Plain reference: norms over a row.
#include <math.h>
#include "ops/cpu/ref/ref.h"

void mm_rmsnorm_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                        struct mm_view x, struct mm_view w, float eps) {
    (void)be;
    const int64_t dim = mm_view_cols(x);
    for (int64_t r = 0; r < x.shape[0]; r++) {
        double ss = 0.0;
        for (int64_t c = 0; c < dim; c++) {
            ss += (double)ref_get(x, r, c) * (double)ref_get(x, r, c);
        }
        const double s = 1.0 / sqrt(ss / (double)dim + (double)eps);
        for (int64_t c = 0; c < dim; c++) {
            ref_put(y, r, c, (float)((double)ref_get(x, r, c) * s * (double)ref_get(w, c, 0)));
        }
        if (rinv.data) ref_put(rinv, r, 0, (float)s);
    }
}

// With n = x * rinv: dx = rinv * (dy w - n * mean(dy w n)), dw = sum over rows of dy n.
void mm_rmsnorm_bwd_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                        struct mm_view dy, struct mm_view x, struct mm_view w,
                        struct mm_view rinv) {
    (void)be;
    const int64_t rows = x.shape[0], dim = mm_view_cols(x);
    for (int64_t c = 0; dw.data && c < dim; c++) {  // first: dx may be dy
        double sum = (double)ref_get(dw, c, 0);
        for (int64_t r = 0; r < rows; r++) {
            sum +=
                (double)ref_get(dy, r, c) * (double)ref_get(x, r, c) * (double)ref_get(rinv, r, 0);
        }
        ref_put(dw, c, 0, (float)sum);
    }
    for (int64_t r = 0; r < rows; r++) {
        const double s = (double)ref_get(rinv, r, 0);
        double dot = 0.0;
        for (int64_t c = 0; c < dim; c++) {
            dot +=
                (double)ref_get(dy, r, c) * (double)ref_get(w, c, 0) * (double)ref_get(x, r, c) * s;
        }
        for (int64_t c = 0; c < dim; c++) {
            const double n = (double)ref_get(x, r, c) * s;
            const double g = (double)ref_get(dy, r, c) * (double)ref_get(w, c, 0);
            ref_put(dx, r, c, (float)(s * (g - n * dot / (double)dim)));
        }
    }
}

// A row of zeros stays zeros, with rinv 0.
void mm_l2norm_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                       struct mm_view x) {
    (void)be;
    const int64_t dim = mm_view_cols(x);
    for (int64_t r = 0; r < x.shape[0]; r++) {
        double ss = 0.0;
        for (int64_t c = 0; c < dim; c++) {
            ss += (double)ref_get(x, r, c) * (double)ref_get(x, r, c);
        }
        const double s = ss > 0.0 ? 1.0 / sqrt(ss) : 0.0;
        for (int64_t c = 0; c < dim; c++)
            ref_put(y, r, c, (float)((double)ref_get(x, r, c) * s));
        if (rinv.data) ref_put(rinv, r, 0, (float)s);
    }
}

// dx = rinv * (dy - y * (dy . y))
void mm_l2norm_bwd_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                       struct mm_view y, struct mm_view rinv) {
    (void)be;
    const int64_t dim = mm_view_cols(y);
    for (int64_t r = 0; r < y.shape[0]; r++) {
        double dot = 0.0;
        for (int64_t c = 0; c < dim; c++) {
            dot += (double)ref_get(dy, r, c) * (double)ref_get(y, r, c);
        }
        for (int64_t c = 0; c < dim; c++) {
            const double g = (double)ref_get(dy, r, c) - (double)ref_get(y, r, c) * dot;
            ref_put(dx, r, c, (float)(g * (double)ref_get(rinv, r, 0)));
        }
    }
}
