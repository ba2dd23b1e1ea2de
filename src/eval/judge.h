// What a judge outside of this program said: grades of MM-Vet's answers, or words about answers
// that no rule could read. JSON lines {"index", "score"} or {"index", "reply"}, or a TSV with these
// columns, in any order.
#ifndef MM_EVAL_JUDGE_H
#define MM_EVAL_JUDGE_H

#include "eval/join.h"

struct mm_judge {
    struct mm_join join;
};

enum mm_judge_kind { mm_judge_kind_grades, mm_judge_kind_replies };

// path == NULL: nobody has judged. `all` is what was answered.
enum mm_code mm_judge_read(struct mm_judge *j, const char *path, enum mm_judge_kind kind,
                           const struct mm_questions *all, struct mm_error *err);
void mm_judge_free(struct mm_judge *j);
// Both must be asked in the questions' order.
enum mm_code mm_judge_grade(struct mm_judge *j, const struct mm_question *q, bool *found,
                            double *grade, struct mm_error *err);
// *reply is valid until the next one is asked for; .s is NULL where there is none.
enum mm_code mm_judge_reply(struct mm_judge *j, const struct mm_question *q, struct mm_str *reply,
                            struct mm_error *err);

#endif
