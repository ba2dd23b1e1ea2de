// MME: two yes/no questions a picture; a category's points are the percentage of right answers
// plus that of pictures with both answers right.
#include <stdlib.h>
#include "base/log.h"
#include "eval/judge.h"
#include "eval/prompt.h"
#include "eval/questions.h"

static const char *const perception[] = {"OCR",       "artwork",  "celebrity", "color",   "count",
                                         "existence", "landmark", "position",  "posters", "scene"};
static const char *const reasoning[] = {"code_reasoning", "commonsense_reasoning",
                                        "numerical_calculation", "text_translation"};

struct category {
    int64_t n, hits;            // questions
    int64_t pictures, doubles;  // pictures with two questions; with both answered rightly
};

// One answer, sorted by its picture: two questions about one may stand anywhere in the file.
struct answer {
    int64_t number;  // of the question
    int32_t category;
    bool right;
};

struct picture {
    int64_t n, hits;  // questions seen, and answered rightly
    bool both_right;  // of the first two
};

struct mme {
    const struct mm_questions *all;
    struct mm_normalizer room;
    struct mm_judge judge;
    struct mm_names category_names;
    struct category *categories;  // (category_names.n)
    int64_t category_cap;
    struct mm_sorter *answers;  // by "<number of the category><image_path>"
    struct mm_buf key;
};

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    if (all->column[mm_column_category] < 0 || all->column[mm_column_image_path] < 0) {
        return mm_fail(err, mm_code_input,
                       "%s: line 1: there is no column '%s'; MME's pairs of questions are found "
                       "by category and image_path",
                       all->path, all->column[mm_column_category] < 0 ? "category" : "image_path");
    }
    struct mme *m = mm_xcalloc(1, sizeof *m);
    m->all = all;
    *state = m;
    m->answers = mm_sorter_new(all->sort_room);
    return mm_judge_read(&m->judge, r->judge_path, mm_judge_kind_replies, all, err);
}

static int64_t category_of(struct mme *m, struct mm_str name) {
    const int64_t number = mm_names_add(&m->category_names, name);
    if (m->category_names.n > m->category_cap) {
        const int64_t cap = m->category_cap ? 2 * m->category_cap : 16;
        m->categories = mm_xrealloc(m->categories, (size_t)cap * sizeof *m->categories);
        memset(m->categories + m->category_cap, 0,
               (size_t)(cap - m->category_cap) * sizeof *m->categories);
        m->category_cap = cap;
    }
    return number;
}

static enum mm_code add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct mme *m = state;
    if (!q->category.s) return mm_questions_wrong(m->all, "category", err, "is missing");
    if (!q->image_path.s) return mm_questions_wrong(m->all, "image_path", err, "is missing");
    enum mm_yes_no said = mm_yorn_extract(&m->room, prediction);
    struct mm_str reply = {NULL, 0};
    if (said == mm_yes_no_unknown) MM_TRY(mm_judge_reply(&m->judge, q, &reply, err));
    if (reply.s) said = mm_yorn_extract(&m->room, reply);
    const char *text = said == mm_yes_no_yes ? "Yes" : said == mm_yes_no_no ? "No" : "Unknown";
    if (said == mm_yes_no_unknown) MM_TRY(mm_report_unresolved(r, q, prediction, err));
    const bool right = q->answer.s && mm_str_is(q->answer, text);

    const int64_t c = category_of(m, q->category);
    m->categories[c].n++;
    m->categories[c].hits += right;

    char number[8];
    mm_sorter_number(c, number);
    mm_buf_reset(&m->key);
    mm_buf_add(&m->key, number, sizeof number);
    mm_buf_add(&m->key, q->image_path.s, q->image_path.n);
    const struct answer answer = {.number = q->number, .category = (int32_t)c, .right = right};
    MM_TRY(mm_sorter_add(m->answers, (struct mm_str){m->key.data, m->key.len},
                         MM_SORTER_VALUE(answer), err));
    mm_report_verdict(r, right, said == mm_yes_no_unknown ? mm_str_of("") : mm_str_of(text));
    return mm_code_ok;
}

static bool counts(struct mm_str category) {
    for (int i = 0; i < 10; i++) {
        if (mm_str_is(category, perception[i])) return true;
    }
    for (int i = 0; i < 4; i++) {
        if (mm_str_is(category, reasoning[i])) return true;
    }
    return false;
}

// Pictures are what was drawn for the headline: right answers, questions, right pairs, pairs.
static void add_outcome(const struct mme *m, const struct picture *p, int64_t category,
                        struct mm_str path, struct mm_outcomes *o) {
    const struct mm_str name = mm_names_get(&m->category_names, category);
    if (!o || !counts(name)) return;
    const double value[mm_outcome_values] = {(double)p->hits, (double)p->n,
                                             p->n > 1 && p->both_right, p->n > 1};
    char *key = mm_xasprintf("%s\x1f%.*s", name.s, (int)path.n, path.s);
    mm_outcomes_add(o, mm_str_of(key), name, value);
    free(key);
}

