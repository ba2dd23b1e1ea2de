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
__device__ inline void mm_meet() {
    asm volatile("bar.sync 1, %0;" ::"n"((int)mm_step_threads) : "memory");
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
    static constexpr bool one = std::is_same<ARGS, struct mm_step_args_one>::value;
    // beside q4, slots of other types are half as long: those are few
    static constexpr bool small = WEIGHTS == mm_dtype_q4;
    static constexpr int row_codes = one ? mm_step_row_codes_one : mm_step_row_codes;
    static constexpr int slot = small ? 1024 : 2048;
    static constexpr int bars_log = small ? 6 : 7;  // barriers have 2^-that of a slot's bytes
    static constexpr int bars = slot >> bars_log, free = bars / 2;
    static constexpr int least = 4, most = 32;  // slots: as many are taken at once, have a lane
    // scales: bytes of a row, so that eight rows are in eight groups of banks
    static constexpr int scales_row = small ? 80 : 48;
    static constexpr int scales = WEIGHTS == mm_dtype_bf16 ? 0 : mm_step_tile * scales_row;
};

// Who this block is.
struct mm_step_who {
    int crew, rank;
};

// A warp's part of a product: tiles tile, tile + (8 >> split_log)... before `last`; of each, slots
// [begin, begin + n), none where the crew has no such rows. And what all warps know of the product.
// The same in all blocks of a kind: a table in shared memory, in the order of the products.
struct alignas(16) mm_part {
    int tile, last, begin, n;
    int which, head, round;  // mm_step_which; of the crew's heads, -1: it has none
    int turns;               // tiles that each warp walks through
    int type, blocks;        // of the matrix
    int more, ends;          // a round of heads follows; the block of the model ends
};

template <class ARGS>
__device__ __forceinline__ const struct mm_step_model *mm_model(const ARGS &a, const char *memory) {
    return (const struct mm_step_model *)(memory + a.room.model);
}
template <class ARGS>
__device__ __forceinline__ const struct mm_step_layer *mm_layer(const ARGS &a, const char *memory,
                                                                int l) {
    return (const struct mm_step_layer *)(memory + a.room.layers) + l;
}

// The products of a layer come one after the other: op = 3 round + gate, in or wo, then w1 with w3,
// then w2.
__device__ __forceinline__ int mm_which(int rounds, int op) {
    const int mlp = op - 3 * rounds;
    return mlp >= 0 ? mm_step_ffn + mlp : op % 3;
}

template <class ARGS>
__device__ __forceinline__ struct mm_part *mm_parts_of(const ARGS &a, char *memory, int kind,
                                                       int op, int warp) {
    static_assert(sizeof(struct mm_part) == mm_part_bytes, "room is cut for them");
    return (struct mm_part *)(memory + a.room.parts) + (kind * mm_step_ops + op) * mm_step_warps +
           warp;
}

// This warp's part of a product that a kind of block has; kind n_kinds: the output.
template <class ARGS>
__device__ __forceinline__ struct mm_part mm_part_make(const ARGS &a,
                                                       const struct mm_step_model *model,
                                                       const struct mm_step_who &me, int kind,
                                                       int op, int warp) {
    const struct mm_step_shape *m = &model->output;
    int column = 0, block = me.rank, tiles = m->tiles, turns = 0;
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
    p.tile = first + (warp >> log), p.last = min(tiles, first + m->per);
    p.begin = column * m->spb + (warp & ((1 << log) - 1)) * m->per_part;
    p.n = has && p.tile < p.last ? max(0, min(m->per_part, m->slots - p.begin)) : 0;
    // where this crew has nothing to multiply, sums of nothing are finished, and zeros are sent
    turns = (max(p.last - first, 0) + mm_step_warps - 1) / mm_step_warps;
    if (p.which <= mm_step_in) turns = 1;
    if (p.which == mm_step_output && !a.logits) turns = 0;
    p.turns = turns, p.type = m->type, p.blocks = m->blocks;
    return p;
}

// ---- scales ----

// Where the scales of blocks from `first` on are, of a row of `blocks`: they come in pieces of 16
// bytes, two of scales and two of factors, which begin at the last multiple of 8 before.
struct mm_scales {
    int first, blocks;

    // Of the row, from its scales on: piece t of 4, in bytes.
    __device__ __forceinline__ int piece(int t) const {
        return (2 * (first + (t < 2 ? 0 : blocks)) & ~15) + t % 2 * 16;
    }
    // From the row's place among those held: the scale and the factors of a block.
    __device__ __forceinline__ uint32_t scale(int block) const {
        return 2 * ((first & 7) + block - first);
    }
    __device__ __forceinline__ uint32_t factors(int block) const {
        return 32 + 2 * ((first + blocks & 7) + block - first);
    }
};

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
    uint32_t room;          // the warp's slots
    uint32_t next, parity;  // to be taken next: where it begins, and of how many turns
    uint32_t ring;
    uint32_t bars;  // of barriers: where that of a slot at 0 would be

    template <class ARGS>
    __device__ __forceinline__ static uint32_t room_of(const ARGS &a, const char *memory,
                                                       int warp) {
        return mm_shared_at(memory) + warp * a.ring;
    }
    template <class ARGS>
    __device__ __forceinline__ static uint32_t bars_of(const ARGS &a, const char *memory,
                                                       int warp) {
        const uint32_t behind = mm_shared_at(memory) + mm_step_warps * a.ring;
        return behind + warp * (a.queue - a.ring) - (room_of(a, memory, warp) >> KERNEL::bars_log);
    }
    template <class ARGS>
    __device__ __forceinline__ void start(const ARGS &a, const char *memory) {
        room = room_of(a, memory, threadIdx.x / 32);
        next = parity = 0, ring = a.ring, bars = bars_of(a, memory, threadIdx.x / 32);
        if (threadIdx.x % 32 * KERNEL::slot < ring) {
            const uint32_t at = bar(room + threadIdx.x % 32 * KERNEL::slot);
            mm_bar_init(at, a.maps ? 1 : 32), mm_bar_init(at + KERNEL::free, a.givers);
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
    // The next `count` slots, up to 4, asked about together: each answer takes some time.
    __device__ __forceinline__ void take_some(uint32_t slot[4], int count) {
        bool come = true;
        const uint32_t first = next, turn = parity;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i >= count) break;
            slot[i] = room + next;
            come &= mm_bar_passed(bar(slot[i]), parity);
            next += KERNEL::slot;
            if (next == ring) next = 0, parity ^= 1;
        }
        if (come) return;
#pragma unroll 1
        for (uint32_t i = 0, at = first, of = turn; i < (uint32_t)count; i++) {
            mm_bar_wait(bar(room + at), of);
            at += KERNEL::slot;
            if (at == ring) at = 0, of ^= 1;
        }
    }
    // The next slot, of scales, is kept apart and given back. Nobody reads those before any more.
    template <class ARGS>
    __device__ __forceinline__ uint32_t take_scales(const ARGS &a) {
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
    // By `givers` lanes, after all have read.
    __device__ __forceinline__ void give(uint32_t at) const {
        mm_bar_arrive(bar(at) + KERNEL::free);
    }
};

#endif
