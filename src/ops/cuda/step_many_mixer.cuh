// The mixer of step_many.cu: a block of threads has one group of heads of one sequence.
#ifndef MM_OPS_CUDA_STEP_MANY_MIXER_CUH
#define MM_OPS_CUDA_STEP_MANY_MIXER_CUH

#include "ops/cuda/step_many_launch.cuh"

enum { mm_many_threads = 256, mm_many_warps = mm_many_threads / 32 };

// ---- what the mixer's projection returned ----

// (parts, n, ..): parts of sums, which are added in their order.
struct mm_many_z {
    const float *p;
    int64_t ld, part;
    int parts;
    __device__ mm_many_z row(int64_t r, int64_t column) const {
        mm_many_z z = *this;
        z.p += r * ld + column;
        return z;
    }
    __device__ float operator[](int64_t i) const {
        float x = p[i];
        for (int k = 1; k < parts; k++)
            x += p[k * part + i];
        return x;
    }
    __device__ float4 four(int64_t i) const {
        float4 x = *(const float4 *)(p + i);
        for (int k = 1; k < parts; k++) {
            const float4 y = *(const float4 *)(p + k * part + i);
            x.x += y.x, x.y += y.y, x.z += y.z, x.w += y.w;
        }
        return x;
    }
};

// ---- Mamba-2 ----

struct mm_many_mixer {
    struct mm_many_z z, gates;           // v, k, q; g, dt
    struct mm_many_operand o;            // (n, H P)
    const struct mm_many_state *states;  // (n)
    const int32_t *stopped;              // (n) these keep their states; NULL: none
    int H, G, P, K;
    const float *conv_w, *conv_b, *dt_bias, *a_log, *d;
    const float *q_w, *q_b, *k_w, *k_b, *g_norm;  // NULL where the model has none
    struct mm_many_ahead ahead;
};

// Channel `i` of those of one group: v, k, then its heads' q.
__device__ inline int64_t mm_many_channel(const struct mm_many_mixer &m, int P, int group,
                                          int ratio, int i) {
    const int part = i / P < 2 ? i / P : 2;
    return (int64_t)(part * m.G + group * (part == 2 ? ratio : 1)) * P + (i - part * P);
}

// Asks the L2 for the rows before that mm_many_convolve will read, 32 neighbours a time.
__device__ inline void mm_many_bring_rows(const struct mm_many_mixer &m, const float *conv, int P,
                                          int group, int ratio) {
    const int64_t channels = (int64_t)(2 * m.G + m.H) * P;
    const int lines = (2 + ratio) * P / 32;
    for (int e = threadIdx.x; e < (m.K - 1) * lines; e += mm_many_threads) {
        const int64_t c = mm_many_channel(m, P, group, ratio, e % lines * 32);
        asm volatile("prefetch.global.L2 [%0];" ::"l"(conv + e / lines * channels + c));
    }
}

// Convolution and silu of the channels of one group into `to`; the rows before move on by one. All
// that the usual four taps need is loaded before anything is stored: one wait instead of one a tap.
__device__ inline void mm_many_convolve(const struct mm_many_mixer &m, const mm_many_z &z,
                                        float *conv, int P, int group, int ratio, float *to) {
    enum { usual = 3 };  // taps but the last
    const int64_t channels = (int64_t)(2 * m.G + m.H) * P;
#pragma unroll 1
    for (int i = threadIdx.x; i < (2 + ratio) * P; i += mm_many_threads) {
        const int64_t c = mm_many_channel(m, P, group, ratio, i);
        const float *w = m.conv_w + c * m.K;
        float *rows = conv + c, before[usual], tap[usual];
#pragma unroll
        for (int j = 0; j < usual; j++) {
            before[j] = j + 1 < m.K ? rows[j * channels] : 0.0f;
            tap[j] = j + 1 < m.K ? w[j] : 0.0f;
        }
        const float x = z[c];
        float sum = m.conv_b[c] + w[m.K - 1] * x;
#pragma unroll
        for (int j = 0; j < usual; j++) {
            if (j + 1 >= m.K) continue;
            sum += tap[j] * before[j];
            if (j > 0) rows[(j - 1) * channels] = before[j];
        }
#pragma unroll 1
        for (int j = usual; j + 1 < m.K; j++) {
            const float more = rows[j * channels];
            sum += w[j] * more;
            rows[(j - 1) * channels] = more;
        }
        if (m.K > 1) rows[(m.K - 2) * channels] = x;
        to[i] = sum * mm_sigmoid(sum);
    }
}

// LayerNorm over a head in shared memory, by a warp (use_qknorm).
__device__ inline void mm_many_head_norm(float *x, int dim, const float *w, const float *b) {
    const int lane = threadIdx.x % 32;
    float sum = 0.0f, ss = 0.0f;
    for (int i = lane; i < dim; i += 32)
        sum += x[i];
    const float mean = mm_warp_sum(sum) / (float)dim;
    for (int i = lane; i < dim; i += 32)
        ss += (x[i] - mean) * (x[i] - mean);
    const float r = rsqrtf(mm_warp_sum(ss) / (float)dim + 1e-5f);
    for (int i = lane; i < dim; i += 32)
        x[i] = (x[i] - mean) * r * w[i] + b[i];
}

