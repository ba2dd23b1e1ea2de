// Owns: the choice of the next token. Probabilities are summed in double and candidates are kept in
// a heap ordered by (logit, id), so the outcome depends on nothing but the arguments.
#include "infer/sample.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum mm_code mm_sampling_check(const struct mm_sampling *how, const char *what,
                               struct mm_error *err) {
    const struct {
        const char *name;
        double value, min, max;
    } wanted[] = {{"temperature", how->temperature, 0.0, 100.0},
                  {"top_k", (double)how->top_k, 0.0, 1e9},
                  {"top_p", how->top_p, 0.0, 1.0},
                  {"min_p", how->min_p, 0.0, 1.0},
                  {"repetition_penalty", how->repetition_penalty, 0.01, 100.0}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (!(wanted[i].value >= wanted[i].min && wanted[i].value <= wanted[i].max)) {
            return mm_fail(err, mm_code_input, "%s: '%s' is %g, must be %g to %g", what,
                           wanted[i].name, wanted[i].value, wanted[i].min, wanted[i].max);
        }
    }
    return mm_code_ok;
}

void mm_sample_scratch_init(struct mm_sample_scratch *s, int64_t V) {
    s->V = V;
    s->l = mm_xmalloc((size_t)V * sizeof *s->l);
    s->order = mm_xmalloc((size_t)V * sizeof *s->order);
    s->seen = mm_xcalloc((size_t)V, sizeof *s->seen);
}

void mm_sample_scratch_deinit(struct mm_sample_scratch *s) {
    free(s->l);
    free(s->order);
    free(s->seen);
    *s = (struct mm_sample_scratch){0};
}

// Every distinct token of the answer once: positive logits are divided, negative ones multiplied.
static void penalize(struct mm_sample_scratch *s, double penalty, const int32_t *answer,
                     int64_t n) {
    if (penalty == 1.0) return;
    for (int64_t i = 0; i < n; i++) {
        const int32_t id = answer[i];
        if (id >= s->V || s->seen[id]) continue;
        s->seen[id] = 1;
        const double l = (double)s->l[id];
        s->l[id] = (float)(l > 0.0 ? l / penalty : l * penalty);
    }
    for (int64_t i = 0; i < n; i++) {
        if (answer[i] < s->V) s->seen[answer[i]] = 0;
    }
}

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

// All tokens that are possible at all, as a heap; their number.
static int64_t build(struct mm_sample_scratch *s) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->V; i++) {
        if (s->l[i] > -INFINITY) s->order[n++] = (int32_t)i;
    }
    for (int64_t i = n / 2; i-- > 0;)
        sift(s->l, s->order, n, i);
    return n;
}

// Takes the top off a heap of n and puts it behind the heap.
static int32_t pop(struct mm_sample_scratch *s, int64_t n) {
    const int32_t top = s->order[0];
    s->order[0] = s->order[n - 1];
    sift(s->l, s->order, n - 1, 0);
    s->order[n - 1] = top;
    return top;
}

// The candidates that top-k and top-p leave stand at order[*from, from + result), the likeliest
// last; weight(i) = exp((l[i] - l_max) / temperature).
static int64_t cut(struct mm_sample_scratch *s, const struct mm_sampling *how, double top,
                   int64_t *from) {
    const int64_t n = build(s);
    int64_t k = how->top_k > 0 && how->top_k < n ? how->top_k : n;
    double total = 0.0;
    if (how->top_p < 1.0 && k == n) {
        for (int64_t i = 0; i < n; i++)
            total += exp(((double)s->l[s->order[i]] - top) / how->temperature);
    } else if (k < n) {
        for (int64_t i = 0; i < k; i++)
            total += exp(((double)s->l[pop(s, n - i)] - top) / how->temperature);
    }
    if (how->top_p < 1.0) {
        double sum = 0.0;
        int64_t kept = 0;
        do {
            const int32_t id = k < n ? s->order[n - 1 - kept] : pop(s, n - kept);
            sum += exp(((double)s->l[id] - top) / how->temperature);
            kept++;
        } while (kept < k && sum < how->top_p * total);
        *from = n - kept;
        return kept;
    }
    *from = n - k;  // 0 when nothing is cut: the heap itself
    return k;
}

int32_t mm_sample(struct mm_sample_scratch *s, const float *logits, const struct mm_sampling *how,
                  struct mm_rng *rng, const int32_t *answer, int64_t n_answer,
                  const int32_t *banned, int n_banned) {
    memcpy(s->l, logits, (size_t)s->V * sizeof *s->l);
    penalize(s, how->repetition_penalty, answer, n_answer);
    for (int i = 0; i < n_banned; i++) {
        if (banned[i] >= 0 && banned[i] < s->V) s->l[banned[i]] = -INFINITY;
    }
    const int32_t best = largest(s->l, s->V);
    if (best < 0 || !isfinite(s->l[best])) return -1;
    if (how->temperature == 0.0) return best;

    const double top = (double)s->l[best];
    int64_t from;
    const int64_t n = cut(s, how, top, &from);
    const int32_t *ids = s->order + from;
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double w = exp(((double)s->l[ids[i]] - top) / how->temperature);
        if (w >= how->min_p) total += w;
    }
    // 53 bits, so that rare tokens among many come as often as they should
    const double u = (double)(mm_rng_u64(rng) >> 11) * 0x1p-53 * total;
    double sum = 0.0;
    int32_t last = best;
    for (int64_t i = 0; i < n; i++) {
        const double w = exp(((double)s->l[ids[i]] - top) / how->temperature);
        if (w < how->min_p || w == 0.0) continue;
        sum += w;
        last = ids[i];
        if (u < sum) break;
    }
    return last;
}
