// Tables of tab-separated values: the kinds of columns, and reading cells. One pass from front to
// back when a table is opened; later a row at a time.
#include "eval/tsv.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/utf8.h"
#include "eval/tsv_cut.h"
#include "eval/tsv_number.h"

// ---- missing cells ----

bool mm_tsv_is_missing(struct mm_str cell, bool pandas1) {
    static const char *const tokens[] = {
        "",        "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND",
        "1.#QNAN", "<NA>", "N/A",      "NA",  "NULL",    "NaN",      "n/a",  "nan",  "null"};
    if (cell.n > 9) return false;
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        if (mm_str_is(cell, tokens[i])) return true;
    }
    return !pandas1 && mm_str_is(cell, "None");
}

// ---- kinds ----

struct guess {  // what a column may still be
    bool any;   // a cell that is there was seen
    bool text, not_int, not_bool, not_float;
    bool is_unsigned;  // a cell did not fit 64 bits with a sign: read without one from here on
    bool negative, fraction;
};

static void guess_int(struct guess *g, struct mm_str cell) {
    const struct mm_number_int_parts n = mm_number_int(cell);
    g->is_unsigned = g->is_unsigned || !n.fits_signed;
    if (!g->is_unsigned) {
        g->not_int = !n.valid;
    } else if (n.negative) {
        g->negative = true;
    } else if (!n.fits_unsigned) {
        g->text = true;  // pandas gives up on numbers here
    } else {
        g->not_int = !n.valid;
    }
}

// Beyond 2^53 no double has a fraction; infinity is not whole.
static bool has_fraction(double v) {
    return v < 9e15 && v > -9e15 ? v != (double)(int64_t)v : v - v != 0;
}

static void guess_cell(struct guess *g, struct mm_str cell) {
    bool truth;
    double value = 0;
    g->any = true;
    if (!g->not_int) guess_int(g, cell);
    if (!g->not_float) {
        g->not_float = !mm_number_float(cell, &value);
        g->fraction = g->fraction || has_fraction(value);
    }
    if (!g->not_bool) g->not_bool = !mm_number_bool(cell, &truth);
    g->text = g->text || (g->not_int && g->not_float && g->not_bool);
}

static void settle(struct mm_tsv_column *c, const struct guess *g) {
    c->kind = mm_tsv_kind_text;
    if (g->text || !g->any) return;
    if (!g->not_int) {
        if (g->is_unsigned && (g->negative || c->n_missing > 0)) return;
        c->kind = c->n_missing ? mm_tsv_kind_float : mm_tsv_kind_int;
        c->from_int = true;
    } else if (!g->not_float) {
        c->kind = mm_tsv_kind_float;
    } else {
        c->kind = mm_tsv_kind_bool;
    }
    c->whole = c->kind == mm_tsv_kind_float && !g->fraction;
}

// ---- opening ----

static int64_t line_of(const struct mm_tsv *t, const char *at) {
    int64_t line = 1;
    for (const char *p = (const char *)t->map.data; p < at; p++) {
        if (*p == '\n' || (*p == '\r' && (p + 1 == at || p[1] != '\n'))) line++;
    }
    return line;
}

// Plain text of any length quickly: no zero byte and no byte above 127.
static bool is_ascii(const char *s, size_t n) {
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t bad = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t w;
        memcpy(&w, s + i, sizeof w);
        bad |= ((w - ones) | w) & high;  // a zero byte borrows from its own high bit
    }
    for (; i < n; i++)
        bad |= (uint64_t)(s[i] == '\0' || ((unsigned char)s[i] & 0x80));
    return bad == 0;
}

static enum mm_code check_bytes(const struct mm_tsv *t, struct mm_tsv_raw raw, const char *column,
                                struct mm_error *err) {
    const size_t n = (size_t)(raw.end - raw.begin);
    if (is_ascii(raw.begin, n)) return mm_code_ok;
    for (const char *p = raw.begin; p < raw.end;) {
        const int k = mm_utf8_char(p, (size_t)(raw.end - p));
        if (k == 0 || *p == '\0') {
            return mm_fail(err, mm_code_input,
                           "%s: line %lld: column '%s': byte %lld of the cell is 0x%02x, which is "
                           "%s; the file must be UTF-8 text",
                           t->path, (long long)line_of(t, p), column,
                           (long long)(p - raw.begin + 1), (unsigned)(unsigned char)*p,
                           k == 0 ? "no character" : "a zero byte");
        }
        p += k;
    }
    return mm_code_ok;
}

