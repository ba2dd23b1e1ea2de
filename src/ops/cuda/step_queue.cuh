// The queues of weights, one a warp that multiplies. A tile is 16 rows of a matrix; some warps of a
// block share its columns out among them. A slot has what the lanes of a warp multiply, 16 bytes at
// a time, laid out for m16n8 products: lane 4 g + t has rows g and g + 8, and of every 64 bytes the
// 16 from 16 t. The order of the k inside a product is therefore not that of memory; it is the same
// for both operands, which is all that matters.
#ifndef MM_OPS_CUDA_STEP_QUEUE_CUH
#define MM_OPS_CUDA_STEP_QUEUE_CUH

#include "ops/cuda/step.cuh"
#include "ops/cuda/tensor.cuh"

__device__ inline uint4 mm_load16_shared(uint32_t at) {
    uint4 r;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "r"(at)
                 : "memory");
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

// WEIGHTS: the type of most. A slot: codes or bf16; scales, 4 bytes a lane; a barrier that it is
// full, and one that it is free.
template <int WEIGHTS, int SLOTS>
struct mm_step_kernel {
    static constexpr int weights = WEIGHTS, slots = SLOTS;
    // beside q4, slots of other types are half as long: those are few
    static constexpr bool small = WEIGHTS == mm_dtype_q4;
    static constexpr int codes = small ? 1024 : 2048, full = codes + 128, free = full + 8;
    static constexpr int slot = free + 8, queue = SLOTS * slot, queues = mm_step_warps * queue;
};

// Who this block is.
struct mm_step_who {
    int crew, rank;
};

// A warp's part of a product: tiles tile, tile + (8 >> split_log)... before `last`; of each, slots
// [begin, begin + n). The same in all blocks of a kind; a table in shared memory.
struct alignas(16) mm_part {
    int tile, last, begin, n;
};

__device__ __forceinline__ const struct mm_step_model *mm_model(const struct mm_step_args &a,
                                                                const char *memory) {
    return (const struct mm_step_model *)(memory + a.room.model);
}
__device__ __forceinline__ const struct mm_step_layer *mm_layer(const struct mm_step_args &a,
                                                                const char *memory, int l) {
    return (const struct mm_step_layer *)(memory + a.room.layers) + l;
}

// The products of a layer come one after the other: op = 3 round + gate, in or wo, then w1 with w3,
// then w2.
__device__ __forceinline__ int mm_which(int rounds, int op) {
    const int mlp = op - 3 * rounds;
    return mlp >= 0 ? mm_step_ffn + mlp : op % 3;
}

__device__ __forceinline__ struct mm_part *mm_parts_of(const struct mm_step_args &a, char *memory,
                                                       int kind, int op, int warp) {
    return (struct mm_part *)(memory + a.room.parts) + (kind * mm_step_ops + op) * mm_step_warps +
           warp;
}

// This warp's part of a product that a kind of block has; kind -1: the output.
__device__ __forceinline__ struct mm_part mm_part_make(const struct mm_step_args &a,
                                                       const struct mm_step_model *model,
                                                       const struct mm_step_who &me, int kind,
                                                       int op, int warp) {
    const struct mm_step_shape *m = &model->output;
    int column = 0, block = me.rank, tiles = m->tiles;
    if (kind < 0) {
        block += me.crew * mm_step_crew;
    } else {
        const struct mm_step_kind &t = model->kinds[kind];
        const int which = mm_which(t.rounds, op), head = me.crew + op / 3 * a.crews;
        const int left = min(t.unit, t.F - me.crew * t.unit);
        m = &t.shape[which], tiles = m->tiles;
        if (which < mm_step_ffn && head >= t.H) tiles = 0;
        if (which == mm_step_wo) column = head * t.P / mm_step_block;
        if (which == mm_step_ffn) tiles = max(0, (left + 7) / 8);
        if (which == mm_step_w2) {
            column = me.crew * (t.unit / mm_step_block);
            if (left <= 0) tiles = 0;
        }
    }
    const int log = m->split_log, first = block * m->per;
    struct mm_part p;
    p.tile = first + (warp >> log), p.last = min(tiles, first + m->per);
    p.begin = column * m->spb + (warp & ((1 << log) - 1)) * m->per_part;
    p.n = p.tile < p.last ? max(0, min(m->per_part, m->slots - p.begin)) : 0;
    return p;
}

// ---- taking from a queue ----

template <class KERNEL>
struct mm_queue {
    uint32_t room;          // the warp's slots
    uint32_t next, parity;  // to be taken next: where it begins, and of how many turns

    __device__ __forceinline__ static uint32_t room_of(const char *memory, int warp) {
        return mm_shared_at(memory) + warp * KERNEL::queue;
    }
    __device__ __forceinline__ void start(const char *memory) {
        room = room_of(memory, threadIdx.x / 32);
        next = parity = 0;
        if (threadIdx.x % 32 < KERNEL::slots) {
            const uint32_t at = room + threadIdx.x % 32 * KERNEL::slot;
            mm_bar_init(at + KERNEL::full, 32), mm_bar_init(at + KERNEL::free, 1);
        }
    }
    // The next slot, when it has come.
    __device__ __forceinline__ uint32_t take() {
        const uint32_t at = room + next;
        mm_bar_wait(at + KERNEL::full, parity);
        next += KERNEL::slot;
        if (next == KERNEL::queue) next = 0, parity ^= 1;
        return at;
    }
    // By one lane, after all have read.
    __device__ __forceinline__ void give(uint32_t at) const {
        mm_bar_arrive(at + KERNEL::free);
    }
};

#endif
