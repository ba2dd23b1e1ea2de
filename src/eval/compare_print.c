// The report as text, markdown and JSON.
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include "eval/compare.h"
#include "eval/embedded.h"
#include "eval/published.h"
#include "eval/table.h"
#include "eval/tsv_number.h"
#include "io/json.h"

// MME has two columns: its points, and the perception part, which is what papers often give.
static int columns_of(const struct mm_compare_bench *b) {
    return b->bench == &mm_bench_mme ? 2 : 1;
}

static const char *model_name(const struct mm_compare *c, int64_t m) {
    return mm_names_get(&c->models, m).s;
}

static void head(const struct mm_compare *c, struct mm_table *t, int first) {
    mm_table_row(t);
    for (int b = 0; b < c->n_benches; b++) {
        mm_table_set(t, first++, "%s", c->bench[b].bench->title);
        if (columns_of(&c->bench[b]) > 1) mm_table_set(t, first++, "MME perception");
    }
}

static int n_columns(const struct mm_compare *c) {
    int n = 0;
    for (int b = 0; b < c->n_benches; b++) {
        n += columns_of(&c->bench[b]);
    }
    return n;
}

static void heading(struct mm_buf *out, bool markdown, const char *text) {
    mm_buf_addf(out, markdown ? "\n## %s\n\n" : "\n%s\n", text);
}

static void print_scores(const struct mm_compare *c, bool markdown, struct mm_buf *out) {
    struct mm_table t;
    mm_table_init(&t, 1 + n_columns(c));
    head(c, &t, 1);
    mm_table_set(&t, 0, "model");
    for (int64_t m = 0; m < c->models.n; m++) {
        mm_table_row(&t);
        mm_table_set(&t, 0, "%s", model_name(c, m));
        for (int b = 0, at = 1; b < c->n_benches; at += columns_of(&c->bench[b++])) {
            const struct mm_compare_cell *cell = mm_compare_at(c, m, b);
            if (!cell->files) continue;
            if (cell->report.has_headline) mm_table_set(&t, at, "%.2f", cell->report.headline);
            if (columns_of(&c->bench[b]) > 1) {
                mm_table_set(&t, at + 1, "%.2f", mm_report_get(&cell->report, "perception"));
            }
        }
    }
    mm_table_print(&t, 1, markdown, out);
    mm_table_free(&t);
}

// 100 * headline / the teacher's; NaN where either is not there.
static double percent_of(const struct mm_compare *c, int64_t m, int b) {
    const struct mm_compare_cell *mine = mm_compare_at(c, m, b);
    const struct mm_compare_cell *to = mm_compare_at(c, c->teacher, b);
    if (!mine->files || !to->files || !mine->report.has_headline || !to->report.has_headline) {
        return NAN;
    }
    return to->report.headline > 0 ? 100 * mine->report.headline / to->report.headline : NAN;
}

static void print_percents(const struct mm_compare *c, bool markdown, struct mm_buf *out) {
    if (c->teacher < 0) return;
    char *text = mm_xasprintf("Percent of %s", model_name(c, c->teacher));
    heading(out, markdown, text);
    free(text);
    struct mm_table t;
    mm_table_init(&t, 1 + c->n_benches);
    mm_table_row(&t);
    mm_table_set(&t, 0, "model");
    for (int b = 0; b < c->n_benches; b++) {
        mm_table_set(&t, 1 + b, "%s", c->bench[b].bench->title);
    }
    for (int64_t m = 0; m < c->models.n; m++) {
        if (m == c->teacher) continue;
        mm_table_row(&t);
        mm_table_set(&t, 0, "%s", model_name(c, m));
        for (int b = 0; b < c->n_benches; b++) {
            const double percent = percent_of(c, m, b);
            if (isfinite(percent)) mm_table_set(&t, 1 + b, "%.1f", percent);
        }
    }
    mm_table_print(&t, 1, markdown, out);
    mm_table_free(&t);
}