static enum mm_code read_header(struct mm_tsv *t, struct mm_tsv_walk *w, struct mm_error *err) {
    if (!mm_tsv_next_line(w)) {
        return mm_fail(err, mm_code_input, "%s: is empty; a line of column names is wanted",
                       t->path);
    }
    const char *at = w->p;
    struct mm_tsv_raw *raw = mm_xcalloc(mm_tsv_max_columns, sizeof *raw);
    const int n = mm_tsv_cut_row(w, raw, mm_tsv_max_columns);
    enum mm_code code = mm_code_ok;
    if (w->open_quote) {
        code = mm_fail(err, mm_code_input, "%s: line %lld: the quote of a column name never ends",
                       t->path, (long long)line_of(t, at));
    } else if (n > mm_tsv_max_columns) {
        code = mm_fail(err, mm_code_input, "%s: line %lld: has %d columns, must have at most %d",
                       t->path, (long long)line_of(t, at), n, mm_tsv_max_columns);
    }
    struct mm_buf room = {0};
    t->column = mm_xcalloc((size_t)n, sizeof *t->column);
    for (int i = 0; i < n && code == mm_code_ok; i++) {
        code = check_bytes(t, raw[i], "(a name)", err);
        if (code != mm_code_ok) break;
        const struct mm_str name = mm_tsv_decode(raw[i], &room);
        t->column[i].name = mm_xasprintf("%.*s", (int)name.n, name.s);
        t->n_columns = i + 1;
    }
    mm_buf_free(&room);
    free(raw);
    return code;
}

// Counts a row and keeps the place of every t->step-th one: when there are too many places, every
// other one goes.
static void add_row(struct mm_tsv *t, int64_t at) {
    if (t->n_rows % t->step == 0 && t->n_anchors == mm_tsv_max_anchors) {
        t->n_anchors /= 2;
        for (int64_t i = 0; i < t->n_anchors; i++)
            t->anchor[i] = t->anchor[2 * i];
        t->step *= 2;
    }
    if (t->n_rows % t->step == 0) t->anchor[t->n_anchors++] = at;
    t->n_rows++;
}

static enum mm_code wrong_row(const struct mm_tsv *t, const char *at, const struct mm_tsv_walk *w,
                              int n, const struct mm_tsv_raw *raw, struct mm_error *err) {
    const long long line = line_of(t, at);
    if (w->open_quote) {
        return mm_fail(err, mm_code_input,
                       "%s: line %lld: column '%s': the quote that opens here never ends", t->path,
                       (long long)line_of(t, raw[n <= t->n_columns ? n - 1 : 0].begin),
                       n <= t->n_columns ? t->column[n - 1].name : "(beyond the last)");
    }
    return mm_fail(err, mm_code_input,
                   "%s: line %lld, column %d: the row has %d cells, the header %d", t->path, line,
                   t->n_columns + 1, n, t->n_columns);
}

static enum mm_code read_rows(struct mm_tsv *t, struct mm_tsv_walk *w, struct mm_tsv_raw *raw,
                              struct guess *guesses, struct mm_error *err) {
    struct mm_buf room = {0};
    enum mm_code code = mm_code_ok;
    const char *base = (const char *)t->map.data;
    size_t passed = 0;
    while (code == mm_code_ok && mm_tsv_next_line(w)) {
        const char *at = w->p;
        const int n = mm_tsv_cut_row(w, raw, t->n_columns);
        if (n > t->n_columns || w->open_quote) {
            code = wrong_row(t, at, w, n, raw, err);
            break;
        }
        add_row(t, at - base);
        for (int i = 0; i < t->n_columns && code == mm_code_ok; i++) {
            if (i >= n) {
                t->column[i].n_missing++;
                continue;
            }
            code = check_bytes(t, raw[i], t->column[i].name, err);
            // A long cell of a text column is not worth decoding.
            if (guesses[i].text && raw[i].end - raw[i].begin > 64) continue;
            const struct mm_str cell = mm_tsv_decode(raw[i], &room);
            if (mm_tsv_is_missing(cell, t->pandas1)) {
                t->column[i].n_missing++;
            } else if (!guesses[i].text) {
                guess_cell(&guesses[i], cell);
            }
        }
        mm_map_pass(&t->map, &passed, (size_t)(w->p - base));
    }
    mm_map_forget(t->map.data, t->map.bytes);  // reading begins again at the front
    mm_buf_free(&room);
    return code;
}

