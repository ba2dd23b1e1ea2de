// The mixer's small row operations: LayerNorm of a head, softplus, gated RMSNorm. One warp a head.
#include "ops/cuda/wide.cuh"

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

// A head is some lanes of a warp, each with W elements at a time: L lanes of one warp.
template <int L>
__device__ static float sum_over(float x) {
    for (int i = L / 2; i > 0; i >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}
template <int L>
__device__ static bool my_head(const struct heads &o, int64_t *t, int *h) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / L;
    const bool mine = i < o.n;  // the others take part in the sums
    *t = mine ? i / o.heads : 0, *h = mine ? (int)(i % o.heads) : 0;
    return mine;
}
#define EACH_PACK(p, W, L, dim) for (int p = threadIdx.x % L * W; p < (dim); p += L * W)

template <int W, int L>
static __global__ void gated_norm_fwd(struct heads o, struct mm_mat out, struct mm_mat rinv,
                                      struct mm_mat y, struct mm_mat g, const float *w, float eps) {
    int64_t t;
    int h;
    const bool mine = my_head<L>(o, &t, &h);
    const int64_t at = (int64_t)h * o.dim;
    float ss = 0.0f;
    EACH_PACK(p, W, L, o.dim) {
        const mm_pack<W> v = mm_load<W>(y, t, at + p);
        for (int k = 0; k < W; k++)
            ss += v.x[k] * v.x[k];
    }
    ss = sum_over<L>(ss);
    if (!mine) return;
    const float r = w ? rsqrtf(ss / (float)o.dim + eps) : 1.0f;
    EACH_PACK(p, W, L, o.dim) {
        const mm_raw<W> ry = mm_fetch<W>(y, t, at + p), rg = mm_fetch<W>(g, t, at + p);
        mm_pack<W> v = mm_open(ry);
        const mm_pack<W> gate = mm_open(rg), scale = mm_load_vector<W>(w, p, 1.0f);
        for (int k = 0; k < W; k++)
            v.x[k] *= r * scale.x[k] * gate.x[k] * mm_sigmoid(gate.x[k]);
        mm_store(out, t, at + p, v);
    }
    if (rinv && threadIdx.x % L == 0) rinv(t, h) = r;
}

void mm_gated_norm_fwd_cuda(struct mm_backend *be, struct mm_view o, struct mm_view rinv,
                            struct mm_view y, struct mm_view g, struct mm_view w, float eps) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w);
    const struct heads k = heads_of(y);
    const struct mm_mat om = mm_mat_of(o), ym = mm_mat_of(y), gm = mm_mat_of(g);
    if (k.n == 0) return;
    const struct mm_mat rm = mm_mat_of(rinv);
    const int lanes = mm_wide(k.dim, om, ym, gm) ? (k.dim >= 128 ? 16 : 8) : 32;
    const unsigned grid = (unsigned)((k.n * lanes + warps * 32 - 1) / (warps * 32));
    if (lanes == 32) {
        MM_LAUNCH(be, (gated_norm_fwd<1, 32>), grid, warps * 32, 0, k, om, rm, ym, gm, wv, eps);
    } else if (lanes == 16) {
        MM_LAUNCH(be, (gated_norm_fwd<8, 16>), grid, warps * 32, 0, k, om, rm, ym, gm, wv, eps);
    } else {
        MM_LAUNCH(be, (gated_norm_fwd<8, 8>), grid, warps * 32, 0, k, om, rm, ym, gm, wv, eps);
    }
}

