// MMBench, circular: a question counts when it is answered rightly in every rotation of its
// options. Rotation k of question i has the index i + k * 10^6.
#include <stdlib.h>
#include "base/log.h"
#include "eval/mcq.h"
#include "eval/prompt.h"

struct group {
    bool wrong;       // in one rotation at least
    bool incomplete;  // one rotation has no answer
    bool main;        // the question itself was there
    bool main_hit;
    int64_t cell[mm_tally_kinds];
    int64_t split;  // the number of its name
};

struct mmbench {
    struct mm_mcq mcq;
    const struct mm_questions *all;
    struct mm_names indexes;  // of the groups
    struct mm_names splits;
    struct group *groups;  // (indexes.n)
    int64_t cap;
};

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    struct mmbench *b = mm_xcalloc(1, sizeof *b);
    b->all = all;
    *state = b;
    return mm_judge_read(&b->mcq.judge, r->judge_path, mm_judge_kind_replies, err);
}

// The index of the question that this row is a rotation of.
static enum mm_code group_index(const struct mmbench *b, const struct mm_question *q, char room[24],
                                struct mm_str *out, struct mm_error *err) {
    *out = q->g_index;
    if (q->g_index.s) return mm_code_ok;
    int64_t v = 0;
    for (size_t i = 0; i < q->index.n; i++) {
        const char c = q->index.s[i];
        if (c < '0' || c > '9' || q->index.n > 18) {
            return mm_questions_wrong(b->all, "index", err,
                                      "must be a whole number, the rotation times 1000000 plus "
                                      "the question's");
        }
        v = v * 10 + (c - '0');
    }
    snprintf(room, 24, "%lld", (long long)(v % 1000000));
    *out = mm_str_of(room);
    return mm_code_ok;
}

static enum mm_code group_of(struct mmbench *b, const struct mm_question *q, struct group **out,
                             bool *main, struct mm_error *err) {
    char room[24];
    struct mm_str index;
    MM_TRY(group_index(b, q, room, &index, err));
    const int64_t number = mm_names_add(&b->indexes, index);
    if (b->indexes.n > b->cap) {
        const int64_t cap = b->cap ? 2 * b->cap : 1024;
        b->groups = mm_xrealloc(b->groups, (size_t)cap * sizeof *b->groups);
        memset(b->groups + b->cap, 0, (size_t)(cap - b->cap) * sizeof *b->groups);
        b->cap = cap;
    }
    *out = &b->groups[number];
    *main = mm_str_equal(index, q->index);
    return mm_code_ok;
}

static enum mm_code skip(void *state, const struct mm_question *q, struct mm_error *err) {
    struct group *g;
    bool main;
    MM_TRY(group_of(state, q, &g, &main, err));
    g->incomplete = true;
    return mm_code_ok;
}

static enum mm_code add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct mmbench *b = state;
    struct group *g;
    bool main, hit;
    MM_TRY(group_of(b, q, &g, &main, err));
    MM_TRY(mm_mcq_hit(&b->mcq, q, q->answer, prediction, &hit, r, err));
    g->wrong = g->wrong || !hit;
    if (main) {
        g->main = true;
        g->main_hit = hit;
        g->split = mm_names_add(&b->splits, q->split.s ? q->split : mm_str_of("none"));
        mm_tally_cells(&b->mcq.tally, q, g->cell);
    }
    return mm_code_ok;
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    (void)err;
    struct mmbench *b = state;
    int64_t n = 0, vanilla = 0, incomplete = 0;
    for (int64_t i = 0; i < b->indexes.n; i++) {
        const struct group *g = &b->groups[i];
        incomplete += g->incomplete && !g->wrong;
        // A wrong rotation settles the question, whatever the others would have been.
        if (!g->main || (g->incomplete && !g->wrong)) continue;
        mm_tally_count(&b->mcq.tally, g->cell, !g->wrong);
        const double value[mm_outcome_values] = {!g->wrong, 1};
        mm_outcomes_add(r->outcomes, mm_names_get(&b->indexes, i),
                        mm_names_get(&b->splits, g->split), value);
        n++;
        vanilla += g->main_hit;
    }
    if (incomplete) {
        mm_warn("MMBench: %lld questions are left out: one of their rotations has no answer",
                (long long)incomplete);
    }
    mm_tally_report(&b->mcq.tally, "dev", r);
    if (n) mm_report_extra(r, 100.0 * ((double)vanilla / (double)n), "vanilla");
    mm_report_extra(r, (double)n, "groups");
    return mm_code_ok;
}

static void release(void *state) {
    struct mmbench *b = state;
    if (!b) return;
    mm_tally_free(&b->mcq.tally);
    mm_normalizer_deinit(&b->mcq.room);
    mm_judge_free(&b->mcq.judge);
    mm_names_free(&b->indexes);
    mm_names_free(&b->splits);
    free(b->groups);
    free(b);
}

static double combine(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values]) {
    return mm_mcq_combine(o, sums, "dev");
}

const struct mm_bench mm_bench_mmbench = {
    .name = "mmbench",
    .title = "MMBench",
    .max_new_tokens = {1024, 0},
    .max_tiles = 6,
    .prompt = mm_prompt_choice,
    .begin = begin,
    .add = add,
    .skip = skip,
    .end = end,
    .release = release,
    .combine = combine,
};
