// SwiGLU and GELU.
#include "ops/cuda/wide.cuh"

namespace {

struct swiglu {
    struct mm_mat y, a, b;
    template <int W>
    __device__ void operator()(mm_width<W>, int64_t r, int64_t c) const {
        const mm_raw<W> ra = mm_fetch<W>(a, r, c), rb = mm_fetch<W>(b, r, c);
        mm_pack<W> g = mm_open(ra);
        const mm_pack<W> u = mm_open(rb);
        for (int k = 0; k < W; k++)
            g.x[k] = g.x[k] * mm_sigmoid(g.x[k]) * u.x[k];
        mm_store(y, r, c, g);
    }
};

// silu'(a) = s + a s (1 - s) with s = sigmoid(a)
struct swiglu_bwd {
    struct mm_mat da, db, dy, a, b;
    template <int W>
    __device__ void operator()(mm_width<W>, int64_t r, int64_t c) const {
        const mm_raw<W> rd = mm_fetch<W>(dy, r, c), ra = mm_fetch<W>(a, r, c),
                        rb = mm_fetch<W>(b, r, c);
        const mm_pack<W> d = mm_open(rd);
        mm_pack<W> g = mm_open(ra), u = mm_open(rb);
        for (int k = 0; k < W; k++) {
            const float x = g.x[k], s = mm_sigmoid(x);
            g.x[k] = d.x[k] * u.x[k] * (s + x * s * (1.0f - s));
            u.x[k] = d.x[k] * x * s;
        }
        mm_store(da, r, c, g);
        mm_store(db, r, c, u);
    }
};

}  // namespace

void mm_swiglu_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view a,
                        struct mm_view b) {
    const struct swiglu f = {mm_mat_of(y), mm_mat_of(a), mm_mat_of(b)};
    const int64_t cols = mm_view_cols(y);
    mm_each_wide(be, y.shape[0], cols, mm_wide(cols, f.y, f.a, f.b), "swiglu_fwd", f);
}

void mm_swiglu_bwd_cuda(struct mm_backend *be, struct mm_view da, struct mm_view db,
                        struct mm_view dy, struct mm_view a, struct mm_view b) {
    const struct swiglu_bwd f = {mm_mat_of(da), mm_mat_of(db), mm_mat_of(dy), mm_mat_of(a),
                                 mm_mat_of(b)};
    const int64_t cols = mm_view_cols(dy);
    mm_each_wide(be, dy.shape[0], cols, mm_wide(cols, f.da, f.db, f.dy, f.a, f.b), "swiglu_bwd", f);
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
