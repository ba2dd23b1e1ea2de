// What a model said, from files of JSON lines {"index", "prediction", ...}, one or several (the
// shards of a run). While each file follows the data set's order nothing is kept; in any other
// order the places of the lines are.
#ifndef MM_EVAL_PREDICTIONS_H
#define MM_EVAL_PREDICTIONS_H

#include "eval/jsonl.h"
#include "eval/names.h"

struct mm_prediction_file {
    struct mm_jsonl lines;
    json_t *head;  // the next line in order, NULL when it has to be read or behind the last
    struct mm_str head_index;
    char room[24];
    int64_t n_in_order;  // lines used up in the data set's order
    bool over;
};

struct mm_predictions {
    struct mm_prediction_file *file;  // (n_files)
    int n_files;
    json_t *line;  // the line that answers the last question
    bool indexed;
    struct mm_names names;              // index of every line
    struct mm_prediction_place *place;  // (names.n)
};

struct mm_prediction {
    struct mm_str text;  // valid until the next find; .s is NULL where none was made
    bool found;          // there is a line
    bool missing_image;  // the question was not asked: its picture was not there
};

// `paths` ends with NULL.
enum mm_code mm_predictions_open(struct mm_predictions *p, const char *const *paths,
                                 struct mm_error *err);
void mm_predictions_close(struct mm_predictions *p);
enum mm_code mm_predictions_find(struct mm_predictions *p, struct mm_str index,
                                 struct mm_prediction *out, struct mm_error *err);
// After all questions were looked for: fails when a line answers none of them. `data` names them.
enum mm_code mm_predictions_end(struct mm_predictions *p, const char *data, struct mm_error *err);

#endif
