// The queues of weights, one a warp that multiplies. A tile is 16 rows of a matrix; some warps of a
// block share its columns out among them. A slot has what the lanes of a warp multiply, 16 bytes at
// a time, laid out for m16n8 products: lane 4 g + t has rows g and g + 8, and of every 64 bytes the
// 16 from 16 t. The order of the k inside a product is therefore not that of memory; it is the same
// for both operands, which is all that matters. In the slot the first eight rows come first, of
// them 64 bytes each, then the next 64 bytes where it has them, then the other rows: a box of the
// copy engine. Of a quantized tile, slots of codes follow one of their scales: 32 bytes of scales
// of 16 rows, then as much of factors (mm_scales); who takes it keeps them apart, so that a slot
// never waits for one behind it.
#ifndef MM_OPS_CUDA_STEP_QUEUE_CUH
#define MM_OPS_CUDA_STEP_QUEUE_CUH

#include "ops/cuda/step.cuh"
#include "ops/cuda/tensor.cuh"

#include <type_traits>

__device__ inline uint4 mm_load16_shared(uint32_t at) {
    uint4 r;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "r"(at)
                 : "memory");
    return r;
}
__device__ inline uint2 mm_load8_shared(uint32_t at) {
    uint2 r;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "r"(at) : "memory");
    return r;
}
__device__ inline uint32_t mm_load4_shared(uint32_t at) {
    uint32_t r;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(at) : "memory");
    return r;
}
__device__ inline void mm_store16_shared(uint32_t at, uint4 v) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z),
                 "r"(v.w)
                 : "memory");
}
__device__ inline uint32_t mm_load2_shared(uint32_t at) {
    uint16_t r;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(r) : "r"(at) : "memory");
    return r;
}

// ---- who waits for whom ----

// The warps that multiply meet; those that bring never do.
template <class ARGS>
__device__ __forceinline__ void mm_meet(const ARGS &) {
    asm volatile("bar.sync 1, %0;" ::"n"(mm_step_threads<ARGS>) : "memory");
}
// Warps i and i + 8.
__device__ inline void mm_meet_half() {
    asm volatile("bar.sync %0, 64;" ::"r"(2 + (int)threadIdx.x / 32 % mm_step_warps) : "memory");
}

// Barriers in shared memory (PTX, mbarrier), by address; those of hopper.cuh need compute
// capability 9.0.
__device__ inline void mm_bar_init(uint32_t at, int count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
}
// What the lane has made is seen by the copy engine.
__device__ inline void mm_bar_inits_done() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ inline void mm_bar_arrive(uint32_t at) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(at)
                 : "memory");
}
// Arrives when the copies this lane has asked for have come.
__device__ inline void mm_bar_arrive_with_copies(uint32_t at) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(at) : "memory");
}
__device__ inline bool mm_bar_passed(uint32_t at, uint32_t parity) {
    uint32_t passed;
    asm volatile(
        "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(passed)
        : "r"(at), "r"(parity)
        : "memory");
    return passed != 0;
}
__device__ inline void mm_bar_wait(uint32_t at, uint32_t parity) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    uint32_t passed;
    do
        asm volatile(
            "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; "
            "selp.u32 %0, 1, 0, p; }"
            : "=r"(passed)
            : "r"(at), "r"(parity)
            : "memory");
    while (!passed);
#else
    while (!mm_bar_passed(at, parity)) {
    }
#endif
}

// ---- how shared memory is cut for a kernel ----

