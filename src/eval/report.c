// Reports: collecting and printing.
#include "eval/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include "base/utf8.h"
#include "eval/bench.h"
#include "eval/tsv_number.h"
#include "io/json.h"

static void free_scores(struct mm_score *s, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        free(s[i].name);
    }
    free(s);
}

void mm_report_free(struct mm_report *r) {
    free_scores(r->scores, r->n_scores);
    free_scores(r->extras, r->n_extras);
    *r = (struct mm_report){0};
}

static void append(struct mm_score **list, int64_t *n, char *name, double value) {
    if ((*n & (*n - 1)) == 0) {  // full at each power of two
        *list = mm_xrealloc(*list, (size_t)(*n ? 2 * *n : 1) * sizeof **list);
    }
    (*list)[(*n)++] = (struct mm_score){name, value};
}

void mm_report_add(struct mm_report *r, double value, const char *name, ...) {
    char room[512];
    va_list args;
    va_start(args, name);
    const int n = vsnprintf(room, sizeof room, name, args);
    va_end(args);
    if (n < (int)sizeof room) {
        append(&r->scores, &r->n_scores, mm_xstrdup(room), value);
        return;
    }
    char *longer = mm_xmalloc((size_t)n + 1);
    va_start(args, name);
    vsnprintf(longer, (size_t)n + 1, name, args);
    va_end(args);
    append(&r->scores, &r->n_scores, longer, value);
}

void mm_report_extra(struct mm_report *r, double value, const char *name) {
    append(&r->extras, &r->n_extras, mm_xstrdup(name), value);
}

double mm_report_get(const struct mm_report *r, const char *name) {
    for (int64_t i = 0; i < r->n_scores; i++) {
        if (!strcmp(r->scores[i].name, name)) return r->scores[i].value;
    }
    return NAN;
}

void mm_report_headline(struct mm_report *r, double value) {
    r->has_headline = true;
    r->headline = value;
}

static void copy_start(char out[32], struct mm_str s) {
    size_t n = s.n < 32 ? s.n : 31;
    while (n < s.n && n > 0 && ((unsigned char)s.s[n] & 0xc0) == 0x80)
        n--;  // whole characters
    memcpy(out, n ? s.s : "", n);
    out[n] = '\0';
}

void mm_report_verdict(struct mm_report *r, double score, struct mm_str read) {
    r->verdict.score = score;
    copy_start(r->verdict.read, read);
}

void mm_report_wanted(struct mm_report *r, struct mm_str wanted) {
    copy_start(r->verdict.wanted, wanted);
}

// A text as JSON, whatever its bytes are.
static void add_text(struct mm_buf *out, struct mm_str s) {
    struct mm_buf clean = {0};
    struct mm_utf8_stream stream = {0};
    mm_utf8_stream_add(&stream, s.n ? s.s : "", s.n, &clean);
    mm_utf8_stream_end(&stream, &clean);
    mm_json_add_string(out, clean.data ? clean.data : "", clean.len);
    mm_buf_free(&clean);
}

enum mm_code mm_report_unresolved(struct mm_report *r, const struct mm_question *q,
                                  struct mm_str prediction, struct mm_error *err) {
    r->unresolved++;
    r->verdict.unresolved = true;
    if (!r->unresolved_to) return mm_code_ok;
    struct mm_buf line = {0};
    mm_buf_adds(&line, "{\"index\": ");
    add_text(&line, q->index);
    mm_buf_adds(&line, ", \"question\": ");
    add_text(&line, q->text);
    mm_buf_adds(&line, ", \"options\": {");
    bool any = false;
    for (int k = 0; k < 26; k++) {
        if (!q->options.text[k].s) continue;
        mm_buf_addf(&line, "%s\"%c\": ", any ? ", " : "", 'A' + k);
        add_text(&line, q->options.text[k]);
        any = true;
    }
    mm_buf_adds(&line, "}, \"prediction\": ");
    add_text(&line, prediction);
    mm_buf_adds(&line, "}\n");
    const bool ok = fwrite(line.data, 1, line.len, r->unresolved_to) == line.len;
    mm_buf_free(&line);
    return ok ? mm_code_ok : mm_fail_errno(err, "the file of unresolved answers cannot be written");
}

static void add_number(struct mm_buf *out, double value) {
    char text[mm_number_text_max];
    mm_number_print(text, value);
    mm_buf_adds(out, isfinite(value) ? text : "null");
}

void mm_report_print_json(const struct mm_report *r, struct mm_buf *out) {
    mm_buf_addf(out, "{\"bench\": \"%s\", \"questions\": %" PRId64 ", \"headline\": ", r->bench,
                r->questions);
    if (r->has_headline) {
        add_number(out, r->headline);
    } else {
        mm_buf_adds(out, "null");
    }
    mm_buf_adds(out, ", \"scores\": {");
    for (int64_t i = 0; i < r->n_scores; i++) {
        if (i) mm_buf_adds(out, ", ");
        add_text(out, mm_str_of(r->scores[i].name));
        mm_buf_adds(out, ": ");
        add_number(out, r->scores[i].value);
    }
    mm_buf_addf(out,
                "}, \"unresolved\": %" PRId64 ", \"missing_images\": %" PRId64
                ", \"unanswered\": %" PRId64,
                r->unresolved, r->missing_images, r->unanswered);
    for (int64_t i = 0; i < r->n_extras; i++) {
        mm_buf_addf(out, ", \"%s\": ", r->extras[i].name);
        add_number(out, r->extras[i].value);
    }
    mm_buf_addf(out, ", \"seconds\": %.3f}\n", r->seconds);
}

// Characters, not bytes: what a column's width is made of.
static int width_of(const char *s) {
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

void mm_report_print_table(const struct mm_report *r, struct mm_buf *out) {
    struct mm_bench const *bench = NULL;
    const char *title =
        mm_bench_find(&bench, r->bench, NULL) == mm_code_ok ? bench->title : r->bench;
    int wide = width_of(title);
    for (int64_t i = 0; i < r->n_scores; i++) {
        const int w = width_of(r->scores[i].name) + 2;
        if (w > wide) wide = w;
    }
    if (r->has_headline) {
        mm_buf_addf(out, "%s%*s  %9.2f\n", title, wide - width_of(title), "", r->headline);
    } else {
        mm_buf_addf(out, "%s  (no score yet)\n", title);
    }
    for (int64_t i = 0; i < r->n_scores; i++) {
        const struct mm_score *s = &r->scores[i];
        mm_buf_addf(out, "  %s%*s  %9.2f\n", s->name, wide - 2 - width_of(s->name), "", s->value);
    }
    mm_buf_addf(out, "%" PRId64 " questions, %" PRId64 " unresolved, %" PRId64 " without picture",
                r->questions, r->unresolved, r->missing_images);
    if (r->unanswered) mm_buf_addf(out, ", %" PRId64 " unanswered", r->unanswered);
    mm_buf_addf(out, "; %.1f s\n", r->seconds);
}
