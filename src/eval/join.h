// What another file says about each question, found in the data set's order whatever order that
// file has, in memory that does not grow with either: both are sorted by index, held against each
// other, and what was found is sorted by the questions' numbers.
#ifndef MM_EVAL_JOIN_H
#define MM_EVAL_JOIN_H

#include "eval/questions.h"
#include "eval/sorter.h"

// Where an entry stands.
struct mm_join_place {
    int32_t file;
    int32_t wanted;  // 1: there should be a question for it
    int64_t line;
};

// An entry that is not as it should be: the first of its kind in the order of the files.
struct mm_join_trouble {
    char *key;  // NULL: there is none
    struct mm_join_place place, first;
};

struct mm_join {
    size_t room;  // of each sorter; 0: the usual
    struct mm_sorter *given, *found;
    struct mm_sorter **keys, *own_keys;  // of the questions: the reader's, or for this once
    int64_t next;                        // the question that the next value of `found` is about
    struct mm_str value;
    bool open, over;
    struct mm_join_trouble twice;  // given again, after `first`
    struct mm_join_trouble stray;  // wanted, and about no question
};

// From a zeroed struct: entries in the order of the files, then mm_join_run, then questions.
enum mm_code mm_join_add(struct mm_join *j, struct mm_str key, struct mm_join_place place,
                         struct mm_str value, struct mm_error *err);
// Reads the questions beside the reader's own place in them.
enum mm_code mm_join_run(struct mm_join *j, const struct mm_questions *all, struct mm_error *err);
// The value about question `number`, valid until the next call; .s is NULL where there is none.
// Numbers must ascend from call to call.
enum mm_code mm_join_get(struct mm_join *j, int64_t number, struct mm_str *value,
                         struct mm_error *err);
void mm_join_free(struct mm_join *j);

#endif