static double combine(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values]) {
    double points = 0;
    for (int64_t g = 0; g < o->groups.n; g++) {
        const double *s = sums[g];
        if (s[1] > 0) points += 100 * (s[0] / s[1]);
        if (s[3] > 0) points += 100 * (s[2] / s[3]);
    }
    return points;
}

// Pictures of which one question was answered.
struct singles {
    int64_t n;
    int64_t first;  // the number of the first one's question
    char *what;     // that one, in words
};

static void note_single(const struct mme *m, struct singles *s, int64_t category,
                        struct mm_str path, int64_t number) {
    if (s->n++ && s->first < number) return;
    free(s->what);
    s->first = number;
    s->what = mm_xasprintf("picture '%.*s' of category '%s'", (int)path.n, path.s,
                           mm_names_get(&m->category_names, category).s);
}

// Everything about one picture was heard.
static void end_picture(struct mme *m, const struct picture *p, struct mm_str key, int64_t number,
                        struct singles *singles, struct mm_outcomes *o) {
    const int64_t c = mm_sorter_number_of(key);
    const struct mm_str path = {key.s + 8, key.n - 8};
    add_outcome(m, p, c, path, o);
    if (p->n < 2) {
        note_single(m, singles, c, path, number);
        return;
    }
    m->categories[c].pictures++;
    m->categories[c].doubles += p->both_right;
}

static enum mm_code go_through(struct mme *m, struct singles *singles, struct mm_outcomes *o,
                               struct mm_error *err) {
    struct picture p = {0};
    struct answer a = {0};
    MM_TRY(mm_sorter_sort(m->answers, err));
    for (mm_buf_reset(&m->key);;) {
        struct mm_str key, value;
        MM_TRY(mm_sorter_next(m->answers, &key, &value, err));
        const struct mm_str last = {m->key.data, m->key.len};
        if (p.n && !(key.s && mm_str_equal(key, last))) {
            end_picture(m, &p, last, a.number, singles, o);
            p = (struct picture){0};
        }
        if (!key.s) return mm_code_ok;
        memcpy(&a, value.s, sizeof a);
        if (p.n < 2) p.both_right = a.right && (p.n == 0 || p.both_right);
        p.n++;
        p.hits += a.right;
        mm_buf_reset(&m->key);
        mm_buf_add(&m->key, key.s, key.n);
    }
}

static enum mm_code pair_up(struct mme *m, const struct mm_report *r, struct mm_error *err) {
    struct singles singles = {0};
    enum mm_code code = go_through(m, &singles, r->outcomes, err);
    const bool whole = !m->all->partial && !r->missing_images && !r->unanswered;
    if (code == mm_code_ok && singles.n && whole) {
        code = mm_fail(err, mm_code_input, "%s: %s has one question, two are wanted", m->all->path,
                       singles.what);
    } else if (code == mm_code_ok && singles.n) {
        mm_warn("MME: %lld pictures with one answered question do not count as pairs",
                (long long)singles.n);
    }
    free(singles.what);
    return code;
}

static double points_of(const struct category *c) {
    const double acc = (double)c->hits / (double)c->n * 100;
    return c->pictures ? acc + (double)c->doubles / (double)c->pictures * 100 : acc;
}

// Sums the categories of a list; those that are not there are counted and named.
static double sum_up(const struct mme *m, const char *const *names, int n, int *n_missing,
                     struct mm_buf *missing) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const int64_t c = mm_names_find(&m->category_names, mm_str_of(names[i]));
        if (c >= 0) {
            sum += points_of(&m->categories[c]);
        } else {
            mm_buf_addf(missing, "%s%s", *n_missing ? ", " : "", names[i]);
            ++*n_missing;
        }
    }
    return sum;
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    struct mme *m = state;
    MM_TRY(pair_up(m, r, err));
    struct mm_buf missing = {0};
    int n_missing = 0;
    const double seen = sum_up(m, perception, 10, &n_missing, &missing);
    const double thought = sum_up(m, reasoning, 4, &n_missing, &missing);
    if (n_missing) {
        mm_warn(
            "MME: there is no question of %s; perception and reasoning are sums over the other "
            "categories and do not compare with published ones",
            missing.data);
    }
    mm_buf_free(&missing);
    mm_report_headline(r, seen + thought);
    mm_report_add(r, seen, "perception");
    mm_report_add(r, thought, "reasoning");
    for (int64_t c = 0; c < m->category_names.n; c++) {
        mm_report_add(r, points_of(&m->categories[c]), "%s", mm_names_get(&m->category_names, c).s);
    }
    mm_report_extra(r, n_missing, "missing_categories");
    return mm_code_ok;
}

static void release(void *state) {
    struct mme *m = state;
    if (!m) return;
    mm_normalizer_deinit(&m->room);
    mm_judge_free(&m->judge);
    mm_names_free(&m->category_names);
    mm_sorter_free(m->answers);
    mm_buf_free(&m->key);
    free(m->categories);
    free(m);
}

const struct mm_bench mm_bench_mme = {
    .name = "mme",
    .title = "MME",
    .max_new_tokens = {1024, 0},
    .max_tiles = 6,
    .prompt = mm_prompt_mme,
    .begin = begin,
    .add = add,
    .end = end,
    .release = release,
    .combine = combine,
};
