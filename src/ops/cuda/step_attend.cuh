// Kept attention of a token step: a part of a head's keys a block, and the parts put together.
#ifndef MM_OPS_CUDA_STEP_ATTEND_CUH
#define MM_OPS_CUDA_STEP_ATTEND_CUH

#include "ops/cuda/step_mixer.cuh"

// cosine and sine of every pair at the sequences' new positions, once for all blocks of a stack
template <class ARGS>
__device__ inline void mm_rope_table(const ARGS &a) {
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
__device__ __forceinline__ float4 mm_turned(const float *head, const float2 *rope, int dim) {
    const int at = threadIdx.x % 32 * 4, half = dim / 2;
    if (at >= dim) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float v[4];
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const bool upper = at + e >= half;
        const float2 cs = __ldcg(rope + (at + e) % half);
        const float other = head[upper ? at + e - half : at + e + half] * cs.y;
        v[e] = head[at + e] * cs.x + (upper ? other : -other);
    }
    return make_float4(v[0], v[1], v[2], v[3]);
}

// A row of a running softmax: the largest score, the sum, and 4 columns a lane.
struct mm_step_soft {
    float top, sum;
    float4 v;
};

// The part of a sequence's old keys that is this block's: [from, to).
struct mm_step_span {
    int from, to;
};
template <class ARGS>
__device__ __forceinline__ struct mm_step_span mm_attend_span(const ARGS &a,
                                                              const struct mm_step_who &me,
                                                              const struct mm_step_here &here,
                                                              int seq) {
    const int past = a.at[seq].past[here.y->stack];
    const int piece = ((past + mm_step_crew - 1) / mm_step_crew + 63) / 64 * 64;
    const int from = min(me.rank * piece, past);
    return {from, min(from + piece, past)};
}

// Keys of a warp that it multiplies at once, and groups of them, 8 warps' between two of its own,
// that come to the L2 before it loads them.
template <bool HALF>
struct mm_attend_group {
    static constexpr int keys = HALF ? 8 : 4, ahead = 2;
    // Where this lane's line of a group's keys and values is, of key 0 of the cache; NULL: it has
    // none. `key` it is of the group's.
    const char *line;
    int key;
    int64_t pitch;  // bytes from key to key

    __device__ __forceinline__ mm_attend_group(const void *k, const void *v, int64_t ld,
                                               int64_t column, int P) {
        constexpr int size = HALF ? 2 : 4;
        const int log = P * size > 256 ? 2 : P * size > 128 ? 1 : 0;  // lines of a key
        const int lane = threadIdx.x % 32, part = lane & ((2 << log) - 1);
        key = lane >> (log + 1), pitch = ld * size;
        line =
            (const char *)(part >> log ? v : k) + column * size + (part & ((1 << log) - 1)) * 128;
        if (key >= keys) line = NULL;
    }
    __device__ __forceinline__ void ask(int j, int to) const {
        if (line && j + key < to) mm_prefetch(line + (j + key) * pitch);
    }
};

// Asks for a block's first keys, which nothing has to be known for.
template <bool HALF, class ARGS>
__device__ __forceinline__ void mm_attend_soon(const ARGS &a, const struct mm_step_who &me,
                                               const struct mm_step_here &here, int head) {
    using group = mm_attend_group<HALF>;
    const int P = here.t->P;
    const int64_t column = (int64_t)(head >> here.t->ratio_log) * P;
#pragma unroll 1
    for (int seq = 0; seq < a.n; seq++) {
        const struct mm_step_span s = mm_attend_span(a, me, here, seq);
        const group g(here.states[seq].k, here.states[seq].v, here.t->channels, column, P);
#pragma unroll 1
        for (int i = 0; i < group::ahead; i++)
            g.ask(s.from + (i * mm_step_warps + (int)threadIdx.x / 32) * group::keys, s.to);
    }
}

// Of N keys a lane has a part of each one's score; it gets the score of key lane / (32 / N).
template <int N>
__device__ __forceinline__ float mm_attend_scores(float s[N]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = N / 2, bit = 16; half > 0; half /= 2, bit /= 2) {
        const bool upper = lane & bit;
#pragma unroll
        for (int i = 0; i < half; i++) {
            const float other = __shfl_xor_sync(0xffffffffu, upper ? s[i] : s[i + half], bit);
            s[i] = (upper ? s[i + half] : s[i]) + other;
        }
    }
#pragma unroll
    for (int bit = 16 / N; bit > 0; bit /= 2)
        s[0] += __shfl_xor_sync(0xffffffffu, s[0], bit);
    return s[0];
}

