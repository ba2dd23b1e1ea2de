// The kernels of step_many.cu. Rows of sequences are dense; a block of threads has one row, one
// (sequence, group of heads), or a piece of a sequence's keys.
#ifndef MM_OPS_CUDA_STEP_MANY_KERNELS_CUH
#define MM_OPS_CUDA_STEP_MANY_KERNELS_CUH

#include "ops/cuda/step_many_mixer.cuh"
#include "ops/cuda/step_many_rows.cuh"

enum { mm_many_norm_threads = 512 };

// ---- norms of rows ----

struct mm_many_norm {
    struct mm_many_operand u;
    float *x;           // (n, cols) the residual stream
    const float *from;  // NULL: x; else what x begins with
    int64_t from_ld;
    const float *sums;  // (parts, .., cols) of a product, which are added to x first
    int64_t part;
    int parts;
    float *hidden;  // NULL, or the result in f32
    int64_t hidden_ld;
    const float *w;  // (cols)
    int cols;        // a multiple of 8
    float eps;
};

static __global__ void __launch_bounds__(mm_many_norm_threads)
    mm_many_norm_rows(struct mm_many_norm a) {
    mm_many_next();
    mm_many_wait();
    const int64_t r = blockIdx.x;
    const float *from = a.from ? a.from + r * a.from_ld : a.x + r * a.cols;
    float *x = a.x + r * a.cols;
    float4 first = make_float4(0.0f, 0.0f, 0.0f, 0.0f);  // kept for the second time
    float ss = 0.0f;
    for (int c = threadIdx.x * 4; c < a.cols; c += mm_many_norm_threads * 4) {
        float4 v = *(const float4 *)(from + c);
#pragma unroll 8
        for (int i = 0; i < a.parts; i++) {
            const float4 s = *(const float4 *)(a.sums + i * a.part + r * a.cols + c);
            v.x += s.x, v.y += s.y, v.z += s.z, v.w += s.w;
        }
        ss += mm_many_dot(v, v);
        *(float4 *)(x + c) = v;
        if (c < mm_many_norm_threads * 4) first = v;
    }
    const float s = rsqrtf(mm_block_sum(ss) / (float)a.cols + a.eps);
    for (int c = threadIdx.x * 4; c < a.cols; c += mm_many_norm_threads * 4) {
        const float4 w = *(const float4 *)(a.w + c);
        const float4 v = c < mm_many_norm_threads * 4 ? first : *(const float4 *)(x + c);
        const float4 y = make_float4(v.x * s * w.x, v.y * s * w.y, v.z * s * w.z, v.w * s * w.w);
        mm_many_put(a.u, r, c, y, true);  // of codes, columns are whole blocks
        if (!a.hidden) continue;
        float *to = a.hidden + r * a.hidden_ld + c;
        to[0] = y.x, to[1] = y.y, to[2] = y.z, to[3] = y.w;
    }
}

// x = x / ||x||, with parts of a product added to x first.
static __global__ void mm_many_l2_rows(float *x, int cols, const float *sums, int64_t part,
                                       int parts) {
    mm_many_next();
    mm_many_wait();
    float *row = x + (int64_t)blockIdx.x * cols;
    float ss = 0.0f;
    for (int c = threadIdx.x; c < cols; c += mm_many_threads) {
        float v = row[c];
        for (int i = 0; i < parts; i++)
            v += sums[i * part + (int64_t)blockIdx.x * cols + c];
        row[c] = v;
        ss += v * v;
    }
    const float s = 1.0f / sqrtf(mm_block_sum(ss));
    for (int c = threadIdx.x; c < cols; c += mm_many_threads)
        row[c] *= s;
}

// s = silu(a) * b, four neighbours a thread
static __global__ void mm_many_gate(__nv_bfloat16 *s, const float *a, const float *b, int64_t n) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    mm_many_next();
    mm_many_wait();
    if (i >= n) return;
    const float4 x = ((const float4 *)a)[i], y = ((const float4 *)b)[i];
    ((uint2 *)s)[i] = mm_many_halves(x.x * mm_sigmoid(x.x) * y.x, x.y * mm_sigmoid(x.y) * y.y,
                                     x.z * mm_sigmoid(x.z) * y.z, x.w * mm_sigmoid(x.w) * y.w);
}

