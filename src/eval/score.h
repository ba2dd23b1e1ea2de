// Scoring a file of predictions: needs no model.
#ifndef MM_EVAL_SCORE_H
#define MM_EVAL_SCORE_H

#include "eval/bench.h"
#include "eval/predictions.h"

// Hears of every question in the data set's order: what was said, and what became of it (nothing
// where p->found is false or p->missing_image is true).
struct mm_score_listener {
    enum mm_code (*heard)(void *arg, const struct mm_question *q, const struct mm_prediction *p,
                          const struct mm_verdict *v, struct mm_error *err);
    void *arg;
};

struct mm_score_job {
    const struct mm_bench *bench;
    const char *model;  // whose answers, for warnings; NULL where that goes without saying
    const char *data;   // TSV, or the kit's folder
    const char *const *predictions;  // files of JSON lines, NULL behind the last
    bool pandas1;
    bool partial;                              // the predictions are those of one shard
    int64_t limit;                             // only the first so many questions; 0: all
    const char *unresolved;                    // file to write the unresolved answers to, or NULL
    const char *judge;                         // MM-Vet: the judge's grades, or NULL
    size_t sort_room;                          // memory of each sorting; 0: the usual
    struct mm_outcomes *outcomes;              // receives what the headline is made of; may be NULL
    const struct mm_score_listener *listener;  // may be NULL
};

// Fills *r (mm_report_free). Questions whose picture was missing are left out and counted, as are
// questions without a prediction.
enum mm_code mm_score_run(const struct mm_score_job *job, struct mm_report *r,
                          struct mm_error *err);

// MM-Vet for a judge: VLMEvalKit's, a TSV of index, question, answer, category, prediction; or,
// where path ends in ".json", the object of the benchmark's own evaluator.
enum mm_code mm_score_export(const struct mm_score_job *job, const char *path,
                             struct mm_error *err);

#endif
