// Reference of the mixer's small row operations: LayerNorm of a head, softplus, gated RMSNorm.
#include <math.h>
#include "ops/cpu/cpu.h"
#include "ops/cpu/ref/mixer.h"

// ---- head_norm: LayerNorm over P ----

void mm_head_norm_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view stats,
                          struct mm_view x, struct mm_view w, struct mm_view bias, float eps) {
    (void)be;
    const int64_t n_heads = x.shape[1], dim = x.shape[2];
    for (int64_t t = 0; t < x.shape[0]; t++) {
        for (int64_t h = 0; h < n_heads; h++) {
            double mean = 0.0, var = 0.0;
            for (int64_t p = 0; p < dim; p++) {
                mean += mm_ref_get(x, t, h * dim + p);
            }
            mean /= (double)dim;
            for (int64_t p = 0; p < dim; p++) {
                const double c = mm_ref_get(x, t, h * dim + p) - mean;
                var += c * c;
            }
            const double r = 1.0 / sqrt(var / (double)dim + (double)eps);
            for (int64_t p = 0; p < dim; p++) {
                const double xh = (mm_ref_get(x, t, h * dim + p) - mean) * r;
                *mm_ref_f32(y, t, h * dim + p) =
                    (float)(xh * mm_ref_get(w, p, 0) + mm_ref_get(bias, p, 0));
            }
            if (!stats.data) continue;
            *mm_ref_f32(stats, t, 2 * h) = (float)mean;
            *mm_ref_f32(stats, t, 2 * h + 1) = (float)r;
        }
    }
}

void mm_head_norm_bwd_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                          struct mm_view dbias, struct mm_view dy, struct mm_view x,
                          struct mm_view w, struct mm_view stats) {
    (void)be;
    const int64_t n_heads = x.shape[1], dim = x.shape[2];
    // The sums over rows first: dx may be dy.
    for (int64_t p = 0; p < dim; p++) {
        double sum_w = 0.0, sum_b = 0.0;
        for (int64_t t = 0; t < x.shape[0]; t++) {
            for (int64_t h = 0; h < n_heads; h++) {
                const double xh = (mm_ref_get(x, t, h * dim + p) - mm_ref_get(stats, t, 2 * h)) *
                                  mm_ref_get(stats, t, 2 * h + 1);
                sum_w += mm_ref_get(dy, t, h * dim + p) * xh;
                sum_b += mm_ref_get(dy, t, h * dim + p);
            }
        }
        if (dw.data) *mm_ref_f32(dw, p, 0) += (float)sum_w;
        if (dbias.data) *mm_ref_f32(dbias, p, 0) += (float)sum_b;
    }
    for (int64_t t = 0; t < x.shape[0]; t++) {
        for (int64_t h = 0; h < n_heads; h++) {
            const double mean = mm_ref_get(stats, t, 2 * h), r = mm_ref_get(stats, t, 2 * h + 1);
            double m1 = 0.0, m2 = 0.0;
            for (int64_t p = 0; p < dim; p++) {
                const double d = mm_ref_get(dy, t, h * dim + p) * mm_ref_get(w, p, 0);
                m1 += d;
                m2 += d * (mm_ref_get(x, t, h * dim + p) - mean) * r;
            }
            m1 /= (double)dim, m2 /= (double)dim;
            for (int64_t p = 0; p < dim; p++) {
                const double d = mm_ref_get(dy, t, h * dim + p) * mm_ref_get(w, p, 0);
                const double xh = (mm_ref_get(x, t, h * dim + p) - mean) * r;
                *mm_ref_f32(dx, t, h * dim + p) = (float)(r * (d - m1 - xh * m2));
            }
        }
    }
}

// ---- softplus ----

void mm_softplus_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                         struct mm_view bias) {
    (void)be;
    for (int64_t t = 0; t < x.shape[0]; t++) {
        for (int64_t h = 0; h < x.shape[1]; h++) {
            const double v = mm_ref_get(x, t, h) + mm_ref_get(bias, h, 0);
            *mm_ref_f32(y, t, h) = (float)((v > 0 ? v : 0) + log1p(exp(-fabs(v))));
        }
    }
}