// ---- attention ----

struct mm_many_rope {
    int half[2];  // pairs of a head; 0: no attention in this stack
    float scale[2];
};

// cosine and sine of every pair at a sequence's new position: blocks (stack, sequence)
static __global__ void mm_many_rope_table(float2 *rope, const struct mm_many_at *at,
                                          struct mm_many_rope r) {
    const int pair = threadIdx.x, stack = blockIdx.x, seq = blockIdx.y;
    if (pair >= r.half[stack]) return;
    const double where = (double)at[seq].past[stack] * (double)r.scale[stack];
    double s, c;
    sincos(where * pow((double)at[seq].base[stack], -(double)pair / (double)r.half[stack]), &s, &c);
    rope[(seq * 2 + stack) * mm_many_pairs + pair] = make_float2((float)c, (float)s);
}

struct mm_many_attention {
    struct mm_many_z z;  // as qkv_rope_fwd takes it
    struct mm_many_operand o;
    const struct mm_many_state *states;
    const int32_t *stopped;  // (n) these keep their caches; NULL: none
    const struct mm_many_at *at;
    const float2 *rope;
    float *part;  // (n, H, pieces, P + 4): sums, largest score, sum of exponentials
    int H, G, P, stack, pieces;
    bool half;  // keys and values are bf16
};

__device__ inline float4 mm_many_cached(const void *p, int64_t i, bool half) {
    if (!half) return *(const float4 *)((const float *)p + i);
    const uint2 r = *(const uint2 *)((const __nv_bfloat16 *)p + i);
    return make_float4(__uint_as_float(r.x << 16), __uint_as_float(r.x & 0xffff0000u),
                       __uint_as_float(r.y << 16), __uint_as_float(r.y & 0xffff0000u));
}
__device__ inline void mm_many_cache(void *p, int64_t i, bool half, float4 x) {
    if (half) {
        *(uint2 *)((__nv_bfloat16 *)p + i) = mm_many_halves(x.x, x.y, x.z, x.w);
    } else {
        *(float4 *)((float *)p + i) = x;
    }
}

// The lane's four values of a head, turned.
__device__ inline float4 mm_many_turned(const mm_many_z &head, const float2 *rope, int dim) {
    const int at = threadIdx.x % 32 * 4, half = dim / 2;
    if (at >= dim) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const bool upper = at >= half;
    const float4 x = head.four(at), y = head.four(upper ? at - half : at + half);
    const float2 *cs = rope + (upper ? at - half : at);
    const float sign = upper ? 1.0f : -1.0f;
    return make_float4(x.x * cs[0].x + sign * y.x * cs[0].y, x.y * cs[1].x + sign * y.y * cs[1].y,
                       x.z * cs[2].x + sign * y.z * cs[2].y, x.w * cs[3].x + sign * y.w * cs[3].y);
}

