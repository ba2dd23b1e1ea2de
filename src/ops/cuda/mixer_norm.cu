// The mixer's small row operations: LayerNorm of a head, softplus, gated RMSNorm. One warp a head.
#include "ops/cuda/cuda.h"

enum { warps = 4 };

struct heads {
    int64_t n;  // rows * heads
    int heads, dim;
    __device__ bool mine(int64_t *t, int *h) const {
        const int64_t i = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
        *t = i / heads, *h = (int)(i % heads);
        return i < n;
    }
};
static struct heads heads_of(struct mm_view x) {
    return heads{x.shape[0] * x.shape[1], (int)x.shape[1], (int)x.shape[2]};
}
static unsigned grid_of(const struct heads &o) {
    return (unsigned)((o.n + warps - 1) / warps);
}
#define EACH_LANE(p, dim) for (int p = threadIdx.x % 32; p < (dim); p += 32)

// ---- head_norm ----

static __global__ void head_norm_fwd(struct heads o, struct mm_mat y, struct mm_mat stats,
                                     struct mm_mat x, const float *w, const float *bias,
                                     float eps) {
    int64_t t;
    int h;
    if (!o.mine(&t, &h)) return;
    const int64_t at = (int64_t)h * o.dim;
    float mean = 0.0f, var = 0.0f;
    EACH_LANE(p, o.dim) mean += x(t, at + p);
    mean = mm_warp_sum(mean) / (float)o.dim;
    EACH_LANE(p, o.dim) var += (x(t, at + p) - mean) * (x(t, at + p) - mean);
    const float r = rsqrtf(mm_warp_sum(var) / (float)o.dim + eps);
    EACH_LANE(p, o.dim) y(t, at + p) = (x(t, at + p) - mean) * r * w[p] + bias[p];
    if (stats && threadIdx.x % 32 == 0) stats(t, 2 * h) = mean, stats(t, 2 * h + 1) = r;
}

void mm_head_norm_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view stats,
                           struct mm_view x, struct mm_view w, struct mm_view bias, float eps) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w);
    const float *bv = mm_cuda_vector(be, mm_cuda_slot_b, bias);
    const struct heads o = heads_of(x);
    if (!wv || !bv || o.n == 0) return;
    MM_LAUNCH(be, head_norm_fwd, grid_of(o), warps * 32, 0, o, mm_mat_of(y), mm_mat_of(stats),
              mm_mat_of(x), wv, bv, eps);
}

static __global__ void head_norm_bwd(struct heads o, struct mm_mat dx, struct mm_mat dy,
                                     struct mm_mat x, const float *w, struct mm_mat stats) {
    int64_t t;
    int h;
    if (!o.mine(&t, &h)) return;
    const int64_t at = (int64_t)h * o.dim;
    const float mean = stats(t, 2 * h), r = stats(t, 2 * h + 1);
    float m1 = 0.0f, m2 = 0.0f;
    EACH_LANE(p, o.dim) {
        const float d = dy(t, at + p) * w[p];
        m1 += d;
        m2 += d * (x(t, at + p) - mean) * r;
    }
    m1 = mm_warp_sum(m1) / (float)o.dim, m2 = mm_warp_sum(m2) / (float)o.dim;
    EACH_LANE(p, o.dim) {
        const float xh = (x(t, at + p) - mean) * r;
        dx(t, at + p) = r * (dy(t, at + p) * w[p] - m1 - xh * m2);
    }
}

void mm_head_norm_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                           struct mm_view dbias, struct mm_view dy, struct mm_view x,
                           struct mm_view w, struct mm_view stats) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w);
    const struct heads o = heads_of(x);
    if (!wv || o.n == 0) return;
    const struct mm_mat dym = mm_mat_of(dy), xm = mm_mat_of(x), sm = mm_mat_of(stats);
    const int n_heads = o.heads, dim = o.dim;
    if (dw.data) {  // the sums over rows first: dx may be dy
        mm_add_column_sums(be, mm_cuda_slot_b, (float *)dw.data, 1, o.n, dim,
                           [=] __device__(int64_t i, int64_t p) {
                               const int64_t t = i / n_heads, h = i % n_heads;
                               return dym(t, h * dim + p) * (xm(t, h * dim + p) - sm(t, 2 * h)) *
                                      sm(t, 2 * h + 1);
                           });
    }
    if (dbias.data) {
        mm_add_column_sums(be, mm_cuda_slot_b, (float *)dbias.data, 1, o.n, dim,
                           [=] __device__(int64_t i, int64_t p) {
                               return dym(i / n_heads, i % n_heads * dim + p);
                           });
    }
    MM_LAUNCH(be, head_norm_bwd, grid_of(o), warps * 32, 0, o, mm_mat_of(dx), dym, xm, wv, sm);
}

// ---- softplus ----

void mm_softplus_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                          struct mm_view bias) {
    const float *b = mm_cuda_vector(be, mm_cuda_slot_a, bias);
    if (!b) return;
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    mm_each(be, x.shape[0], x.shape[1], [=] __device__(int64_t r, int64_t c) {
        const float v = xm(r, c) + b[c];
        ym(r, c) = fmaxf(v, 0.0f) + log1pf(expf(-fabsf(v)));
    });
}

