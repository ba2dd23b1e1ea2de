// Whether the machine was ours while something was measured: numbers from a busy one are not to be
// quoted.
#ifndef MM_BENCH_LOAD_H
#define MM_BENCH_LOAD_H

#include <stdbool.h>

// Counters of the kernel, in seconds; negative where it does not tell.
struct mm_load_mark {
    double wall;
    double waited;  // of all threads: ready to run, and no processor to run on
    double busy;    // of all processors
    double stolen;  // of all processors: the host ran somebody else
    double own;     // processor time of this process
};
struct mm_load_mark mm_load_mark_now(void);

struct mm_load {
    double waited;  // part of their time that our threads stood ready and waited; -1: unknown
    double others;  // processors that other processes kept busy, on average; -1: unknown
    double stolen;  // processors that the host took away, on average; -1: unknown
};
struct mm_load mm_load_since(const struct mm_load_mark *from, int n_threads);
// The worse of two, field by field.
struct mm_load mm_load_worse(struct mm_load a, struct mm_load b);
bool mm_load_high(const struct mm_load *l);

#endif
