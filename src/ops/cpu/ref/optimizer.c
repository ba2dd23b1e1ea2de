// Plain reference: gradient norm and AdamW.
#include <math.h>
#include "ops/cpu/ref/ref.h"

void mm_sum_squares_ref(struct mm_backend *be, struct mm_view sum, struct mm_view x) {
    (void)be;
    double s = (double)ref_get(sum, 0, 0);
    for (int64_t r = 0; r < x.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(x); c++) {
            s += (double)ref_get(x, r, c) * (double)ref_get(x, r, c);
        }
    }
    ref_put(sum, 0, 0, (float)s);
}

void mm_adamw_ref(struct mm_backend *be, struct mm_view w, struct mm_view m, struct mm_view v,
                  struct mm_view g, struct mm_adamw h) {
    (void)be;
    const double b1 = (double)h.b1, b2 = (double)h.b2, lr = (double)h.lr;
    for (int64_t r = 0; r < w.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(w); c++) {
            const double gs = (double)ref_get(g, r, c) * (double)h.grad_scale;
            const double mn = b1 * (double)ref_get(m, r, c) + (1.0 - b1) * gs;
            const double vn = b2 * (double)ref_get(v, r, c) + (1.0 - b2) * gs * gs;
            double x = (double)ref_get(w, r, c);
            x -= lr * (double)h.decay * x;
            x -= lr * (mn / (double)h.bias1) / (sqrt(vn / (double)h.bias2) + (double)h.eps);
            ref_put(m, r, c, (float)mn);
            ref_put(v, r, c, (float)vn);
            ref_put(w, r, c, (float)x);
        }
    }
}
