// The mixers of a token step, a head a crew: the convolution's rows as the first projection's sums
// come; the recurrence, some rows of the head's state a block; kept attention, a part of the keys a
// block.
#ifndef MM_OPS_CUDA_STEP_MIXER_CUH
#define MM_OPS_CUDA_STEP_MIXER_CUH

#include "ops/cuda/step_product.cuh"

// What the walk knows of a block of the model.
struct mm_step_here {
    const struct mm_step_kind *t;
    const struct mm_step_layer *y;
    const struct mm_step_state *states;  // (n), in shared memory
};

// Whether nothing of a sequence's state may change.
template <class ARGS>
__device__ __forceinline__ bool mm_stopped(const ARGS &a, const char *memory, int seq) {
    return *(const unsigned *)(memory + a.room.stopped) >> seq & 1;
}

// ---- between the first projection and the mixer ----

// A row of the first projection that this block finishes, of four tiles of `in`; where there is a
// gate by itself, the fourth tile is its. The same for every block of a kind: a table.
struct alignas(16) mm_step_row {
    int z;        // which number of z it becomes; -1: there is no such row
    int channel;  // of the convolution; -1: it has none
    int sum;      // where its sums are in `red`, of the first sequence
    int parts;    // as many are to be added; 16 times which part of z
};

// head: -1 where the crew has none.
__device__ __forceinline__ struct mm_step_row mm_row_make(const struct mm_step_kind &t,
                                                          const struct mm_step_who &me, int head,
                                                          int index) {
    const int row = index % mm_step_tile, of = index / mm_step_tile;
    const bool gate = of == 3 && t.shape[mm_step_gate].n_seg;
    const struct mm_step_shape &m = t.shape[gate ? mm_step_gate : mm_step_in];
    const int group = gate ? 0 : of, tile = me.rank * m.per + group, j = tile >> m.seg_tiles_log;
    const int in = (tile - (j << m.seg_tiles_log)) * mm_step_tile + row, part = m.seg_z + j;
    struct mm_step_row r = {-1, -1, 0, 0};
    if (head < 0 || group >= m.per || tile >= m.tiles || in >= m.seg_rows) return r;
    r.z = part * t.P + in;
    r.sum = ((gate ? mm_step_warps : 0) + (group << m.split_log)) * 128 + row;
    r.parts = 1 << m.split_log | part << 4;
    if (!t.attention && part < 3)
        r.channel = m.seg[j].row + head * m.seg[j].per_head +
                    (head >> t.ratio_log) * m.seg[j].per_group + in;
    return r;
}

template <class ARGS>
__device__ __forceinline__ struct mm_step_row *mm_rows_of(const ARGS &a, char *memory, int kind,
                                                          int round) {
    return (struct mm_step_row *)(memory + a.room.items) + (kind * a.rounds + round) * mm_step_rows;
}

// Item 64 seq + row: such a row of a sequence.
struct mm_step_item {
    int index, seq;
    struct mm_step_row row;
};

template <class ARGS>
__device__ __forceinline__ struct mm_step_item mm_item(const ARGS &a, char *memory,
                                                       const struct mm_step_here &here, int round,
                                                       int index) {
    struct mm_step_item i = {index, index / mm_step_rows, {-1, -1, 0, 0}};
    if (i.seq < a.n) i.row = mm_rows_of(a, memory, here.y->kind, round)[index % mm_step_rows];
    return i;
}

// What the convolution of a row needs besides the new one: old ones, weights, bias.
struct mm_step_conv {
    float4 old, w;  // old.w: bias
};

__device__ __forceinline__ struct mm_step_conv mm_conv_load(const struct mm_step_here &here,
                                                            const struct mm_step_item &i) {
    const int before = here.t->conv_k - 1;
    struct mm_step_conv c;
    c.old = c.w = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const int channel = i.row.channel;
    if (channel < 0) return c;
    const float *st = here.states[i.seq].conv + channel;
    const float *w = here.y->conv_w + channel * (before + 1);
    c.old.w = __ldg(here.y->conv_b + channel);
    if (before > 0) c.old.x = __ldcg(st);
    if (before > 1) c.old.y = __ldcg(st + (int64_t)here.t->channels);
    if (before > 2) c.old.z = __ldcg(st + (int64_t)here.t->channels * 2);
    c.w.x = __ldg(w);
    if (before > 0) c.w.y = __ldg(w + 1);
    if (before > 1) c.w.z = __ldg(w + 2);
    if (before > 2) c.w.w = __ldg(w + 3);
    return c;
}

