// Whether an index is there twice. While indexes ascend (shorter ones first, then by their bytes)
// none can be, and nothing is kept; else they are sorted.
#ifndef MM_EVAL_INDEXES_H
#define MM_EVAL_INDEXES_H

#include "eval/questions.h"
#include "eval/sorter.h"

struct mm_indexes {
    const struct mm_questions *all;  // what is being read
    struct mm_buf last;
    struct mm_sorter *sorter;  // NULL: they have ascended so far
};

// From a zeroed struct with `all`: each question as it is read, then the check.
enum mm_code mm_indexes_add(struct mm_indexes *x, const struct mm_question *q,
                            struct mm_error *err);
enum mm_code mm_indexes_check(struct mm_indexes *x, struct mm_error *err);
void mm_indexes_free(struct mm_indexes *x);

#endif