void mm_softplus_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dbias,
                          struct mm_view dy, struct mm_view x, struct mm_view bias) {
    const float *b = mm_cuda_vector(be, mm_cuda_slot_a, bias);
    if (!b) return;
    const struct mm_mat dxm = mm_mat_of(dx), dym = mm_mat_of(dy), xm = mm_mat_of(x);
    if (dbias.data) {
        mm_add_column_sums(be, mm_cuda_slot_b, (float *)dbias.data, 1, x.shape[0], x.shape[1],
                           [=] __device__(int64_t r, int64_t c) {
                               return dym(r, c) * mm_sigmoid(xm(r, c) + b[c]);
                           });
    }
    mm_each(be, x.shape[0], x.shape[1], [=] __device__(int64_t r, int64_t c) {
        dxm(r, c) = dym(r, c) * mm_sigmoid(xm(r, c) + b[c]);
    });
}

// ---- gated_norm: o = y rinv w silu(g), or y silu(g) when w is absent ----

static __global__ void gated_norm_fwd(struct heads o, struct mm_mat out, struct mm_mat rinv,
                                      struct mm_mat y, struct mm_mat g, const float *w, float eps) {
    int64_t t;
    int h;
    if (!o.mine(&t, &h)) return;
    const int64_t at = (int64_t)h * o.dim;
    float ss = 0.0f;
    EACH_LANE(p, o.dim) ss += y(t, at + p) * y(t, at + p);
    ss = mm_warp_sum(ss);
    const float r = w ? rsqrtf(ss / (float)o.dim + eps) : 1.0f;
    EACH_LANE(p, o.dim) {
        const float gate = g(t, at + p);
        out(t, at + p) = y(t, at + p) * (w ? r * w[p] : 1.0f) * gate * mm_sigmoid(gate);
    }
    if (rinv && threadIdx.x % 32 == 0) rinv(t, h) = r;
}

void mm_gated_norm_fwd_cuda(struct mm_backend *be, struct mm_view o, struct mm_view rinv,
                            struct mm_view y, struct mm_view g, struct mm_view w, float eps) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w);
    const struct heads k = heads_of(y);
    if (k.n == 0) return;
    MM_LAUNCH(be, gated_norm_fwd, grid_of(k), warps * 32, 0, k, mm_mat_of(o), mm_mat_of(rinv),
              mm_mat_of(y), mm_mat_of(g), wv, eps);
}

static __global__ void gated_norm_bwd(struct heads o, struct mm_mat dy, struct mm_mat dg,
                                      struct mm_mat d_o, struct mm_mat y, struct mm_mat g,
                                      const float *w, struct mm_mat rinv) {
    int64_t t;
    int h;
    if (!o.mine(&t, &h)) return;
    const int64_t at = (int64_t)h * o.dim;
    const float r = w ? rinv(t, h) : 1.0f;
    float dot = 0.0f;  // mean of d(y r) * (y r); 0 without a norm
    if (w) {
        EACH_LANE(p, o.dim) {
            const float gate = g(t, at + p);
            dot += d_o(t, at + p) * w[p] * gate * mm_sigmoid(gate) * y(t, at + p) * r;
        }
        dot = mm_warp_sum(dot) / (float)o.dim;
    }
    EACH_LANE(p, o.dim) {
        const float gate = g(t, at + p), s = mm_sigmoid(gate), d = d_o(t, at + p);
        const float n = y(t, at + p) * r, scale = w ? w[p] : 1.0f;
        dg(t, at + p) = d * n * scale * (s + gate * s * (1.0f - s));
        dy(t, at + p) = r * (d * scale * gate * s - n * dot);
    }
}

void mm_gated_norm_bwd_cuda(struct mm_backend *be, struct mm_view dy, struct mm_view dg,
                            struct mm_view dw, struct mm_view d_o, struct mm_view y,
                            struct mm_view g, struct mm_view w, struct mm_view rinv) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w);
    const struct heads k = heads_of(y);
    if (k.n == 0) return;
    const struct mm_mat dm = mm_mat_of(d_o), ym = mm_mat_of(y), gm = mm_mat_of(g);
    const struct mm_mat rm = mm_mat_of(rinv);
    const int n_heads = k.heads, dim = k.dim;
    if (dw.data) {  // the sum over rows first: dy may be d_o
        mm_add_column_sums(be, mm_cuda_slot_b, (float *)dw.data, 1, k.n, dim,
                           [=] __device__(int64_t i, int64_t p) {
                               const int64_t t = i / n_heads, h = i % n_heads, c = h * dim + p;
                               const float gate = gm(t, c);
                               return dm(t, c) * ym(t, c) * rm(t, h) * gate * mm_sigmoid(gate);
                           });
    }
    MM_LAUNCH(be, gated_norm_bwd, grid_of(k), warps * 32, 0, k, mm_mat_of(dy), mm_mat_of(dg), dm,
              ym, gm, wv, rm);
}
