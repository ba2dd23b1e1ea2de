// What a judge outside of this program said: grades of MM-Vet's answers, or words about answers
// that no rule could read. JSON lines {"index", "score"} or {"index", "reply"}, or a TSV with these
// columns.
#ifndef MM_EVAL_JUDGE_H
#define MM_EVAL_JUDGE_H

#include "base/status.h"
#include "eval/names.h"

struct mm_judge {
    struct mm_names index;
    struct mm_buf text;  // replies, one behind the other
    size_t *end;         // (index.n) where each ends
    double *grade;       // (index.n) 0 to 1
    int64_t cap;
};

enum mm_judge_kind { mm_judge_kind_grades, mm_judge_kind_replies };

// path == NULL: nobody has judged.
enum mm_code mm_judge_read(struct mm_judge *j, const char *path, enum mm_judge_kind kind,
                           struct mm_error *err);
void mm_judge_free(struct mm_judge *j);
bool mm_judge_grade(const struct mm_judge *j, struct mm_str index, double *grade);  // false: none
struct mm_str mm_judge_reply(const struct mm_judge *j, struct mm_str index);        // .s NULL: none

#endif
