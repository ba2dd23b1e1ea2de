// Weights for groups of four warps (mm_step_args_linear). A slot has a piece for each of the four,
// and comes as one box of the copy engine, so there is little to do for who brings it.
#ifndef MM_OPS_CUDA_STEP_BRING_GROUPS_CUH
#define MM_OPS_CUDA_STEP_BRING_GROUPS_CUH

#include "ops/cuda/step_bring_hopper.cuh"

#if MM_HOPPER

// Where a box begins: of the dimensions of a map of groups (step_maps.cu) all but the first.
struct mm_group_at {
    int row, across, tile, unit;
};

__device__ inline void mm_group_copy(uint32_t to, const CUtensorMap *map, mm_group_at at,
                                     uint32_t done) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(to),
        "l"(map), "r"(done), "r"(0), "r"(at.row), "r"(at.across), "r"(at.tile), "r"(at.unit),
        "l"(mm_passing)
        : "memory");
}
// It comes to the L2.
__device__ inline void mm_group_ahead(const CUtensorMap *map, mm_group_at at) {
    asm volatile(
        "cp.async.bulk.prefetch.tensor.5d.L2.global.tile [%0, {%1, %2, %3, %4, %5}];" ::"l"(map),
        "r"(0), "r"(at.row), "r"(at.across), "r"(at.tile), "r"(at.unit)
        : "memory");
}
// From byte `from` of a row's scales on.
__device__ inline void mm_group_scales(uint32_t to, const CUtensorMap *map, int from,
                                       mm_group_at at, uint32_t done) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(to),
        "l"(map), "r"(done), "r"(from), "r"(at.row), "r"(0), "r"(at.tile), "l"(mm_passing)
        : "memory");
}

template <class KERNEL>
struct mm_group_bringer {
    static constexpr int units = KERNEL::piece / 1024;  // 64 bytes of a row, of a slot
    // whether paces of these weights keep slots apart, and bring some to the L2
    static constexpr bool keeps_apart = KERNEL::weights == mm_dtype_q8;
    static constexpr bool looks_further = !KERNEL::small;
    uint32_t pace;           // where mm_pace is
    uint32_t room, bars;     // slot 0; the barriers (mm_queue)
    uint32_t next, parity;   // to be filled next: where it begins, and the turn
    uint32_t scale_turns;    // how many slots of scales were filled
    int on_way;              // slots, the last ones that were asked for
    uint32_t issued, asked;  // when the last slot was, and the L2, in cycles

    template <class ARGS>
    __device__ __forceinline__ void start(const ARGS &a, const char *memory, int group) {
        room = mm_queue<KERNEL>::room_of(a, memory, group);
        bars = mm_queue<KERNEL>::bars_of(a, memory, group);
        pace = mm_shared_at(memory + a.room.pace);
        next = scale_turns = 0, parity = 1;  // what was never filled is free
        issued = asked = 0, on_way = 0;
    }
    // A slot's barrier, when that is free and `bytes` are to come.
    __device__ __forceinline__ uint32_t free(uint32_t full, uint32_t turn, int bytes) const {
        while (!mm_bar_passed(full + KERNEL::free, turn))
            mm_doze();
        mm_box_expect(full, bytes);
        return full;
    }

    template <class ARGS>
    __device__ __forceinline__ void fill_scales(const ARGS &a, const CUtensorMap *map,
                                                const struct mm_part &part, bool below,
                                                mm_group_at at) {
        const uint32_t slot = scale_turns % 2, to = room + a.ring + slot * KERNEL::scale_slot;
        const uint32_t bar = bars + (room + a.ring >> KERNEL::bars_log) + slot * KERNEL::bars;
        // 32 bytes of a row, of one tile or of four
        const int bytes = 32 * mm_step_tile * (below ? mm_step_group : 1);
        const bool factors = part.type == mm_dtype_q4;
        const uint32_t full = free(bar, scale_turns / 2 % 2 ^ 1, factors ? 2 * bytes : bytes);
        const struct mm_scales s = {part.scales_first, part.blocks};
        mm_group_scales(to, map, s.piece(0), at, full);
        if (factors) mm_group_scales(to + KERNEL::factors, map, s.piece(2), at, full);
        scale_turns++;
    }