// Of an item in shared memory: a thread finds what it put there itself.
template <class ARGS>
__device__ __forceinline__ float4 *mm_conv_at(const ARGS &a, char *memory, int index, int round) {
    return (float4 *)(memory + a.room.conv) + (round * a.n * mm_step_rows + index) * 2;
}
template <class ARGS>
__device__ __forceinline__ void mm_conv_store(const ARGS &a, char *memory,
                                              const struct mm_step_item &i, int round,
                                              const struct mm_step_conv &c) {
    if (i.row.channel < 0) return;
    float4 *to = mm_conv_at(a, memory, i.index, round);
    to[0] = c.old, to[1] = c.w;
}

__device__ __forceinline__ float mm_conv(const float4 *of, int before, float z) {
    const float4 old = of[0], w = of[1];
    float sum = old.w;
    if (before > 0) sum += w.x * old.x;
    if (before > 1) sum += w.y * old.y;
    if (before > 2) sum += w.z * old.z;
    sum += (before == 0 ? w.x : before == 1 ? w.y : before == 2 ? w.z : w.w) * z;
    return sum * mm_sigmoid(sum);
}

// A row's sum becomes a number of z and is said to the crew.
template <class ARGS>
__device__ __forceinline__ void mm_finish_row(const ARGS &a, const struct mm_step_who &me,
                                              char *memory, const struct mm_step_here &here,
                                              const struct mm_step_item &i, unsigned meeting,
                                              int round, float z) {
    float v = z;
    if (i.row.channel >= 0) {
        ((float *)(memory + a.room.fresh))[round * a.n * mm_step_rows + i.index] = z;
        v = mm_conv(mm_conv_at(a, memory, i.index, round), here.t->conv_k - 1, z);
    } else if (i.row.parts >> 4 == 3) {
        v = z * mm_sigmoid(z);
    }
    mm_say_float(mm_words_z(a, me.crew, meeting, round, i.seq) + i.row.z, v, meeting);
}

// The convolution's states move on by the new rows. Crews that share a group read the same states,
// so that waits until all have met after reading them; the group's first head writes.
template <class ARGS>
__device__ __forceinline__ void mm_conv_keep(const ARGS &a, char *memory,
                                             const struct mm_step_here &here, int head, int round) {
    const int before = here.t->conv_k - 1;
    if (here.t->attention || before == 0) return;
    const bool first = (head & ((1 << here.t->ratio_log) - 1)) == 0;
    const int64_t channels = here.t->channels;
    const float *fresh = (const float *)(memory + a.room.fresh) + round * a.n * mm_step_rows;
#pragma unroll 1
    for (int at = threadIdx.x; at < a.n * mm_step_rows; at += mm_step_threads) {
        const struct mm_step_item i = mm_item(a, memory, here, round, at);
        if (i.row.channel < 0 || (i.row.parts >> 4 < 2 && !first) || mm_stopped(a, memory, i.seq))
            continue;
        float *st = here.states[i.seq].conv + i.row.channel;
        const float4 old = mm_conv_at(a, memory, at, round)[0];
        if (before > 1) st[0] = old.y;
        if (before > 2) st[channels] = old.z;
        st[(before - 1) * channels] = fresh[at];
    }
}

// A lane's columns of the row of dt, of the warp's first two blocks of 128.
struct mm_step_dt {
    uint2 w[2];
};

template <class ARGS>
__device__ __forceinline__ uint2 mm_dt_weights(const ARGS &a, const struct mm_step_here &here,
                                               int head, int block) {
    const int column = block * mm_step_block + threadIdx.x % 32 * 4;
    if (column >= a.D) return make_uint2(0, 0);
    const char *row = here.y->dt + here.t->dt_row + (int64_t)head * here.t->dt_pitch;
    return __ldg((const uint2 *)(row + column * 2));
}

// The row of dt times the operand, a warp's columns; the sums of the warps are added later.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_dt_sums(const ARGS &a, char *memory,
                                           const struct mm_step_here &here, int head,
                                           const struct mm_step_dt &dt) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
    for (int seq = 0; seq < a.n; seq++) {
        float sum = 0.0f;
#pragma unroll 2
        for (int i = 0; i * mm_step_warps + warp < a.D_blocks; i++) {
            const int block = i * mm_step_warps + warp;
            const uint2 w = i == 0   ? dt.w[0]
                            : i == 1 ? dt.w[1]
                                     : mm_dt_weights(a, here, head, block);
            float4 x;
            if (KERNEL::weights == mm_dtype_bf16) {
                x = mm_widened(mm_words_of(
                    memory + a.room.operand + (block * a.n + seq) * mm_step_row_bf16, lane));
            } else {
                const char *row = mm_exact_row(memory + a.room.exact, a.n, block, seq);
                x = mm_add4(mm_widened(mm_words_of(row, lane % 16)),
                            mm_add4(mm_widened(mm_words_of(row + 128, lane % 16)),
                                    mm_widened(mm_words_of(row + 256, lane % 16))));
            }
            sum += mm_dot4(x, mm_widened(w));
        }
        sum = mm_warp_sum(sum);
        if (lane == 0) ((float *)(memory + a.room.dt))[warp * 8 + seq] = sum;
    }
}

