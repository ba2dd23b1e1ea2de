// MMMU, validation: multiple choice, and open questions scored as a choice between the answer and
// "Other Answers".
#include <stdlib.h>
#include "eval/mcq.h"
#include "eval/prompt.h"

static enum mm_code add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct mm_mcq *m = state;
    struct mm_question closed = *q;
    if (!q->options.text[0].s) {
        closed.options.text[0] = q->answer;  // stays missing when that is missing too
        closed.options.text[1] = mm_str_of("Other Answers");
    }
    // What is not one capital letter is an open question's answer, which stands at A.
    const bool letter = q->answer.n == 1 && q->answer.s[0] >= 'A' && q->answer.s[0] <= 'Z';
    int64_t cell[mm_tally_kinds];
    bool hit;
    MM_TRY(mm_mcq_hit(m, &closed, letter ? q->answer : mm_str_of("A"), prediction, &hit, r, err));
    mm_tally_cells(&m->tally, q, cell);
    mm_tally_count(&m->tally, cell, hit);
    mm_mcq_outcome(r, q->index, q, hit);
    return mm_code_ok;
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    (void)err;
    mm_tally_report(&((struct mm_mcq *)state)->tally, "validation", r);
    return mm_code_ok;
}

static double combine(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values]) {
    return mm_mcq_combine(o, sums, "validation");
}

const struct mm_bench mm_bench_mmmu = {
    .name = "mmmu",
    .title = "MMMU",
    .max_new_tokens = {1024, 0},
    .max_tiles = 12,
    .twice_as_large = true,
    .prompt = mm_prompt_choice,
    .begin = mm_mcq_begin,
    .add = add,
    .end = end,
    .release = mm_mcq_release,
    .combine = combine,
};
