// What the multiple choice benchmarks share: VLMEvalKit's report_acc, and reading an answer.
#ifndef MM_EVAL_MCQ_H
#define MM_EVAL_MCQ_H

#include "eval/judge.h"
#include "eval/questions.h"

// Right answers, counted per split, l2-category and category.
struct mm_tally {
    struct mm_names cells;  // "<kind><split>\x1f<name>"
    int64_t *n, *hits;      // (cells.n)
    int64_t cap;
};

enum { mm_tally_kinds = 3 };  // all, l2-category, category

void mm_tally_free(struct mm_tally *t);
// The cells that a question counts in; -1 for a category that it has not.
void mm_tally_cells(struct mm_tally *t, const struct mm_question *q, int64_t cell[mm_tally_kinds]);
void mm_tally_count(struct mm_tally *t, const int64_t cell[mm_tally_kinds], bool hit);
// Overall, then l2-categories, then categories, each in order of its name, in percent; with
// "<split>/" in front when there are several splits. The headline is the split `headline_split`
// where the file has it, the only split's, or all questions together.
void mm_tally_report(const struct mm_tally *t, const char *headline_split, struct mm_report *r);

// The state of vanilla scoring, and of what is built on it.
struct mm_mcq {
    struct mm_tally tally;
    struct mm_normalizer room;
    struct mm_judge judge;
};
enum mm_code mm_mcq_begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err);
enum mm_code mm_mcq_add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err);
enum mm_code mm_mcq_end(void *state, struct mm_report *r, struct mm_error *err);
void mm_mcq_release(void *state);

// One question's part in the headline, which is that of a split where the file has it.
void mm_mcq_outcome(struct mm_report *r, struct mm_str key, const struct mm_question *q, bool hit);
double mm_mcq_combine(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values],
                      const char *headline_split);

// Whether the answer is the wanted option's letter. An answer that no rule can read goes by what
// the judge said of it; without a judge it is counted as unresolved and wrong.
enum mm_code mm_mcq_hit(struct mm_mcq *m, const struct mm_question *q, struct mm_str wanted,
                        struct mm_str prediction, bool *hit, struct mm_report *r,
                        struct mm_error *err);

#endif
