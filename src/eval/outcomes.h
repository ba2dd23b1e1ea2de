// What a headline is made of, question by question, and what another draw of questions would have
// made of it: paired bootstrap intervals of the difference between two models.
#ifndef MM_EVAL_OUTCOMES_H
#define MM_EVAL_OUTCOMES_H

#include <stdbool.h>
#include "eval/names.h"

enum { mm_outcome_values = 4 };

// Units that were drawn independently of each other (questions; MMBench's groups of rotations;
// MME's pictures). Each adds its values to the sums of its group; a headline is a function of those
// sums (mm_bench.combine).
struct mm_outcomes {
    struct mm_names keys, groups;
    int64_t *group;                      // (keys.n)
    double (*value)[mm_outcome_values];  // (keys.n)
    int64_t cap;
};

void mm_outcomes_free(struct mm_outcomes *o);
// Adds to the unit `key`, which is made when it is new. o == NULL: nothing is done.
void mm_outcomes_add(struct mm_outcomes *o, struct mm_str key, struct mm_str group,
                     const double value[mm_outcome_values]);

// sums: (o->groups.n). NaN when there is no unit that counts.
typedef double (*mm_combine)(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values]);

// 100 * the sum of the first values / the sum of the second ones, over all groups.
double mm_outcomes_mean(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values]);

struct mm_difference {
    int64_t n;         // units that both have answered; nothing else counts
    double a, b;       // headlines over those
    double low, high;  // of a - b: 95 of 100 draws lie between
};

// Draws the common units anew `n_draws` times, group by group, the same for both, and takes the
// 2.5th and the 97.5th percentile of a - b. The numbers are a function of the seed. False when
// there is no common unit.
bool mm_outcomes_compare(const struct mm_outcomes *a, const struct mm_outcomes *b,
                         mm_combine combine, int n_draws, uint64_t seed, struct mm_difference *out);

#endif