// WEIGHTS: the type of most. A slot: codes, bf16 or scales. Behind all queues' slots are, of each
// queue, the barriers of its slots, that one is full and that it is free, and the scales that its
// warp holds.
// ATTENDS: whether a model's blocks may keep their attention; without that code the others' fits
// the caches for instructions, and has registers to spare.
template <int WEIGHTS, class ARGS, bool ATTENDS>
struct mm_step_kernel {
    using args = ARGS;
    static constexpr int weights = WEIGHTS;
    static constexpr bool attends = ATTENDS;
    static constexpr bool one = std::is_base_of<struct mm_step_args_one, ARGS>::value;
    // beside q4, slots of other types are half as long: those are few
    static constexpr bool small = WEIGHTS == mm_dtype_q4;
    // there are no registers to spare for a copy of a part
    static constexpr bool parts_stay = small || (ARGS::groups && WEIGHTS == mm_dtype_q8);
    static constexpr int row_codes = one ? mm_step_row_codes_one : mm_step_row_codes;
    static constexpr bool groups = ARGS::groups;
    static constexpr int piece = small ? 1024 : 2048;  // of a slot, what a warp multiplies
    static constexpr int slot = groups ? mm_step_group * piece : piece;
    // of a piece: from 64 bytes of rows to the next 64, and from rows g to rows g + 8
    static constexpr int piece_next = groups ? mm_step_group * 1024 : 512;
    static constexpr int piece_below = groups || small ? 512 : 1024;
    // barriers have 2^-that of a slot's bytes
    static constexpr int bars_log = (groups ? 8 : 6) + (small ? 0 : 1);
    static constexpr int bars = slot >> bars_log, free = bars / 2;
    // scales: of a group, slots behind the others, of 32 bytes a row, and factors behind them,
    // which are filled and read in turns. Else what a warp holds: bytes of a row, so that eight
    // rows are in eight groups of banks
    static constexpr int scales_row = groups ? 32 : small ? 80 : 48;
    static constexpr int factors = groups ? mm_step_group * mm_step_tile * scales_row : 32;
    static constexpr int scale_slots = groups && WEIGHTS != mm_dtype_bf16 ? 2 : 0;
    static constexpr int scale_slot = (small ? 2 : 1) * factors;
    static constexpr int scales = groups                     ? scale_slots * (scale_slot + bars)
                                  : WEIGHTS == mm_dtype_bf16 ? 0
                                                             : mm_step_tile * scales_row;
    // slots: as many are taken at once, have a lane
    static constexpr int least = 4, most = 32 - scale_slots;
};

// Who this block is.
struct mm_step_who {
    int crew, rank;
};

// A warp's part of a product: tiles tile, tile + step... before `last`; of each, slots
// [begin, begin + n), none where the crew has no such rows. And what all warps know of the product.
// The same in all blocks of a kind: a table in shared memory, in the order of the products.
//
// Of the products that have all columns (mm_in_halves) the slots before `half` are summed up by
// themselves, and then those behind. Where there are twice the warps, two of them share such a
// part, and have a half each, so that the sum is the same: neighbours, but of w1 with w3 warps i
// and i + 8. So the four of a group have four tiles below each other, or columns of one tile beside
// each other.
struct alignas(16) mm_part {
    int tile, step, last;
    int begin, n, half;
    int head;             // -1: the crew has none
    int turns;            // tiles that each warp walks through
    int16_t blocks;       // of the matrix
    int8_t type;          // of the matrix
    int8_t which, round;  // mm_step_which; of the crew's heads
    int8_t more, ends;    // a round of heads follows; the block of the model ends
    // of a group: from which block on the slot of scales has them, and where in it those of its
    // warp's slots begin, and the factors
    int16_t scales_first, scales, factors;
};
__device__ __forceinline__ constexpr bool mm_in_halves(int which) {
    return which <= mm_step_gate || which == mm_step_ffn;
}

template <class ARGS>
__device__ __forceinline__ const struct mm_step_model *mm_model(const ARGS &a, const char *memory) {
    return (const struct mm_step_model *)(memory + a.room.model);
}
template <class ARGS>
__device__ __forceinline__ const struct mm_step_layer *mm_layer(const ARGS &a, const char *memory,
                                                                int l) {
    return (const struct mm_step_layer *)(memory + a.room.layers) + l;
}