// Each group of L lanes takes every so-manieth head, in one order; dw's sums of a group lie in
// shared memory, those of a block go to part[block].
template <int W, int L>
static __global__ void gated_norm_bwd(struct heads o, struct mm_mat dy, struct mm_mat dg,
                                      struct mm_mat d_o, struct mm_mat y, struct mm_mat g,
                                      const float *w, struct mm_mat rinv, float *part) {
    extern __shared__ float sums[];
    const int groups = warps * 32 / L;
    float *sum = sums + threadIdx.x / L * o.dim;
    if (part) EACH_PACK(p, 1, L, o.dim) sum[p] = 0.0f;
    __syncthreads();
    for (int64_t first = (int64_t)blockIdx.x * groups; first < o.n; first += gridDim.x * groups) {
        const int64_t i = first + threadIdx.x / L;
        const bool mine = i < o.n;  // the others take part in the sums
        const int64_t t = mine ? i / o.heads : 0;
        const int h = mine ? (int)(i % o.heads) : 0;
        const int64_t at = (int64_t)h * o.dim;
        const float r = w ? rinv(t, h) : 1.0f;
        float dot = 0.0f;  // mean of d(y r) * (y r); 0 without a norm
        EACH_PACK(p, W, L, o.dim) {
            if (!w || !mine) break;
            const mm_raw<W> rd = mm_fetch<W>(d_o, t, at + p), ry = mm_fetch<W>(y, t, at + p),
                            rg = mm_fetch<W>(g, t, at + p);
            const mm_pack<W> d = mm_open(rd), v = mm_open(ry), gate = mm_open(rg),
                             scale = mm_load_vector<W>(w, p, 1.0f);
            for (int k = 0; k < W; k++) {
                const float e = d.x[k] * gate.x[k] * mm_sigmoid(gate.x[k]) * v.x[k] * r;
                if (part) sum[p + k] += e;
                dot += e * scale.x[k];
            }
        }
        dot = sum_over<L>(dot) / (float)o.dim;
        if (!mine) continue;
        EACH_PACK(p, W, L, o.dim) {
            const mm_raw<W> rd = mm_fetch<W>(d_o, t, at + p), ry = mm_fetch<W>(y, t, at + p),
                            rg = mm_fetch<W>(g, t, at + p);
            mm_pack<W> d = mm_open(rd), v = mm_open(ry);
            const mm_pack<W> gate = mm_open(rg), scale = mm_load_vector<W>(w, p, 1.0f);
            for (int k = 0; k < W; k++) {
                const float s = mm_sigmoid(gate.x[k]), n = v.x[k] * r, e = d.x[k] * scale.x[k];
                v.x[k] = e * n * (s + gate.x[k] * s * (1.0f - s));
                d.x[k] = r * (e * gate.x[k] * s - n * dot);
            }
            mm_store(dg, t, at + p, v);
            mm_store(dy, t, at + p, d);
        }
    }
    if (!part) return;
    __syncthreads();
    for (int p = threadIdx.x; p < o.dim; p += blockDim.x) {
        float total = 0.0f;
        for (int k = 0; k < groups; k++)
            total += sums[k * o.dim + p];
        part[(int64_t)blockIdx.x * o.dim + p] = total;
    }
}

void mm_gated_norm_bwd_cuda(struct mm_backend *be, struct mm_view dy, struct mm_view dg,
                            struct mm_view dw, struct mm_view d_o, struct mm_view y,
                            struct mm_view g, struct mm_view w, struct mm_view rinv) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w);
    const struct heads k = heads_of(y);
    if (k.n == 0) return;
    const struct mm_mat dm = mm_mat_of(d_o), ym = mm_mat_of(y), gm = mm_mat_of(g);
    const struct mm_mat dym = mm_mat_of(dy), dgm = mm_mat_of(dg), rm = mm_mat_of(rinv);
    const bool eight = mm_wide(k.dim, dym, dgm, dm, ym, gm);
    const int lanes = eight ? (k.dim >= 128 ? 16 : 8) : 32, groups = warps * 32 / lanes;
    int64_t blocks = (k.n + groups - 1) / groups;
    if (blocks > 132 * 6) blocks = 132 * 6;
    float *part = NULL;
    if (dw.data) {
        part =
            (float *)mm_cuda_scratch(be, mm_cuda_slot_b, (size_t)(blocks * k.dim) * sizeof(float));
        if (!part) return;
    }
    const size_t shared = part ? (size_t)(groups * k.dim) * sizeof(float) : 0;
    if (lanes == 32) {
        MM_LAUNCH(be, (gated_norm_bwd<1, 32>), (unsigned)blocks, warps * 32, shared, k, dym, dgm,
                  dm, ym, gm, wv, rm, part);
    } else if (lanes == 16) {
        MM_LAUNCH(be, (gated_norm_bwd<8, 16>), (unsigned)blocks, warps * 32, shared, k, dym, dgm,
                  dm, ym, gm, wv, rm, part);
    } else {
        MM_LAUNCH(be, (gated_norm_bwd<8, 8>), (unsigned)blocks, warps * 32, shared, k, dym, dgm, dm,
                  ym, gm, wv, rm, part);
    }
    if (part) mm_add_strips(be, (float *)dw.data, 1, part, blocks, k.dim);
}