static enum mm_code open_mapped(struct mm_tsv *t, struct mm_error *err) {
    const char *data = t->map.data ? (const char *)t->map.data : "";
    struct mm_tsv_walk w = {.p = data, .stop = data, .end = data + t->map.bytes};
    if (t->map.bytes >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)) w.p = w.stop = data + 3;
    MM_TRY(read_header(t, &w, err));
    struct guess *guesses = mm_xcalloc((size_t)t->n_columns, sizeof *guesses);
    struct mm_tsv_raw *raw = mm_xcalloc((size_t)t->n_columns, sizeof *raw);
    const enum mm_code code = read_rows(t, &w, raw, guesses, err);
    for (int i = 0; i < t->n_columns; i++) {
        settle(&t->column[i], &guesses[i]);
    }
    free(guesses);
    free(raw);
    return code;
}

enum mm_code mm_tsv_open(struct mm_tsv *t, const char *path, bool pandas1, struct mm_error *err) {
    *t = (struct mm_tsv){.pandas1 = pandas1, .step = 1};
    MM_TRY(mm_map_open(&t->map, path, err));
    t->anchor = mm_xmalloc(mm_tsv_max_anchors * sizeof *t->anchor);
    t->path = mm_xstrdup(path);
    const enum mm_code code = open_mapped(t, err);
    if (code != mm_code_ok) mm_tsv_close(t);
    return code;
}

void mm_tsv_close(struct mm_tsv *t) {
    for (int i = 0; i < t->n_columns; i++) {
        free(t->column[i].name);
    }
    free(t->column);
    free(t->anchor);
    free(t->path);
    mm_map_close(&t->map);
    *t = (struct mm_tsv){0};
}

int mm_tsv_find(const struct mm_tsv *t, const char *name) {
    for (int i = 0; i < t->n_columns; i++) {
        if (!strcmp(t->column[i].name, name)) return i;
    }
    return -1;
}

// A walk that stands at the row.
static struct mm_tsv_walk walk_to(const struct mm_tsv *t, int64_t row) {
    const char *base = (const char *)t->map.data;
    struct mm_tsv_walk w = {.p = base + t->anchor[row / t->step], .end = base + t->map.bytes};
    mm_tsv_find_stop(&w);
    for (int64_t k = row % t->step; k > 0; k--) {
        mm_tsv_cut_row(&w, NULL, 0);
        mm_tsv_next_line(&w);
    }
    return w;
}

int64_t mm_tsv_line(const struct mm_tsv *t, int64_t row) {
    return line_of(t, walk_to(t, row).p);
}

enum mm_code mm_tsv_wrong(const struct mm_tsv *t, int64_t row, const char *column,
                          struct mm_error *err, const char *what, ...) {
    char text[768];
    va_list args;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    return mm_fail(err, mm_code_input, "%s: line %lld: %s%s%s%s", t->path,
                   (long long)mm_tsv_line(t, row), column ? "column '" : "", column ? column : "",
                   column ? "': " : "", text);
}

// ---- rows ----

void mm_tsv_row_init(struct mm_tsv_row *r, const struct mm_tsv *t) {
    *r = (struct mm_tsv_row){.tsv = t, .row = -1};
    r->raw = mm_xcalloc((size_t)t->n_columns, sizeof *r->raw);
    r->text = mm_xcalloc((size_t)t->n_columns, sizeof *r->text);
}

void mm_tsv_row_deinit(struct mm_tsv_row *r) {
    for (int i = 0; r->tsv && i < r->tsv->n_columns; i++) {
        mm_buf_free(&r->text[i]);
    }
    free(r->raw);
    free(r->text);
    *r = (struct mm_tsv_row){0};
}

