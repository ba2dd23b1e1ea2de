// MMBench, circular: a question counts when it is answered rightly in every rotation of its
// options. Rotation k of question i has the index i + k * 10^6.
#include <stdlib.h>
#include "base/log.h"
#include "eval/mcq.h"
#include "eval/prompt.h"

// A rotation, sorted by its question.
struct rotation {
    bool answered, hit;
    bool main;                     // the question itself; then also:
    int64_t cell[mm_tally_kinds];  // what it counts in
    int64_t split;                 // the number of its name
};

// All rotations of a question.
struct group {
    bool any;
    bool wrong;       // in one rotation at least
    bool incomplete;  // one rotation has no answer
    struct rotation main;
};

struct mmbench {
    struct mm_mcq mcq;
    const struct mm_questions *all;
    struct mm_names splits;
    struct mm_sorter *rotations;  // by the question's index
    struct mm_buf index;          // of the group at hand
    int64_t n, vanilla, incomplete;
};

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    struct mmbench *b = mm_xcalloc(1, sizeof *b);
    b->all = all;
    *state = b;
    b->rotations = mm_sorter_new(all->sort_room);
    return mm_judge_read(&b->mcq.judge, r->judge_path, mm_judge_kind_replies, all, err);
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

static enum mm_code keep(struct mmbench *b, const struct mm_question *q, struct rotation *rotation,
                         struct mm_error *err) {
    char room[24];
    struct mm_str index;
    MM_TRY(group_index(b, q, room, &index, err));
    rotation->main = rotation->answered && mm_str_equal(index, q->index);
    if (rotation->main) {
        rotation->split = mm_names_add(&b->splits, q->split.s ? q->split : mm_str_of("none"));
        mm_tally_cells(&b->mcq.tally, q, rotation->cell);
    }
    return mm_sorter_add(b->rotations, index, MM_SORTER_VALUE(*rotation), err);
}

static enum mm_code skip(void *state, const struct mm_question *q, struct mm_error *err) {
    struct rotation rotation = {0};
    return keep(state, q, &rotation, err);
}

static enum mm_code add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct mmbench *b = state;
    struct rotation rotation = {.answered = true};
    MM_TRY(mm_mcq_hit(&b->mcq, q, q->answer, prediction, &rotation.hit, r, err));
    return keep(b, q, &rotation, err);
}

static void end_group(struct mmbench *b, const struct group *g, struct mm_report *r) {
    b->incomplete += g->incomplete && !g->wrong;
    // A wrong rotation settles the question, whatever the others would have been.
    if (!g->main.main || (g->incomplete && !g->wrong)) return;
    mm_tally_count(&b->mcq.tally, g->main.cell, !g->wrong);
    const double value[mm_outcome_values] = {!g->wrong, 1};
    mm_outcomes_add(r->outcomes, (struct mm_str){b->index.data, b->index.len},
                    mm_names_get(&b->splits, g->main.split), value);
    b->n++;
    b->vanilla += g->main.hit;
}

static enum mm_code go_through(struct mmbench *b, struct mm_report *r, struct mm_error *err) {
    struct group g = {0};
    MM_TRY(mm_sorter_sort(b->rotations, err));
    for (;;) {
        struct mm_str key, value;
        struct rotation rotation;
        MM_TRY(mm_sorter_next(b->rotations, &key, &value, err));
        if (g.any && !(key.s && mm_str_equal(key, (struct mm_str){b->index.data, b->index.len}))) {
            end_group(b, &g, r);
            g = (struct group){0};
        }
        if (!key.s) return mm_code_ok;
        memcpy(&rotation, value.s, sizeof rotation);
        g.any = true;
        g.incomplete = g.incomplete || !rotation.answered;
        g.wrong = g.wrong || (rotation.answered && !rotation.hit);
        if (rotation.main) g.main = rotation;
        mm_buf_reset(&b->index);
        mm_buf_add(&b->index, key.s, key.n);
    }
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    struct mmbench *b = state;
    MM_TRY(go_through(b, r, err));
    if (b->incomplete) {
        mm_warn("MMBench: %lld questions are left out: one of their rotations has no answer",
                (long long)b->incomplete);
    }
    mm_tally_report(&b->mcq.tally, "dev", r);
    if (b->n) mm_report_extra(r, 100.0 * ((double)b->vanilla / (double)b->n), "vanilla");
    mm_report_extra(r, (double)b->n, "groups");
    return mm_code_ok;
}

static void release(void *state) {
    struct mmbench *b = state;
    if (!b) return;
    mm_tally_free(&b->mcq.tally);
    mm_normalizer_deinit(&b->mcq.room);
    mm_judge_free(&b->mcq.judge);
    mm_names_free(&b->splits);
    mm_sorter_free(b->rotations);
    mm_buf_free(&b->index);
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
