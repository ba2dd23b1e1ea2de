// Multiple choice: VLMEvalKit's mcq_vanilla_eval and report_acc under the exact_matching policy.
#include "eval/mcq.h"

#include <stdlib.h>

void mm_tally_free(struct mm_tally *t) {
    mm_names_free(&t->cells);
    free(t->n);
    free(t->hits);
    *t = (struct mm_tally){0};
}

// Names of MMBench's abilities as its reports shorten them.
static struct mm_str shorten(struct mm_str name) {
    static const char *const longer[][2] = {{"coarse_perception", "CP"},
                                            {"finegrained_perception (instance-level)", "FP-S"},
                                            {"finegrained_perception (cross-instance)", "FP-C"},
                                            {"logic_reasoning", "LR"},
                                            {"relation_reasoning", "RR"},
                                            {"attribute_reasoning", "AR"}};
    for (size_t i = 0; i < sizeof longer / sizeof longer[0]; i++) {
        if (mm_str_is(name, longer[i][0])) return mm_str_of(longer[i][1]);
    }
    return name;
}

static int64_t cell_of(struct mm_tally *t, char kind, struct mm_str split, struct mm_str name) {
    char room[256];
    struct mm_buf longer = {0};
    struct mm_str key = {room, 2 + split.n + name.n};
    if (key.n <= sizeof room) {
        room[0] = kind;
        memcpy(room + 1, split.s, split.n);
        room[1 + split.n] = '\x1f';
        memcpy(room + 2 + split.n, name.s, name.n);
    } else {
        mm_buf_add(&longer, &kind, 1);
        mm_buf_add(&longer, split.s, split.n);
        mm_buf_add(&longer, "\x1f", 1);
        mm_buf_add(&longer, name.s, name.n);
        key.s = longer.data;
    }
    const int64_t number = mm_names_add(&t->cells, key);
    mm_buf_free(&longer);
    if (t->cells.n > t->cap) {
        const int64_t cap = t->cap ? 2 * t->cap : 64;
        t->n = mm_xrealloc(t->n, (size_t)cap * sizeof *t->n);
        t->hits = mm_xrealloc(t->hits, (size_t)cap * sizeof *t->hits);
        memset(t->n + t->cap, 0, (size_t)(cap - t->cap) * sizeof *t->n);
        memset(t->hits + t->cap, 0, (size_t)(cap - t->cap) * sizeof *t->hits);
        t->cap = cap;
    }
    return number;
}

static struct mm_str split_of(const struct mm_question *q) {
    return q->split.s ? q->split : mm_str_of("none");
}

void mm_tally_cells(struct mm_tally *t, const struct mm_question *q, int64_t cell[mm_tally_kinds]) {
    const struct mm_str split = split_of(q);
    cell[0] = cell_of(t, '0', split, mm_str_of(""));
    cell[1] = q->l2_category.s ? cell_of(t, '1', split, shorten(q->l2_category)) : -1;
    cell[2] = q->category.s ? cell_of(t, '2', split, shorten(q->category)) : -1;
}

void mm_tally_count(struct mm_tally *t, const int64_t cell[mm_tally_kinds], bool hit) {
    for (int kind = 0; kind < mm_tally_kinds; kind++) {
        if (cell[kind] < 0) continue;
        t->n[cell[kind]]++;
        t->hits[cell[kind]] += hit;
    }
}

// "<kind><split>\x1f<name>" taken apart.
static char take_apart(struct mm_str key, struct mm_str *split, struct mm_str *name) {
    const char *mid = memchr(key.s, '\x1f', key.n);
    *split = (struct mm_str){key.s + 1, (size_t)(mid - key.s - 1)};
    *name = (struct mm_str){mid + 1, key.n - split->n - 2};
    return key.s[0];
}

// The names of all categories. One that is the name of an l2-category, too, takes its place in
// every split, as in the kit's table.
static struct mm_names categories_of(const struct mm_tally *t) {
    struct mm_names names = {0};
    struct mm_str split, name;
    for (int64_t i = 0; i < t->cells.n; i++) {
        if (take_apart(mm_names_get(&t->cells, i), &split, &name) == '2') {
            mm_names_add(&names, name);
        }
    }
    return names;
}

