// Kept attention in a token step of many sequences: a block of threads has a piece of the keys of
// one group of heads of one sequence; another kernel merges the pieces.
#ifndef MM_OPS_CUDA_STEP_MANY_ATTENTION_CUH
#define MM_OPS_CUDA_STEP_MANY_ATTENTION_CUH

#include "ops/cuda/step_many_mixer.cuh"
#include "ops/cuda/step_many_rows.cuh"
#include "ops/cuda/tensor.cuh"

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

// The heads of a block: so many from `first` on of `ratio` that share keys, those of `group`.
struct mm_many_heads {
    int ratio, group, first;
    __device__ mm_many_heads(const struct mm_many_attention &a, int heads) {
        ratio = a.H / a.G;
        group = (int)blockIdx.y * heads / ratio;
        first = (int)blockIdx.y * heads % ratio;
    }
};

// What the warps of a block have of a piece of keys, of a head each: D sums, the largest score, the
// sum of exponentials. Head `first` of the sequence is the first of them.
template <int WARPS, int HEADS, int ROOM>
__device__ static void mm_many_put_piece(const struct mm_many_attention &a,
                                         const float (&parts)[WARPS][HEADS][ROOM], int seq,
                                         int first, int piece, int D) {
    const int lane = threadIdx.x % 32;
    for (int r = threadIdx.x / 32; r < HEADS; r += WARPS) {
        float *out = a.part + (((int64_t)seq * a.H + first + r) * a.pieces + piece) * (D + 4);
        float most = -INFINITY, all = 0.0f;
        for (int w = 0; w < WARPS; w++)
            most = fmaxf(most, parts[w][r][ROOM - 4]);
        for (int w = 0; w < WARPS; w++)
            all += parts[w][r][ROOM - 3] * exp2f(parts[w][r][ROOM - 4] - most);
        for (int i = lane; i < D; i += 32) {
            float x = 0.0f;
            for (int w = 0; w < WARPS; w++)
                x += parts[w][r][i] * exp2f(parts[w][r][ROOM - 4] - most);
            out[i] = x;
        }
        if (lane == 0) out[D] = most, out[D + 1] = all;
    }
}

