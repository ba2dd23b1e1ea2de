// GQA: the exact word, after full stops at the end are taken off and it is lower-cased.
// With the kit's files, gold is the balanced part of testdev_balanced_questions.json, or the
// jsonl's own answers where that file is not there.
#include <inttypes.h>
#include <stdlib.h>
#include "base/log.h"
#include "eval/join.h"
#include "eval/members.h"
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
    bool has_gold;        // else the answers stand beside the questions
    struct mm_join gold;  // of the balanced questions
    char *unanswered;     // the first balanced question without an answer, or NULL
};

// What is kept of a balanced question: which texts there are, then those, zero-terminated.
enum { kept_structural = 1, kept_semantic = 2 };

static enum mm_code add_gold(struct gqa *g, struct mm_str id, const json_t *o, int64_t number,
                             struct mm_error *err) {
    bool balanced = false;
    const char *answer = "", *structural = NULL, *semantic = NULL;
    const json_t *types = json_object_get(o, "types");
    char *what = mm_xasprintf("%s: question '%.*s'", g->gold_path, (int)id.n, id.s);
    enum mm_code code = mm_json_bool(o, "isBalanced", true, &balanced, what, err);
    if (code == mm_code_ok && balanced) {
        code = mm_json_string(o, "answer", true, &answer, what, err);
    }
    if (code == mm_code_ok && balanced) {
        code = mm_json_string(types, "structural", false, &structural, what, err);
    }
    if (code == mm_code_ok && balanced) {
        code = mm_json_string(types, "semantic", false, &semantic, what, err);
    }
    free(what);
    if (code != mm_code_ok || !balanced) return code;
    struct mm_buf *kept = &g->room;
    const char how = (char)((structural ? kept_structural : 0) | (semantic ? kept_semantic : 0));
    mm_buf_reset(kept);
    mm_buf_add(kept, &how, 1);
    mm_buf_add(kept, answer, strlen(answer) + 1);
    if (structural) mm_buf_add(kept, structural, strlen(structural) + 1);
    if (semantic) mm_buf_add(kept, semantic, strlen(semantic) + 1);
    const struct mm_join_place place = {.line = number, .wanted = 1};
    return mm_join_add(&g->gold, id, place, (struct mm_str){kept->data, kept->len}, err);
}

static enum mm_code read_gold(struct gqa *g, struct mm_error *err) {
    struct mm_members file;
    MM_TRY(mm_members_open(&file, g->gold_path, "an object of questions by their id", err));
    enum mm_code code = mm_code_ok;
    for (int64_t number = 1; code == mm_code_ok; number++) {
        struct mm_str id;
        const json_t *o;
        code = mm_members_next(&file, &id, &o, err);
        if (code != mm_code_ok || !id.s) break;
        code = add_gold(g, id, o, number, err);
    }
    mm_members_close(&file);
    MM_TRY(code);
    MM_TRY(mm_join_run(&g->gold, g->all, err));
    const struct mm_join_trouble *t = &g->gold.twice;
    if (!t->key) return mm_code_ok;
    return mm_fail(err, mm_code_input,
                   "%s: question '%s' is there twice, as number %" PRId64 " and %" PRId64,
                   g->gold_path, t->key, t->first.line, t->place.line);
}

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    (void)r;
    struct gqa *g = mm_xcalloc(1, sizeof *g);
    g->all = all;
    g->gold.room = all->sort_room;
    *state = g;
    if (!all->kit) return mm_code_ok;
    g->gold_path = mm_path_join(all->path, "testdev_balanced_questions.json");
    g->has_gold = mm_path_exists(g->gold_path);
    if (g->has_gold) return read_gold(g, err);
    mm_warn("%s is not there: the answers are those of the jsonl file, without kinds",
            g->gold_path);
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

// Puts the gold of the question into it; *balanced is false for those that do not count.
static enum mm_code find_gold(struct gqa *g, struct mm_question *q, bool *balanced,
                              struct mm_error *err) {
    struct mm_str kept;
    MM_TRY(mm_join_get(&g->gold, q->number, &kept, err));
    *balanced = kept.s;
    if (!kept.s) return mm_code_ok;
    q->answer = mm_str_of(kept.s + 1);
    const char *at = q->answer.s + q->answer.n + 1;
    if (kept.s[0] & kept_structural) {
        q->structural = mm_str_of(at);
        at += q->structural.n + 1;
    }
    if (kept.s[0] & kept_semantic) q->semantic = mm_str_of(at);
    return mm_code_ok;
}

static enum mm_code add(void *state, const struct mm_question *asked, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct gqa *g = state;
    struct mm_question q = *asked;
    if (g->has_gold) {
        bool balanced;
        MM_TRY(find_gold(g, &q, &balanced, err));
        if (!balanced) return mm_code_ok;
    }
    if (!q.answer.s) return mm_questions_wrong(g->all, "answer", err, "is missing");
    const struct mm_str said = mm_gqa_convert(&g->room, prediction);
    const bool hit = mm_str_equal(said, q.answer);
    const double value[mm_outcome_values] = {hit, 1};
    mm_outcomes_add(r->outcomes, q.index, mm_str_of(""), value);
    mm_report_verdict(r, hit, said);
    if (g->has_gold) mm_report_wanted(r, q.answer);
    count_all(g, &q, hit);
    return mm_code_ok;
}

static enum mm_code skip(void *state, const struct mm_question *asked, struct mm_error *err) {
    struct gqa *g = state;
    struct mm_question q = *asked;
    bool balanced = false;
    if (g->has_gold) MM_TRY(find_gold(g, &q, &balanced, err));
    if (balanced && !g->unanswered) {
        g->unanswered = mm_xasprintf("%.*s", (int)q.index.n, q.index.s);
    }
    return mm_code_ok;
}

// As in the official evaluation every balanced question must have been answered.
static enum mm_code check_whole(const struct gqa *g, const struct mm_report *r,
                                struct mm_error *err) {
    const char *id = g->unanswered ? g->unanswered : g->gold.stray.key;
    if (!g->has_gold || g->all->partial || r->missing_images || !id) return mm_code_ok;
    return mm_fail(err, mm_code_input,
                   "%s: question '%s' has no prediction; all that are balanced must have one "
                   "(or give --limit)",
                   g->gold_path, id);
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    struct gqa *g = state;
    MM_TRY(check_whole(g, r, err));
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
    free(g->n);
    free(g->hits);
    free(g->gold_path);
    free(g->unanswered);
    mm_join_free(&g->gold);
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
    .skip = skip,
    .end = end,
    .release = release,
    .combine = mm_outcomes_mean,
};
