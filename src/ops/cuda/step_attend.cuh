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

// This block's part of a sequence's old keys, [from, to), the part'th.
struct mm_step_span {
    int part, from, to;
};
template <class ARGS>
__device__ __forceinline__ struct mm_step_span mm_attend_span(const ARGS &a,
                                                              const struct mm_step_who &me,
                                                              const struct mm_step_here &here,
                                                              int seq) {
    const bool pair = mm_paired(a, here);
    const int past = a.at[seq].past[here.y->stack], log = pair ? 4 : 3;
    static_assert(mm_step_crew == 1 << 3, "the parts of one crew, and of two");
    const int part = me.rank + (pair && me.crew % 2 ? mm_step_crew : 0);
    const int piece = ((past + (1 << log) - 1 >> log) + 63) / 64 * 64;
    const int from = min(part * piece, past);
    return {part, from, min(from + piece, past)};
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

// Keys [from, to) of the cache, some at once, every 8th such group this warp's, for as many heads.
// Of bf16 the next group's keys are on their way while one is worked on, as are its values.
template <bool HALF, int HEADS>
__device__ __forceinline__ void mm_attend_keys(struct mm_step_soft *acc, const float4 *q,
                                               const void *keys, const void *values, int64_t ld,
                                               int64_t column, int from, int to, bool in, int P) {
    using group = mm_attend_group<HALF>;
    constexpr int N = group::keys, lanes = 32 / N, step = N * mm_step_warps;
    const int lane = threadIdx.x % 32, own = lane / lanes;
    const group g(keys, values, ld, column - lane * 4, P);
    float sum[HEADS];  // of the lane's keys
#pragma unroll
    for (int h = 0; h < HEADS; h++)
        sum[h] = own == 0 ? acc[h].sum : 0.0f;
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
        float s[HEADS][N], mine[HEADS];
        g.ask(j + group::ahead * step, to);
#pragma unroll
        for (int e = 0; e < N; e++) {
            float4 k;
            if constexpr (HALF) {
                k = mm_widened(next[e]);
                raw[e] = mm_attend_load(values, (j + e) * ld + column, in && j + e < to);
                next[e] =
                    mm_attend_load(keys, (j + step + e) * ld + column, in && j + step + e < to);
            } else {
                k = mm_attend_load4(keys, (j + e) * ld + column, in && j + e < to);
            }
#pragma unroll
            for (int h = 0; h < HEADS; h++)
                s[h][e] = mm_dot4(q[h], k);
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float score = mm_attend_scores<N>(s[h]);
            if (j + own >= to) score = -INFINITY;
            float most = score;
#pragma unroll
            for (int bit = lanes; bit < 32; bit *= 2)
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bit));
            most = fmaxf(most, acc[h].top);
            const float keep = exp2f(acc[h].top - most);
            mine[h] = exp2f(score - most);
            acc[h].top = most, sum[h] = fmaf(sum[h], keep, mine[h]);
            acc[h].v.x *= keep, acc[h].v.y *= keep, acc[h].v.z *= keep, acc[h].v.w *= keep;
        }
#pragma unroll
        for (int e = 0; e < N; e++) {
            float4 v;
            if constexpr (HALF) {
                v = mm_widened(raw[e]);
            } else {
                v = mm_attend_load4(values, (j + e) * ld + column, in && j + e < to);
            }
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                const float p = __shfl_sync(0xffffffffu, mine[h], e * lanes);
                acc[h].v.x += p * v.x, acc[h].v.y += p * v.y;
                acc[h].v.z += p * v.z, acc[h].v.w += p * v.w;
            }
        }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
#pragma unroll
        for (int bit = lanes; bit < 32; bit *= 2)
            sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], bit);
        acc[h].sum = sum[h];
    }
}