template <class ARGS>
__device__ __forceinline__ void mm_dt_finish(const ARGS &a, const struct mm_step_who &me,
                                             const char *memory, const struct mm_step_here &here,
                                             unsigned meeting, int round, int seq, float factor,
                                             float bias) {
    const float *sums = (const float *)(memory + a.room.dt) + seq;
    float z = 0.0f;
#pragma unroll
    for (int i = 0; i < mm_step_warps; i++)
        z += sums[i * 8];
    const float u = factor * z + bias, v = u > 20.0f ? u : log1pf(expf(u));
    mm_say_float(mm_words_z(a, me.crew, meeting, round, seq) + 4 * here.t->P, v, meeting);
}

// z as the crew said it, to shared memory.
template <class ARGS>
__device__ __forceinline__ void mm_hear_z(const ARGS &a, const struct mm_step_who &me, char *memory,
                                          const struct mm_step_here &here, unsigned meeting,
                                          int round) {
    const int P = here.t->P, twos = (here.t->attention ? 3 : 4) * P / 2;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n * twos; i += mm_step_threads) {
        const int seq = i / twos, at = i % twos * 2;
        const uint2 v = mm_hear2(mm_words_z(a, me.crew, meeting, round, seq) + at, meeting);
        *(uint2 *)((float *)(memory + a.room.z) + seq * a.z_ld + at) = v;
    }
    // by threads that had the least to do
    const int seq = mm_step_threads - 1 - (int)threadIdx.x;
    if (!here.t->attention && seq < a.n)
        ((float *)(memory + a.room.z))[seq * a.z_ld + 4 * P] =
            __uint_as_float(mm_hear(mm_words_z(a, me.crew, meeting, round, seq) + 4 * P, meeting));
}

// ---- the recurrence ----

// LayerNorm over a head, 4 values a lane (use_qknorm).
__device__ __forceinline__ float4 mm_head_norm(float4 x, int dim, const float *w, const float *b) {
    const int at = threadIdx.x % 32 * 4;
    const bool in = at < dim;
    const float mean = mm_warp_sum(in ? x.x + x.y + (x.z + x.w) : 0.0f) / (float)dim;
    const float4 c = make_float4(x.x - mean, x.y - mean, x.z - mean, x.w - mean);
    const float r = rsqrtf(mm_warp_sum(in ? mm_dot4(c, c) : 0.0f) / (float)dim + 1e-5f);
    if (!in) return x;
    return make_float4(c.x * r * w[at] + b[at], c.y * r * w[at + 1] + b[at + 1],
                       c.z * r * w[at + 2] + b[at + 2], c.w * r * w[at + 3] + b[at + 3]);
}

// Item i: a row of S of a sequence. This block has P / 8 of the head's rows.
__device__ __forceinline__ float *mm_state_row(const struct mm_step_here &here,
                                               const struct mm_step_who &me, int head, int i) {
    const int rows = here.t->P / mm_step_crew, row = me.rank * rows + i % rows;
    return here.states[i / rows].S + ((int64_t)head * here.t->P + row) * here.t->P +
           threadIdx.x % 32 * 4;
}

template <class ARGS>
__device__ __forceinline__ float4 mm_state_load(const ARGS &a, const struct mm_step_here &here,
                                                const struct mm_step_who &me, int head, int i) {
    const int P = here.t->P;
    if (i >= a.n * (P / mm_step_crew) || threadIdx.x % 32 * 4 >= P)
        return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return __ldcg((const float4 *)mm_state_row(here, me, head, i));
}