void mm_softplus_bwd_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dbias,
                         struct mm_view dy, struct mm_view x, struct mm_view bias) {
    (void)be;
    for (int64_t h = 0; h < x.shape[1]; h++) {
        double sum = 0.0;
        for (int64_t t = 0; t < x.shape[0]; t++) {
            const double v = mm_ref_get(x, t, h) + mm_ref_get(bias, h, 0);
            const double d = mm_ref_get(dy, t, h) * mm_ref_sigmoid(v);
            *mm_ref_f32(dx, t, h) = (float)d;
            sum += d;
        }
        if (dbias.data) *mm_ref_f32(dbias, h, 0) += (float)sum;
    }
}

// ---- gated_norm: o = y rinv w silu(g), or y silu(g) when w is absent ----

void mm_gated_norm_fwd_ref(struct mm_backend *be, struct mm_view o, struct mm_view rinv,
                           struct mm_view y, struct mm_view g, struct mm_view w, float eps) {
    (void)be;
    const int64_t n_heads = y.shape[1], dim = y.shape[2];
    for (int64_t t = 0; t < y.shape[0]; t++) {
        for (int64_t h = 0; h < n_heads; h++) {
            double ss = 0.0;
            for (int64_t p = 0; p < dim; p++) {
                ss += mm_ref_get(y, t, h * dim + p) * mm_ref_get(y, t, h * dim + p);
            }
            const double r = w.data ? 1.0 / sqrt(ss / (double)dim + (double)eps) : 1.0;
            for (int64_t p = 0; p < dim; p++) {
                const double gate = mm_ref_get(g, t, h * dim + p);
                const double scale = w.data ? r * mm_ref_get(w, p, 0) : 1.0;
                *mm_ref_f32(o, t, h * dim + p) =
                    (float)(mm_ref_get(y, t, h * dim + p) * scale * gate * mm_ref_sigmoid(gate));
            }
            if (rinv.data) *mm_ref_f32(rinv, t, h) = (float)r;
        }
    }
}

void mm_gated_norm_bwd_ref(struct mm_backend *be, struct mm_view dy, struct mm_view dg,
                           struct mm_view dw, struct mm_view d_o, struct mm_view y,
                           struct mm_view g, struct mm_view w, struct mm_view rinv) {
    (void)be;
    const int64_t n_heads = y.shape[1], dim = y.shape[2];
    // The sum over rows first: dy may be d_o.
    for (int64_t p = 0; dw.data && p < dim; p++) {
        double sum = 0.0;
        for (int64_t t = 0; t < y.shape[0]; t++) {
            for (int64_t h = 0; h < n_heads; h++) {
                const double gate = mm_ref_get(g, t, h * dim + p);
                sum += mm_ref_get(d_o, t, h * dim + p) * mm_ref_get(y, t, h * dim + p) *
                       mm_ref_get(rinv, t, h) * gate * mm_ref_sigmoid(gate);
            }
        }
        *mm_ref_f32(dw, p, 0) += (float)sum;
    }
    for (int64_t t = 0; t < y.shape[0]; t++) {
        for (int64_t h = 0; h < n_heads; h++) {
            const double r = w.data ? mm_ref_get(rinv, t, h) : 1.0;
            double dot = 0.0;  // mean of d(y r) * (y r); 0 without a norm
            for (int64_t p = 0; w.data && p < dim; p++) {
                const double gate = mm_ref_get(g, t, h * dim + p);
                dot += mm_ref_get(d_o, t, h * dim + p) * mm_ref_get(w, p, 0) * gate *
                       mm_ref_sigmoid(gate) * mm_ref_get(y, t, h * dim + p) * r;
            }
            dot /= (double)dim;
            for (int64_t p = 0; p < dim; p++) {
                const double gate = mm_ref_get(g, t, h * dim + p), s = mm_ref_sigmoid(gate);
                const double d = mm_ref_get(d_o, t, h * dim + p);
                const double n = mm_ref_get(y, t, h * dim + p) * r;
                const double scale = w.data ? mm_ref_get(w, p, 0) : 1.0;
                *mm_ref_f32(dg, t, h * dim + p) =
                    (float)(d * n * scale * (s + gate * s * (1.0 - s)));
                *mm_ref_f32(dy, t, h * dim + p) = (float)(r * (d * scale * gate * s - n * dot));
            }
        }
    }
}
