// Weights out of nothing, for measuring: made where they will lie, by all threads, in the type they
// are to have. No second copy, whatever the size.
#ifndef MM_BENCH_RANDOM_H
#define MM_BENCH_RANDOM_H

#include "model/model.h"

// A model of this config; quantized where the config says so. The numbers are a function of the
// seed and of the parameter's name, not of the number of threads. Matrices are uniform in
// +-1/sqrt(in), residual outputs less, so that activations keep their size through the blocks; the
// recurrence starts as the paper's "mimic".
enum mm_code mm_bench_random_model(struct mm_model *m, const struct mm_config *config,
                                   struct mm_backend *be, enum mm_dtype dtype, uint64_t seed,
                                   struct mm_error *err);

#endif
