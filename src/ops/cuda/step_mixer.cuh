// The mixers of a token step, a head a crew: the convolution's rows as the first projection's sums
// come; the recurrence, some rows of the head's state a block. step_attend.cuh has kept attention.
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
    return *(const unsigned *)(memory + a.room.numbers) >> seq & 1;
}

// ---- between the first projection and the mixer ----

// A row of the first projection that this block finishes, of three tiles; the fourth is of the
// gate. The same for every block of a kind: a table.
struct alignas(16) mm_step_row {
    int z;        // which number of z it becomes; -1: there is no such row
    int channel;  // of the convolution; -1: it has none
    int sum;      // where its sums are in `red`, of the first sequence
    int parts;    // as many are to be added; 16 times which part of z
};

// head: -1 where the crew has none.
template <class ARGS>
__device__ __forceinline__ struct mm_step_row mm_row_make(const ARGS &,
                                                          const struct mm_step_kind &t,
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
    r.sum = ((gate ? mm_step_warps : 0) + (group << m.split_log)) * mm_row_part<ARGS> + row;
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

// What the convolution of an item needs besides the new row, in shared memory: old ones and the
// bias, then weights. A thread finds what it asked for itself, after mm_conv_wait.
template <class ARGS>
__device__ __forceinline__ float4 *mm_conv_at(const ARGS &a, char *memory, int index, int round) {
    return (float4 *)(memory + a.room.conv) + (round * a.n * mm_step_rows + index) * 2;
}
// Asks for it. Copies need no registers while a thread waits for the stream.
template <class ARGS>
__device__ __forceinline__ void mm_conv_ask(const ARGS &a, char *memory,
                                            const struct mm_step_here &here,
                                            const struct mm_step_item &i, int round) {
    const int before = here.t->conv_k - 1, channel = i.row.channel;
    if (channel < 0) return;
    const mm_shared_ptr to = mm_shared_at(mm_conv_at(a, memory, i.index, round));
    const float *st = here.states[i.seq].conv + channel;
    const float *w = here.y->conv_w + channel * (before + 1);
    mm_copy4(to + 12, here.y->conv_b + channel, true);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (j < before) mm_copy4(to + 4 * j, st + (int64_t)here.t->channels * j, true);
        if (j <= before) mm_copy4(to + 16 + 4 * j, w + j, true);
    }
}
__device__ __forceinline__ void mm_conv_wait() {
    mm_copies_close();
    mm_copies_wait<0>();
}

__device__ __forceinline__ float mm_conv(float4 old, float4 w, int before, float z) {
    float sum = old.w;
    if (before > 0) sum += w.x * old.x;
    if (before > 1) sum += w.y * old.y;
    if (before > 2) sum += w.z * old.z;
    sum += (before == 0 ? w.x : before == 1 ? w.y : before == 2 ? w.z : w.w) * z;
    return sum * mm_sigmoid(sum);
}

// An item as it is when its sums come: `has` any, and what its convolution needs besides.
struct mm_step_ready {
    struct mm_step_item item;
    bool has;
    float4 old, w;
};
// Of the rows of the gate, or of the others.
template <class ARGS>
__device__ __forceinline__ struct mm_step_ready mm_ready(const ARGS &a, char *memory,
                                                         const struct mm_step_here &here, int round,
                                                         int index, bool gate) {
    struct mm_step_ready r;
    r.item = mm_item(a, memory, here, round, index);
    r.has = r.item.row.z >= 0 && (r.item.row.parts >> 4 == 3) == gate;
    r.old = r.w = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (r.has && r.item.row.channel >= 0) {
        const float4 *of = mm_conv_at(a, memory, index, round);
        r.old = of[0], r.w = of[1];
    }
    return r;
}

