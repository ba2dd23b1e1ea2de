// Unpacking wqkv's output and rotating queries and keys. Angles in double: positions reach a
// million. One block a position: its angles lie in shared memory, then every head is turned.
#include "ops/cuda/wide.cuh"

namespace {

enum { threads = 128 };

struct rope {
    struct mm_mat q, k, v, qkv;
    const int32_t *pos;
    int half, groups, ratio;
    float base, pos_scale;
};

// y = x turned by the angles of W pairs; `sign` -1 turns back, 0 does not turn.
template <int W>
__device__ void turn(const struct mm_mat &y, int64_t to, const struct mm_mat &x, int64_t from,
                     int64_t t, int half, const float *c, const float *s, float sign) {
    const mm_raw<W> ra = mm_fetch<W>(x, t, from), rb = mm_fetch<W>(x, t, from + half);
    mm_pack<W> a = mm_open(ra), b = mm_open(rb);
    for (int i = 0; sign != 0.0f && i < W; i++) {
        const float u = a.x[i], w = b.x[i], sine = s[i] * sign;
        a.x[i] = u * c[i] - w * sine;
        b.x[i] = w * c[i] + u * sine;
    }
    mm_store(y, t, to, a);
    mm_store(y, t, to + half, b);
}

template <int W, bool BACK>
__global__ void turn_row(struct rope o) {
    extern __shared__ float angles[];  // cosines, sines
    const int64_t t = blockIdx.x;
    const int half = o.half, dim = 2 * half, per = half / W, all = o.groups * (o.ratio + 2);
    float *cosines = angles, *sines = angles + half;
    const double where = (double)o.pos[t] * (double)o.pos_scale;
    for (int i = threadIdx.x; i < half; i += threads) {
        double s, c;
        sincos(where * pow((double)o.base, -(double)i / (double)half), &s, &c);
        cosines[i] = (float)c, sines[i] = (float)s;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < all * per; e += threads) {
        const int n = e / per, i = (e - n * per) * W, g = n / (o.ratio + 2),
                  j = n - g * (o.ratio + 2);
        const bool is_q = j<o.ratio, is_v = j> o.ratio;
        const struct mm_mat &head = is_q ? o.q : is_v ? o.v : o.k;
        const int64_t packed = (int64_t)n * dim + i,
                      own = (int64_t)(is_q ? g * o.ratio + j : g) * dim + i;
        const float sign = is_v ? 0.0f : BACK ? -1.0f : 1.0f;
        if (BACK) {
            turn<W>(o.qkv, packed, head, own, t, half, cosines + i, sines + i, sign);
        } else {
            turn<W>(head, own, o.qkv, packed, t, half, cosines + i, sines + i, sign);
        }
    }
}

template <bool BACK>
void run(struct mm_backend *be, struct mm_view q, struct mm_view k, struct mm_view v,
         struct mm_view qkv, struct mm_view pos, float base, float pos_scale) {
    if (q.shape[0] == 0) return;
    const struct rope o = {mm_mat_of(q),
                           mm_mat_of(k),
                           mm_mat_of(v),
                           mm_mat_of(qkv),
                           (const int32_t *)pos.data,
                           (int)(q.shape[2] / 2),
                           (int)k.shape[1],
                           (int)(q.shape[1] / k.shape[1]),
                           base,
                           pos_scale};
    const size_t shared = (size_t)(2 * o.half) * sizeof(float);
    if (mm_wide(o.half, o.q, o.k, o.v, o.qkv)) {
        MM_LAUNCH(be, (turn_row<8, BACK>), (unsigned)q.shape[0], threads, shared, o);
    } else {
        MM_LAUNCH(be, (turn_row<1, BACK>), (unsigned)q.shape[0], threads, shared, o);
    }
}

}  // namespace

void mm_qkv_rope_fwd_cuda(struct mm_backend *be, struct mm_view q, struct mm_view k,
                          struct mm_view v, struct mm_view qkv, struct mm_view pos, float base,
                          float pos_scale) {
    run<false>(be, q, k, v, qkv, pos, base, pos_scale);
}

void mm_qkv_rope_bwd_cuda(struct mm_backend *be, struct mm_view dqkv, struct mm_view dq,
                          struct mm_view dk, struct mm_view dv, struct mm_view pos, float base,
                          float pos_scale) {
    run<true>(be, dq, dk, dv, dqkv, pos, base, pos_scale);
}
