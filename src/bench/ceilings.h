// The ceilings of the run: measured before, between and after the rows, since a machine that others
// share does not keep its speed.
#ifndef MM_BENCH_CEILINGS_H
#define MM_BENCH_CEILINGS_H

#include "ops/ops.h"

enum { mm_bench_samples_max = 256 };

struct mm_bench_rate {
    double best;      // bytes/s or operations/s; what fractions are of
    const char *how;  // what reached it
    int n;            // further samples than there is room for move `best` alone
    double samples[mm_bench_samples_max];  // of the loop that the backend's gauge runs
};
struct mm_bench_ceilings {
    struct mm_bench_rate of[mm_ceiling_count];
};

// Everything: reads, loops at the peak, and a large product of each type by the model's own
// operation; of the last two the faster counts.
enum mm_code mm_bench_ceilings_all(struct mm_bench_ceilings *c, struct mm_backend *be,
                                   struct mm_error *err);
// Reads and the product of one type, once more.
enum mm_code mm_bench_ceilings_again(struct mm_bench_ceilings *c, struct mm_backend *be,
                                     enum mm_ceiling product, struct mm_error *err);
// The product that weights of a type are held to.
enum mm_ceiling mm_bench_product_of(enum mm_dtype weights);
double mm_bench_median(const double *values, int n);
// The last sample; 0 when there is none.
double mm_bench_last(const struct mm_bench_rate *r);

#endif
