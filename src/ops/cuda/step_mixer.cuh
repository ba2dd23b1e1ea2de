// The mixers of a token step: the recurrence, a row of a head's state a warp; kept attention, its
// keys cut into as many pieces as fill the device once for one sequence, whatever their number.
#ifndef MM_OPS_CUDA_STEP_MIXER_CUH
#define MM_OPS_CUDA_STEP_MIXER_CUH

#include "ops/cuda/step_product.cuh"

// LayerNorm over a head, 4 values a lane (use_qknorm).
__device__ inline float4 mm_head_norm(float4 x, int dim, const float *w, const float *b) {
    const int at = threadIdx.x % 32 * 4;
    const bool in = at < dim;
    const float mean = mm_warp_sum(in ? x.x + x.y + (x.z + x.w) : 0.0f) / (float)dim;
    const float4 c = make_float4(x.x - mean, x.y - mean, x.z - mean, x.w - mean);
    const float r = rsqrtf(mm_warp_sum(in ? mm_dot4(c, c) : 0.0f) / (float)dim + 1e-5f);
    if (!in) return x;
    return make_float4(c.x * r * w[at] + b[at], c.y * r * w[at + 1] + b[at + 1],
                       c.z * r * w[at + 2] + b[at + 2], c.w * r * w[at + 3] + b[at + 3]);
}

// ROWS rows of S from `row` on, all of one head: S = decay S + (dt v) k^T, y = S q + d v.
template <int ROWS>
__device__ inline void mm_recur(const struct mm_step_args &a, const struct mm_step_task &t, int seq,
                                int h, int row) {
    const int at = threadIdx.x % 32 * 4, group = h / (t.H / t.G);
    const bool in = at < t.P;
    float *S = a.states[t.block * mm_step_cols + seq].S + ((int64_t)h * t.P + row) * t.P + at;
    const float *z = a.z + seq * a.z_ld;
    float4 s[ROWS];
    float v[ROWS];
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        s[i] = in ? mm_load4_far(S + (int64_t)i * t.P) : zero;
        v[i] = __ldcg(z + group * t.P + row + i);
    }
    float4 k = in ? mm_load4_far(z + (t.G + group) * t.P + at) : zero;
    float4 q = in ? mm_load4_far(z + (2 * t.G + h) * t.P + at) : zero;
    if (t.q_norm_w) {
        k = mm_head_norm(k, t.P, t.k_norm_w, t.k_norm_b);
        q = mm_head_norm(q, t.P, t.q_norm_w, t.q_norm_b);
    }
    const float dt = __ldcg(a.dt + seq * a.dt_ld + h), d = t.d ? t.d[h] : 0.0f;
    const float decay = t.a_log ? expf(-expf(t.a_log[h]) * dt) : 1.0f;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const float w = dt * v[i];
        s[i].x = fmaf(s[i].x, decay, w * k.x), s[i].y = fmaf(s[i].y, decay, w * k.y);
        s[i].z = fmaf(s[i].z, decay, w * k.z), s[i].w = fmaf(s[i].w, decay, w * k.w);
        if (in) *(float4 *)(S + (int64_t)i * t.P) = s[i];
        const float y = mm_warp_sum(in ? mm_dot4(s[i], q) : 0.0f);
        if (at == 0) a.y[seq * a.y_ld + h * t.P + row + i] = fmaf(d, v[i], y);
    }
}

template <int ROWS>
__device__ inline void mm_recur_all(const struct mm_step_args &a, const struct mm_step_task &t) {
    const int parts = t.P / ROWS, items = a.n * t.H * parts;
    // neighbours in memory go to one block
#pragma unroll 1
    for (int i = (int)blockIdx.x * mm_step_warps + (int)threadIdx.x / 32; i < items;
         i += (int)gridDim.x * mm_step_warps)
        mm_recur<ROWS>(a, t, i / parts / t.H, i / parts % t.H, i % parts * ROWS);
}

__device__ inline void mm_mamba2(const struct mm_step_args &a, const struct mm_step_task &t) {
    const int rows = a.n * t.H * t.P, warps = (int)gridDim.x * mm_step_warps;
    if (rows > 4 * warps) {
        mm_recur_all<8>(a, t);
    } else if (rows > warps) {
        mm_recur_all<4>(a, t);
    } else {
        mm_recur_all<1>(a, t);
    }
}

// ---- attention ----