// A block has a piece of the keys of one sequence for some heads of a group, four keys at a time a
// warp. Who has the piece that ends with the new key stores it first.
template <int HEADS>
static __global__ void __launch_bounds__(mm_many_threads)
    mm_many_attend(struct mm_many_attention a) {
    __shared__ float parts[mm_many_warps][HEADS][132];
    mm_many_next();
    mm_many_wait();
    const int piece = blockIdx.x, seq = blockIdx.z, P = a.P;
    const struct mm_many_heads of(a, HEADS);
    const int past = a.at[seq].past[a.stack], n = past + 1, length = mm_many_piece(n);
    const int from = piece * length, to = min(from + length, n);
    if (from >= n || (a.stopped && a.stopped[seq])) return;
    const int lane = threadIdx.x % 32, at = lane * 4, warp = threadIdx.x / 32;
    const bool in = at < P, half = a.half;
    const struct mm_many_state st = a.states[seq];
    const int64_t ld = (int64_t)a.G * P, col = (int64_t)of.group * P + at;
    const mm_many_z z = a.z.row(seq, (int64_t)of.group * (of.ratio + 2) * P);
    const float2 *rope = a.rope + (seq * 2 + a.stack) * mm_many_pairs;
    if (to == n) {
        if (warp == 0 && in) {
            const float4 k = mm_many_turned(z.row(0, of.ratio * P), rope, P);
            mm_many_cache(st.k, past * ld + col, half, k);
            mm_many_cache(st.v, past * ld + col, half, z.four((of.ratio + 1) * P + at));
        }
        __syncthreads();
    }
    float4 q[HEADS], acc[HEADS];
    float top[HEADS], sum[HEADS];
    const float scale = 1.4426950408889634f * rsqrtf((float)P);  // exp2 below
#pragma unroll
    for (int r = 0; r < HEADS; r++) {
        q[r] = mm_many_turned(z.row(0, (of.first + r) * P), rope, P);
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
        for (int r = 0; r < HEADS; r++) {
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
    for (int r = 0; r < HEADS; r++) {
        *(float4 *)&parts[warp][r][at] = acc[r];
        if (lane == 0) parts[warp][r][128] = top[r], parts[warp][r][129] = sum[r];
    }
    __syncthreads();
    mm_many_put_piece<mm_many_warps>(a, parts, seq, of.group * of.ratio + of.first, piece, P);
}

// ---- keys and values in bf16 ----
//
// As above, but 16 keys at a time a warp, which multiplies them on the tensor cores: scores are K
// (16 keys, D) times the heads' queries, what is added is V^T (D, 16 keys) times their
// exponentials. Of the eight columns of such a product a head has two, a number's bf16 and what
// that leaves out of it, so that only keys and values are rounded. A lane's 16 bytes of a row are
// what it multiplies: columns and keys are exchanged within a product, which changes no sum.

enum { mm_many_attend_warps = 4, mm_many_attend_keys = 16 };

__device__ inline uint4 mm_many_load(const __nv_bfloat16 *p, bool there) {
    return there ? *(const uint4 *)p : make_uint4(0, 0, 0, 0);
}

// Words of 16 keys, by row and 16 bytes of it. Of lane 4 g + t.
template <int D>
struct mm_many_keys {
    uint4 k[2][D / 32];  // key g, g + 8: columns 32 i + 8 t ..
    uint4 v[4][D / 64];  // value t, t + 8, t + 4, t + 12: columns 64 i + 8 g ..

    // From p, which is the lane's first words, of rows of ld; `left` of the 16 are there.
    __device__ void load_k(const __nv_bfloat16 *p, int ld, int left) {
        const int g = threadIdx.x % 32 / 4;
#pragma unroll
        for (int e = 0; e < 2; e++) {
#pragma unroll
            for (int i = 0; i < D / 32; i++)
                k[e][i] = mm_many_load(p + 8 * e * ld + 32 * i, g + 8 * e < left);
        }
    }
    __device__ void load_v(const __nv_bfloat16 *p, int ld, int left) {
        const int t = threadIdx.x % 4;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int row = e % 2 * 8 + e / 2 * 4;
#pragma unroll
            for (int i = 0; i < D / 64; i++)
                v[e][i] = mm_many_load(p + row * ld + 64 * i, t + row < left);
        }
    }
};

__device__ inline uint32_t mm_many_word(const uint4 &x, int i) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}
// The bf16 of x and y, or of what that leaves out.
__device__ inline uint32_t mm_many_split(float x, float y, bool rest) {
    const uint32_t near = mm_pair(x, y);
    return rest ? mm_pair(x - mm_low(near), y - mm_high(near)) : near;
}

