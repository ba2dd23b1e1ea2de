// Plain reference: SwiGLU and GELU.
#include <math.h>
#include "ops/cpu/ref/ref.h"

static double sigmoid(double x) {
    return 1.0 / (1.0 + exp(-x));
}

void mm_swiglu_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view a,
                       struct mm_view b) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++) {
            const double g = (double)ref_get(a, r, c), u = (double)ref_get(b, r, c);
            ref_put(y, r, c, (float)(g * sigmoid(g) * u));
        }
    }
}

// silu'(a) = s + a s (1 - s) with s = sigmoid(a)
void mm_swiglu_bwd_ref(struct mm_backend *be, struct mm_view da, struct mm_view db,
                       struct mm_view dy, struct mm_view a, struct mm_view b) {
    (void)be;
    for (int64_t r = 0; r < dy.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(dy); c++) {
            const double g = (double)ref_get(a, r, c), u = (double)ref_get(b, r, c);
            const double d = (double)ref_get(dy, r, c), s = sigmoid(g);
            ref_put(da, r, c, (float)(d * u * (s + g * s * (1.0 - s))));
            ref_put(db, r, c, (float)(d * g * s));
        }
    }
}

void mm_gelu_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++) {
            const double v = (double)ref_get(x, r, c);
            ref_put(y, r, c, (float)(0.5 * v * (1.0 + erf(v * M_SQRT1_2))));
        }
    }
}

// gelu'(x) = Phi(x) + x phi(x)
void mm_gelu_bwd_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                     struct mm_view x) {
    (void)be;
    for (int64_t r = 0; r < dx.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(dx); c++) {
            const double v = (double)ref_get(x, r, c);
            const double cdf = 0.5 * (1.0 + erf(v * M_SQRT1_2));
            const double pdf = exp(-0.5 * v * v) * 0.5 * M_SQRT1_2 * M_2_SQRTPI;
            ref_put(dx, r, c, (float)((double)ref_get(dy, r, c) * (cdf + v * pdf)));
        }
    }
}