// cosine and sine of every pair at the sequences' new positions, once for all blocks of a stack
__device__ inline void mm_rope_table(const struct mm_step_args &a) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    const int pair = i % 128, stack = i / 128 % 2, seq = i / 256;
    if (seq >= a.n || pair >= a.rope_half[stack]) return;
    const double where = (double)a.at[seq].past[stack] * (double)a.rope_scale[stack];
    double s, c;
    sincos(where * pow((double)a.at[seq].base[stack], -(double)pair / (double)a.rope_half[stack]),
           &s, &c);
    a.rope[i] = make_float2((float)c, (float)s);
}

// The lane's 4 values of a head, turned.
__device__ inline float4 mm_turned(const float *head, const float2 *rope, int dim) {
    const int at = threadIdx.x % 32 * 4, half = dim / 2;
    if (at >= dim) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const bool upper = at >= half;
    float own[4], other[4];
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const int pair = (at + e) % half;
        const float2 cs = __ldcg(rope + pair);
        const float x = __ldcg(head + at + e),
                    y = __ldcg(head + (at + e < half ? at + e + half : at + e - half));
        own[e] = x * cs.x, other[e] = y * cs.y;
    }
    const float sign = upper ? 1.0f : -1.0f;
    return make_float4(own[0] + sign * other[0], own[1] + sign * other[1], own[2] + sign * other[2],
                       own[3] + sign * other[3]);
}

// The warps' parts of one head's piece into one, in their order, for the merge that follows.
__device__ inline void mm_merge_warps(const struct mm_step_args &a, const struct mm_step_task &t,
                                      struct mm_step_shared &sh, float4 acc, float top, float sum,
                                      float *to) {
    float(*part)[132] = (float(*)[132])sh.red;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads();
    *(float4 *)&part[warp][lane * 4] = acc;
    if (lane == 0) part[warp][128] = top, part[warp][129] = sum;
    __syncthreads();
    float most = -INFINITY, all = 0.0f, out = 0.0f;
    const int d = threadIdx.x;
    if (d >= t.P) return;
#pragma unroll 1
    for (int w = 0; w < mm_step_warps; w++)
        most = fmaxf(most, part[w][128]);
#pragma unroll 1
    for (int w = 0; w < mm_step_warps; w++) {
        const float f = part[w][129] > 0.0f ? exp2f(part[w][128] - most) : 0.0f;
        all += f * part[w][129];
        out += f * part[w][d];
    }
    to[d] = out;
    if (d == 0) to[t.P] = most, to[t.P + 1] = all;
    (void)a;
}

// 4 values of a cache from element i on.
__device__ inline float4 mm_cache_load(const void *p, int64_t i, bool half) {
    if (!half) return mm_load4_far((const float *)p + i);
    const uint2 r = __ldcg((const uint2 *)((const __nv_bfloat16 *)p + i));
    return make_float4(__uint_as_float(r.x << 16), __uint_as_float(r.x & 0xffff0000u),
                       __uint_as_float(r.y << 16), __uint_as_float(r.y & 0xffff0000u));
}
__device__ inline void mm_cache_store(void *p, int64_t i, bool half, float4 x) {
    if (half) {
        *(uint2 *)((__nv_bfloat16 *)p + i) = mm_four_bf16(x);
    } else {
        *(float4 *)((float *)p + i) = x;
    }
}

