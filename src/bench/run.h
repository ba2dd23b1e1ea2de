// One row: a prompt read from the start in pieces, as sessions read it, then tokens one at a time.
// Knows a model and its backend, and nothing of where that computes.
#ifndef MM_BENCH_RUN_H
#define MM_BENCH_RUN_H

#include "bench/load.h"
#include "model/model.h"

enum { mm_bench_prompt_max = 1 << 24 };

struct mm_bench_plan {
    int64_t prompt;      // text tokens
    int64_t tiles;       // of pictures, before the text
    int64_t new_tokens;  // steps
    int64_t batch;       // sequences that decode side by side
    int64_t piece;       // tokens of the prompt read at a time
    int64_t pair;        // compare decoding with that after so many tokens; 0: no
    int repeats;         // at most
    double max_seconds;  // of reading the prompt once; 0: any
    bool skip_prefill;   // decode from a made-up state, as if the prompt had been read
    uint64_t seed;       // of token ids and pixels
};

struct mm_bench_spread {
    double median, least, most;
    int n;
};

struct mm_bench_row {
    const char *mixers;   // static
    enum mm_dtype dtype;  // of the big matrices
    struct mm_bench_plan plan;
    int64_t visual_tokens;
    double prefill_ops, step_bytes;       // as counted, per prompt and per step
    struct mm_bench_spread prefill_s;     // the whole prompt; 0 samples when it was skipped
    struct mm_bench_spread ttft_s;        // and the first token drawn
    struct mm_bench_spread decode_tok_s;  // of all sequences together
    double step_p50_s, step_p99_s;
    double first_tok_s, last_tok_s;  // reading the first and last 2048 tokens of a long prompt
    double pair_ratio;               // tokens/s here over tokens/s after plan.pair; 0: none
    int64_t peak_bytes, weight_bytes, state_bytes, cache_bytes;
    bool peak_known;                 // false: the peak is the process's since its start
    double read_before, read_after;  // the memory's speed around the row, bytes/s
    struct mm_load load;
};

// mm_code_memory and mm_code_unsupported: this row cannot be, *err says why, and others may.
// mm_code_interrupted: nothing was measured. With plan->batch > 1 the prompt is read once and the
// other sequences start from copies of its state. pair needs batch 1.
enum mm_code mm_bench_run(struct mm_bench_row *row, struct mm_model *m,
                          const struct mm_bench_plan *plan, struct mm_error *err);

#endif
