// The picture of a run: three panels over the length of the prompt, a line for each kind of mixers.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/report.h"
#include "io/chart.h"

enum { panel_w = 420, panel_h = 380, head_h = 70, margin = 20, n_panels = 3, n_kinds = 3 };

static const char *const kinds[n_kinds] = {"linear", "hybrid", "attention"};

static struct mm_chart_color color_of(int kind) {
    return kind == 0 ? mm_chart_blue : kind == 1 ? mm_chart_green : mm_chart_orange;
}

static double length_of(const struct mm_bench_row *row) {
    return (double)(row->plan.prompt + row->visual_tokens);
}

// What panel `p` shows of a row; 0: nothing.
static double value_of(const struct mm_bench_row *row, int p) {
    switch (p) {
        case 0:
            return 1e3 * row->step_p50_s;
        case 1:
            return row->prefill_s.n ? 1e3 * row->prefill_s.median / length_of(row) : 0.0;
        default:
            return (double)row->peak_bytes / 1073741824.0;
    }
}

static struct mm_chart_axis axis_of(double low, double high, bool log) {
    struct mm_chart_axis a = {.low = low, .high = high, .log = log};
    if (log) {
        a.low = log10(low), a.high = log10(high);
        if (a.high - a.low < 0.5) a.low -= 0.25, a.high += 0.25;
        const double room = 0.04 * (a.high - a.low);
        a.low -= room, a.high += room;
    } else {
        a.low = 0.0;
        a.high = high > 0.0 ? 1.15 * high : 1.0;
    }
    return a;
}

// One kind's rows in the order of their length; the last of the same length counts.
static int line_of(const struct mm_bench_report *r, int kind, int panel,
                   const struct mm_bench_row **out) {
    int n = 0;
    for (int i = 0; i < r->n_rows; i++) {
        const struct mm_bench_row *row = &r->rows[i];
        if (strcmp(row->mixers, kinds[kind]) != 0 || value_of(row, panel) <= 0.0) continue;
        int at = n++;
        while (at > 0 && length_of(out[at - 1]) > length_of(row)) {
            out[at] = out[at - 1];
            at--;
        }
        out[at] = row;
    }
    return n;
}

static void draw_line(cairo_t *cr, const struct mm_bench_row **line, int n, int panel,
                      struct mm_chart_color color, const struct mm_chart_axis *x,
                      const struct mm_chart_axis *y) {
    mm_chart_set_color(cr, color);
    cairo_set_line_width(cr, 2.4);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    for (int i = 0; i < n; i++) {
        cairo_line_to(cr, mm_chart_place(x, length_of(line[i])),
                      mm_chart_place(y, value_of(line[i], panel)));
    }
    cairo_stroke(cr);
    for (int i = 0; i < n; i++) {
        cairo_arc(cr, mm_chart_place(x, length_of(line[i])),
                  mm_chart_place(y, value_of(line[i], panel)), 3.4, 0, 6.2832);
        cairo_fill(cr);
    }
}

static void draw_panel(cairo_t *cr, const struct mm_bench_report *r, int panel, double left,
                       double top, const struct mm_bench_row **line) {
    static const char *const titles[n_panels] = {"One token more", "Reading the prompt",
                                                 "Memory at most"};
    static const char *const units[n_panels] = {"ms a step", "ms a token", "GiB"};
    double shortest = 1e30, longest = 0.0, least = 1e30, most = 0.0;
    for (int i = 0; i < r->n_rows; i++) {
        const double n = length_of(&r->rows[i]), v = value_of(&r->rows[i], panel);
        shortest = fmin(shortest, n), longest = fmax(longest, n);
        if (v > 0.0) least = fmin(least, v), most = fmax(most, v);
    }
    const bool log = most > 12.0 * least;
    struct mm_chart_axis x = axis_of(shortest, longest, true), y = axis_of(least, most, log);
    x.from = left + 70, x.to = left + panel_w - 16, x.counts = true;
    y.from = top + panel_h - 56, y.to = top + 30;
    mm_chart_text(cr, x.from, top + 14, 0.0, 14, true, mm_chart_ink, titles[panel]);
    mm_chart_axes(cr, &x, &y);
    for (int k = 0; k < n_kinds; k++) {
        const int n = line_of(r, k, panel, line);
        if (n > 0) draw_line(cr, line, n, panel, color_of(k), &x, &y);
    }
    char beside[64];
    snprintf(beside, sizeof beside, "%s%s", units[panel], log ? " (log scale)" : "");
    mm_chart_axis_names(cr, &x, &y, left + 16, "tokens before (log scale)", beside);
}

enum mm_code mm_bench_report_plot(const struct mm_bench_report *r, const char *path,
                                  struct mm_error *err) {
    const double w = n_panels * panel_w + 2 * margin, h = head_h + panel_h + margin;
    const struct mm_bench_row **line = mm_xcalloc((size_t)r->n_rows, sizeof *line);
    cairo_t *cr = mm_chart_begin(w, h);
    char text[256];
    snprintf(text, sizeof text, "%s, %s", mm_dtype_name(r->rows[0].dtype), r->be->device);
    mm_chart_text(cr, margin + 6, 30, 0, 18, true, mm_chart_ink, "Time and memory against length");
    mm_chart_text(cr, margin + 6, 50, 0, 12.5, false, mm_chart_faint_ink, text);
    double at = w - margin - 6;
    for (int k = n_kinds - 1; k >= 0; k--) {
        if (line_of(r, k, 2, line) == 0) continue;
        at -= mm_chart_text(cr, at, 36, 1.0, 12.5, false, mm_chart_ink, kinds[k]) + 8;
        mm_chart_set_color(cr, color_of(k));
        cairo_set_line_width(cr, 2.4);
        cairo_move_to(cr, at - 24, 32);
        cairo_line_to(cr, at, 32);
        cairo_stroke(cr);
        at -= 24 + 20;
    }
    for (int p = 0; p < n_panels; p++)
        draw_panel(cr, r, p, margin + p * panel_w, head_h, line);
    free(line);
    return mm_chart_end(cr, path, err);
}