// 4 numbers a lane of the row of a key or value that is there, else zeros.
__device__ __forceinline__ uint2 mm_attend_load(const void *rows, int64_t at, bool there) {
    return there ? __ldcg((const uint2 *)((const __nv_bfloat16 *)rows + at)) : make_uint2(0, 0);
}
__device__ __forceinline__ float4 mm_attend_load4(const void *rows, int64_t at, bool there) {
    return there ? __ldcg((const float4 *)((const float *)rows + at))
                 : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// Keys [from, to) of the cache, some at once, every 8th such group this warp's. Of bf16 the next
// group's keys are on their way while one is worked on, as are its values.
template <bool HALF>
__device__ __forceinline__ void mm_attend_keys(struct mm_step_soft &acc, float4 q, const void *keys,
                                               const void *values, int64_t ld, int64_t column,
                                               int from, int to, bool in, int P) {
    using group = mm_attend_group<HALF>;
    constexpr int N = group::keys, lanes = 32 / N, step = N * mm_step_warps;
    const int lane = threadIdx.x % 32, own = lane / lanes;
    const group g(keys, values, ld, column - lane * 4, P);
    float sum = own == 0 ? acc.sum : 0.0f;  // of the lane's keys
    uint2 next[N];
    int j = from + (int)threadIdx.x / 32 * N;
    if constexpr (HALF) {
#pragma unroll
        for (int e = 0; e < N; e++)
            next[e] = mm_attend_load(keys, (j + e) * ld + column, in && j + e < to);
    }
#pragma unroll 1
    for (; j < to; j += step) {
        uint2 raw[N];
        float s[N];
        g.ask(j + group::ahead * step, to);
#pragma unroll
        for (int e = 0; e < N; e++) {
            if constexpr (HALF) {
                s[e] = mm_dot4(q, mm_widened(next[e]));
                raw[e] = mm_attend_load(values, (j + e) * ld + column, in && j + e < to);
                next[e] =
                    mm_attend_load(keys, (j + step + e) * ld + column, in && j + step + e < to);
            } else {
                s[e] = mm_dot4(q, mm_attend_load4(keys, (j + e) * ld + column, in && j + e < to));
            }
        }
        float score = mm_attend_scores<N>(s);
        if (j + own >= to) score = -INFINITY;
        float most = score;
#pragma unroll
        for (int bit = lanes; bit < 32; bit *= 2)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bit));
        most = fmaxf(most, acc.top);
        const float keep = exp2f(acc.top - most), mine = exp2f(score - most);
        acc.top = most, sum = fmaf(sum, keep, mine);
        acc.v.x *= keep, acc.v.y *= keep, acc.v.z *= keep, acc.v.w *= keep;
#pragma unroll
        for (int e = 0; e < N; e++) {
            float4 v;
            if constexpr (HALF) {
                v = mm_widened(raw[e]);
            } else {
                v = mm_attend_load4(values, (j + e) * ld + column, in && j + e < to);
            }
            const float p = __shfl_sync(0xffffffffu, mine, e * lanes);
            acc.v.x += p * v.x, acc.v.y += p * v.y, acc.v.z += p * v.z, acc.v.w += p * v.w;
        }
    }
#pragma unroll
    for (int bit = lanes; bit < 32; bit *= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, bit);
    acc.sum = sum;
}