// How who brings weights for groups goes on, from phase to phase: slots of a queue that may be on
// their way, cycles from one to the next at least, and cycles between two slots that come to the L2
// while the queue is full (0: none do). What blocks say to each other stands behind what is on its
// way. `mixer`: nothing beyond the projections is asked for.
__host__ __device__ constexpr unsigned mm_pace(int window, int apart, int ahead,
                                               bool mixer = false) {
    return (unsigned)mixer << 31 | (unsigned)(ahead / 16) << 16 | (unsigned)(apart / 16) << 4 |
           (unsigned)window;
}
__device__ __forceinline__ bool mm_pace_mixer(unsigned pace) {
    return pace >> 31;
}
// The word of shared memory there, which another warp sets by such means as well.
__device__ __forceinline__ unsigned mm_shared_value(uint32_t at) {
    unsigned v;
    asm volatile("atom.or.relaxed.cta.shared.b32 %0, [%1], 0;" : "=r"(v) : "r"(at) : "memory");
    return v;
}
__device__ __forceinline__ int mm_pace_window(unsigned pace) {
    return (int)(pace & 15);
}
__device__ __forceinline__ uint32_t mm_pace_apart(unsigned pace) {
    return pace & 0xfff0;
}
__device__ __forceinline__ uint32_t mm_pace_ahead(unsigned pace) {
    return (pace >> 12) & 0x7fff0;
}
// Found by trying, phase by phase, on an H100 (docs/PERFORMANCE.md): in bf16, q8, q4.
static __constant__ unsigned mm_paces[3][mm_phases] = {
    {mm_pace(2, 0, 4000), mm_pace(2, 0, 0), mm_pace(2, 0, 0), mm_pace(1, 0, 1008),
     mm_pace(1, 0, 2000), mm_pace(2, 0, 2000), mm_pace(2, 0, 4000), mm_pace(2, 0, 4000),
     mm_pace(2, 0, 4000), mm_pace(2, 0, 0), mm_pace(2, 0, 4000)},
    {mm_pace(3, 0, 2000), mm_pace(2, 0, 0, true), mm_pace(1, 0, 0), mm_pace(1, 1480, 0),
     mm_pace(2, 1480, 2000), mm_pace(1, 0, 2000), mm_pace(2, 0, 8000), mm_pace(3, 2096, 0),
     mm_pace(4, 0, 0), mm_pace(3, 2096, 2000), mm_pace(4, 0, 0)},
    {mm_pace(2, 0, 0), mm_pace(2, 0, 0, true), mm_pace(1, 0, 0), mm_pace(1, 0, 0), mm_pace(2, 0, 0),
     mm_pace(2, 0, 0), mm_pace(4, 0, 0), mm_pace(4, 0, 0), mm_pace(4, 0, 0), mm_pace(2, 0, 0),
     mm_pace(4, 0, 0)},
};
template <class KERNEL, class ARGS>
__device__ __forceinline__ unsigned mm_pace_of(const ARGS &, enum mm_step_phase phase) {
    return mm_paces[KERNEL::weights == mm_dtype_bf16 ? 0
                    : KERNEL::weights == mm_dtype_q8 ? 1
                                                     : 2][phase];
}
// The block comes to a phase: said by a thread that goes with the others.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_phase_is(const ARGS &a, const char *memory,
                                            enum mm_step_phase phase) {
    if (KERNEL::groups && threadIdx.x == 0)
        atomicExch((unsigned *)(memory + a.room.pace), mm_pace_of<KERNEL>(a, phase));
}

// The products of a layer come one after the other: op = 3 round + in, gate or wo, then w1 with w3,
// then w2.
__device__ __forceinline__ int mm_which(int rounds, int op) {
    const int mlp = op - 3 * rounds;
    return mlp >= 0 ? mm_step_ffn + mlp : op % 3;
}

template <class ARGS>
__device__ __forceinline__ struct mm_part *mm_parts_of(const ARGS &a, char *memory, int kind,
                                                       int op, int warp) {
    static_assert(sizeof(struct mm_part) == mm_part_bytes, "room is cut for them");
    return (struct mm_part *)(memory + a.room.parts) + (kind * a.ops + op) * ARGS::warps + warp;
}

