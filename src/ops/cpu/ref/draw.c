// Drawing tokens, one row after the other.
#include "ops/cpu/cpu.h"
#include "ops/draw.h"

void mm_draw_tokens_ref(struct mm_backend *be, struct mm_view y, struct mm_view logits,
                        struct mm_view seen, struct mm_view stopped, struct mm_view kept,
                        const struct mm_draw *how, const struct mm_draw_stops *stops) {
    const int64_t V = mm_view_cols(logits);
    const struct mm_draw_room room = {
        .l = mm_cpu_scratch(be, mm_scratch_a, (size_t)V * sizeof *room.l),
        .w = mm_cpu_scratch(be, mm_scratch_b, (size_t)V * sizeof *room.w),
        .order = mm_cpu_scratch(be, mm_scratch_c, (size_t)V * sizeof *room.order)};
    if (!room.l || !room.w || !room.order) return;
    for (int64_t r = 0; r < logits.shape[0]; r++) {
        int32_t *is_stopped = stopped.data ? mm_view_at(stopped, r, 0) : NULL;
        if (is_stopped && *is_stopped) {
            *(int32_t *)mm_view_at(y, r, 0) = -1;
            continue;
        }
        uint32_t *bits = seen.data ? mm_view_at(seen, r, 0) : NULL;
        const int32_t id = mm_draw_row(&how[r], mm_view_at(logits, r, 0), V, bits, &room);
        if (bits && id >= 0 && how[r].penalty != 1.0) bits[id / 32] |= (uint32_t)1 << id % 32;
        *(int32_t *)mm_view_at(y, r, 0) = id;
        if (!is_stopped || !mm_draw_ends(&how[r], stops, id)) continue;
        *is_stopped = 1;
        if (kept.data) memcpy(mm_view_at(kept, r, 0), mm_view_at(logits, r, 0), (size_t)V * 4);
    }
}
