// Which questions are put to the model, and in which order: those of one picture one after the
// other, wherever they stand in the data set (MMBench's rotations stand far apart), so that each
// picture is read once; pictures in the order of their first question.
#ifndef MM_EVAL_PLAN_H
#define MM_EVAL_PLAN_H

#include "eval/names.h"
#include "eval/pictures.h"
#include "eval/questions.h"

struct mm_plan_item {
    struct mm_question_place place;
    int64_t picture;  // questions with equal numbers show the same
};

// Part i of n of the pictures with their questions; {0, 0}: all.
struct mm_shard {
    int64_t part, parts;  // 1 <= part <= parts
};

struct mm_plan {
    int64_t n_questions;        // of the data set
    struct mm_names index;      // (n_questions) their indexes, numbered in the data set's order
    struct mm_plan_item *item;  // (n) those to ask
    int64_t n;
    int64_t n_doubled;      // questions in whose prompt an instruction stands twice
    unsigned char *chosen;  // (n_questions) 1: among the items
};

// "2/8"
enum mm_code mm_shard_parse(struct mm_shard *s, const char *text, struct mm_error *err);

// Reads all questions once. limit: only the first so many of the data set; 0: all.
enum mm_code mm_plan_make(struct mm_plan *plan, struct mm_questions *questions,
                          struct mm_pictures *pictures, int64_t limit, struct mm_shard shard,
                          struct mm_error *err);
void mm_plan_free(struct mm_plan *plan);

#endif