// A copy of a part, asked for at once, or the part itself.
template <class KERNEL>
using mm_part_here = typename std::conditional<KERNEL::parts_stay, const struct mm_part &,
                                               const struct mm_part>::type;
template <class KERNEL>
__device__ __forceinline__ mm_part_here<KERNEL> mm_part_of(const struct mm_part &part) {
    if constexpr (KERNEL::parts_stay) return part;
    struct mm_part p;
    uint4 v[mm_part_bytes / 16];
    const uint32_t at = mm_shared_at(&part);
#pragma unroll
    for (int i = 0; i < mm_part_bytes / 16; i++)
        v[i] = mm_load16_shared(at + 16 * i);
    memcpy(&p, v, sizeof p);
    return p;
}

// Where the scales of blocks from `first` on are, of a row of `blocks`: they come in pieces of 16
// bytes, two of scales and two of factors, which begin at the last multiple of 8 before.
struct mm_scales {
    int first, blocks;

    // Of the row, from its scales on: piece t of 4, in bytes.
    __device__ __forceinline__ int piece(int t) const {
        return (2 * (first + (t < 2 ? 0 : blocks)) & ~15) + t % 2 * 16;
    }
    // From where the row's scales are held, or its factors: those of a block.
    __device__ __forceinline__ uint32_t scale(int block) const {
        return 2 * ((first & 7) + block - first);
    }
    __device__ __forceinline__ uint32_t factors(int block) const {
        return 2 * ((first + blocks & 7) + block - first);
    }
};

// This warp's part of a product that a kind of block has; kind n_kinds: the output. factors: where
// they begin in a group's slot of scales.
template <class ARGS>
__device__ __forceinline__ struct mm_part mm_part_make(const ARGS &a, int factors,
                                                       const struct mm_step_model *model,
                                                       const struct mm_step_who &me, int kind,
                                                       int op, int warp) {
    const struct mm_step_shape *m = &model->output;
    int column = 0, block = me.rank, tiles = m->tiles;
    struct mm_part p = {};
    bool has = true;  // rows of this crew
    p.which = mm_step_output, p.ends = 1;
    if (kind == model->n_kinds) {
        block += me.crew * mm_step_crew;
    } else {
        const struct mm_step_kind &t = model->kinds[kind];
        const int left = min(t.unit, t.F - me.crew * t.unit);
        p.which = mm_which(t.rounds, op), p.round = op / 3, p.head = me.crew + p.round * a.crews;
        if (p.head >= t.H) p.head = -1;
        p.more = p.which <= mm_step_wo && p.round + 1 < t.rounds, p.ends = p.which == mm_step_w2;
        m = &t.shape[p.which], tiles = m->tiles;
        if (p.which <= mm_step_wo) has = p.head >= 0;
        if (p.which == mm_step_wo) column = p.head * t.P / mm_step_block;
        if (p.which == mm_step_ffn) tiles = max(0, (left + 7) / 8);
        if (p.which == mm_step_w2) column = me.crew * (t.unit / mm_step_block), has = left > 0;
    }
    const int log = m->split_log, first = block * m->per;
    const bool halves = mm_in_halves(p.which), shared = halves && ARGS::warps > mm_step_warps;
    const bool below = p.which > mm_step_gate;  // a warp of a group has a tile
    const int of = !shared ? warp : below ? warp % mm_step_warps : warp / 2;
    p.tile = first + (of >> log), p.last = min(tiles, first + m->per);
    p.step = (shared ? (int)mm_step_warps : ARGS::warps) >> log;
    p.begin = column * m->spb + (of & ((1 << log) - 1)) * m->per_part;
    // the first of a group
    const int top = ARGS::groups && below ? p.tile - warp % mm_step_group : p.tile;
    p.n = has && top < p.last ? max(0, min(m->per_part, m->slots - p.begin)) : 0;
    // pairs stay whole, and fours (mm_tile_sums)
    const int whole = m->type == mm_dtype_q4 ? 4 : 2;
    p.half = halves ? min(p.n, (p.n + 2 * whole - 1) / (2 * whole) * whole) : p.n;
    if (shared && (below ? warp / mm_step_warps : warp % 2)) {
        p.begin += p.half, p.n -= p.half;
    } else if (shared) {
        p.n = p.half;
    }
    // where this crew has nothing to multiply, sums of nothing are finished, and zeros are sent
    p.turns = (max(p.last - first, 0) + p.step - 1) / p.step;
    if (p.which <= mm_step_gate) p.turns = 1;
    if (p.which == mm_step_output && !a.logits) p.turns = 0;
    p.type = (int8_t)m->type, p.blocks = (int16_t)m->blocks;
    if (ARGS::groups) {
        const int in = warp % mm_step_group;
        p.scales_first = (int16_t)(p.begin - (below ? 0 : in * p.n));
        const struct mm_scales s = {p.scales_first, p.blocks};
        const int rows = below ? in * 2 * mm_step_tile * 16 : 0;
        p.scales = (int16_t)(rows + (int)s.scale(p.begin));
        p.factors = (int16_t)(factors + rows + (int)s.factors(p.begin));
    }
    return p;
}