void mm_tsv_row_load(struct mm_tsv_row *r, int64_t row) {
    const struct mm_tsv *t = r->tsv;
    const char *base = (const char *)t->map.data;
    struct mm_tsv_walk w;
    if (r->row >= 0 && row == r->row + 1) {  // mostly rows are read in order
        w = (struct mm_tsv_walk){.p = base + r->end, .end = base + t->map.bytes};
        mm_tsv_next_line(&w);
    } else {
        w = walk_to(t, row);
    }
    mm_map_pass(&t->map, &r->passed, (size_t)(w.p - base));
    const int n = mm_tsv_cut_row(&w, r->raw, t->n_columns);
    for (int i = n; i < t->n_columns; i++) {
        r->raw[i] = (struct mm_tsv_raw){base, base};
    }
    r->end = (size_t)(w.p - base);
    r->row = row;
}

struct mm_str mm_tsv_cell(struct mm_tsv_row *r, int column, enum mm_tsv_form form) {
    const struct mm_str none = {NULL, 0};
    if (column < 0) return none;
    const struct mm_tsv_column *c = &r->tsv->column[column];
    struct mm_buf *room = &r->text[column];
    const struct mm_str cell = mm_tsv_decode(r->raw[column], room);
    if (mm_tsv_is_missing(cell, r->tsv->pandas1)) return none;
    if (c->kind == mm_tsv_kind_text) return cell;

    char text[mm_number_text_max] = "";
    struct mm_number_int_parts whole;
    bool truth = false;
    double value = 0;
    switch (c->kind) {
        case mm_tsv_kind_int:
            whole = mm_number_int(cell);
            snprintf(text, sizeof text, "%s%" PRIu64, whole.negative && whole.magnitude ? "-" : "",
                     whole.magnitude);
            break;
        case mm_tsv_kind_float:
            // Whole numbers became integers first, and then floats for the missing ones' sake.
            if (c->from_int) {
                whole = mm_number_int(cell);
                value = (double)whole.magnitude;
                if (whole.negative && value > 0) value = -value;
            } else {
                mm_number_float(cell, &value);
            }
            mm_number_print(text, value);
            if (form == mm_tsv_form_result && c->whole && c->n_missing == 0) {
                snprintf(text, sizeof text, "%.0f", value);
            }
            break;
        case mm_tsv_kind_bool:
            mm_number_bool(cell, &truth);
            snprintf(text, sizeof text, "%s", truth ? "True" : "False");
            if (form == mm_tsv_form_result && c->n_missing > 0) {
                snprintf(text, sizeof text, "%s", truth ? "1.0" : "0.0");
            }
            break;
        case mm_tsv_kind_text:
            break;
    }
    mm_buf_reset(room);
    mm_buf_adds(room, text);
    return (struct mm_str){room->data, room->len};
}

void mm_tsv_recount(struct mm_tsv *t, int column) {
    bool any = false;
    for (int c = 0; c < t->n_columns; c++) {
        any =
            any || t->column[c].kind == mm_tsv_kind_float || t->column[c].kind == mm_tsv_kind_bool;
    }
    if (!any || t->column[column].n_missing == 0) return;
    for (int c = 0; c < t->n_columns; c++) {
        t->column[c].n_missing = 0;
        t->column[c].whole = t->column[c].kind == mm_tsv_kind_float;
    }
    struct mm_tsv_row row;
    mm_tsv_row_init(&row, t);
    for (int64_t i = 0; i < t->n_rows; i++) {
        mm_tsv_row_load(&row, i);
        if (!mm_tsv_cell(&row, column, mm_tsv_form_table).s) continue;
        for (int c = 0; c < t->n_columns; c++) {
            if (t->column[c].kind != mm_tsv_kind_float && t->column[c].kind != mm_tsv_kind_bool) {
                continue;
            }
            double value = 0;
            const struct mm_str cell = mm_tsv_decode(row.raw[c], &row.text[c]);
            if (mm_tsv_is_missing(cell, t->pandas1)) {
                t->column[c].n_missing++;
            } else if (mm_number_float(cell, &value) && has_fraction(value)) {
                t->column[c].whole = false;
            }
        }
    }
    mm_tsv_row_deinit(&row);
}