static void print_differences(const struct mm_compare *c, bool markdown, struct mm_buf *out) {
    struct mm_table t;
    mm_table_init(&t, 6);
    mm_table_row(&t);
    static const char *const names[] = {"model", "benchmark", "difference", "from", "to", "over"};
    for (int i = 0; i < 6; i++) {
        mm_table_set(&t, i, "%s", names[i]);
    }
    for (int64_t m = 0; m < c->models.n; m++) {
        for (int b = 0; b < c->n_benches; b++) {
            const struct mm_compare_cell *cell = mm_compare_at(c, m, b);
            const struct mm_difference *d = &cell->difference;
            if (!cell->has_difference) continue;
            mm_table_row(&t);
            mm_table_set(&t, 0, "%s", model_name(c, m));
            mm_table_set(&t, 1, "%s", c->bench[b].bench->title);
            mm_table_set(&t, 2, "%+.2f", d->a - d->b);
            mm_table_set(&t, 3, "%+.2f", d->low);
            mm_table_set(&t, 4, "%+.2f", d->high);
            mm_table_set(&t, 5, "%" PRId64, d->n);
        }
    }
    if (t.n_rows > 1) {
        char *text = mm_xasprintf("Difference to %s", model_name(c, c->reference));
        heading(out, markdown, text);
        free(text);
        mm_table_print(&t, 2, markdown, out);
        mm_buf_addf(out,
                    "%sFrom .. to: 95 of 100 draws of the same questions for both (%d draws). "
                    "Over: what was drawn, questions that both answered; groups of rotations for "
                    "MMBench, pictures for MME.\n",
                    markdown ? "\n" : "", c->n_draws);
    }
    mm_table_free(&t);
}

static void print_left_out(const struct mm_compare *c, bool markdown, struct mm_buf *out) {
    struct mm_table t;
    mm_table_init(&t, 6);
    mm_table_row(&t);
    static const char *const names[] = {"model",      "benchmark",       "questions",
                                        "unresolved", "without picture", "unanswered"};
    for (int i = 0; i < 6; i++) {
        mm_table_set(&t, i, "%s", names[i]);
    }
    for (int64_t m = 0; m < c->models.n; m++) {
        for (int b = 0; b < c->n_benches; b++) {
            const struct mm_compare_cell *cell = mm_compare_at(c, m, b);
            const struct mm_report *r = &cell->report;
            if (!cell->files) continue;
            mm_table_row(&t);
            mm_table_set(&t, 0, "%s", model_name(c, m));
            mm_table_set(&t, 1, "%s", c->bench[b].bench->title);
            mm_table_set(&t, 2, "%" PRId64, r->questions);
            mm_table_set(&t, 3, "%" PRId64, r->unresolved);
            mm_table_set(&t, 4, "%" PRId64, r->missing_images);
            mm_table_set(&t, 5, "%" PRId64, r->unanswered);
        }
    }
    heading(out, markdown, "What was scored");
    mm_table_print(&t, 2, markdown, out);
    mm_table_free(&t);
}

// A published row has something to say about one of our benchmarks.
static bool is_of_use(const struct mm_compare *c, const char *table, int row) {
    for (int b = 0; b < c->n_benches; b++) {
        const int column = mm_published_find(table, c->bench[b].bench->name);
        if (column >= 0 && mm_published_cell(table, row, column).n) return true;
    }
    return false;
}

static void print_published(const struct mm_compare *c, bool markdown, struct mm_buf *out) {
    const char *table = mm_embedded_published;
    struct mm_table t;
    mm_table_init(&t, 3 + n_columns(c));
    head(c, &t, 3);
    mm_table_set(&t, 0, "published");
    mm_table_set(&t, 1, "kind");
    mm_table_set(&t, 2, "size");
    for (int row = 1; row < mm_published_rows(table); row++) {
        if (!is_of_use(c, table, row)) continue;
        mm_table_row(&t);
        static const char *const first[] = {"method", "complexity", "params"};
        for (int i = 0; i < 3; i++) {
            const struct mm_str s =
                mm_published_cell(table, row, mm_published_find(table, first[i]));
            mm_table_set(&t, i, "%.*s", (int)s.n, s.s);
        }
        for (int b = 0, at = 3; b < c->n_benches; at += columns_of(&c->bench[b++])) {
            const int column = mm_published_find(table, c->bench[b].bench->name);
            const struct mm_str s = mm_published_cell(table, row, column);
            mm_table_set(&t, at + columns_of(&c->bench[b]) - 1, "%.*s", (int)s.n, s.s);
        }
    }
    heading(out, markdown, mm_published_source);
    mm_table_print(&t, 3, markdown, out);
    mm_table_free(&t);
}

static void print_speed(bool markdown, struct mm_buf *out) {
    const char *table = mm_embedded_published_speed;
    struct mm_table t;
    const int n = mm_published_columns(table);
    mm_table_init(&t, n);
    for (int row = 0; row < mm_published_rows(table); row++) {
        mm_table_row(&t);
        for (int i = 0; i < n; i++) {
            const struct mm_str s = mm_published_cell(table, row, i);
            mm_table_set(&t, i, "%.*s", (int)s.n, s.s);
        }
    }
    heading(out, markdown, mm_published_speed_source);
    mm_table_print(&t, 3, markdown, out);
    mm_table_free(&t);
}

