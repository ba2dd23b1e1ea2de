// Weights brought by the copy engine of Hopper: a slot is a box of it, or two, so that who brings
// asks once for what is 64 pieces of 16 bytes. The maps it needs are made with the plan
// (step_maps.cuh); where there are none, lanes bring the pieces (step_bring.cuh), to the same
// places.
#ifndef MM_OPS_CUDA_STEP_BRING_HOPPER_CUH
#define MM_OPS_CUDA_STEP_BRING_HOPPER_CUH

#include "ops/cuda/hopper.cuh"
#include "ops/cuda/step_bring.cuh"

#if MM_HOPPER

// Where the boxes of a tile begin (step_maps.cuh): of w1 with w3 in row `row` of both, else in the
// rows `group`, eight of them each.
struct mm_box_at {
    int row, group;
};

__device__ inline void mm_box_expect(uint32_t bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}
// 64 bytes of 16 rows, or twice as many of eight, from the `unit`th 64 on.
__device__ inline void mm_box_copy(uint32_t to, const CUtensorMap *map, int unit, mm_box_at at,
                                   uint32_t done) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(to),
        "l"(map), "r"(done), "r"(0), "r"(at.row), "r"(unit), "r"(at.group), "l"(mm_passing)
        : "memory");
}
// 32 bytes of 16 rows' scales or factors.
__device__ inline void mm_box_scales(uint32_t to, const CUtensorMap *map, int from, mm_box_at at,
                                     uint32_t done) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
        "l"(map), "r"(done), "r"(from), "r"(at.row), "r"(at.group), "l"(mm_passing)
        : "memory");
}
// A slot of codes comes to the L2.
__device__ inline void mm_box_ahead(const CUtensorMap *map, int unit, mm_box_at at) {
    asm volatile(
        "cp.async.bulk.prefetch.tensor.4d.L2.global.tile [%0, {%1, %2, %3, %4}];" ::"l"(map),
        "r"(0), "r"(at.row), "r"(unit), "r"(at.group)
        : "memory");
}
// A map comes to where the copy engine keeps them.
__device__ inline void mm_box_map(const CUtensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// What a lane knows of its queue.
template <class KERNEL>
struct mm_box_bringer : mm_bring_walk {
    uint32_t room, bars;     // slot 0; the barriers (mm_queue)
    uint32_t next, parity;   // to be filled next: where it begins, and the turn
    const CUtensorMap *map;  // of the open product: codes or bf16; scales are the next one
    struct mm_box_at box;    // of the tile
    int begin;               // the tile's first slot
    // to the next tile of the open product, and before which that is one; 0: rows of heads
    int step, last;
    struct mm_box_at jump;
    bool twice;                    // a box has eight rows only: the output's last tile
    int scaled, unscaled, blocks;  // as in mm_bringer
    int ahead;
    uint32_t asked;

    static constexpr int units = KERNEL::slot / 1024;  // 64 bytes of a row, of a slot

    // Lanes without a queue have nothing to do.
    template <class ARGS>
    __device__ __forceinline__ void start(const ARGS &a, const char *memory, int of, bool has) {
        room = mm_queue<KERNEL>::room_of(a, memory, of);
        bars = mm_queue<KERNEL>::bars_of(a, memory, of);
        ahead = 0, asked = 0, next = 0, parity = 1;  // what was never filled is free
        start_walk(of);
        ended = !has;
    }

    template <class ARGS>
    __device__ __forceinline__ void aim(const struct mm_step_place &p, const ARGS &a) {
        const struct mm_step_shape &m = *p.m;
        const int which = p.part->which % mm_step_output;  // the output is the last block's first
        map = a.maps + layer * mm_step_maps + 2 * which;
        begin = p.part->begin, blocks = m.blocks;
        step = p.part->step, last = m.n_seg ? 0 : p.part->last, twice = false;
        if (p.part->which == mm_step_output && m.rows % 8) {
            last = min(last, m.rows / mm_step_tile);
            if (tile >= last) twice = true, map += mm_step_map_last;
        }
        if (twice) {
            box = {tile * mm_step_tile, 0}, jump = {0, 0};
        } else if (p.w3) {
            box = {p.hidden0 + tile * 8, 0}, jump = {step * 8, 0};
        } else {
            box = {0, m.n_seg ? mm_tile_row(p, tile, 0) / 8 : tile * 2}, jump = {0, step * 2};
        }
        scaled = mm_scaled_slots(KERNEL::small && type == mm_dtype_q8, begin, blocks);
        unscaled = at = ahead = 0;
    }

    // The next tile; false: there is none.
    template <class ARGS>
    __device__ __forceinline__ bool turn(const ARGS &a, char *memory,
                                         const struct mm_step_who &me) {
        if (type >= 0 && tile + step < last) {
            tile += step, box.row += jump.row, box.group += jump.group;
            unscaled = at = ahead = 0;
            return true;
        }
        struct mm_step_place p;
        if (!open(p, a, memory, me)) return false;
        aim(p, a);
        return true;
    }

    __device__ __forceinline__ void fill_scales(uint32_t to, uint32_t full) {
        const bool half = KERNEL::small && type == mm_dtype_q8;
        const struct mm_scales s = {half ? (begin + at) / 2 : begin + at, blocks};
        const bool factors = KERNEL::small && type == mm_dtype_q4;
        mm_box_expect(full, factors ? 1024 : 512);
        struct mm_box_at at_row = box;
#pragma unroll 1
        for (uint32_t group = 0; group <= (twice ? 256u : 0u); group += 256, at_row.row += 8) {
            mm_box_scales(to + group, map + 1, s.piece(0), at_row, full);
            if (factors) mm_box_scales(to + group + 512, map + 1, s.piece(2), at_row, full);
        }
        unscaled = scaled;
    }
    __device__ __forceinline__ void fill(uint32_t to, uint32_t full) {
        constexpr uint32_t half = KERNEL::slot / 2;
        struct mm_box_at second = box;
        second.row += twice ? 8 : 0, second.group += twice ? 0 : 1;
        mm_box_expect(full, KERNEL::slot);
        if constexpr (KERNEL::small) {
            struct mm_box_at group = box;
#pragma unroll 1
            for (uint32_t i = 0; i <= (twice ? half : 0); i += half, group = second)
                mm_box_copy(to + i, map, (begin + at) * units, group, full);
        } else {
            mm_box_copy(to, map, (begin + at) * units, box, full);
            mm_box_copy(to + half, map, (begin + at) * units, second, full);
        }
        at++, unscaled--;
    }

    // Some of the next slots are filled as far as they are free; false: none was.
    template <class ARGS>
    __device__ __forceinline__ bool bring(const ARGS &a, char *memory,
                                          const struct mm_step_who &me) {
        if (at == n && !turn(a, memory, me)) return true;
        bool some = false;
#pragma unroll 1
        for (int i = 0; i < 4 && at < n; i++) {
            const uint32_t to = room + next, full = bars + (to >> KERNEL::bars_log);
            if (!mm_bar_passed(full + KERNEL::free, parity)) break;
            if (KERNEL::weights != mm_dtype_bf16 && type != mm_dtype_bf16 && unscaled == 0) {
                fill_scales(to, full);
            } else {
                fill(to, full);
            }
            some = true;
            next += KERNEL::slot;
            if (next == a.ring) next = 0, parity ^= 1;
        }
        if (!some) ask_ahead();
        return some;
    }

    // 128 bytes of each row, as in mm_bringer; where that is two boxes, of the first.
    __device__ __forceinline__ void ask_ahead() {
        ahead = max(ahead, at);
        const uint32_t now = (uint32_t)clock();
        if (ahead >= min(n, at + mm_ahead_slots) || now - asked < mm_ahead_cycles) return;
        asked = now;
#pragma unroll
        for (int i = 0; i < 2 / units; i++)
            mm_box_ahead(map, (begin + ahead++) * units, box);
    }
};

// The maps of a block of the model, or of the output, which comes last.
template <class ARGS>
static __device__ __forceinline__ void look_for_maps(const ARGS &, const CUtensorMap *maps, int l) {
    const unsigned i = threadIdx.x - mm_step_threads<ARGS>;
    if (i < mm_step_maps) mm_box_map(maps + l * mm_step_maps + i);
}

// Two lanes of a warp have a queue each; the others help where something is asked for ahead.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void mm_bring_by_boxes(const ARGS &a, char *memory,
                                                         const struct mm_step_who &me) {
    const int warp = (threadIdx.x - mm_step_threads<ARGS>) / 32, lane = threadIdx.x % 32;
    struct mm_box_bringer<KERNEL> q;
    int seen = 0;
    q.start(a, memory, warp * 2 + lane % 2, lane < 2);
    look_for_maps(a, a.maps, 0), look_for_maps(a, a.maps, 1);
#pragma unroll 1
    while (true) {
        const bool some = !q.ended && q.bring(a, memory, me);
        if (__any_sync(0xffffffffu, q.layer > seen)) {
            seen = max(__shfl_sync(0xffffffffu, q.layer, 0), __shfl_sync(0xffffffffu, q.layer, 1));
            if (seen < a.n_layers)
                look_for_maps(a, a.maps, seen + 1), look_ahead(a, memory, me, seen);
        }
        if (__any_sync(0xffffffffu, some)) continue;
        if (!__any_sync(0xffffffffu, !q.ended)) return;
        mm_doze();
    }
}

#endif

#endif