// ---- scales ----

// Where lane 4 g + t has piece t of row g in a slot of scales; that of row g + 8 is 256 behind.
__device__ __forceinline__ uint32_t mm_scales_place(uint32_t lane) {
    return lane % 4 / 2 * 512 + lane / 4 * 32 + lane % 2 * 16;
}

// Slots of codes that follow one of scales, where a part begins with slot `begin`; half: a slot is
// half a block.
__device__ __forceinline__ int mm_scaled_slots(bool half, int begin, int blocks) {
    return half || ((begin | blocks) & 7) ? 8 : 16;
}

// ---- taking from a queue ----

template <class KERNEL>
struct mm_queue {
    uint32_t room;          // the queue's slots
    uint32_t next, parity;  // to be taken next: where it begins, and of how many turns
    uint32_t ring;
    uint32_t bars;         // of barriers: where that of a slot at 0 would be
    uint32_t scale_turns;  // of a group: how many slots of scales were taken

    static constexpr uint32_t behind = KERNEL::scale_slots * KERNEL::scale_slot;  // the ring
    template <class ARGS>
    __device__ __forceinline__ static uint32_t room_of(const ARGS &a, const char *memory,
                                                       int queue) {
        return mm_shared_at(memory) + queue * (a.ring + behind);
    }
    template <class ARGS>
    __device__ __forceinline__ static uint32_t bars_of(const ARGS &a, const char *memory,
                                                       int queue) {
        return room_of(a, memory, ARGS::queues) + queue * (a.queue - a.ring - behind) -
               (room_of(a, memory, queue) >> KERNEL::bars_log);
    }
    template <class ARGS>
    __device__ __forceinline__ void start(const ARGS &a, const char *memory) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int queue = KERNEL::groups ? warp / mm_step_group : warp;
        room = room_of(a, memory, queue);
        next = parity = 0, ring = a.ring, scale_turns = 0;
        bars = bars_of(a, memory, queue);
        const bool mine = !KERNEL::groups || warp % mm_step_group == 0;
        if (mine && lane < ring / KERNEL::slot + KERNEL::scale_slots) {
            const uint32_t at = bar(room + lane * KERNEL::slot);
            const int readers = KERNEL::groups ? mm_step_group : 1;
            mm_bar_init(at, a.maps ? 1 : 32), mm_bar_init(at + KERNEL::free, readers * a.givers);
            mm_bar_inits_done();
        }
    }
    // That the slot is full; that it is free: KERNEL::free behind.
    __device__ __forceinline__ uint32_t bar(uint32_t at) const {
        return bars + (at >> KERNEL::bars_log);
    }
    // The next slot, when it has come.
    __device__ __forceinline__ uint32_t take() {
        const uint32_t at = room + next;
        mm_bar_wait(bar(at), parity);
        next += KERNEL::slot;
        if (next == ring) next = 0, parity ^= 1;
        return at;
    }
    // The next `count` slots, up to MOST, asked about together: each answer takes some time. Of
    // those that are not wanted the answer is not, either.
    template <int MOST>
    __device__ __forceinline__ void take_some(uint32_t slot[4], int count) {
        static_assert(MOST <= KERNEL::least, "a queue is as long");
        bool come = true;
        uint32_t turn[MOST];
#pragma unroll
        for (int i = 0; i < MOST; i++) {
            const uint32_t at = next + i * KERNEL::slot, over = at >= ring;
            slot[i] = room + at - (over ? ring : 0), turn[i] = parity ^ over;
            come &= mm_bar_passed(bar(slot[i]), turn[i]) || i >= count;
        }
        next += count * KERNEL::slot;
        if (next >= ring) next -= ring, parity ^= 1;
        if (come) return;
#pragma unroll
        for (int i = 0; i < MOST; i++)
            if (i < count) mm_bar_wait(bar(slot[i]), turn[i]);
    }
    // The next N slots of a group, from byte `mine` on, and their barriers. Those behind the ring's
    // end are at its begin; all else that differs from slot to slot is known here.
    template <int N>
    __device__ __forceinline__ void take_all(uint32_t mine, uint32_t (&slot)[N],
                                             uint32_t (&full)[N]) {
        static_assert(N <= KERNEL::least, "a queue is as long");
        const uint32_t left = ring - next, from = room + mine + next, first = bar(room + next);
        const uint32_t from_over = from - ring, first_over = first - (ring >> KERNEL::bars_log);
        const uint32_t turn = parity, turn_over = parity ^ 1;
        bool come = true;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const bool over = i > 0 && i * KERNEL::slot >= left;
            slot[i] = (over ? from_over : from) + i * KERNEL::slot;
            full[i] = (over ? first_over : first) + i * KERNEL::bars;
            come &= mm_bar_passed(full[i], over ? turn_over : turn);
        }
        next += N * KERNEL::slot;
        if (next >= ring) next -= ring, parity ^= 1;
        if (come) return;
