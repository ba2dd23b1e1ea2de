// The warps that bring weights to those that multiply. Nothing of what they bring depends on what
// is computed, so they walk through the list of a token's products by themselves, as far ahead as
// the queues are long.
#ifndef MM_OPS_CUDA_STEP_BRING_CUH
#define MM_OPS_CUDA_STEP_BRING_CUH

#include "ops/cuda/step_queue.cuh"

// Weights pass through the L2 once a token; states and vectors should stay in it: what
// createpolicy.fractional.L2::evict_first makes of 1.0, as a constant, which needs no register.
static constexpr uint64_t mm_passing = 0x12f0000000000000;
// 16 bytes by themselves, as mm_copy16; not real: zeros, and `from` need be no address.
__device__ inline void mm_bring16(uint32_t to, const char *from, bool real) {
    asm volatile(
        "{ .reg .pred p; setp.eq.u32 p, %2, 0; "
        "cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, p, %3; }" ::"r"(to),
        "l"(from), "r"((uint32_t)real), "l"(mm_passing)
        : "memory");
}
__device__ inline void mm_doze() {
    __nanosleep(40);
}

// Where a queue is in the list of products.
struct mm_step_place {
    const struct mm_step_shape *m;
    const char *w, *w3;
    const struct mm_part *part;
    int hidden0;  // the crew's first hidden number of the MLP
    int ratio_log;
};

// Product `op` of layer l for a warp; l = n_layers: the output.
template <class ARGS>
__device__ __forceinline__ void mm_place_at(struct mm_step_place &p, const ARGS &a, char *memory,
                                            const struct mm_step_who &me, int l, int op, int warp) {
    const struct mm_step_model *model = mm_model(a, memory);
    p.w3 = NULL;
    if (l >= a.n_layers) {
        p.m = &model->output, p.w = a.output;
        p.part = mm_parts_of(a, memory, model->n_kinds, 0, warp);
        return;
    }
    const struct mm_step_layer *y = mm_layer(a, memory, l);
    const struct mm_step_kind *t = &model->kinds[y->kind];
    p.part = mm_parts_of(a, memory, y->kind, op, warp);
    p.m = &t->shape[p.part->which], p.w = y->w[p.part->which];
    if (p.part->which == mm_step_ffn) p.w3 = y->w3;
    p.hidden0 = me.crew * t->unit, p.ratio_log = t->ratio_log;
}

// Row `row` of 16 of a tile in the matrix, -1 where there is none.
__device__ __forceinline__ int mm_tile_row(const struct mm_step_place &p, int tile, int row) {
    const struct mm_step_shape &m = *p.m;
    if (!m.n_seg) {
        const int r = tile * mm_step_tile + row;
        return r < m.rows ? r : -1;
    }
    const int j = tile >> m.seg_tiles_log;
    const int in = (tile - (j << m.seg_tiles_log)) * mm_step_tile + row;
    if (in >= m.seg_rows) return -1;
    return m.seg[j].row + p.part->head * m.seg[j].per_head +
           (p.part->head >> p.ratio_log) * m.seg[j].per_group + in;
}

// While a queue is full, as many slots behind it come to the L2, one of them every so many cycles:
// the memory would rest otherwise while a crew is at its mixer. Asked for at once, what the crew
// waits for would have to stand behind them.
static constexpr int mm_ahead_slots = 20, mm_ahead_cycles = 1000;

// Where a warp that brings is in the list of products of one of its queues.
struct mm_bring_walk {
    int warp;               // whose queue it is
    int layer, op;          // the open product
    int at, n, type, tile;  // of it: slots; type -1: none was opened
    bool ended;

    __device__ __forceinline__ void start_walk(int of) {
        warp = of, layer = op = at = n = tile = 0, type = -1, ended = false;
    }
    // The next tile of the open product, or the first of the next of which the warp has a part;
    // false: there is none.
    template <class ARGS>
    __device__ __forceinline__ bool open(struct mm_step_place &p, const ARGS &a, char *memory,
                                         const struct mm_step_who &me) {
        bool next_op = type < 0;  // only before the first
#pragma unroll 1
        while (true) {
            mm_place_at(p, a, memory, me, layer, op, warp);
            tile = next_op ? p.part->tile : tile + p.part->step;
            if (p.part->n > 0 && tile < p.part->last) break;
            next_op = true, type = -1;
            ended = layer == a.n_layers;
            if (ended) return false;
            op++;
            if (p.part->ends) op = 0, layer++;
            ended = layer == a.n_layers && !a.logits;
            if (ended) return false;
        }
        n = p.part->n, type = p.part->type;
        return true;
    }
};