    // Waits until slot i of the n of a product may be asked for, and is free; `beyond` the
    // projections. Meanwhile those behind it come to the L2, up to slot `ahead`.
    template <class ARGS>
    __device__ __forceinline__ void hold_back(const ARGS &a, const CUtensorMap *map, mm_group_at at,
                                              uint32_t bar, int i, int n, int &ahead, bool beyond) {
        // q8 looks further whoever is on the way
        constexpr bool always = KERNEL::weights == mm_dtype_q8;
        bool is_free = false;
        while (true) {
            const unsigned now = mm_shared_value(pace);
            const uint32_t time = keeps_apart || looks_further ? (uint32_t)clock() : 0;
            bool waits = true;
            if (on_way > 0 && came(a)) on_way--, waits = false;
            is_free = is_free || mm_bar_passed(bar + KERNEL::free, parity);
            const bool may = on_way < mm_pace_window(now);
            if (may && is_free && (!keeps_apart || time - issued >= mm_pace_apart(now)) &&
                !(beyond && mm_pace_mixer(now)))
                break;
            const uint32_t apart = looks_further ? mm_pace_ahead(now) : 0;
            if (!is_free && (may || always) && apart > 0 && ahead < n && time - asked >= apart) {
                asked = time;
                mm_group_at to = at;
                to.unit += (ahead - i) * units, ahead++;
                mm_group_ahead(map, to);
            } else if (waits) {
                mm_doze();
            }
        }
        on_way++;
        if (keeps_apart) issued = (uint32_t)clock();
    }
    // Whether the oldest slot on its way has come.
    template <class ARGS>
    __device__ __forceinline__ bool came(const ARGS &a) const {
        const uint32_t back = on_way * KERNEL::slot, over = next < back;
        return mm_bar_passed(bars + (room + next + (over ? a.ring : 0) - back >> KERNEL::bars_log),
                             parity ^ 1 ^ over);
    }

    // All slots of a product of layer l.
    template <class ARGS>
    __device__ __forceinline__ void fill(const ARGS &a, const struct mm_step_place &p, int l) {
        const struct mm_part &part = *p.part;
        const int which = part.which, n = part.n;
        if (n == 0) return;
        const bool below = which > mm_step_gate, hidden = which == mm_step_ffn;
        const CUtensorMap *map =
            a.group_maps + l * mm_step_maps + 2 * (which % mm_step_output);  // the output: first
        mm_group_at at = {0, 0, 0, 0};
        if (hidden) {
            at.tile = p.hidden0 / 8 + part.tile;
        } else {
            at.row = below ? part.tile * mm_step_tile : mm_tile_row(p, part.tile, 0);
        }
        if (!below) at.across = part.begin / n;
#pragma unroll 1
        for (int turn = 0; turn < part.turns; turn++) {
            if (part.type != mm_dtype_bf16) fill_scales(a, map + 1, part, below, at);
            at.unit = below ? part.begin * units : 0;
            int ahead = 0;  // slots that were asked for, of the L2 at least
#pragma unroll 1
            for (int i = 0; i < n; i++, at.unit += units) {
                const uint32_t to = room + next;
                const uint32_t bar = bars + (to >> KERNEL::bars_log);
                ahead = max(ahead, KERNEL::weights == mm_dtype_q8 ? i : i + 1);
                // what a round of heads needs never waits for the next one
                hold_back(a, map, at, bar, i, n, ahead, which > mm_step_gate && !part.more);
                mm_box_expect(bar, KERNEL::slot);
                mm_group_copy(to, map, at, bar);
                next += KERNEL::slot;
                if (next == a.ring) next = 0, parity ^= 1;
            }
            at.row += hidden ? 0 : part.step * mm_step_tile, at.tile += hidden ? part.step : 0;
        }
    }
};

// One lane of a warp brings; the others help where something is asked for ahead.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void mm_bring_groups(const ARGS &a, char *memory,
                                                       const struct mm_step_who &me) {
    static_assert(ARGS::queues == mm_step_bringers, "a queue each");
    const int group = (threadIdx.x - mm_step_threads<ARGS>) / 32;
    struct mm_group_bringer<KERNEL> q;
    q.start(a, memory, group);
    look_for_maps(a, a.group_maps, 0);
    const int ends_at = a.n_layers + (a.logits ? 1 : 0);
#pragma unroll 1
    for (int l = 0; l < ends_at; l++) {
        if (l < a.n_layers) look_for_maps(a, a.group_maps, l + 1);
        if (l > 0 && l < a.n_layers) look_ahead(a, memory, me, l);
        bool ends = false;
#pragma unroll 1
        for (int op = 0; !ends; op++) {
            struct mm_step_place p;
            mm_place_at(p, a, memory, me, l, op, group * mm_step_group);
            if (threadIdx.x % 32 == 0) q.fill(a, p, l);
            ends = p.part->ends;
        }
        __syncwarp();
    }
}

#endif

template <class KERNEL, class ARGS>
static __device__ __forceinline__ void mm_bring_all(const ARGS &a, char *memory,
                                                    const struct mm_step_who &me) {
    if constexpr (KERNEL::groups) {
#if MM_HOPPER
        mm_bring_groups<KERNEL>(a, memory, me);
#endif
    } else {
#if MM_HOPPER
        if (a.maps) {
            mm_bring_by_boxes<KERNEL>(a, memory, me);
            return;
        }
#endif
        mm_bring_by_lanes<KERNEL>(a, memory, me);
    }
}

#endif
