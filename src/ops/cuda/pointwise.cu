// SwiGLU and GELU.
#include "ops/cuda/cuda.h"

void mm_swiglu_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view a,
                        struct mm_view b) {
    const struct mm_mat ym = mm_mat_of(y), am = mm_mat_of(a), bm = mm_mat_of(b);
    mm_each(be, y.shape[0], mm_view_cols(y), [=] __device__(int64_t r, int64_t c) {
        const float g = am(r, c);
        ym(r, c) = g * mm_sigmoid(g) * bm(r, c);
    });
}

// silu'(a) = s + a s (1 - s) with s = sigmoid(a)
void mm_swiglu_bwd_cuda(struct mm_backend *be, struct mm_view da, struct mm_view db,
                        struct mm_view dy, struct mm_view a, struct mm_view b) {
    const struct mm_mat dam = mm_mat_of(da), dbm = mm_mat_of(db), dym = mm_mat_of(dy);
    const struct mm_mat am = mm_mat_of(a), bm = mm_mat_of(b);
    mm_each(be, dy.shape[0], mm_view_cols(dy), [=] __device__(int64_t r, int64_t c) {
        const float g = am(r, c), u = bm(r, c), d = dym(r, c), s = mm_sigmoid(g);
        dam(r, c) = d * u * (s + g * s * (1.0f - s));
        dbm(r, c) = d * g * s;
    });
}

void mm_gelu_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x) {
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    mm_each(be, y.shape[0], mm_view_cols(y), [=] __device__(int64_t r, int64_t c) {
        const float v = xm(r, c);
        ym(r, c) = 0.5f * v * (1.0f + erff(v * 0.70710678f));
    });
}

// gelu'(x) = Phi(x) + x phi(x)
void mm_gelu_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                      struct mm_view x) {
    const struct mm_mat dm = mm_mat_of(dx), ym = mm_mat_of(dy), xm = mm_mat_of(x);
    mm_each(be, dx.shape[0], mm_view_cols(dx), [=] __device__(int64_t r, int64_t c) {
        const float v = xm(r, c);
        const float cdf = 0.5f * (1.0f + erff(v * 0.70710678f));
        dm(r, c) = ym(r, c) * (cdf + v * expf(-0.5f * v * v) * 0.39894228f);
    });
}