void mm_compare_print(const struct mm_compare *c, bool markdown, bool published,
                      struct mm_buf *out) {
    print_scores(c, markdown, out);
    print_percents(c, markdown, out);
    print_differences(c, markdown, out);
    print_left_out(c, markdown, out);
    if (!published) return;
    print_published(c, markdown, out);
    print_speed(markdown, out);
}

// ---- JSON ----

static void add_number(struct mm_buf *out, const char *name, double value) {
    char text[mm_number_text_max];
    mm_number_print(text, value);
    mm_buf_addf(out, "\"%s\": %s", name, isfinite(value) ? text : "null");
}

static void add_string(struct mm_buf *out, const char *name, struct mm_str s) {
    mm_buf_addf(out, "\"%s\": ", name);
    mm_json_add_string(out, s.n ? s.s : "", s.n);
}

static void add_cell(const struct mm_compare *c, int64_t m, int b, struct mm_buf *out) {
    const struct mm_compare_cell *cell = mm_compare_at(c, m, b);
    struct mm_buf one = {0};
    mm_report_print_json(&cell->report, &one);
    while (one.len && (one.data[one.len - 1] == '\n' || one.data[one.len - 1] == '}'))
        one.len--;
    mm_buf_adds(out, "{");
    add_string(out, "model", mm_names_get(&c->models, m));
    mm_buf_adds(out, ", ");
    mm_buf_add(out, one.data + 1, one.len - 1);  // what `eval score` prints, opened
    mm_buf_free(&one);
    if (c->teacher >= 0 && m != c->teacher) {
        mm_buf_adds(out, ", ");
        add_number(out, "percent_of_teacher", percent_of(c, m, b));
    }
    if (cell->has_difference) {
        mm_buf_adds(out, ", \"difference\": {");
        add_string(out, "to", mm_names_get(&c->models, c->reference));
        mm_buf_adds(out, ", ");
        add_number(out, "value", cell->difference.a - cell->difference.b);
        mm_buf_adds(out, ", ");
        add_number(out, "low", cell->difference.low);
        mm_buf_adds(out, ", ");
        add_number(out, "high", cell->difference.high);
        mm_buf_addf(out, ", \"units\": %" PRId64 "}", cell->difference.n);
    }
    mm_buf_adds(out, "}");
}

// Rows of a published table as objects; cells that are numbers as numbers.
static void add_published(const char *name, const char *source, const char *table,
                          struct mm_buf *out) {
    mm_buf_addf(out, ", \"%s\": {", name);
    add_string(out, "source", mm_str_of(source));
    mm_buf_adds(out, ", \"rows\": [");
    for (int row = 1; row < mm_published_rows(table); row++) {
        mm_buf_adds(out, row > 1 ? ", {" : "{");
        bool any = false;
        for (int i = 0; i < mm_published_columns(table); i++) {
            const struct mm_str key = mm_published_cell(table, 0, i);
            const struct mm_str s = mm_published_cell(table, row, i);
            double value;
            if (s.n == 0) continue;
            mm_buf_addf(out, "%s\"%.*s\": ", any ? ", " : "", (int)key.n, key.s);
            if (mm_number_float(s, &value)) {
                mm_buf_add(out, s.s, s.n);
            } else {
                mm_json_add_string(out, s.s, s.n);
            }
            any = true;
        }
        mm_buf_adds(out, "}");
    }
    mm_buf_adds(out, "]}");
}

void mm_compare_print_json(const struct mm_compare *c, bool published, struct mm_buf *out) {
    mm_buf_adds(out, "{");
    if (c->teacher >= 0) {
        add_string(out, "teacher", mm_names_get(&c->models, c->teacher));
        mm_buf_adds(out, ", ");
    }
    mm_buf_addf(out, "\"draws\": %d, \"results\": [", c->n_draws);
    bool any = false;
    for (int b = 0; b < c->n_benches; b++) {
        for (int64_t m = 0; m < c->models.n; m++) {
            if (!mm_compare_at(c, m, b)->files) continue;
            if (any) mm_buf_adds(out, ", ");
            add_cell(c, m, b, out);
            any = true;
        }
    }
    mm_buf_adds(out, "]");
    if (published) {
        add_published("published", mm_published_source, mm_embedded_published, out);
        add_published("published_speed", mm_published_speed_source, mm_embedded_published_speed,
                      out);
    }
    mm_buf_adds(out, "}\n");
}
