// Putting a benchmark's questions to a model.
#ifndef MM_EVAL_RUN_H
#define MM_EVAL_RUN_H

#include "eval/plan.h"
#include "infer/session.h"

struct mm_eval_job {
    const struct mm_bench *bench;
    const char *data;    // TSV, or the kit's folder
    const char *images;  // where picture files are; NULL: beside the data
    const char *out;     // predictions, JSON lines; what it holds already is not asked again
    bool pandas1;
    int64_t limit;           // 0: all questions
    struct mm_shard shard;   // of them; {0, 0}: all
    int64_t max_new_tokens;  // of an answer; 0: what the benchmark allows
    int batch;               // questions answered side by side; 0: one
    bool kit_jpeg;           // single pictures pass through JPEG as VLMEvalKit's do
};

// Adds a line a question to job->out, each when it is answered (eval/answers.h); after a kill the
// same call goes on. A picture under several questions is read once, wherever they stand. A
// question whose picture is not there gets a line that says so. Greedy decoding; the answers are
// the same whatever the order and the batch.
enum mm_code mm_eval_run(const struct mm_eval_job *job, struct mm_engine *e, struct mm_error *err);

#endif
