// Putting a benchmark's questions to a model.
#ifndef MM_EVAL_RUN_H
#define MM_EVAL_RUN_H

#include "eval/bench.h"
#include "infer/session.h"

struct mm_eval_job {
    const struct mm_bench *bench;
    const char *data;    // TSV, or the kit's folder
    const char *images;  // where picture files are; NULL: beside the data
    const char *out;     // predictions, JSON lines; what it holds already is not asked again
    bool pandas1;
    int64_t limit;           // 0: all questions
    int64_t max_new_tokens;  // of an answer; 0: what the benchmark allows
};

// Appends a line a question to job->out, in the data set's order, each when it is answered: after
// a kill the same call goes on. The same picture under questions that follow each other is read
// once. A question whose picture is not there gets a line that says so. Greedy decoding.
enum mm_code mm_eval_run(const struct mm_eval_job *job, struct mm_engine *e, struct mm_error *err);

#endif
