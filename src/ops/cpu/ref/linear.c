// Plain reference: dense products, sums in double.
#include "ops/cpu/ref/ref.h"

void mm_linear_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                       struct mm_view bias) {
    (void)be;
    const int64_t k_dim = mm_view_cols(x);
    for (int64_t t = 0; t < y.shape[0]; t++) {
        for (int64_t n = 0; n < mm_view_cols(y); n++) {
            double sum = bias.data ? (double)ref_get(bias, n, 0) : 0.0;
            for (int64_t k = 0; k < k_dim; k++) {
                sum += (double)ref_get(x, t, k) * (double)ref_get(w, n, k);
            }
            ref_put(y, t, n, (float)sum);
        }
    }
}

void mm_linear_bwd_x_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                         struct mm_view w, bool accumulate) {
    (void)be;
    for (int64_t t = 0; t < dx.shape[0]; t++) {
        for (int64_t k = 0; k < mm_view_cols(dx); k++) {
            double sum = accumulate ? (double)ref_get(dx, t, k) : 0.0;
            for (int64_t n = 0; n < mm_view_cols(dy); n++) {
                sum += (double)ref_get(dy, t, n) * (double)ref_get(w, n, k);
            }
            ref_put(dx, t, k, (float)sum);
        }
    }
}

void mm_linear_bwd_w_ref(struct mm_backend *be, struct mm_view dw, struct mm_view dbias,
                         struct mm_view dy, struct mm_view x, enum mm_dtype product) {
    (void)be;
    const int64_t t_dim = dy.shape[0];
    for (int64_t n = 0; n < dw.shape[0]; n++) {
        for (int64_t k = 0; k < mm_view_cols(dw); k++) {
            double sum = (double)ref_get(dw, n, k);
            for (int64_t t = 0; t < t_dim; t++) {
                sum += (double)ref_round(ref_get(dy, t, n), product) *
                       (double)ref_round(ref_get(x, t, k), product);
            }
            ref_put(dw, n, k, (float)sum);
        }
        if (!dbias.data) continue;
        double sum = (double)ref_get(dbias, n, 0);
        for (int64_t t = 0; t < t_dim; t++)
            sum += (double)ref_get(dy, t, n);
        ref_put(dbias, n, 0, (float)sum);
    }
}
