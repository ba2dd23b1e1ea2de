// The ceilings of this processor. gauge.c owns buffers, threads and the clock; the loops that run
// at the peak are written for each instruction set in gauge_<machine>.c.
#ifndef MM_OPS_CPU_GAUGE_H
#define MM_OPS_CPU_GAUGE_H

#include "ops/cpu/cpu.h"

extern const struct mm_gauges mm_gauges_cpu;

// A loop of products on registers only: `rounds` times `ops` operations.
struct mm_peak_loop {
    void (*run)(int64_t rounds);
    double ops;
    const char *name;
};

// Reads `bytes`, a multiple of streams * 4096, as that many streams side by side; `ahead`: asks for
// each line before the processor would. The result depends on all of it.
typedef uint64_t mm_read_loop(const void *from, int64_t bytes, int streams, bool ahead);

// The loops of the instruction set; run NULL where it has none of its own.
struct mm_peak_loop mm_peak_loop_of(enum mm_isa isa, enum mm_ceiling which);
mm_read_loop *mm_read_loop_of(enum mm_isa isa);
struct mm_peak_loop mm_peak_loop_plain(enum mm_ceiling which);
mm_read_loop mm_read_loop_plain;

#endif
