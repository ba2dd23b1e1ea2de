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

struct picture {
    int64_t category;
    int32_t n, hits;  // questions seen, and answered rightly
    bool both_right;  // of the first two
};

struct mme {
    const struct mm_questions *all;
    struct mm_normalizer room;
    struct mm_judge judge;
    struct mm_names category_names, picture_names;
    struct category *categories;  // (category_names.n)
    struct picture *pictures;     // (picture_names.n)
    int64_t category_cap, picture_cap;
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
    return mm_judge_read(&m->judge, r->judge_path, mm_judge_kind_replies, err);
}

// The number of s, with room for it in the array beside the names.
static int64_t number_of(struct mm_names *names, struct mm_str s, void **array, size_t item_bytes,
                         int64_t *cap) {
    const int64_t number = mm_names_add(names, s);
    if (names->n > *cap) {
        const int64_t grown = *cap ? 2 * *cap : 256;
        char *items = mm_xrealloc(*array, (size_t)grown * item_bytes);
        memset(items + (size_t)*cap * item_bytes, 0, (size_t)(grown - *cap) * item_bytes);
        *array = items;
        *cap = grown;
    }
    return number;
}

static enum mm_code add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct mme *m = state;
    if (!q->category.s) return mm_questions_wrong(m->all, "category", err, "is missing");
    if (!q->image_path.s) return mm_questions_wrong(m->all, "image_path", err, "is missing");
    enum mm_yes_no said = mm_yorn_extract(&m->room, prediction);
    const struct mm_str reply =
        said == mm_yes_no_unknown ? mm_judge_reply(&m->judge, q->index) : (struct mm_str){NULL, 0};
    if (reply.s) said = mm_yorn_extract(&m->room, reply);
    const char *text = said == mm_yes_no_yes ? "Yes" : said == mm_yes_no_no ? "No" : "Unknown";
    if (said == mm_yes_no_unknown) MM_TRY(mm_report_unresolved(r, q, prediction, err));
    const bool right = q->answer.s && mm_str_is(q->answer, text);

    void *array = m->categories;
    const int64_t c =
        number_of(&m->category_names, q->category, &array, sizeof *m->categories, &m->category_cap);
    m->categories = array;
    m->categories[c].n++;
    m->categories[c].hits += right;

    mm_buf_reset(&m->key);
    mm_buf_add(&m->key, q->category.s, q->category.n);
    mm_buf_add(&m->key, "\x1f", 1);
    mm_buf_add(&m->key, q->image_path.s, q->image_path.n);
    array = m->pictures;
    const struct mm_str key = {m->key.data, m->key.len};
    const int64_t p =
        number_of(&m->picture_names, key, &array, sizeof *m->pictures, &m->picture_cap);
    m->pictures = array;
    struct picture *picture = &m->pictures[p];
    picture->category = c;
    if (picture->n < 2) picture->both_right = right && (picture->n == 0 || picture->both_right);
    picture->n++;
    picture->hits += right;
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
static void add_outcomes(const struct mme *m, struct mm_outcomes *o) {
    for (int64_t i = 0; o && i < m->picture_names.n; i++) {
        const struct picture *p = &m->pictures[i];
        const struct mm_str category = mm_names_get(&m->category_names, p->category);
        if (!counts(category)) continue;
        const double value[mm_outcome_values] = {p->hits, p->n, p->n > 1 && p->both_right,
                                                 p->n > 1};
        mm_outcomes_add(o, mm_names_get(&m->picture_names, i), category, value);
    }
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

static enum mm_code pair_up(struct mme *m, const struct mm_report *r, struct mm_error *err) {
    int64_t single = 0;
    for (int64_t i = 0; i < m->picture_names.n; i++) {
        const struct picture *p = &m->pictures[i];
        if (p->n < 2) {
            const struct mm_str key = mm_names_get(&m->picture_names, i);
            const char *mid = memchr(key.s, '\x1f', key.n);
            if (!m->all->partial && !r->missing_images && !r->unanswered) {
                return mm_fail(err, mm_code_input,
                               "%s: picture '%s' of category '%.*s' has one question, two are "
                               "wanted",
                               m->all->path, mid + 1, (int)(mid - key.s), key.s);
            }
            single++;
            continue;
        }
        m->categories[p->category].pictures++;
        m->categories[p->category].doubles += p->both_right;
    }
    if (single) {
        mm_warn("MME: %lld pictures with one answered question do not count as pairs",
                (long long)single);
    }
    return mm_code_ok;
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
    add_outcomes(m, r->outcomes);
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
    mm_names_free(&m->picture_names);
    mm_buf_free(&m->key);
    free(m->categories);
    free(m->pictures);
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
