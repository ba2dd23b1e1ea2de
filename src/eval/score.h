// Scoring a file of predictions: needs no model.
#ifndef MM_EVAL_SCORE_H
#define MM_EVAL_SCORE_H

#include "eval/bench.h"

struct mm_score_job {
    const struct mm_bench *bench;
    const char *data;                // TSV, or the kit's folder
    const char *const *predictions;  // files of JSON lines, NULL behind the last
    bool pandas1;
    bool partial;            // the predictions are those of one shard
    int64_t limit;           // only the first so many questions; 0: all
    const char *unresolved;  // file to write the unresolved answers to, or NULL
    const char *judge;       // MM-Vet: the judge's grades, or NULL
};

// Fills *r (mm_report_free). Questions whose picture was missing are left out and counted, as are
// questions without a prediction.
enum mm_code mm_score_run(const struct mm_score_job *job, struct mm_report *r,
                          struct mm_error *err);

// MM-Vet for VLMEvalKit's judge: a TSV of index, question, answer, category, prediction.
enum mm_code mm_score_export(const struct mm_score_job *job, const char *path,
                             struct mm_error *err);

#endif