// What it knows of one whose slots its lanes fill, each of them two rows.
template <class KERNEL>
struct mm_bringer : mm_bring_walk {
    uint32_t room, bars;    // of this lane in slot 0; the barriers (mm_queue)
    uint32_t next, parity;  // to be filled next: where it begins, and the turn
    const char *p0, *p1;    // of the lane's two rows
    const char *s0, *s1;    // their scales
    int k;                  // bf16: columns from the lane's first on; else the tile's first slot
    // to the next tile of the open product, where that is whole and in the same rows' order
    int step, whole, jump;
    // of a quantized tile: what one slot of scales is for; what of that is still to come; of a row,
    // blocks, and bytes from its scales on
    int scaled, unscaled, blocks, tail;
    int ahead;       // slots of the tile up to which the L2 was asked
    uint32_t asked;  // when, in cycles
    bool real0, real1;

    __device__ static int g() {
        return threadIdx.x % 32 / 4;
    }
    __device__ static int t() {
        return threadIdx.x % 4;
    }

    template <class ARGS>
    __device__ __forceinline__ void start(const ARGS &a, const char *memory, int of) {
        room = mm_queue<KERNEL>::room_of(a, memory, of) + threadIdx.x % 32 * 16;
        bars = mm_queue<KERNEL>::bars_of(a, memory, of);
        ahead = 0, asked = 0, next = 0, parity = 1;  // what was never filled is free
        start_walk(of);
    }

    static constexpr int slot_k = KERNEL::small ? 32 : 64;       // columns of a slot of bf16
    static constexpr int slot_bytes = KERNEL::small ? 64 : 128;  // of a row

    // Points the lane at its rows of the tile.
    __device__ __forceinline__ void aim(const struct mm_step_place &p) {
        const struct mm_step_shape &m = *p.m;
        int r0, r1;
        if (p.w3) {
            r0 = p.hidden0 + tile * 8 + g();
            r0 = r1 = r0 < m.rows ? r0 : -1;
        } else {
            r0 = mm_tile_row(p, tile, g()), r1 = mm_tile_row(p, tile, g() + 8);
        }
        real0 = r0 >= 0, real1 = r1 >= 0;
        const char *row0 = p.w + (int64_t)max(r0, 0) * m.pitch;
        const char *row1 = (p.w3 ? p.w3 : p.w) + (int64_t)max(r1, 0) * m.pitch;
        const int begin = p.part->begin;
        s0 = row0 + m.code_bytes, s1 = row1 + m.code_bytes;
        blocks = m.blocks, tail = m.pitch - m.code_bytes, unscaled = 0;
        scaled = mm_scaled_slots(KERNEL::small && type == mm_dtype_q8, begin, blocks);
        const int64_t from = (int64_t)begin * slot_bytes + t() * 16;
        p0 = row0 + from, p1 = row1 + from;
        k = type == mm_dtype_bf16 ? m.k - (begin * slot_k + t() * 8) : begin;
        at = ahead = 0;
        const int rows = p.w3 ? 8 : mm_step_tile;
        step = p.part->step, jump = step * rows * m.pitch;
        whole = m.n_seg ? 0 : p.w3 ? (m.rows - p.hidden0) >> 3 : m.rows >> 4;
        whole = min(whole, p.part->last);
    }

    // The slot `to`, of this lane, which is free, is filled with the next of the tile.
    __device__ __forceinline__ void fill(uint32_t to) {
        const uint32_t to1 = to + (KERNEL::small ? 512 : 1024);
        if (KERNEL::weights == mm_dtype_bf16 || type == mm_dtype_bf16) {
            const bool in0 = k > 0, in1 = k > 32;  // where the row has not ended
            mm_bring16(to, p0, real0 && in0), mm_bring16(to1, p1, real1 && in0);
            if constexpr (!KERNEL::small) {
                mm_bring16(to + 512, p0 + 64, real0 && in1);
                mm_bring16(to1 + 512, p1 + 64, real1 && in1);
            }
            k -= slot_k;
        } else {
            mm_bring16(to, p0, real0), mm_bring16(to1, p1, real1);
            if constexpr (!KERNEL::small) {
                mm_bring16(to + 512, p0 + 64, real0);
                mm_bring16(to1 + 512, p1 + 64, real1);
            }
        }
        p0 += slot_bytes, p1 += slot_bytes, at++;
    }
    // The slot with the scales of what comes next.
    __device__ __forceinline__ void fill_scales(uint32_t slot) {
        const uint32_t to = slot + mm_scales_place(threadIdx.x % 32);
        const bool half = KERNEL::small && type == mm_dtype_q8;
        const struct mm_scales s = {half ? (k + at) / 2 : k + at, blocks};
        const int from = s.piece(t());
        const bool real = from + 16 <= tail && (t() < 2 || type == mm_dtype_q4);
        mm_bring16(to, s0 + from, real && real0), mm_bring16(to + 256, s1 + from, real && real1);
    }