// This block's part of one sequence's keys, for the crew's head and, of a pair, for the other
// crew's; the new key is the first part's, and goes to the cache.
template <bool HALF, int HEADS, class ARGS>
__device__ __forceinline__ void mm_attend_part(struct mm_step_soft *acc, const ARGS &a,
                                               const char *memory, const struct mm_step_here &here,
                                               int head, int seq, const struct mm_step_span &span) {
    const int P = here.t->P, at = threadIdx.x % 32 * 4, group = head >> here.t->ratio_log;
    const int past = a.at[seq].past[here.y->stack];
    const bool in = at < P;
    const struct mm_step_state st = here.states[seq];
    const int64_t ld = (int64_t)here.t->channels, column = (int64_t)group * P + at;
    const float *z = (const float *)(memory + a.room.z) + seq * a.z_ld;
    const float2 *rope = a.rope + (seq * 2 + here.y->stack) * 128;
    const float scale = 1.4426950408889634f * rsqrtf((float)P);  // exp2 below
    float4 q[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        q[h] = mm_turned(z + (2 + h) * P, rope, P);
        q[h].x *= scale, q[h].y *= scale, q[h].z *= scale, q[h].w *= scale;
        acc[h] = {-INFINITY, 0.0f, make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    }
    if (span.part == 0 && threadIdx.x < 32) {
        float4 k = mm_turned(z + P, rope, P), v = k;
        if (in) v = *(const float4 *)(z + at);
        const bool writes =
            in && (head & ((1 << here.t->ratio_log) - 1)) == 0 && !mm_stopped(a, memory, seq);
        if (HALF) {
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
#pragma unroll
        for (int h = 0; h < HEADS; h++)
            acc[h].top = mm_warp_sum(in ? mm_dot4(q[h], k) : 0.0f), acc[h].sum = 1.0f, acc[h].v = v;
    }
    mm_attend_keys<HALF, HEADS>(acc, q, st.k, st.v, ld, column, span.from, span.to, in, P);
}

// Every sequence's attention over this block's keys, said to the crew, and of a pair to the
// other's: P columns, the largest score, the sum.
template <class ARGS>
__device__ __forceinline__ void mm_attend(const ARGS &a, const struct mm_step_who &me, char *memory,
                                          const struct mm_step_here &here, int head,
                                          unsigned meeting, int round) {
    const bool pair = mm_paired(a, here);
    const int P = here.t->P, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int d = threadIdx.x % 128, of = threadIdx.x / 128;  // a thread's column and head
    static_assert(mm_step_threads<ARGS> == 2 * 128, "a thread for every column of two heads");
#pragma unroll 1
    for (int seq = 0; seq < a.n; seq++) {
        const struct mm_step_span span = mm_attend_span(a, me, here, seq);
        struct mm_step_soft acc[2] = {};
        if (pair) {
            mm_attend_part<true, 2>(acc, a, memory, here, head, seq, span);
        } else if (a.half_cache) {
            mm_attend_part<true, 1>(acc, a, memory, here, head, seq, span);
        } else {
            mm_attend_part<false, 1>(acc, a, memory, here, head, seq, span);
        }
        struct ends {
            float top, sum;
        };
        float(*rows)[mm_step_warps][128] = (float(*)[mm_step_warps][128])(memory + a.room.red);
        struct ends(*ends)[mm_step_warps] = (struct ends(*)[mm_step_warps])(rows + 2);
        mm_meet(a);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            *(float4 *)&rows[h][warp][lane * 4] = acc[h].v;
            if (lane == 0) ends[h][warp] = {acc[h].top, acc[h].sum};
        }
        mm_meet(a);
        if (d >= P || (of && !pair)) continue;
        float most = -INFINITY, all = 0.0f, out = 0.0f;
#pragma unroll 4
        for (int w = 0; w < mm_step_warps; w++)
            most = fmaxf(most, ends[of][w].top);
#pragma unroll 4
        for (int w = 0; w < mm_step_warps; w++) {
            const float f = ends[of][w].sum > 0.0f ? exp2f(ends[of][w].top - most) : 0.0f;
            all += f * ends[of][w].sum;
            out += f * rows[of][w][d];
        }
        uint64_t *to = mm_words_y(a, me.crew ^ of, meeting, round, seq) + span.part * (P + 4);
        mm_say_float(to + d, out, meeting);
        if (d == 0)
            mm_say2(to + P, make_uint2(__float_as_uint(most), __float_as_uint(all)), meeting);
    }
}

// The parts of all keys into one: the last projection's operand, as mm_gated. Four parts are heard
// at a time.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_attended(const ARGS &a, const struct mm_step_who &me,
                                            char *memory, const struct mm_step_here &here, int head,
                                            unsigned meeting, int round) {
    const int seq = threadIdx.x / 32, P = here.t->P;
    if (seq >= a.n) return;
    const int at = threadIdx.x % 32 * 4 - head * P % mm_step_block;
    const bool in = at >= 0 && at < P;
    const int parts = mm_paired(a, here) ? 2 * mm_step_crew : mm_step_crew;
    const uint64_t *y = mm_words_y(a, me.crew, meeting, round, seq);
    float most = -INFINITY, all = 0.0f;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
    for (int r0 = 0; r0 < parts; r0 += 4) {
        uint64_t end[4][2], w[4][4];
        bool come;
        do {
            come = true;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint64_t *part = y + (r0 + i) * (P + 4);
                mm_load_words(end[i][0], end[i][1], part + P);
                mm_load_words(w[i][0], w[i][1], part + (in ? at : P));
                mm_load_words(w[i][2], w[i][3], part + (in ? at + 2 : P));
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                come = come && mm_fresh(end[i][0], meeting) && mm_fresh(end[i][1], meeting) &&
                       mm_fresh(w[i][0], meeting) && mm_fresh(w[i][1], meeting) &&
                       mm_fresh(w[i][2], meeting) && mm_fresh(w[i][3], meeting);
        } while (!mm_all(come));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float top = __uint_as_float((uint32_t)end[i][0]),
                        sum = __uint_as_float((uint32_t)end[i][1]);
            const uint4 u = make_uint4((uint32_t)w[i][0], (uint32_t)w[i][1], (uint32_t)w[i][2],
                                       (uint32_t)w[i][3]);
            const float4 p = in ? mm_as_floats(u) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (!(sum > 0.0f)) continue;
            const float more = fmaxf(most, top), keep = exp2f(most - more), f = exp2f(top - more);
            most = more, all = all * keep + f * sum;
            v.x = v.x * keep + f * p.x, v.y = v.y * keep + f * p.y;
            v.z = v.z * keep + f * p.z, v.w = v.w * keep + f * p.w;
        }
    }
    const float r = 1.0f / all;
    v.x *= r, v.y *= r, v.z *= r, v.w *= r;
    mm_keep_operand<KERNEL>(a, memory, 0, seq, v, here.t->shape[mm_step_wo].type != mm_dtype_bf16);
}

#endif
