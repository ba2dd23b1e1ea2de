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

// Tokens that can come at all, by how far their logits are below the largest, in temperatures.
enum { n_shelves = 29 };
struct shelves {
    float top, inverse;
    int64_t n[n_shelves];
    uint64_t w[n_shelves];
};

static int shelf_of(const struct shelves *s, float l) {
    return (int)((s->top - l) * s->inverse);  // below 28 where there is a weight
}

static void put_on_shelves(struct shelves *s, const struct mm_draw_room *room, int64_t V) {
    for (int64_t i = 0; i < V; i++) {
        if (room->w[i] == 0) continue;
        const int at = shelf_of(s, room->l[i]);
        s->n[at]++;
        s->w[at] += room->w[i];
    }
}

// The tokens of the shelves down to `last`, as a heap; their number.
static int64_t build(const struct shelves *s, const struct mm_draw_room *room, int64_t V,
                     int last) {
    int64_t n = 0;
    for (int64_t i = 0; i < V; i++) {
        if (room->w[i] > 0 && shelf_of(s, room->l[i]) <= last) room->order[n++] = (int32_t)i;
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

// The last of the k likeliest tokens (there are more), and where top_p cuts these, of what it
// leaves.
static int32_t last_of_few(const struct mm_draw *d, const struct shelves *s,
                           const struct mm_draw_room *room, int64_t V) {
    int64_t above = s->n[0];
    int shelf = 0;
    while (above < d->top_k)
        above += s->n[++shelf];
    const int64_t n = build(s, room, V, shelf);
    uint64_t total = 0, sum = 0;
    int32_t last = -1;
    for (int64_t i = 0; i < d->top_k; i++) {
        last = pop(room, n - i);  // from the back: order[n - 1], order[n - 2], ..
        total += room->w[last];
    }
    if (d->top_p >= 1.0) return last;
    const uint64_t wanted = mm_draw_part(d->top_p, total);
    for (int64_t i = 1; sum < wanted; i++) {
        last = room->order[n - i];
        sum += room->w[last];
    }
    return last;
}

// The last token, in the order of likelihood, that top-k and top-p leave; -1: they leave all.
static int32_t last_kept(const struct mm_draw *d, float top, const struct mm_draw_room *room,
                         int64_t V) {
    if (d->top_k <= 0 && d->top_p >= 1.0) return -1;
    struct shelves s = {.top = top, .inverse = mm_draw_inverse(d)};
    put_on_shelves(&s, room, V);
    int64_t all = 0;
    uint64_t total = 0;
    for (int i = 0; i < n_shelves; i++)
        all += s.n[i], total += s.w[i];
    if (d->top_k > 0 && d->top_k < all) return last_of_few(d, &s, room, V);
    if (d->top_p >= 1.0) return -1;
    const uint64_t wanted = mm_draw_part(d->top_p, total);
    uint64_t sum = s.w[0];
    int shelf = 0;
    while (sum < wanted)
        sum += s.w[++shelf];
    const int64_t n = build(&s, room, V, shelf);
    int32_t last = -1;
    sum = 0;
    for (int64_t i = 0; sum < wanted; i++) {
        last = pop(room, n - i);
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
    const int32_t last = last_kept(d, top, room, V);
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
