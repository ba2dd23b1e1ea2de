// What a model said, from files of JSON lines {"index", "prediction", ...}, one or several (the
// shards of a run). While each file follows the data set's order its lines are taken as they come;
// in any other order they are sorted first (eval/join.h).
#ifndef MM_EVAL_PREDICTIONS_H
#define MM_EVAL_PREDICTIONS_H

#include "eval/join.h"
#include "eval/jsonl.h"

struct mm_prediction_file {
    struct mm_jsonl lines;
    json_t *head;  // the next line in order, NULL when it has to be read or behind the last
    struct mm_str head_index;
    char room[24];
    bool over;
};

struct mm_predictions {
    const struct mm_questions *all;
    struct mm_prediction_file *file;  // (n_files)
    int n_files;
    json_t *line;  // in order: the line that answers the last question
    bool joined;   // out of order
    struct mm_join join;
};

struct mm_prediction {
    struct mm_str text;  // valid until the next find; .s is NULL where none was made
    bool found;          // there is a line
    bool missing_image;  // the question was not asked: its picture was not there
};

// `paths` ends with NULL; `all` is what they answer.
enum mm_code mm_predictions_open(struct mm_predictions *p, const char *const *paths,
                                 const struct mm_questions *all, struct mm_error *err);
void mm_predictions_close(struct mm_predictions *p);
// Questions must be looked for in their order.
enum mm_code mm_predictions_find(struct mm_predictions *p, const struct mm_question *q,
                                 struct mm_prediction *out, struct mm_error *err);
// After all questions were looked for: fails when a line answers none of them.
enum mm_code mm_predictions_end(struct mm_predictions *p, struct mm_error *err);

#endif