template <int RATIO>
__device__ inline void mm_attend(const struct mm_step_args &a, const struct mm_step_task &t,
                                 struct mm_step_shared &sh, int seq, int group, int split) {
    const int past = a.at[seq].past[t.stack], n = past + 1;
    const int piece = ((n + a.splits - 1) / a.splits + 63) / 64 * 64;
    const int from = min(split * piece, n), to = min(from + piece, n);
    const int at = threadIdx.x % 32 * 4, warp = threadIdx.x / 32;
    const bool in = at < t.P, half = a.half_cache;
    const struct mm_step_state st = a.states[t.block * mm_step_cols + seq];
    const int64_t ld = (int64_t)t.G * t.P, col = (int64_t)group * t.P + at;
    const float *z = a.z + seq * a.z_ld + (int64_t)group * (RATIO + 2) * t.P;
    const float2 *rope = a.rope + (seq * 2 + t.stack) * 128;
    if (to == n && from < to) {  // the new row belongs to the last piece
        if (warp == 0 && in) {
            const float4 k = mm_turned(z + RATIO * t.P, rope, t.P);
            mm_cache_store(st.k, past * ld + col, half, k);
            mm_cache_store(st.v, past * ld + col, half, mm_load4_far(z + (RATIO + 1) * t.P + at));
        }
        __syncthreads();
    }
    float4 q[RATIO], acc[RATIO];
    float top[RATIO], sum[RATIO];
    const float scale = 1.4426950408889634f * rsqrtf((float)t.P);  // exp2 below
#pragma unroll
    for (int r = 0; r < RATIO; r++) {
        q[r] = mm_turned(z + r * t.P, rope, t.P);
        q[r].x *= scale, q[r].y *= scale, q[r].z *= scale, q[r].w *= scale;
        acc[r] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        top[r] = -INFINITY, sum[r] = 0.0f;
    }
#pragma unroll 1
    for (int j = from + warp * 4; j < to; j += 4 * mm_step_warps) {
        float4 k[4], v[4];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const bool there = in && j + e < to;
            k[e] = v[e] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (there) k[e] = mm_cache_load(st.k, (j + e) * ld + col, half);
            if (there) v[e] = mm_cache_load(st.v, (j + e) * ld + col, half);
        }
#pragma unroll
        for (int r = 0; r < RATIO; r++) {
            float s[4], most = top[r];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[e] = mm_warp_sum(mm_dot4(q[r], k[e]));
                if (j + e >= to) s[e] = -INFINITY;
                most = fmaxf(most, s[e]);
            }
            const float keep = exp2f(top[r] - most);
            top[r] = most, sum[r] *= keep;
            acc[r].x *= keep, acc[r].y *= keep, acc[r].z *= keep, acc[r].w *= keep;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float p = exp2f(s[e] - most);
                sum[r] += p;
                acc[r].x += p * v[e].x, acc[r].y += p * v[e].y;
                acc[r].z += p * v[e].z, acc[r].w += p * v[e].w;
            }
        }
    }
#pragma unroll
    for (int r = 0; r < RATIO; r++) {
        const int h = group * RATIO + r;
        float *out = a.part + (((int64_t)seq * t.H + h) * a.splits + split) * (t.P + 2);
        mm_merge_warps(a, t, sh, acc[r], top[r], sum[r], out);
    }
}

template <int RATIO>
__device__ inline void mm_attend_all(const struct mm_step_args &a, const struct mm_step_task &t,
                                     struct mm_step_shared &sh) {
    const int items = a.n * t.G * a.splits;
#pragma unroll 1
    for (int i = blockIdx.x; i < items; i += gridDim.x)
        mm_attend<RATIO>(a, t, sh, i / (a.splits * t.G), i / a.splits % t.G, i % a.splits);
}

__device__ inline void mm_attention(const struct mm_step_args &a, const struct mm_step_task &t,
                                    struct mm_step_shared &sh) {
    const int ratio = t.H / t.G;
    if (ratio == 1) {
        mm_attend_all<1>(a, t, sh);
    } else if (ratio == 2) {
        mm_attend_all<2>(a, t, sh);
    } else {
        mm_attend_all<4>(a, t, sh);
    }
}

// The pieces of a head into its output, a warp a head.
__device__ inline void mm_merge(const struct mm_step_args &a, const struct mm_step_task &t) {
    const int items = a.n * t.H, at = threadIdx.x % 32 * 4;
    const int warp = (int)(threadIdx.x / 32 * gridDim.x + blockIdx.x);
#pragma unroll 1
    for (int i = warp; i < items; i += (int)gridDim.x * mm_step_warps) {
        const int seq = i / t.H, h = i % t.H;
        const float *part = a.part + ((int64_t)seq * t.H + h) * a.splits * (t.P + 2);
        float most = -INFINITY, sum = 0.0f;
        float out[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
        for (int s = 0; s < a.splits; s++)
            most = fmaxf(most, __ldcg(part + s * (t.P + 2) + t.P));
#pragma unroll 1
        for (int s = 0; s < a.splits; s++) {
            const float *p = part + s * (t.P + 2);
            const float n = __ldcg(p + t.P + 1);
            if (!(n > 0.0f)) continue;
            const float f = exp2f(__ldcg(p + t.P) - most);
            sum += f * n;
            for (int e = 0; e < 4; e++)
                if (at < t.P) out[e] += f * __ldcg(p + at + e);
        }
        for (int e = 0; e < 4; e++)
            if (at < t.P) a.y[seq * a.y_ld + h * t.P + at + e] = out[e] / sum;
    }
}

#endif
