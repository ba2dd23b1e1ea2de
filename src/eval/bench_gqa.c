// GQA: the exact word, after full stops at the end are taken off and it is lower-cased.
// With the kit's files, gold is the balanced part of testdev_balanced_questions.json, or the
// jsonl's own answers where that file is not there.
#include <stdlib.h>
#include "base/log.h"
#include "eval/names.h"
#include "eval/prompt.h"
#include "eval/questions.h"
#include "io/file.h"
#include "io/json.h"

struct gqa {
    const struct mm_questions *all;
    struct mm_buf room, key;
    struct mm_names groups;  // "Binary", "structural/verify", ...
    int64_t *n, *hits;       // (groups.n)
    int64_t cap;
    int64_t n_all, hits_all;
    char *gold_path;
    json_t *gold;          // NULL: the answers stand beside the questions
    struct mm_names seen;  // balanced questions answered
};

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    (void)r;
    struct gqa *g = mm_xcalloc(1, sizeof *g);
    g->all = all;
    *state = g;
    if (!all->kit) return mm_code_ok;
    g->gold_path = mm_path_join(all->path, "testdev_balanced_questions.json");
    if (!mm_path_exists(g->gold_path)) {
        mm_warn("%s is not there: the answers are those of the jsonl file, without kinds",
                g->gold_path);
        return mm_code_ok;
    }
    MM_TRY(mm_json_load(&g->gold, g->gold_path, err));
    if (!json_is_object(g->gold)) {
        return mm_fail(err, mm_code_input, "%s: must be an object of questions by their id",
                       g->gold_path);
    }
    return mm_code_ok;
}

static void count(struct gqa *g, const char *folder, struct mm_str name, bool hit) {
    mm_buf_reset(&g->key);
    mm_buf_adds(&g->key, folder);
    mm_buf_add(&g->key, name.s, name.n);
    const int64_t number = mm_names_add(&g->groups, (struct mm_str){g->key.data, g->key.len});
    if (g->groups.n > g->cap) {
        const int64_t cap = g->cap ? 2 * g->cap : 64;
        g->n = mm_xrealloc(g->n, (size_t)cap * sizeof *g->n);
        g->hits = mm_xrealloc(g->hits, (size_t)cap * sizeof *g->hits);
        memset(g->n + g->cap, 0, (size_t)(cap - g->cap) * sizeof *g->n);
        memset(g->hits + g->cap, 0, (size_t)(cap - g->cap) * sizeof *g->hits);
        g->cap = cap;
    }
    g->n[number]++;
    g->hits[number] += hit;
}

static void count_all(struct gqa *g, const struct mm_question *q, bool hit) {
    g->n_all++;
    g->hits_all += hit;
    if (q->structural.s) {
        count(g, mm_str_is(q->structural, "query") ? "Open" : "Binary", mm_str_of(""), hit);
        count(g, "structural/", q->structural, hit);
    }
    if (q->semantic.s) count(g, "semantic/", q->semantic, hit);
    if (q->category.s) count(g, "category/", q->category, hit);
}

// The gold entry of the question; *balanced is false for those that do not count.
static enum mm_code read_gold(struct gqa *g, struct mm_question *q, bool *balanced,
                              struct mm_error *err) {
    *balanced = false;
    char *id = mm_xasprintf("%.*s", (int)q->index.n, q->index.s);
    const json_t *o = json_object_get(g->gold, id);
    char *what = mm_xasprintf("%s: question '%s'", g->gold_path, id);
    const char *answer = NULL, *structural = NULL, *semantic = NULL;
    enum mm_code code = mm_code_ok;
    if (o) {
        code = mm_json_bool(o, "isBalanced", true, balanced, what, err);
        if (code == mm_code_ok) code = mm_json_string(o, "answer", true, &answer, what, err);
        const json_t *types = json_object_get(o, "types");
        if (code == mm_code_ok) {
            code = mm_json_string(types, "structural", false, &structural, what, err);
        }
        if (code == mm_code_ok) {
            code = mm_json_string(types, "semantic", false, &semantic, what, err);
        }
    }
    free(id);
    free(what);
    if (code != mm_code_ok || !o) return code;
    q->answer = mm_str_of(answer);
    if (structural) q->structural = mm_str_of(structural);
    if (semantic) q->semantic = mm_str_of(semantic);
    const int64_t before = g->seen.n;
    if (*balanced && mm_names_add(&g->seen, q->index) != before) {
        return mm_questions_wrong(g->all, "question_id", err, "has been there before");
    }
    return mm_code_ok;
}

static enum mm_code add(void *state, const struct mm_question *asked, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct gqa *g = state;
    struct mm_question q = *asked;
    if (g->gold) {
        bool balanced;
        MM_TRY(read_gold(g, &q, &balanced, err));
        if (!balanced) return mm_code_ok;
    }
    if (!q.answer.s) return mm_questions_wrong(g->all, "answer", err, "is missing");
    const struct mm_str said = mm_gqa_convert(&g->room, prediction);
    const bool hit = mm_str_equal(said, q.answer);
    const double value[mm_outcome_values] = {hit, 1};
    mm_outcomes_add(r->outcomes, q.index, mm_str_of(""), value);
    mm_report_verdict(r, hit, said);
    if (g->gold) mm_report_wanted(r, q.answer);
    count_all(g, &q, hit);
    return mm_code_ok;
}

// As in the official evaluation every balanced question must have been answered.
static enum mm_code check_whole(const struct gqa *g, const struct mm_report *r,
                                struct mm_error *err) {
    const char *id;
    json_t *o;
    json_object_foreach(g->gold, id, o) {
        if (!json_is_true(json_object_get(o, "isBalanced"))) continue;
        if (mm_names_find(&g->seen, mm_str_of(id)) >= 0) continue;
        if (r->missing_images) return mm_code_ok;
        return mm_fail(err, mm_code_input,
                       "%s: question '%s' has no prediction; all that are balanced must have one "
                       "(or give --limit)",
                       g->gold_path, id);
    }
    return mm_code_ok;
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    struct gqa *g = state;
    if (g->gold && !g->all->partial) MM_TRY(check_whole(g, r, err));
    if (g->n_all == 0) return mm_code_ok;
    const double accuracy = 100 * ((double)g->hits_all / (double)g->n_all);
    mm_report_headline(r, accuracy);
    mm_report_add(r, accuracy, "Accuracy");
    int64_t *order = mm_names_sorted(&g->groups);  // capitals first: Binary, Open
    for (int64_t k = 0; k < g->groups.n; k++) {
        const int64_t i = order[k];
        mm_report_add(r, 100 * ((double)g->hits[i] / (double)g->n[i]), "%s",
                      mm_names_get(&g->groups, i).s);
    }
    free(order);
    return mm_code_ok;
}

static void release(void *state) {
    struct gqa *g = state;
    if (!g) return;
    mm_buf_free(&g->room);
    mm_buf_free(&g->key);
    mm_names_free(&g->groups);
    mm_names_free(&g->seen);
    free(g->n);
    free(g->hits);
    free(g->gold_path);
    json_decref(g->gold);
    free(g);
}

const struct mm_bench mm_bench_gqa = {
    .name = "gqa",
    .title = "GQA",
    .has_kit = true,
    .max_new_tokens = {10, 10},
    .never_empty = {true, true},
    .max_tiles = 6,
    .prompt = mm_prompt_gqa,
    .begin = begin,
    .add = add,
    .end = end,
    .release = release,
    .combine = mm_outcomes_mean,
};