// A block has a piece of the keys of one group of one sequence, four keys at a time a warp. The
// piece that ends with the new key stores it first.
template <int RATIO>
static __global__ void __launch_bounds__(mm_many_threads)
    mm_many_attend(struct mm_many_attention a) {
    __shared__ float parts[mm_many_warps][RATIO][132];
    mm_many_next();
    mm_many_wait();
    const int piece = blockIdx.x, group = blockIdx.y, seq = blockIdx.z, P = a.P;
    const int past = a.at[seq].past[a.stack], n = past + 1, length = mm_many_piece(n);
    const int from = piece * length, to = min(from + length, n);
    if (from >= n || (a.stopped && a.stopped[seq])) return;
    const int lane = threadIdx.x % 32, at = lane * 4, warp = threadIdx.x / 32;
    const bool in = at < P, half = a.half;
    const struct mm_many_state st = a.states[seq];
    const int64_t ld = (int64_t)a.G * P, col = (int64_t)group * P + at;
    const mm_many_z z = a.z.row(seq, (int64_t)group * (RATIO + 2) * P);
    const float2 *rope = a.rope + (seq * 2 + a.stack) * mm_many_pairs;
    if (to == n) {
        if (warp == 0 && in) {
            const float4 k = mm_many_turned(z.row(0, RATIO * P), rope, P);
            mm_many_cache(st.k, past * ld + col, half, k);
            mm_many_cache(st.v, past * ld + col, half, z.four((RATIO + 1) * P + at));
        }
        __syncthreads();
    }
    float4 q[RATIO], acc[RATIO];
    float top[RATIO], sum[RATIO];
    const float scale = 1.4426950408889634f * rsqrtf((float)P);  // exp2 below
#pragma unroll
    for (int r = 0; r < RATIO; r++) {
        q[r] = mm_many_turned(z.row(0, r * P), rope, P);
        q[r].x *= scale, q[r].y *= scale, q[r].z *= scale, q[r].w *= scale;
        acc[r] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        top[r] = -INFINITY, sum[r] = 0.0f;
    }
    for (int j = from + warp * 4; j < to; j += 4 * mm_many_warps) {
        float4 k[4], v[4];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const bool there = in && j + e < to;
            k[e] = v[e] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (there) k[e] = mm_many_cached(st.k, (j + e) * ld + col, half);
            if (there) v[e] = mm_many_cached(st.v, (j + e) * ld + col, half);
        }
#pragma unroll
        for (int r = 0; r < RATIO; r++) {
            float s[4], most = top[r];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[e] = mm_warp_sum(mm_many_dot(q[r], k[e]));
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
        *(float4 *)&parts[warp][r][at] = acc[r];
        if (lane == 0) parts[warp][r][128] = top[r], parts[warp][r][129] = sum[r];
    }
    __syncthreads();
    for (int r = warp; r < RATIO; r += mm_many_warps) {
        float *out =
            a.part + (((int64_t)seq * a.H + group * RATIO + r) * a.pieces + piece) * (P + 4);
        float most = -INFINITY, all = 0.0f;
        for (int w = 0; w < mm_many_warps; w++)
            most = fmaxf(most, parts[w][r][128]);
        for (int w = 0; w < mm_many_warps; w++)
            all += parts[w][r][129] * exp2f(parts[w][r][128] - most);
        for (int i = lane; i < P; i += 32) {
            float x = 0.0f;
            for (int w = 0; w < mm_many_warps; w++)
                x += parts[w][r][i] * exp2f(parts[w][r][128] - most);
            out[i] = x;
        }
        if (lane == 0) out[P] = most, out[P + 1] = all;
    }
}

// The pieces of a head in their order into its output: blocks (head, sequence) of one warp.
static __global__ void mm_many_merge(struct mm_many_attention a) {
    mm_many_next();
    mm_many_wait();
    const int h = blockIdx.x, seq = blockIdx.y, P = a.P;
    const int pieces = mm_many_pieces(a.at[seq].past[a.stack] + 1);
    const float *part = a.part + ((int64_t)seq * a.H + h) * a.pieces * (P + 4);
    float most = -INFINITY, sum = 0.0f;
    for (int i = 0; i < pieces; i++)
        most = fmaxf(most, part[i * (P + 4) + P]);
    for (int i = 0; i < pieces; i++)
        sum += part[i * (P + 4) + P + 1] * exp2f(part[i * (P + 4) + P] - most);
    const int c = threadIdx.x * 4;
    const bool in = c < P;
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int i = 0; in && i < pieces; i++) {
        const float *from = part + i * (P + 4);
        const float4 y = *(const float4 *)(from + c);
        const float keep = exp2f(from[P] - most);
        x.x += y.x * keep, x.y += y.y * keep, x.z += y.z * keep, x.w += y.w * keep;
    }
    mm_many_put(a.o, seq, h * P + c, make_float4(x.x / sum, x.y / sum, x.z / sum, x.w / sum), in);
}

#endif