// This block's part of one sequence's keys; the new one is the first block's, and goes to the
// cache.
template <class ARGS>
__device__ __forceinline__ struct mm_step_soft mm_attend_part(const ARGS &a,
                                                              const struct mm_step_who &me,
                                                              const char *memory,
                                                              const struct mm_step_here &here,
                                                              int head, int seq) {
    const int P = here.t->P, at = threadIdx.x % 32 * 4, group = head >> here.t->ratio_log;
    const int past = a.at[seq].past[here.y->stack];
    const struct mm_step_span span = mm_attend_span(a, me, here, seq);
    const bool in = at < P;
    const struct mm_step_state st = here.states[seq];
    const int64_t ld = (int64_t)here.t->channels, column = (int64_t)group * P + at;
    const float *z = (const float *)(memory + a.room.z) + seq * a.z_ld;
    const float2 *rope = a.rope + (seq * 2 + here.y->stack) * 128;
    const float scale = 1.4426950408889634f * rsqrtf((float)P);  // exp2 below
    float4 q = mm_turned(z + 2 * P, rope, P);
    q.x *= scale, q.y *= scale, q.z *= scale, q.w *= scale;
    struct mm_step_soft acc = {-INFINITY, 0.0f, make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    if (me.rank == 0 && threadIdx.x < 32) {
        float4 k = mm_turned(z + P, rope, P), v = k;
        if (in) v = *(const float4 *)(z + at);
        const bool writes =
            in && (head & ((1 << here.t->ratio_log) - 1)) == 0 && !mm_stopped(a, memory, seq);
        if (a.half_cache) {
            const uint2 hk = mm_four_bf16(k), hv = mm_four_bf16(v);
            if (writes) {
                *(uint2 *)((__nv_bfloat16 *)st.k + past * ld + column) = hk;
                *(uint2 *)((__nv_bfloat16 *)st.v + past * ld + column) = hv;
            }
            k = mm_widened(hk), v = mm_widened(hv);
        } else if (writes) {
            *(float4 *)((float *)st.k + past * ld + column) = k;
            *(float4 *)((float *)st.v + past * ld + column) = v;
        }
        acc.top = mm_warp_sum(in ? mm_dot4(q, k) : 0.0f), acc.sum = 1.0f, acc.v = v;
    }
    if (a.half_cache) {
        mm_attend_keys<true>(acc, q, st.k, st.v, ld, column, span.from, span.to, in, P);
    } else {
        mm_attend_keys<false>(acc, q, st.k, st.v, ld, column, span.from, span.to, in, P);
    }
    return acc;
}

// Every sequence's attention over this block's keys, said to the crew: P columns, the largest
// score, the sum.
template <class ARGS>
__device__ __forceinline__ void mm_attend(const ARGS &a, const struct mm_step_who &me, char *memory,
                                          const struct mm_step_here &here, int head,
                                          unsigned meeting, int round) {
    const int P = here.t->P, warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = threadIdx.x;
#pragma unroll 1
    for (int seq = 0; seq < a.n; seq++) {
        const struct mm_step_soft acc = mm_attend_part(a, me, memory, here, head, seq);
        float(*rows)[128] = (float(*)[128])(memory + a.room.red);
        float(*ends)[2] = (float(*)[2])(rows + mm_step_warps);
        mm_meet();
        *(float4 *)&rows[warp][lane * 4] = acc.v;
        if (lane == 0) ends[warp][0] = acc.top, ends[warp][1] = acc.sum;
        mm_meet();
        if (d >= P) continue;
        float most = -INFINITY, all = 0.0f, out = 0.0f;
#pragma unroll 4
        for (int w = 0; w < mm_step_warps; w++)
            most = fmaxf(most, ends[w][0]);
#pragma unroll 4
        for (int w = 0; w < mm_step_warps; w++) {
            const float f = ends[w][1] > 0.0f ? exp2f(ends[w][0] - most) : 0.0f;
            all += f * ends[w][1];
            out += f * rows[w][d];
        }
        uint64_t *to = mm_words_y(a, me.crew, meeting, round, seq) + me.rank * (P + 4);
        mm_say_float(to + d, out, meeting);
        if (d == 0) mm_say_float(to + P, most, meeting), mm_say_float(to + P + 1, all, meeting);
    }
}

// The members' parts into one: the last projection's operand, as mm_gated.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_attended(const ARGS &a, const struct mm_step_who &me,
                                            char *memory, const struct mm_step_here &here, int head,
                                            unsigned meeting, int round) {
    const int seq = threadIdx.x / 32, P = here.t->P;
    if (seq >= a.n) return;
    const int at = threadIdx.x % 32 * 4 - head * P % mm_step_block;
    const bool in = at >= 0 && at < P;
    const uint64_t *y = mm_words_y(a, me.crew, meeting, round, seq);
    float most = -INFINITY, all = 0.0f;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
    for (int r = 0; r < mm_step_crew; r++) {
        const uint64_t *part = y + r * (P + 4);
        const uint2 end = mm_hear2(part + P, meeting);
        const float top = __uint_as_float(end.x), sum = __uint_as_float(end.y);
        float4 p = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (in) p = mm_as_floats(mm_hear4(part + at, meeting));
        if (!(sum > 0.0f)) continue;
        const float more = fmaxf(most, top), keep = exp2f(most - more), f = exp2f(top - more);
        most = more, all = all * keep + f * sum;
        v.x = v.x * keep + f * p.x, v.y = v.y * keep + f * p.y;
        v.z = v.z * keep + f * p.z, v.w = v.w * keep + f * p.w;
    }
    const float r = 1.0f / all;
    v.x *= r, v.y *= r, v.z *= r, v.w *= r;
    mm_keep_operand<KERNEL>(a, memory, 0, seq, v, here.t->shape[mm_step_wo].type != mm_dtype_bf16);
}

#endif