template <int HEADS, int D>
static __global__ void __launch_bounds__(mm_many_attend_warps * 32, 3)
    mm_many_attend_halves(struct mm_many_attention a) {
    __shared__ float parts[mm_many_attend_warps][HEADS][D + 4];
    __shared__ float turned[HEADS][D];
    mm_many_next();
    const int piece = blockIdx.x, seq = blockIdx.z;
    const struct mm_many_heads of(a, HEADS);
    const int past = a.at[seq].past[a.stack], n = past + 1, length = mm_many_piece(n);
    const int from = piece * length, to = min(from + length, n);
    const bool mine = from < n && !(a.stopped && a.stopped[seq]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const struct mm_many_state st = a.states[seq];
    const int ld = a.G * D;
    const __nv_bfloat16 *keys = (const __nv_bfloat16 *)st.k + of.group * D,
                        *values = (const __nv_bfloat16 *)st.v + of.group * D;
    // keys of earlier steps do not depend on the kernel before: the first ones come to the L2
    const int step = mm_many_attend_keys * mm_many_attend_warps;
    for (int i = threadIdx.x; mine && i < step * D / 64; i += mm_many_attend_warps * 32) {
        const int row = from + i / (D / 64);
        if (row >= min(to, past)) break;
        for (const __nv_bfloat16 *p : {keys, values})
            asm volatile(
                "prefetch.global.L2 [%0];" ::"l"(p + (int64_t)row * ld + i % (D / 64) * 64));
    }
    mm_many_wait();
    if (!mine) return;
    const mm_many_z z = a.z.row(seq, (int64_t)of.group * (of.ratio + 2) * D);
    const float2 *rope = a.rope + (seq * 2 + a.stack) * mm_many_pairs;
    const int at = lane * 4;
    const float scale = 1.4426950408889634f * rsqrtf((float)D);  // exp2 below
    if (warp < HEADS && at < D) {
        const float4 q = mm_many_turned(z.row(0, (of.first + warp) * D), rope, D);
        *(float4 *)&turned[warp][at] =
            make_float4(q.x * scale, q.y * scale, q.z * scale, q.w * scale);
    }
    // who has the new key stores it first
    if (to == n && warp == mm_many_attend_warps - 1 && at < D) {
        const int64_t here = (int64_t)past * ld + of.group * D + at;
        mm_many_cache(st.k, here, true, mm_many_turned(z.row(0, of.ratio * D), rope, D));
        mm_many_cache(st.v, here, true, z.four((of.ratio + 1) * D + at));
    }
    __syncthreads();
    uint32_t q[D / 32][4];  // of column g: head g / 2, its bf16 or the rest
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
#pragma unroll
        for (int w = 0; w < 4; w++) {
            const float *x = &turned[g / 2 % HEADS][32 * i + 8 * t + 2 * w];
            q[i][w] = g / 2 < HEADS ? mm_many_split(x[0], x[1], g % 2) : 0;
        }
    }
    // columns 64 (i / 4) + 8 g + 2 (i % 4) and the one after, of head t in two parts
    float acc[D / 16][4];
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.0f;
    float top = -INFINITY, sum = 0.0f;  // of head t; the sum of this lane's keys
    struct mm_many_keys<D> m;
    int j = from + warp * mm_many_attend_keys;
    keys += (int64_t)(j + g) * ld + 8 * t, values += (int64_t)(j + t) * ld + 8 * g;
    m.load_k(keys, ld, to - j);
    m.load_v(values, ld, to - j);
    for (; j < to; j += step) {
        keys += (int64_t)step * ld, values += (int64_t)step * ld;  // of the next
        float s[4] = {};  // head t of keys g, g + 8: two parts each
#pragma unroll
        for (int i = 0; i < D / 32; i++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const uint32_t left[4] = {
                    mm_many_word(m.k[0][i], 2 * h), mm_many_word(m.k[1][i], 2 * h),
                    mm_many_word(m.k[0][i], 2 * h + 1), mm_many_word(m.k[1][i], 2 * h + 1)};
                mm_mma(s, left, q[i][2 * h], q[i][2 * h + 1]);
            }
        }
        m.load_k(keys, ld, to - j - step);
        const float x = j + g < to ? s[0] + s[1] : -INFINITY,
                    y = j + g + 8 < to ? s[2] + s[3] : -INFINITY;
        float most = fmaxf(x, y);
#pragma unroll
        for (int i = 4; i < 32; i *= 2)
            most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
        most = fmaxf(most, top);
        const float keep = exp2f(top - most), px = exp2f(x - most), py = exp2f(y - most);
        top = most, sum = sum * keep + (px + py);
        // keys t, t + 8 and t + 4, t + 12 of column g
        uint32_t right[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int has = (t + 4 * e) * 4 + g / 2;
            right[e] = mm_many_split(__shfl_sync(~0u, px, has), __shfl_sync(~0u, py, has), g % 2);
        }
        if (__any_sync(~0u, keep != 1.0f)) {
#pragma unroll
            for (int i = 0; i < D / 16; i++)
                acc[i][0] *= keep, acc[i][1] *= keep, acc[i][2] *= keep, acc[i][3] *= keep;
        }
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            uint32_t left[4];
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const uint32_t low = mm_many_word(m.v[2 * e][i / 4], i % 4),
                               high = mm_many_word(m.v[2 * e + 1][i / 4], i % 4);
                left[2 * e] = __byte_perm(low, high, 0x5410);
                left[2 * e + 1] = __byte_perm(low, high, 0x7632);
            }
            mm_mma(acc[i], left, right[0], right[1]);
        }
        m.load_v(values, ld, to - j - step);
    }
#pragma unroll
    for (int i = 4; i < 32; i *= 2)
        sum += __shfl_xor_sync(~0u, sum, i);
    if (t < HEADS) {
        float *mine = parts[warp][t];
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            float *c = mine + 64 * (i / 4) + 8 * g + 2 * (i % 4);
            c[0] = acc[i][0] + acc[i][1], c[1] = acc[i][2] + acc[i][3];
        }
        if (g == 0) mine[D] = top, mine[D + 1] = sum;
    }
    __syncthreads();
    mm_many_put_piece<mm_many_attend_warps>(a, parts, seq, of.group * of.ratio + of.first, piece,
                                            D);
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