    // The next slots are filled as far as they are free; false: none was.
    template <class ARGS>
    __device__ __forceinline__ bool bring(const ARGS &a, char *memory,
                                          const struct mm_step_who &me) {
        if (at == n) {
            if (tile + step < whole && type >= 0) {
                const int back = n * slot_bytes;
                tile += step, at = ahead = 0;
                p0 += jump - back, p1 += jump - back, s0 += jump, s1 += jump, unscaled = 0;
                if (type == mm_dtype_bf16) k += n * slot_k;
            } else {
                struct mm_step_place p;
                if (!open(p, a, memory, me)) return true;
                aim(p);
            }
        }
        bool some = false;
#pragma unroll 1
        while (at < n) {
            const uint32_t to = room + next, slot = to - threadIdx.x % 32 * 16;
            const uint32_t full = bars + (slot >> KERNEL::bars_log);
            // one lane may see it before another
            if (!__any_sync(0xffffffffu, mm_bar_passed(full + KERNEL::free, parity))) break;
            if (KERNEL::weights != mm_dtype_bf16 && type != mm_dtype_bf16 && unscaled == 0) {
                fill_scales(slot);
                unscaled = scaled;
            } else {
                fill(to);
                unscaled--;
            }
            mm_bar_arrive_with_copies(full);
            some = true;
            next += KERNEL::slot;
            if (next == a.ring) next = 0, parity ^= 1;
        }
        if (!some) ask_ahead();
        return some;
    }

    // A lane asks for a line of its rows, which two slots of q4 share.
    __device__ __forceinline__ void ask_ahead() {
        ahead = max(ahead, at);
        const uint32_t now = (uint32_t)clock();
        if (ahead >= min(n, at + mm_ahead_slots) || now - asked < mm_ahead_cycles) return;
        asked = now;
        const int64_t from = (int64_t)(ahead - at) * slot_bytes;
        if (t() == 0 && real0) mm_prefetch(p0 + from);
        if (t() == 0 && real1) mm_prefetch(p1 + from);
        ahead += 128 / slot_bytes;
    }
};

// Lines of a vector that the bringers of all blocks share out among themselves.
template <class ARGS>
static __device__ __forceinline__ void ahead_all(const ARGS &, const float *p, int64_t count) {
    const int64_t all = (int64_t)32 * mm_step_bringers * gridDim.x;
    int64_t i = (int64_t)(threadIdx.x - mm_step_threads<ARGS>)*gridDim.x + blockIdx.x;
#pragma unroll 1
    for (; p && i * 32 < count; i += all)
        mm_prefetch(p + i * 32);
}

// What a block of the model reads besides matrices comes to the L2.
template <class ARGS>
static __device__ __forceinline__ void look_ahead(const ARGS &a, char *memory,
                                                  const struct mm_step_who &me, int l) {
    const struct mm_step_layer &y = *mm_layer(a, memory, l);
    const struct mm_step_kind &t = mm_model(a, memory)->kinds[y.kind];
    const struct mm_step_state *states =
        (const struct mm_step_state *)(memory + a.room.states) + l * a.n;
    ahead_all(a, y.norm[0], a.D), ahead_all(a, y.norm[1], a.D);
    if (t.attention || me.crew >= t.H) return;
    const int P = t.P, rows = P / mm_step_crew, lines = max(1, rows * P / 32);
    ahead_all(a, y.conv_w, (int64_t)t.channels * t.conv_k), ahead_all(a, y.conv_b, t.channels);
    ahead_all(a, y.dt_bias, t.H), ahead_all(a, y.a_log, t.H), ahead_all(a, y.d, t.H);
    ahead_all(a, y.g_norm, P);
    if (me.rank == mm_step_crew - 1) {  // the row of dt
        const char *row = y.dt + t.dt_row + (int64_t)me.crew * t.dt_pitch;
#pragma unroll 1
        for (int i = threadIdx.x - mm_step_threads<ARGS>; i * 64 < a.D; i += 32 * mm_step_bringers)
            mm_prefetch(row + i * 128);
    }
#pragma unroll 1
    for (int seq = 0; seq < a.n; seq++)
        ahead_all(a, states[seq].conv, (int64_t)(t.conv_k - 1) * t.channels);
#pragma unroll 1
    for (int i = threadIdx.x - mm_step_threads<ARGS>; i < a.n * lines; i += 32 * mm_step_bringers)
        mm_prefetch(states[i / lines].S + ((int64_t)me.crew * P + me.rank * rows) * P +
                    i % lines * 32);
}

// All that one of these warps does in a token: two queues are kept full.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void mm_bring_by_lanes(const ARGS &a, char *memory,
                                                         const struct mm_step_who &me) {
    const int warp = (threadIdx.x - mm_step_threads<ARGS>) / 32 * 2;
    struct mm_bringer<KERNEL> q[2];
    int seen = 0;
#pragma unroll
    for (int i = 0; i < 2; i++)
        q[i].start(a, memory, warp + i);
#pragma unroll 1
    while (!q[0].ended || !q[1].ended) {
        bool some = false;
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (!q[i].ended && q[i].bring(a, memory, me)) some = true;
        const int layer = max(q[0].layer, q[1].layer);
        if (layer > seen && layer < a.n_layers) look_ahead(a, memory, me, seen = layer);
        if (!some) mm_doze();
    }
}

#endif
