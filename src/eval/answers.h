// The file of predictions while a benchmark runs: JSON lines {"index", "prediction", "run"}, each
// written by one call when its question is answered, in whatever order that happens; put into the
// data set's order when the run is complete. A run that was killed finds its lines again.
#ifndef MM_EVAL_ANSWERS_H
#define MM_EVAL_ANSWERS_H

#include "eval/plan.h"

struct mm_answers {
    const char *path;  // the caller's
    const char *data;  // the caller's; for messages
    const struct mm_plan *plan;
    char run[17];  // of model and settings: lines of another run are not taken over
    int fd;
    unsigned char *done;  // (plan->n_questions) 1: there is a line
    int64_t n_done;       // of the plan's questions
    int64_t last;         // the number of the last line's question
    bool in_order;
    struct mm_buf line;
};

// Opens or makes the file and takes over what it holds: a line that a kill left half is cut off,
// lines about pictures that were not there are dropped (these questions are asked again), and a
// file of another data set, model or setting is refused and left as it is. Only one process at a
// time may have it open.
enum mm_code mm_answers_open(struct mm_answers *a, const char *path, const struct mm_plan *plan,
                             const char *data, uint64_t run, struct mm_error *err);
// `trouble`: why there is no answer, else NULL.
enum mm_code mm_answers_add(struct mm_answers *a, int64_t number, struct mm_str said,
                            const char *trouble, struct mm_error *err);
// Puts the lines into the data set's order, if they are not yet, and sees them to the disk.
enum mm_code mm_answers_finish(struct mm_answers *a, struct mm_error *err);
void mm_answers_close(struct mm_answers *a);

#endif