void mm_tally_report(const struct mm_tally *t, const char *headline_split, struct mm_report *r) {
    int64_t *order = mm_names_sorted(&t->cells);
    struct mm_names categories = categories_of(t);
    int n_splits = 0;
    int64_t n = 0, hits = 0;
    double headline = 0;
    bool named = false;
    struct mm_str split, name;
    for (int64_t i = 0; i < t->cells.n; i++) {
        if (take_apart(mm_names_get(&t->cells, i), &split, &name) != '0' || !t->n[i]) continue;
        n_splits++;
        n += t->n[i];
        hits += t->hits[i];
        if (headline_split && mm_str_is(split, headline_split)) {
            headline = 100.0 * ((double)t->hits[i] / (double)t->n[i]);
            named = true;
        }
    }
    for (int64_t k = 0; k < t->cells.n; k++) {
        const int64_t i = order[k];
        const char kind = take_apart(mm_names_get(&t->cells, i), &split, &name);
        if (!t->n[i] || (kind == '1' && mm_names_find(&categories, name) >= 0)) continue;
        if (kind == '0') name = mm_str_of("Overall");
        const double value = 100.0 * ((double)t->hits[i] / (double)t->n[i]);
        if (n_splits > 1) {
            mm_report_add(r, value, "%.*s/%.*s", (int)split.n, split.s, (int)name.n, name.s);
        } else {
            mm_report_add(r, value, "%.*s", (int)name.n, name.s);
        }
    }
    free(order);
    mm_names_free(&categories);
    if (n) mm_report_headline(r, named ? headline : 100.0 * ((double)hits / (double)n));
}

// ---- vanilla ----

enum mm_code mm_mcq_hit(struct mm_mcq *m, const struct mm_question *q, struct mm_str wanted,
                        struct mm_str prediction, bool *hit, struct mm_report *r,
                        struct mm_error *err) {
    char said = mm_can_infer(&m->room, prediction, &q->options);
    struct mm_str reply = {NULL, 0};
    if (!said) MM_TRY(mm_judge_reply(&m->judge, q, &reply, err));
    if (reply.s) said = mm_can_infer(&m->room, reply, &q->options);
    *hit = false;
    // The kit puts down 'Z' for an answer it cannot read, so 'Z' as the wanted letter would be hit.
    *hit = wanted.n == 1 && wanted.s[0] == (said ? said : 'Z');
    mm_report_verdict(r, *hit, (struct mm_str){&said, said != 0});
    return said ? mm_code_ok : mm_report_unresolved(r, q, prediction, err);
}

void mm_mcq_outcome(struct mm_report *r, struct mm_str key, const struct mm_question *q, bool hit) {
    const double value[mm_outcome_values] = {hit, 1};
    mm_outcomes_add(r->outcomes, key, split_of(q), value);
}

double mm_mcq_combine(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values],
                      const char *headline_split) {
    double n = 0, hits = 0;
    const int64_t only = headline_split ? mm_names_find(&o->groups, mm_str_of(headline_split)) : -1;
    for (int64_t g = 0; g < o->groups.n; g++) {
        if (only >= 0 && g != only) continue;
        hits += sums[g][0];
        n += sums[g][1];
    }
    return 100 * (hits / n);
}

enum mm_code mm_mcq_begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    struct mm_mcq *m = mm_xcalloc(1, sizeof *m);
    *state = m;
    return mm_judge_read(&m->judge, r->judge_path, mm_judge_kind_replies, all, err);
}

enum mm_code mm_mcq_add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct mm_mcq *m = state;
    int64_t cell[mm_tally_kinds];
    bool hit;
    MM_TRY(mm_mcq_hit(m, q, q->answer, prediction, &hit, r, err));
    mm_tally_cells(&m->tally, q, cell);
    mm_tally_count(&m->tally, cell, hit);
    mm_mcq_outcome(r, q->index, q, hit);
    return mm_code_ok;
}

enum mm_code mm_mcq_end(void *state, struct mm_report *r, struct mm_error *err) {
    (void)err;
    mm_tally_report(&((struct mm_mcq *)state)->tally, NULL, r);
    return mm_code_ok;
}

void mm_mcq_release(void *state) {
    struct mm_mcq *m = state;
    if (!m) return;
    mm_tally_free(&m->tally);
    mm_normalizer_deinit(&m->room);
    mm_judge_free(&m->judge);
    free(m);
}