// A row's sum becomes a number of z and is said to the crew.
template <class ARGS>
__device__ __forceinline__ void mm_finish_row(const ARGS &a, const struct mm_step_who &me,
                                              char *memory, const struct mm_step_here &here,
                                              const struct mm_step_ready &r, unsigned meeting,
                                              int round, float z) {
    const struct mm_step_item &i = r.item;
    float v = z;
    if (i.row.channel >= 0) {
        ((float *)(memory + a.room.fresh))[round * a.n * mm_step_rows + i.index] = z;
        v = mm_conv(r.old, r.w, here.t->conv_k - 1, z);
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
    for (int at = threadIdx.x; at < a.n * mm_step_rows; at += mm_step_threads<ARGS>) {
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

// The row of dt is summed up in so many ways, each every so manieth block of 128 columns: by warps
// that have no tile of the first projection, while the others multiply these, or else by all. The
// first of them.
template <class ARGS>
__device__ __forceinline__ int mm_dt_first(const ARGS &, const struct mm_step_here &here) {
    const struct mm_step_shape &m = here.t->shape[mm_step_in];
    const int busy = (m.per << m.split_log) * (ARGS::warps / mm_step_warps);
    return busy < ARGS::warps ? busy : 0;
}

template <class ARGS>
__device__ __forceinline__ uint2 mm_dt_weights(const ARGS &a, const struct mm_step_here &here,
                                               int head, int block) {
    const int column = block * mm_step_block + threadIdx.x % 32 * 4;
    if (column >= a.D) return make_uint2(0, 0);
    const char *row = here.y->dt + here.t->dt_row + (int64_t)head * here.t->dt_pitch;
    return __ldg((const uint2 *)(row + column * 2));
}

// A lane's columns of a block of the operand, for it.
template <class KERNEL, class ARGS>
__device__ __forceinline__ float4 mm_dt_operand(const ARGS &a, char *memory, int block, int seq) {
    const int lane = threadIdx.x % 32;
    if (KERNEL::weights == mm_dtype_bf16)
        return mm_widened(
            mm_words_of(memory + a.room.operand + (block * a.n + seq) * mm_step_row_bf16, lane));
    const char *row = mm_exact_row(memory + a.room.exact, a.n, block, seq);
    return mm_add4(mm_widened(mm_words_of(row, lane % 16)),
                   mm_add4(mm_widened(mm_words_of(row + 128, lane % 16)),
                           mm_widened(mm_words_of(row + 256, lane % 16))));
}

// A way's part of the row of dt times the operand, of one sequence.
template <class KERNEL, class ARGS>
__device__ __forceinline__ float mm_dt_way(const ARGS &a, char *memory,
                                           const struct mm_step_here &here, int head, int way) {
    float sum = 0.0f;
#pragma unroll 1
    for (int block = way; block < a.D_blocks; block += mm_step_dt_ways)
        sum += mm_dot4(mm_dt_operand<KERNEL>(a, memory, block, 0),
                       mm_widened(mm_dt_weights(a, here, head, block)));
    return mm_warp_sum(sum);
}
// Of groups every block of a crew has two ways, and says their sums: who waits for z makes dt of
// all (mm_hear_dt).
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_dt_say(const ARGS &a, const struct mm_step_who &me, char *memory,
                                          const struct mm_step_here &here, int head,
                                          unsigned meeting, int round) {
    constexpr int ways = mm_step_dt_ways / mm_step_crew;
    const int mine = (int)threadIdx.x / 32 - mm_dt_first(a, here);
    if (mine < 0 || mine >= ways) return;
    const int way = me.rank * ways + mine;
    const float sum = mm_dt_way<KERNEL>(a, memory, here, head, way);
    if (threadIdx.x % 32 == 0)
        mm_say_float(mm_words_z(a, me.crew, meeting, round, 0) + 4 * here.t->P + way, sum, meeting);
}

// The row of dt times the operand, a warp's columns; the sums of the ways are added later.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_dt_sums(const ARGS &a, char *memory,
                                           const struct mm_step_here &here, int head) {
    constexpr int some = mm_step_dt_ways / mm_step_warps * 2;  // asked for together
    const int lane = threadIdx.x % 32, first = mm_dt_first(a, here), step = ARGS::warps - first;
#pragma unroll 1
    for (int way0 = (int)threadIdx.x / 32 - first; way0 >= 0 && way0 < mm_step_dt_ways;
         way0 += some * step) {
        uint2 w[some];
#pragma unroll
        for (int e = 0; e < some; e++)
            w[e] = mm_dt_weights(a, here, head, way0 + e * step);
#pragma unroll 1
        for (int seq = 0; seq < a.n; seq++) {
#pragma unroll
            for (int e = 0; e < some; e++) {
                const int way = way0 + e * step;
                if (way >= mm_step_dt_ways) break;
                float sum = 0.0f;
#pragma unroll 1
                for (int block = way; block < a.D_blocks; block += mm_step_dt_ways) {
                    const uint2 v = block == way ? w[e] : mm_dt_weights(a, here, head, block);
                    sum += mm_dot4(mm_dt_operand<KERNEL>(a, memory, block, seq), mm_widened(v));
                }
                sum = mm_warp_sum(sum);
                if (lane == 0) ((float *)(memory + a.room.dt))[way * 8 + seq] = sum;
            }
        }
    }
}

__device__ __forceinline__ float mm_dt_of(float z, float factor, float bias) {
    const float u = factor * z + bias;
    return u > 20.0f ? u : log1pf(expf(u));
}
template <class ARGS>
__device__ __forceinline__ void mm_dt_finish(const ARGS &a, const struct mm_step_who &me,
                                             const char *memory, const struct mm_step_here &here,
                                             unsigned meeting, int round, int seq, float factor,
                                             float bias) {
    const float *sums = (const float *)(memory + a.room.dt) + seq;
    float z = 0.0f;
#pragma unroll
    for (int i = 0; i < mm_step_dt_ways; i++)
        z += sums[i * 8];
    mm_say_float(mm_words_z(a, me.crew, meeting, round, seq) + 4 * here.t->P,
                 mm_dt_of(z, factor, bias), meeting);
}

// Whether two crews whose heads have the same keys share them: each takes half of the keys, for
// both heads, so that keys and values come from the L2 once and not twice.
template <class ARGS>
__device__ __forceinline__ bool mm_paired(const ARGS &a, const struct mm_step_here &here) {
    return here.t->attention && here.t->pairs && a.half_cache;
}

// Of items, `each` a sequence, that of item i. Divisions take long; of one sequence there is none.
template <class ARGS>
__device__ __forceinline__ int mm_part_of(const ARGS &a, int i, int each) {
    return a.n == 1 ? 0 : i / each;
}

// v, k, q and dt as the crew said them, to shared memory; of a pair the other head's q, too, where
// a gate would be.
template <class ARGS>
__device__ __forceinline__ void mm_hear_z(const ARGS &a, const struct mm_step_who &me, char *memory,
                                          const struct mm_step_here &here, unsigned meeting,
                                          int round) {
    const bool pair = mm_paired(a, here);
    const int P = here.t->P, twos = (pair ? 4 : 3) * P / 2;
    const int lane = threadIdx.x % 32, all = a.n * twos;
    float *z = (float *)(memory + a.room.z);
#pragma unroll 1
    for (int i0 = (int)threadIdx.x - lane; i0 < all; i0 += mm_step_threads<ARGS>) {
        const int i = min(i0 + lane, all - 1);
        const int seq = mm_part_of(a, i, twos), at = (i - seq * twos) * 2;
        const bool other = pair && at >= 3 * P, wanted = i0 + lane < all;
        const uint64_t *from = mm_words_z(a, other ? me.crew ^ 1 : me.crew, meeting, round, seq);
        const uint2 v = mm_hear2(from + (other ? at - P : at), meeting, wanted);
        if (wanted) *(uint2 *)(z + seq * a.z_ld + at) = v;
    }
    if (ARGS::groups) return;  // mm_hear_dt
    // by a warp that had the least to do
    const int seq = mm_step_threads<ARGS> - 1 - (int)threadIdx.x;
    if (here.t->attention || seq >= 32) return;
    const uint64_t *from = mm_words_z(a, me.crew, meeting, round, min(seq, a.n - 1)) + 4 * P;
    const uint32_t dt = mm_hear(from, meeting, seq < a.n);
    if (seq < a.n) z[seq * a.z_ld + 4 * P] = __uint_as_float(dt);
}

// dt of what the crew said of it, to shared memory, by a warp that has nothing of z to hear. The
// sums are added in the order of mm_dt_finish.
template <class ARGS>
__device__ __forceinline__ void mm_hear_dt(const ARGS &a, const struct mm_step_who &me,
                                           char *memory, const struct mm_step_here &here,
                                           unsigned meeting, int round, float factor, float bias) {
    const int lane = threadIdx.x % 32, P = here.t->P;
    if ((int)threadIdx.x / 32 != ARGS::warps - 1) return;
    const uint64_t *from = mm_words_z(a, me.crew, meeting, round, 0) + 4 * P;
    const float sum =
        __uint_as_float(mm_hear(from + lane % mm_step_dt_ways, meeting, lane < mm_step_dt_ways));
    float z = 0.0f;
#pragma unroll
    for (int i = 0; i < mm_step_dt_ways; i++)
        z += __shfl_sync(0xffffffffu, sum, i);
    if (lane == 0) ((float *)(memory + a.room.z))[4 * P] = mm_dt_of(z, factor, bias);
}

// ---- the recurrence ----

// 1 / p of a power of two.
__device__ __forceinline__ float mm_share(int p) {
    return __int_as_float((254 << 23) - __float_as_int((float)p));
}

// LayerNorm over a head, 4 values a lane (use_qknorm).
__device__ __forceinline__ float4 mm_head_norm(float4 x, int dim, const float *w, const float *b) {
    const int at = threadIdx.x % 32 * 4;
    const bool in = at < dim;
    const float mean = mm_warp_sum(in ? x.x + x.y + (x.z + x.w) : 0.0f) * mm_share(dim);
    const float4 c = make_float4(x.x - mean, x.y - mean, x.z - mean, x.w - mean);
    const float r = rsqrtf(mm_warp_sum(in ? mm_dot4(c, c) : 0.0f) * mm_share(dim) + 1e-5f);
    if (!in) return x;
    return make_float4(c.x * r * w[at] + b[at], c.y * r * w[at + 1] + b[at + 1],
                       c.z * r * w[at + 2] + b[at + 2], c.w * r * w[at + 3] + b[at + 3]);
}

// Item i: a row of S of a sequence. This block has P / 8 of the head's rows.
template <class ARGS>
__device__ __forceinline__ float *mm_state_row(const ARGS &a, const struct mm_step_here &here,
                                               const struct mm_step_who &me, int head, int i) {
    const int rows = here.t->P / mm_step_crew, seq = mm_part_of(a, i, rows),
              row = me.rank * rows + i - seq * rows;
    return here.states[seq].S + ((int64_t)head * here.t->P + row) * here.t->P +
           threadIdx.x % 32 * 4;
}

template <class ARGS>
__device__ __forceinline__ float4 mm_state_load(const ARGS &a, const struct mm_step_here &here,
                                                const struct mm_step_who &me, int head, int i) {
    const int P = here.t->P;
    if (i >= a.n * (P / mm_step_crew) || threadIdx.x % 32 * 4 >= P)
        return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return __ldcg((const float4 *)mm_state_row(a, here, me, head, i));
}

// What all rows of a head's state meet: 4 columns a lane. rate: what the exponent of the decay has
// to dt.
struct mm_step_met {
    float4 k, q;
    float dt, decay;
};
template <class ARGS>
__device__ __forceinline__ struct mm_step_met mm_recur_meets(const ARGS &a, const char *memory,
                                                             const struct mm_step_here &here,
                                                             int seq, float rate) {
    const struct mm_step_layer &y = *here.y;
    const int P = here.t->P, at = threadIdx.x % 32 * 4;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float *z = (const float *)(memory + a.room.z) + seq * a.z_ld;
    struct mm_step_met m;
    m.k = at < P ? *(const float4 *)(z + P + at) : zero;
    m.q = at < P ? *(const float4 *)(z + 2 * P + at) : zero;
    m.dt = z[4 * P], m.decay = expf(rate * m.dt);
    if (y.q_norm_w) {
        m.k = mm_head_norm(m.k, P, y.k_norm_w, y.k_norm_b);
        m.q = mm_head_norm(m.q, P, y.q_norm_w, y.q_norm_b);
    }
    return m;
}

// S = decay S + (dt v) k^T of a row, which is at `to`, 4 columns a lane; the lane's part of S q
// comes back.
template <class ARGS>
__device__ __forceinline__ float mm_recur_row(const ARGS &a, const struct mm_step_who &me,
                                              const char *memory, const struct mm_step_here &here,
                                              int i, float4 s, float *to,
                                              const struct mm_step_met &m, float *v) {
    const int P = here.t->P, rows = P / mm_step_crew, seq = mm_part_of(a, i, rows);
    const bool in = threadIdx.x % 32 * 4 < P;
    const float *z = (const float *)(memory + a.room.z) + seq * a.z_ld;
    *v = z[me.rank * rows + i - seq * rows];
    const float w = m.dt * *v;
    s.x = fmaf(s.x, m.decay, w * m.k.x), s.y = fmaf(s.y, m.decay, w * m.k.y);
    s.z = fmaf(s.z, m.decay, w * m.k.z), s.w = fmaf(s.w, m.decay, w * m.k.w);
    if (in && !mm_stopped(a, memory, seq)) *(float4 *)to = s;
    return in ? mm_dot4(s, m.q) : 0.0f;
}

// The first rows of a warp, of which it has as many at a time; of one sequence twice the warps have
// a row each.
template <class ARGS>
inline constexpr int mm_rows_at_once = ARGS::warps > mm_step_warps ? 1 : 2;
template <class ARGS>
struct mm_step_state_rows {
    float4 s[mm_rows_at_once<ARGS>];
};
template <class ARGS>
__device__ __forceinline__ struct mm_step_state_rows<ARGS> mm_state_rows(
    const ARGS &a, const struct mm_step_here &here, const struct mm_step_who &me, int head, int i) {
    struct mm_step_state_rows<ARGS> r;
#pragma unroll
    for (int e = 0; e < mm_rows_at_once<ARGS>; e++)
        r.s[e] = mm_state_load(a, here, me, head, i + e * ARGS::warps);
    return r;
}

// The recurrence and y = S q + d v, some rows a warp at a time; `now` are the first ones, `rate`
// what the exponent of the decay has to dt.
template <class ARGS>
__device__ __forceinline__ void mm_recur(const ARGS &a, const struct mm_step_who &me, char *memory,
                                         const struct mm_step_here &here, int head,
                                         struct mm_step_state_rows<ARGS> now, float rate, float d,
                                         unsigned meeting, int round) {
    constexpr int some = mm_rows_at_once<ARGS>, step = some * ARGS::warps;
    const int rows = here.t->P / mm_step_crew, count = a.n * rows;
    if constexpr (ARGS::groups) {  // at most a row a warp
        const int i = threadIdx.x / 32;
        if (i >= rows) return;
        const struct mm_step_met m = mm_recur_meets(a, memory, here, 0, rate);
        float v;
        const float sum = mm_warp_sum(mm_recur_row(a, me, memory, here, i, now.s[0],
                                                   mm_state_row(a, here, me, head, i), m, &v));
        if (threadIdx.x % 32 == 0)
            mm_say_float(mm_words_y(a, me.crew, meeting, round, 0) + me.rank * rows + i,
                         fmaf(d, v, sum), meeting);
        return;
    }
    struct mm_step_met m = {};
    if (a.n == 1) m = mm_recur_meets(a, memory, here, 0, rate);
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < count; i += step) {
        const struct mm_step_state_rows<ARGS> later = mm_state_rows(a, here, me, head, i + step);
        float v[some], sum[some] = {};
#pragma unroll
        for (int e = 0; e < some; e++) {
            const int j = i + e * ARGS::warps;
            if (j >= count) break;
            if (a.n > 1) m = mm_recur_meets(a, memory, here, j / rows, rate);
            sum[e] = mm_recur_row(a, me, memory, here, j, now.s[e],
                                  mm_state_row(a, here, me, head, j), m, &v[e]);
        }
#pragma unroll
        for (int e = 0; e < some; e++)
            sum[e] = mm_warp_sum(sum[e]);
#pragma unroll
        for (int e = 0; e < some; e++) {
            const int j = i + e * ARGS::warps, seq = mm_part_of(a, j, rows);
            const int row = me.rank * rows + j - seq * rows;
            if (j < count && threadIdx.x % 32 == e)
                mm_say_float(mm_words_y(a, me.crew, meeting, round, seq) + row,
                             fmaf(d, v[e], sum[e]), meeting);
        }
        now = later;
    }
}

// The gated norm's weights, 4 a lane as mm_gated has them.
__device__ __forceinline__ float4 mm_gated_weights(const struct mm_step_here &here, int head) {
    const int at = threadIdx.x % 32 * 4 - head * here.t->P % mm_step_block;
    if (!here.y->g_norm || at < 0 || at >= here.t->P) return make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    return __ldg((const float4 *)(here.y->g_norm + at));
}

// y, heard from the crew with the gate, through the gated norm becomes the last projection's
// operand: 128 columns that hold the head's. A warp a sequence.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_gated(const ARGS &a, const struct mm_step_who &me, char *memory,
                                         const struct mm_step_here &here, int head, float4 w,
                                         unsigned meeting, int round) {
    const int seq = threadIdx.x / 32, P = here.t->P;
    if (seq >= a.n) return;
    const int at = threadIdx.x % 32 * 4 - head * P % mm_step_block;
    const bool in = at >= 0 && at < P;
    const uint64_t *from[2] = {mm_words_y(a, me.crew, meeting, round, seq) + (in ? at : 0),
                               mm_words_z(a, me.crew, meeting, round, seq) + 3 * P + (in ? at : 0)};
    uint4 of[2];
    mm_hear4(of, from, meeting, in);  // else zeros
    float4 v = mm_as_floats(of[0]), g = mm_as_floats(of[1]);
    g.x *= w.x, g.y *= w.y, g.z *= w.z, g.w *= w.w;
    const float squares = mm_warp_sum(mm_dot4(v, v));
    const float r = here.y->g_norm ? rsqrtf(squares * mm_share(P) + 1e-5f) : 1.0f;
    v.x *= r * g.x, v.y *= r * g.y, v.z *= r * g.z, v.w *= r * g.w;
    mm_keep_operand<KERNEL>(a, memory, 0, seq, v, here.t->shape[mm_step_wo].type != mm_dtype_bf16);
}

#endif
