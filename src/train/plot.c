#include "train/plot.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "train/plot_panel.h"

enum { n_stages = 4 };  // [0]: supervised; [1..3]: distillation

struct curves {
    struct mm_plot_series stage[n_stages];
    int64_t broken;  // lines that were passed over
};

// ---- reading ------------------------------------------------------------------------------------

static bool number(const json_t *o, const char *key, double *out) {
    const json_t *v = json_object_get(o, key);
    *out = json_number_value(v);
    return json_is_number(v) && isfinite(*out);
}

static bool read_line(struct curves *c, const char *line, size_t n) {
    json_t *o = json_loadb(line, n, 0, NULL);
    double stage = 0, lr = 0;
    struct mm_plot_point p;
    bool good = number(o, "stage", &stage) && number(o, "step", &p.step) &&
                number(o, "loss", &p.loss) && number(o, "lr", &lr);
    p.lr = lr;
    json_decref(o);
    good = good && stage >= 0 && stage < n_stages && p.step >= 1 && p.lr >= 0;
    if (!good) return false;
    struct mm_plot_series *s = &c->stage[(int)stage];
    if (s->n > 0 && p.step <= s->points[s->n - 1].step) return false;
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->points = mm_xrealloc(s->points, (size_t)s->cap * sizeof *s->points);
    }
    s->points[s->n++] = p;
    return true;
}

static enum mm_code read_log(struct curves *c, const char *path, struct mm_error *err) {
    FILE *f = fopen(path, "re");
    if (f == NULL) return mm_fail_errno(err, "%s: cannot be opened", path);
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    while ((n = getline(&line, &room, f)) >= 0) {
        if (!read_line(c, line, (size_t)n)) c->broken++;
    }
    const bool failed = ferror(f) != 0;
    const int why = errno;
    free(line);
    fclose(f);
    errno = why;
    return failed ? mm_fail_errno(err, "%s: cannot be read", path) : mm_code_ok;
}

// ---- the picture --------------------------------------------------------------------------------

enum { panel_w = 560, single_w = 880, panel_h = 430, head_h = 62, margin = 20 };

static void draw_legend(cairo_t *cr, double right, double y) {
    static const char *const names[] = {"learning rate", "smoothed", "each step"};
    double x = right;
    for (int i = 0; i < 3; i++) {
        x -= 8 + mm_chart_text(cr, x, y, 1.0, 12.5, false, mm_chart_faint_ink, names[i]);
        mm_chart_set_color(cr, i == 0 ? mm_chart_orange : mm_chart_blue);
        if (i == 2) {
            mm_chart_set_color(cr, (struct mm_chart_color){mm_chart_blue.r, mm_chart_blue.g,
                                                           mm_chart_blue.b, 0.45});
            for (int k = 0; k < 3; k++) {
                cairo_arc(cr, x - 4 - 8 * k, y - 4.5 + (k == 1 ? -3 : 1.5), 2.0, 0, 6.2832);
                cairo_fill(cr);
            }
        } else {
            cairo_set_line_width(cr, i == 0 ? 1.2 : 2.6);
            cairo_move_to(cr, x - 24, y - 4.5);
            cairo_line_to(cr, x, y - 4.5);
            cairo_stroke(cr);
        }
        x -= 24 + 22;
    }
}

static cairo_t *draw(const struct curves *c) {
    static const char *const titles[n_stages] = {
        NULL, "Stage 1: the new parameters, block by block",
        "Stage 2: the whole mixer, block by block", "Stage 3: the whole model, end to end"};
    static const char *const losses[n_stages] = {
        "cross-entropy", "mean squared error \xC3\x97 1000", "mean squared error \xC3\x97 1000",
        "KL(teacher || student)"};
    int panels = 0;
    for (int i = 0; i < n_stages; i++)
        panels += c->stage[i].n > 0;
    const double each = panels == 1 ? single_w : panel_w;
    const double head = c->stage[0].n > 0 ? head_h - 18 : head_h;  // that panel has no title
    const double w = each * panels + 2 * margin, h = head + panel_h + margin - 8;
    cairo_t *cr = mm_chart_begin(w, h);
    const bool distill = c->stage[0].n == 0;
    mm_chart_text(cr, margin + 6, 40, 0, 20, true, mm_chart_ink,
                  distill ? "Distillation" : "Supervised training");
    draw_legend(cr, w - margin - 6, 38);
    double x = margin;
    for (int i = 0; i < n_stages; i++) {
        if (c->stage[i].n == 0) continue;
        mm_plot_panel(cr, x, head, each, panel_h, titles[i], losses[i], &c->stage[i]);
        x += each;
    }
    return cr;
}

enum mm_code mm_plot_loss(const char *log_path, const char *png_path, struct mm_error *err) {
    struct curves c = {0};
    enum mm_code code = read_log(&c, log_path, err);
    int64_t n = 0;
    for (int i = 0; i < n_stages; i++)
        n += c.stage[i].n;
    if (!code && n == 0) {
        code = mm_fail(err, mm_code_input, "%s: holds no step that could be drawn", log_path);
    }
    if (!code && c.broken > 0) {
        mm_warn("%s: %lld line%s no step of a run and not drawn", log_path, (long long)c.broken,
                c.broken == 1 ? " is" : "s are");
    }
    if (!code) code = mm_chart_end(draw(&c), png_path, err);
    for (int i = 0; i < n_stages; i++)
        free(c.stage[i].points);
    return code;
}