// o = y * rinv * w * silu(g) of one head, which begins at a column of o, by a warp.
__device__ inline void mm_many_gated(const struct mm_many_mixer &m, int P, const float *y,
                                     int64_t seq, int column) {
    const int at = threadIdx.x % 32 * 4;
    const bool in = at < P;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float4 x = in ? *(const float4 *)(y + at) : zero,
                 g = in ? m.gates.row(seq, column).four(at) : zero,
                 w = in && m.g_norm ? *(const float4 *)(m.g_norm + at)
                                    : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    const float r = m.g_norm ? rsqrtf(mm_warp_sum(mm_many_dot(x, x)) / (float)P + 1e-5f) : 1.0f;
    const auto one = [&](float v, float by, float gate) {
        return v * r * by * gate * mm_sigmoid(gate);
    };
    mm_many_put(
        m.o, seq, column + at,
        make_float4(one(x.x, w.x, g.x), one(x.y, w.y, g.y), one(x.z, w.z, g.z), one(x.w, w.w, g.w)),
        in);
}

// Rows of S of a warp: some of one head.
enum { mm_many_state_rows = 4 };
struct mm_many_rows_of_state {
    float4 s[mm_many_state_rows];
    // They are not met again within a step: they should not drive weights out of the L2.
    __device__ void load(const float *S, int64_t ld, bool in) {
#pragma unroll
        for (int i = 0; i < mm_many_state_rows; i++)
            if (in) s[i] = __ldcs((const float4 *)(S + i * ld));
    }
    // S = keep S + (dt v) k^T; y = S q + d v
    __device__ void step(float *S, int64_t ld, bool in, float keep, float dt, float d,
                         const float *v, float4 k, float4 q, float *y) {
        float sum[mm_many_state_rows];
#pragma unroll
        for (int i = 0; i < mm_many_state_rows; i++) {
            const float w = dt * v[i];
            s[i].x = fmaf(s[i].x, keep, w * k.x), s[i].y = fmaf(s[i].y, keep, w * k.y);
            s[i].z = fmaf(s[i].z, keep, w * k.z), s[i].w = fmaf(s[i].w, keep, w * k.w);
            if (in) __stcs((float4 *)(S + i * ld), s[i]);
            sum[i] = in ? mm_many_dot(s[i], q) : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < mm_many_state_rows; i++)
            sum[i] = mm_warp_sum(sum[i]);
        if (threadIdx.x % 32 == 0) {
#pragma unroll
            for (int i = 0; i < mm_many_state_rows; i++)
                y[i] = fmaf(d, v[i], sum[i]);
        }
    }
};

// A block has one group of one sequence, a warp four rows of S at a time and the next four on their
// way. The first are loaded before mm_many_wait: of a step no other kernel touches them, and its
// first one waits for all before. DIM: P, or 0 for any.
template <int DIM>
static __global__ void __launch_bounds__(mm_many_threads, 4)
    mm_many_mamba2(struct mm_many_mixer m) {
    enum { rows = mm_many_state_rows };
    extern __shared__ float shared[];
    mm_many_next();
    const int ratio = m.H / m.G, group = blockIdx.x, P = DIM ? DIM : m.P;
    const int64_t seq = blockIdx.y;
    float *v = shared, *k = v + P, *q = k + P, *y = q + ratio * P, *dt = y + ratio * P,
          *decay = dt + ratio;
    const int warp = threadIdx.x / 32, at = threadIdx.x % 32 * 4;
    const bool in = at < P;
    const int units = ratio * P / rows;
    // heads of a group are neighbours
    float *S = m.states[seq].S + (int64_t)group * ratio * P * P + at;
    struct mm_many_rows_of_state even, odd;
    if (warp < units) even.load(S + (int64_t)warp * rows * P, P, in);
    mm_many_bring_rows(m, m.states[seq].conv, P, group, ratio);
    mm_many_wait();
    if (m.stopped && m.stopped[seq]) {
        if (threadIdx.x == 0)
            mm_many_bring(m.ahead, (int)(seq * gridDim.x) + group, (int)(gridDim.x * gridDim.y));
        return;
    }
    mm_many_convolve(m, m.z.row(seq, 0), m.states[seq].conv, P, group, ratio, shared);
    for (int r = threadIdx.x; r < ratio; r += mm_many_threads) {
        const int h = group * ratio + r;
        const float x = m.gates.row(seq, (int64_t)m.H * P)[h] + m.dt_bias[h];
        dt[r] = x > 20.0f ? x : log1pf(expf(x));
        decay[r] = m.a_log ? expf(-expf(m.a_log[h]) * dt[r]) : 1.0f;
    }
    __syncthreads();
    if (m.q_w) {
        for (int r = warp; r <= ratio; r += mm_many_warps) {
            if (r < ratio) {
                mm_many_head_norm(q + r * P, P, m.q_w, m.q_b);
            } else {
                mm_many_head_norm(k, P, m.k_w, m.k_b);
            }
        }
        __syncthreads();
    }
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float4 k4 = in ? *(const float4 *)(k + at) : zero;
    if (warp + mm_many_warps < units)
        odd.load(S + (int64_t)(warp + mm_many_warps) * rows * P, P, in);
    const auto unit = [&](int u, struct mm_many_rows_of_state &mine) {
        if (u >= units) return;
        const int row = u * rows, r = row / P;
        const float4 q4 = in ? *(const float4 *)(q + r * P + at) : zero;
        float *here = S + (int64_t)row * P;
        mine.step(here, P, in, decay[r], dt[r], m.d ? m.d[group * ratio + r] : 0.0f, v + row % P,
                  k4, q4, y + row);
        if (u + 2 * mm_many_warps < units)
            mine.load(here + (int64_t)2 * mm_many_warps * rows * P, P, in);
    };
    for (int u = warp; u < units; u += 2 * mm_many_warps) {
        unit(u, even);
        unit(u + mm_many_warps, odd);
    }
    if (threadIdx.x == 0)
        mm_many_bring(m.ahead, (int)(seq * gridDim.x) + group, (int)(gridDim.x * gridDim.y));
    __syncthreads();
    for (int r = warp; r < ratio; r += mm_many_warps)
        mm_many_gated(m, P, y + r * P, seq, (group * ratio + r) * P);
}

#endif
