// Owns: a draw on the host; the reference of every other. Compiled without contraction: see
// mm_draw_weight.
#include "ops/draw.h"

#include <math.h>

// The first of the largest; -1: all are -inf or NaN. Lanes of their own make it a loop of vectors.
static int32_t largest(const float *l, int64_t V) {
    enum { lanes = 16 };
    float most[lanes];
    for (int k = 0; k < lanes; k++)
        most[k] = -INFINITY;
    int64_t at = 0;
    for (; at + lanes <= V; at += lanes) {
        for (int k = 0; k < lanes; k++)
            most[k] = l[at + k] > most[k] ? l[at + k] : most[k];
    }
    for (; at < V; at++)
        most[0] = l[at] > most[0] ? l[at] : most[0];
    for (int k = 1; k < lanes; k++)
        most[0] = most[k] > most[0] ? most[k] : most[0];
    if (most[0] == -INFINITY) return -1;
    int32_t best = 0;
    while (l[best] != most[0])
        best++;
    return best;
}

static void prepare(const struct mm_draw *d, const float *logits, int64_t V, const uint32_t *seen,
                    float *l) {
    memcpy(l, logits, (size_t)V * sizeof *l);
    for (int64_t i = 0; seen && d->penalty != 1.0 && i < (V + 31) / 32; i++) {
        for (uint32_t bits = seen[i]; bits; bits &= bits - 1) {
            const int64_t id = 32 * i + __builtin_ctz(bits);
            if (id < V) l[id] = mm_draw_penalized(l[id], d->penalty);
        }
    }
    for (int i = 0; i < 2; i++) {
        if (d->banned[i] >= 0 && d->banned[i] < V) l[d->banned[i]] = -INFINITY;
    }
}

// ---- candidates as a heap, the likeliest on top -------------------------------------------------

static bool before(const float *l, int32_t a, int32_t b) {
    return l[a] > l[b] || (l[a] == l[b] && a < b);
}

static void sift(const float *l, int32_t *heap, int64_t n, int64_t at) {
    const int32_t id = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(l, heap[child + 1], heap[child])) child++;
        if (!before(l, heap[child], id)) break;
        heap[at] = heap[child];
    }
    heap[at] = id;
}

// All tokens that can come at all, as a heap; their number.
static int64_t build(const struct mm_draw_room *room, int64_t V) {
    int64_t n = 0;
    for (int64_t i = 0; i < V; i++) {
        if (room->w[i] > 0) room->order[n++] = (int32_t)i;
    }
    for (int64_t i = n / 2; i-- > 0;)
        sift(room->l, room->order, n, i);
    return n;
}

// Takes the top off a heap of n and puts it behind the heap.
static int32_t pop(const struct mm_draw_room *room, int64_t n) {
    int32_t *heap = room->order;
    const int32_t top = heap[0];
    heap[0] = heap[n - 1];
    sift(room->l, heap, n - 1, 0);
    heap[n - 1] = top;
    return top;
}

// The last token, in the order of likelihood, that top-k and top-p leave; -1: they leave all.
static int32_t last_kept(const struct mm_draw *d, const struct mm_draw_room *room, int64_t V) {
    if (d->top_k <= 0 && d->top_p >= 1.0) return -1;
    const int64_t n = build(room, V);
    const bool few = d->top_k > 0 && d->top_k < n;
    if (!few && d->top_p >= 1.0) return -1;
    const int64_t k = few ? d->top_k : n;
    uint64_t total = 0;
    int32_t last = -1;
    for (int64_t i = 0; i < k; i++) {
        if (few) last = pop(room, n - i);  // from the back: order[n - 1], order[n - 2], ..
        total += room->w[few ? last : room->order[i]];
    }
    if (d->top_p >= 1.0) return last;
    const uint64_t wanted = mm_draw_part(d->top_p, total);
    uint64_t sum = 0;
    for (int64_t i = 0; i < k && sum < wanted; i++) {
        last = few ? room->order[n - 1 - i] : pop(room, n - i);
        sum += room->w[last];
    }
    return last;
}

int32_t mm_draw_row(const struct mm_draw *d, const float *logits, int64_t V, const uint32_t *seen,
                    const struct mm_draw_room *room) {
    float *l = room->l;
    uint64_t *w = room->w;
    prepare(d, logits, V, seen, l);
    const int32_t best = largest(l, V);
    if (best < 0 || !isfinite(l[best])) return -1;
    if (d->temperature == 0.0) return best;

    const float inverse = mm_draw_inverse(d), top = l[best];
    for (int64_t i = 0; i < V; i++)
        w[i] = mm_draw_weight(l[i] - top, inverse);
    const int32_t last = last_kept(d, room, V);
    const uint64_t least = mm_draw_least(d);
    uint64_t total = 0;
    for (int64_t i = 0; i < V; i++) {
        if (w[i] < least || (last >= 0 && before(l, last, (int32_t)i))) w[i] = 0;
        total += w[i];
    }
    const uint64_t spot = mm_draw_spot(d->bits, total);
    uint64_t sum = 0;
    int32_t id = best;
    for (int64_t i = 0; i < V && sum <= spot; i++) {
        sum += w[i];
        id = (int32_t)i;
    }
    return id;
}
