// Outcomes and their bootstrap.
#include "eval/outcomes.h"

#include <math.h>
#include <stdlib.h>
#include "base/rng.h"

void mm_outcomes_free(struct mm_outcomes *o) {
    mm_names_free(&o->keys);
    mm_names_free(&o->groups);
    free(o->group);
    free(o->value);
    *o = (struct mm_outcomes){0};
}

void mm_outcomes_add(struct mm_outcomes *o, struct mm_str key, struct mm_str group,
                     const double value[mm_outcome_values]) {
    if (!o) return;
    const int64_t before = o->keys.n;
    const int64_t unit = mm_names_add(&o->keys, key);
    if (unit == before) {
        if (unit == o->cap) {
            o->cap = o->cap ? 2 * o->cap : 1024;
            o->group = mm_xrealloc(o->group, (size_t)o->cap * sizeof *o->group);
            o->value = mm_xrealloc(o->value, (size_t)o->cap * sizeof *o->value);
        }
        o->group[unit] = mm_names_add(&o->groups, group);
        memset(o->value[unit], 0, sizeof o->value[unit]);
    }
    for (int k = 0; k < mm_outcome_values; k++) {
        o->value[unit][k] += value[k];
    }
}

double mm_outcomes_mean(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values]) {
    double n = 0, sum = 0;
    for (int64_t g = 0; g < o->groups.n; g++) {
        sum += sums[g][0];
        n += sums[g][1];
    }
    return 100 * (sum / n);
}

// The units that both have, ordered by a's groups.
struct pairs {
    int64_t n;
    int64_t *a, *b;  // (n) units
    int64_t n_groups;
    int64_t *end;  // (n_groups) where each group ends
};

static struct pairs pair_up(const struct mm_outcomes *a, const struct mm_outcomes *b) {
    struct pairs p = {.n_groups = a->groups.n};
    p.a = mm_xmalloc(((size_t)a->keys.n + 1) * sizeof *p.a);
    p.b = mm_xmalloc(((size_t)a->keys.n + 1) * sizeof *p.b);
    p.end = mm_xcalloc((size_t)p.n_groups + 1, sizeof *p.end);
    for (int64_t i = 0; i < a->keys.n; i++) {
        p.end[a->group[i]] += mm_names_find(&b->keys, mm_names_get(&a->keys, i)) >= 0;
    }
    for (int64_t g = 0; g < p.n_groups; g++) {
        const int64_t n = p.end[g];
        p.end[g] = p.n;  // where it begins, until its units are put there
        p.n += n;
    }
    for (int64_t i = 0; i < a->keys.n; i++) {
        const int64_t other = mm_names_find(&b->keys, mm_names_get(&a->keys, i));
        if (other < 0) continue;
        const int64_t at = p.end[a->group[i]]++;
        p.a[at] = i;
        p.b[at] = other;
    }
    return p;
}

struct sums {
    double (*a)[mm_outcome_values], (*b)[mm_outcome_values];
};

static void add_unit(double (*sums)[mm_outcome_values], const struct mm_outcomes *o, int64_t unit) {
    double *to = sums[o->group[unit]];
    for (int k = 0; k < mm_outcome_values; k++) {
        to[k] += o->value[unit][k];
    }
}

static int ascending(const void *x, const void *y) {
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

// The value below which a share of the sorted numbers lies, between neighbours in proportion.
static double percentile(const double *sorted, int n, double share) {
    const double at = share * (n - 1);
    const int below = (int)at;
    if (below + 1 >= n) return sorted[n - 1];
    return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

bool mm_outcomes_compare(const struct mm_outcomes *a, const struct mm_outcomes *b,
                         mm_combine combine, int n_draws, uint64_t seed,
                         struct mm_difference *out) {
    struct pairs p = pair_up(a, b);
    const size_t a_bytes = (size_t)a->groups.n * sizeof(double[mm_outcome_values]);
    const size_t b_bytes = (size_t)b->groups.n * sizeof(double[mm_outcome_values]);
    struct sums s = {mm_xcalloc(1, a_bytes + 1), mm_xcalloc(1, b_bytes + 1)};
    double *drawn = mm_xmalloc(((size_t)n_draws + 1) * sizeof *drawn);
    struct mm_rng rng = mm_rng_make(seed, mm_rng_stream("bootstrap"));
    for (int64_t i = 0; i < p.n; i++) {
        add_unit(s.a, a, p.a[i]);
        add_unit(s.b, b, p.b[i]);
    }
    *out = (struct mm_difference){.n = p.n};
    out->a = combine(a, (const double(*)[mm_outcome_values])s.a);
    out->b = combine(b, (const double(*)[mm_outcome_values])s.b);
    int n = 0;
    for (int draw = 0; draw < n_draws && p.n; draw++) {
        memset(s.a, 0, a_bytes);
        memset(s.b, 0, b_bytes);
        for (int64_t g = 0, begin = 0; g < p.n_groups; begin = p.end[g++]) {
            const uint32_t size = (uint32_t)(p.end[g] - begin);
            for (uint32_t i = 0; i < size; i++) {
                const int64_t k = begin + mm_rng_below(&rng, size);
                add_unit(s.a, a, p.a[k]);
                add_unit(s.b, b, p.b[k]);
            }
        }
        const double d = combine(a, (const double(*)[mm_outcome_values])s.a) -
                         combine(b, (const double(*)[mm_outcome_values])s.b);
        if (isfinite(d)) drawn[n++] = d;
    }
    const bool any = n > 0 && isfinite(out->a - out->b);
    if (any) {
        qsort(drawn, (size_t)n, sizeof *drawn, ascending);
        out->low = percentile(drawn, n, 0.025);
        out->high = percentile(drawn, n, 0.975);
    }
    free(drawn);
    free(s.a);
    free(s.b);
    free(p.a);
    free(p.b);
    free(p.end);
    return any;
}