#pragma unroll
        for (int i = 0; i < N; i++)
            mm_bar_wait(full[i], i > 0 && i * KERNEL::slot >= left ? turn_over : turn);
    }
    // The next slot, of scales, is kept apart and given back. Nobody reads those before any more.
    // Of a group: it has slots of their own, and who took one gives it back.
    template <class ARGS>
    __device__ __forceinline__ uint32_t take_scales(const ARGS &a) {
        if constexpr (KERNEL::groups) {
            const uint32_t turn = scale_turns++;
            mm_bar_wait(bar(room + ring) + turn % 2 * KERNEL::bars, turn / 2 % 2);
            return room + ring + turn % 2 * KERNEL::scale_slot;
        }
        const uint32_t lane = threadIdx.x % 32, at = take();
        const uint32_t to = bar(room + ring);
        if (KERNEL::small || lane % 4 < 2) {
            const uint32_t row = to + lane / 4 * KERNEL::scales_row + lane % 4 * 16;
            const uint32_t from = at + mm_scales_place(lane);
            const uint4 g = mm_load16_shared(from), h = mm_load16_shared(from + 256);
            mm_store16_shared(row, g), mm_store16_shared(row + 8 * KERNEL::scales_row, h);
        }
        __syncwarp();
        if (lane < a.givers) give(at);
        return to;
    }
    // What take_scales gave last.
    __device__ __forceinline__ void give_scales() const {
        mm_bar_arrive(bar(room + ring) + (scale_turns - 1) % 2 * KERNEL::bars + KERNEL::free);
    }
    // By `givers` lanes, after all have read.
    __device__ __forceinline__ void give(uint32_t at) const {
        mm_bar_arrive(bar(at) + KERNEL::free);
    }
};

#endif
