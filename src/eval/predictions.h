// What a model said, from a file of JSON lines {"index", "prediction", ...}: in the data set's
// order nothing is kept; in any other order the places of the lines are.
#ifndef MM_EVAL_PREDICTIONS_H
#define MM_EVAL_PREDICTIONS_H

#include "eval/jsonl.h"
#include "eval/names.h"

struct mm_predictions {
    struct mm_jsonl file;
    json_t *line;        // the line that answers the last question, or the next in order
    int64_t n_in_order;  // lines used up in the data set's order
    bool indexed;
    struct mm_names names;  // index of every line
    size_t *at;             // (names.n) where its line begins
    unsigned char *used;    // (names.n)
};

struct mm_prediction {
    struct mm_str text;  // valid until the next find; .s is NULL where none was made
    bool found;          // there is a line
    bool missing_image;  // the question was not asked: its picture was not there
};

enum mm_code mm_predictions_open(struct mm_predictions *p, const char *path, struct mm_error *err);
void mm_predictions_close(struct mm_predictions *p);
enum mm_code mm_predictions_find(struct mm_predictions *p, struct mm_str index,
                                 struct mm_prediction *out, struct mm_error *err);
// After all questions were looked for: fails when a line answers none of them. `data` names them.
enum mm_code mm_predictions_end(struct mm_predictions *p, const char *data, struct mm_error *err);

#endif
