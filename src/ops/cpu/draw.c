// Drawing tokens: rows are shared out among the threads. The draw itself is ops/draw.c's, which is
// compiled without contraction.
#include "ops/cpu/cpu.h"
#include "ops/draw.h"

struct draws {
    struct mm_view y, logits, seen, stopped, kept;
    const struct mm_draw *how;
    const struct mm_draw_stops *stops;
    char *room;
    size_t bytes;  // of a thread's room
};

static void some_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct draws *d = arg;
    const int64_t V = mm_view_cols(d->logits);
    char *at = d->room + (size_t)thread * d->bytes;
    const struct mm_draw_room room = {.w = (uint64_t *)at,
                                      .l = (float *)(at + (size_t)V * sizeof *room.w),
                                      .order = (int32_t *)(at + (size_t)V * (sizeof *room.w + 4))};
    for (int64_t r = begin; r < end; r++) {
        const struct mm_draw *how = &d->how[r];
        int32_t *stopped = d->stopped.data ? mm_view_at(d->stopped, r, 0) : NULL;
        if (stopped && *stopped) {
            *(int32_t *)mm_view_at(d->y, r, 0) = -1;
            continue;
        }
        uint32_t *bits = d->seen.data ? mm_view_at(d->seen, r, 0) : NULL;
        const int32_t id = mm_draw_row(how, mm_view_at(d->logits, r, 0), V, bits, &room);
        if (bits && id >= 0 && how->penalty != 1.0) bits[id / 32] |= (uint32_t)1 << id % 32;
        *(int32_t *)mm_view_at(d->y, r, 0) = id;
        if (!stopped || !mm_draw_ends(how, d->stops, id)) continue;
        *stopped = 1;
        if (d->kept.data)
            memcpy(mm_view_at(d->kept, r, 0), mm_view_at(d->logits, r, 0), (size_t)V * 4);
    }
}

void mm_draw_tokens_cpu(struct mm_backend *be, struct mm_view y, struct mm_view logits,
                        struct mm_view seen, struct mm_view stopped, struct mm_view kept,
                        const struct mm_draw *how, const struct mm_draw_stops *stops) {
    const int64_t n = logits.shape[0], V = mm_view_cols(logits);
    const size_t bytes = mm_cpu_piece((size_t)V * 16);
    const int threads = n > 1 ? mm_pool_size(be->pool) : 1;
    struct draws d = {y, logits, seen, stopped, kept, how, stops, NULL, bytes};
    d.room = mm_cpu_scratch(be, mm_scratch_a, bytes * (size_t)threads);
    if (d.room) mm_parallel_for(be->pool, n, 1, some_rows, &d);
}