// S = decay S + (dt v) k^T of a row, 4 columns a lane; the lane's part of S q comes back.
template <class ARGS>
__device__ __forceinline__ float mm_recur_row(const ARGS &a, const struct mm_step_who &me,
                                              const char *memory, const struct mm_step_here &here,
                                              int head, int i, float4 s, float rate, float *v) {
    const struct mm_step_layer &y = *here.y;
    const int P = here.t->P, rows = P / mm_step_crew, at = threadIdx.x % 32 * 4, seq = i / rows;
    const bool in = at < P;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float *z = (const float *)(memory + a.room.z) + seq * a.z_ld;
    float4 k = in ? *(const float4 *)(z + P + at) : zero;
    float4 q = in ? *(const float4 *)(z + 2 * P + at) : zero;
    const float dt = z[4 * P];
    *v = z[me.rank * rows + i % rows];
    if (y.q_norm_w) {
        k = mm_head_norm(k, P, y.k_norm_w, y.k_norm_b);
        q = mm_head_norm(q, P, y.q_norm_w, y.q_norm_b);
    }
    const float decay = expf(rate * dt), w = dt * *v;
    s.x = fmaf(s.x, decay, w * k.x), s.y = fmaf(s.y, decay, w * k.y);
    s.z = fmaf(s.z, decay, w * k.z), s.w = fmaf(s.w, decay, w * k.w);
    if (in && !mm_stopped(a, memory, seq)) *(float4 *)mm_state_row(here, me, head, i) = s;
    return in ? mm_dot4(s, q) : 0.0f;
}

// The recurrence and y = S q + d v, two rows a warp at a time; `s` and `next` are the first ones,
// `rate` what the exponent of the decay has to dt.
template <class ARGS>
__device__ __forceinline__ void mm_recur(const ARGS &a, const struct mm_step_who &me, char *memory,
                                         const struct mm_step_here &here, int head, float4 s,
                                         float4 next, float rate, float d, unsigned meeting,
                                         int round) {
    const int rows = here.t->P / mm_step_crew, count = a.n * rows;
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < count; i += 2 * mm_step_warps) {
        const float4 later[2] = {mm_state_load(a, here, me, head, i + 2 * mm_step_warps),
                                 mm_state_load(a, here, me, head, i + 3 * mm_step_warps)};
        const int second = i + mm_step_warps;
        float v[2], sum[2] = {0.0f, 0.0f};
        sum[0] = mm_recur_row(a, me, memory, here, head, i, s, rate, &v[0]);
        if (second < count)
            sum[1] = mm_recur_row(a, me, memory, here, head, second, next, rate, &v[1]);
        sum[0] = mm_warp_sum(sum[0]), sum[1] = mm_warp_sum(sum[1]);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int j = i + e * mm_step_warps, row = me.rank * rows + j % rows;
            if (j < count && threadIdx.x % 32 == e)
                mm_say_float(mm_words_y(a, me.crew, meeting, round, j / rows) + row,
                             fmaf(d, v[e], sum[e]), meeting);
        }
        s = later[0], next = later[1];
    }
}

// The gated norm's weights, 4 a lane as mm_gated has them.
__device__ __forceinline__ float4 mm_gated_weights(const struct mm_step_here &here, int head) {
    const int at = threadIdx.x % 32 * 4 - head * here.t->P % mm_step_block;
    if (!here.y->g_norm || at < 0 || at >= here.t->P) return make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    return __ldg((const float4 *)(here.y->g_norm + at));
}

// y, heard from the crew, through the gated norm becomes the last projection's operand: 128 columns
// that hold the head's. A warp a sequence.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_gated(const ARGS &a, const struct mm_step_who &me, char *memory,
                                         const struct mm_step_here &here, int head, float4 w,
                                         unsigned meeting, int round) {
    const int seq = threadIdx.x / 32, P = here.t->P;
    if (seq >= a.n) return;
    const int at = threadIdx.x % 32 * 4 - head * P % mm_step_block;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float4 v = zero, g = zero;
    if (at >= 0 && at < P) {
        v = mm_as_floats(mm_hear4(mm_words_y(a, me.crew, meeting, round, seq) + at, meeting));
        g = *(const float4 *)((const float *)(memory + a.room.z) + seq * a.z_ld + 3 * P + at);
        g.x *= w.x, g.y *= w.y, g.z *= w.z, g.w *= w.w;
    }
    const float squares = mm_warp_sum(mm_dot4(v, v));
    const float r = here.y->g_norm ? rsqrtf(squares / (float)P + 1e-5f) : 1.0f;
    v.x *= r * g.x, v.y *= r * g.y, v.z *= r * g.z, v.w *= r * g.w;
    mm_keep_operand<KERNEL>(a, memory, 0, seq, v, here.t->shape[mm_step_wo].type != mm_dtype_bf16);
}

// ---- attention ----

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
