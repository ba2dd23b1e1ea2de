#include "train/plot_panel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"

const struct mm_plot_color mm_plot_ink = {0.13, 0.15, 0.18, 1.0},
                           mm_plot_faint_ink = {0.40, 0.43, 0.47, 1.0},
                           mm_plot_blue = {0.11, 0.35, 0.63, 1.0},
                           mm_plot_dots = {0.11, 0.35, 0.63, 0.22},
                           mm_plot_orange = {0.85, 0.48, 0.14, 1.0};
static const struct mm_plot_color grid = {0.90, 0.91, 0.93, 1.0};

void mm_plot_set_color(cairo_t *cr, struct mm_plot_color c) {
    cairo_set_source_rgba(cr, c.r, c.g, c.b, c.a);
}

double mm_plot_text(cairo_t *cr, double x, double y, double align, double size, bool bold,
                    struct mm_plot_color color, const char *text) {
    cairo_text_extents_t e;
    cairo_select_font_face(cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, size);
    cairo_text_extents(cr, text, &e);
    mm_plot_set_color(cr, color);
    cairo_move_to(cr, x - align * e.x_advance, y);
    cairo_show_text(cr, text);
    cairo_new_path(cr);  // what comes next does not start here
    return e.x_advance;
}

// ---- scales -------------------------------------------------------------------------------------

struct axis {
    double low, high;  // values at the two ends; of the logarithm where `log` is set
    bool log;
    double from, to;  // pixels
};

static double place(const struct axis *a, double v) {
    if (a->log) v = log10(v);
    return a->from + (v - a->low) / (a->high - a->low) * (a->to - a->from);
}

// 1, 2 or 5 times a power of ten, so that a range has about `wanted` of it.
static double nice_step(double range, int wanted) {
    const double raw = range / wanted, power = pow(10.0, floor(log10(raw)));
    const double f = raw / power;
    return power * (f <= 1.0 ? 1.0 : f <= 2.0 ? 2.0 : f <= 5.0 ? 5.0 : 10.0);
}

enum { max_ticks = 32 };

static int linear_ticks(const struct axis *a, int wanted, bool whole, double out[max_ticks]) {
    double step = nice_step(a->high - a->low, wanted);
    if (whole && step < 1.0) step = 1.0;
    int n = 0;
    for (double k = ceil(a->low / step - 1e-9); n < max_ticks && k * step <= a->high + step * 1e-9;
         k++) {
        out[n++] = k * step;
    }
    return n;
}

// Powers of ten; where they are few, 2 and 5 times them too.
static int log_ticks(const struct axis *a, double out[max_ticks]) {
    static const double parts[] = {1.0, 2.0, 5.0};
    const double decades = a->high - a->low;
    const int n_parts = decades < 2.5 ? 3 : 1, stride = decades > 9.0 ? 3 : 1;
    int n = 0;
    for (int k = (int)floor(a->low); k <= (int)ceil(a->high); k++) {
        if (k % stride != 0) continue;
        for (int i = 0; i < n_parts && n < max_ticks; i++) {
            const double v = parts[i] * pow(10.0, k);
            if (log10(v) >= a->low - 1e-9 && log10(v) <= a->high + 1e-9) out[n++] = v;
        }
    }
    return n;
}

// "12k", "0.5", "2e-07"
static void tick_text(char out[32], double v, bool steps) {
    if (steps && v >= 1e6) {
        snprintf(out, 32, "%gM", v / 1e6);
    } else if (steps && v >= 1e3) {
        snprintf(out, 32, "%gk", v / 1e3);
    } else {
        snprintf(out, 32, "%.4g", fabs(v) < 1e-300 ? 0.0 : v);
    }
}

// ---- smoothing ----------------------------------------------------------------------------------

// Gaussian mean over the neighbours, a fortieth of the run wide to either side. It does not lag
// behind the points as a running mean does.
static double *smoothed(const struct mm_plot_series *s) {
    double *y = mm_xmalloc((size_t)s->n * sizeof *y);
    const double sigma = (double)s->n / 80.0;
    const int64_t reach = (int64_t)(3.0 * sigma);
    double *kernel = mm_xmalloc((size_t)(reach + 1) * sizeof *kernel);
    for (int64_t k = 0; k <= reach; k++)
        kernel[k] = reach == 0 ? 1.0 : exp(-0.5 * (double)(k * k) / (sigma * sigma));
    for (int64_t i = 0; i < s->n; i++) {
        const int64_t begin = i > reach ? i - reach : 0;
        const int64_t end = i + reach < s->n ? i + reach : s->n - 1;
        double sum = 0.0, weight = 0.0;
        for (int64_t j = begin; j <= end; j++) {
            const double k = kernel[j < i ? i - j : j - i];
            sum += k * s->points[j].loss;
            weight += k;
        }
        y[i] = sum / weight;
    }
    free(kernel);
    return y;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The range of the losses: all of the mean, and all points but the outermost half percent.
static struct axis loss_axis(const struct mm_plot_series *s, const double *mean) {
    double *sorted = mm_xmalloc((size_t)s->n * sizeof *sorted);
    struct axis a = {.low = mean[0], .high = mean[0]};
    for (int64_t i = 0; i < s->n; i++) {
        sorted[i] = s->points[i].loss;
        a.low = fmin(a.low, mean[i]);
        a.high = fmax(a.high, mean[i]);
    }
    qsort(sorted, (size_t)s->n, sizeof *sorted, compare);
    const int64_t out = s->n / 200;
    a.low = fmin(a.low, sorted[out]);
    a.high = fmax(a.high, sorted[s->n - 1 - out]);
    // sorted[0] may lie below the range, but not below zero
    a.log = sorted[0] > 0.0 && a.high / a.low > 12.0;
    free(sorted);
    if (a.log) {
        a.low = log10(a.low), a.high = log10(a.high);
    } else if (a.low >= 0.0 && a.low < 0.35 * a.high) {
        a.low = 0.0;  // the foot of the axis, when it is near
    }
    double room = 0.05 * (a.high - a.low);
    if (!(room > 1e-12 * fabs(a.high))) room = fmax(0.05 * fabs(a.high), 1e-12);
    a.high += room;
    if (a.log || a.low != 0.0) a.low -= room;
    return a;
}

// ---- drawing ------------------------------------------------------------------------------------

static double half_pixel(double v) {
    return floor(v * 2.0) / 2.0 + 0.25;  // the picture is drawn at twice its size
}

static void draw_axes(cairo_t *cr, const struct axis *x, const struct axis *y) {
    double ticks[max_ticks];
    char text[32];
    cairo_set_line_width(cr, 1.0);
    int n = y->log ? log_ticks(y, ticks) : linear_ticks(y, 5, false, ticks);
    for (int i = 0; i < n; i++) {
        const double at = half_pixel(place(y, ticks[i]));
        mm_plot_set_color(cr, grid);
        cairo_move_to(cr, x->from, at);
        cairo_line_to(cr, x->to, at);
        cairo_stroke(cr);
        tick_text(text, ticks[i], false);
        mm_plot_text(cr, x->from - 8, at + 4.2, 1.0, 12, false, mm_plot_faint_ink, text);
    }
    n = linear_ticks(x, (int)((x->to - x->from) / 90.0), true, ticks);
    for (int i = 0; i < n; i++) {
        const double at = half_pixel(place(x, ticks[i]));
        mm_plot_set_color(cr, mm_plot_faint_ink);
        cairo_move_to(cr, at, y->from);
        cairo_line_to(cr, at, y->from + 5);
        cairo_stroke(cr);
        tick_text(text, ticks[i], true);
        mm_plot_text(cr, at, y->from + 19, 0.5, 12, false, mm_plot_faint_ink, text);
    }
    mm_plot_set_color(cr, mm_plot_faint_ink);
    cairo_move_to(cr, x->from, half_pixel(y->from));
    cairo_line_to(cr, x->to, half_pixel(y->from));
    cairo_stroke(cr);
}

// One dot a step; where dots would cover each other, a stroke from the least to the largest loss in
// each column of pixels.
static void draw_points(cairo_t *cr, const struct mm_plot_series *s, const struct axis *x,
                        const struct axis *y) {
    const int64_t columns = (int64_t)((x->to - x->from) * 2.0);
    if (s->n <= 3 * columns) {
        mm_plot_set_color(cr, mm_plot_dots);
        for (int64_t i = 0; i < s->n; i++) {
            cairo_arc(cr, place(x, s->points[i].step), place(y, s->points[i].loss), 1.8, 0, 6.2832);
            cairo_fill(cr);
        }
        return;
    }
    mm_plot_set_color(cr, mm_plot_dots);
    cairo_set_line_width(cr, 0.5);
    for (int64_t c = 0; c < columns; c++) {
        const int64_t begin = c * s->n / columns, end = (c + 1) * s->n / columns;
        double least = s->points[begin].loss, most = least;
        for (int64_t i = begin; i < end; i++) {
            least = fmin(least, s->points[i].loss);
            most = fmax(most, s->points[i].loss);
        }
        const double at = x->from + ((double)c + 0.5) / 2.0;
        cairo_move_to(cr, at, place(y, least));
        cairo_line_to(cr, at, place(y, most) - 0.5);
        cairo_stroke(cr);
    }
}

static void draw_mean(cairo_t *cr, const struct mm_plot_series *s, const double *mean,
                      const struct axis *x, const struct axis *y) {
    const int64_t most = (int64_t)(x->to - x->from), stride = s->n / most + 1;
    for (int64_t i = 0; i < s->n; i += stride)
        cairo_line_to(cr, place(x, s->points[i].step), place(y, mean[i]));
    cairo_line_to(cr, place(x, s->points[s->n - 1].step), place(y, mean[s->n - 1]));
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
    cairo_set_line_width(cr, 2.6);
    mm_plot_set_color(cr, mm_plot_blue);
    cairo_stroke(cr);
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_BUTT);
}

// The learning rate from 0 at the foot to its peak near the top, with an axis of its own.
static void draw_lr(cairo_t *cr, const struct mm_plot_series *s, const struct axis *x,
                    const struct axis *y) {
    double peak = 0.0;
    for (int64_t i = 0; i < s->n; i++)
        peak = fmax(peak, s->points[i].lr);
    if (peak <= 0.0) return;
    const struct axis a = {.low = 0.0, .high = peak / 0.96, .from = y->from, .to = y->to};
    const int64_t most = (int64_t)(x->to - x->from) * 2, stride = s->n / most + 1;
    for (int64_t i = 0; i < s->n; i += stride)
        cairo_line_to(cr, place(x, s->points[i].step), place(&a, s->points[i].lr));
    cairo_line_to(cr, place(x, s->points[s->n - 1].step), place(&a, s->points[s->n - 1].lr));
    cairo_set_line_width(cr, 1.2);
    mm_plot_set_color(cr, mm_plot_orange);
    cairo_stroke(cr);
    for (int i = 0; i <= 2; i++) {
        char text[32];
        tick_text(text, peak * i / 2.0, false);
        mm_plot_text(cr, x->to + 8, place(&a, peak * i / 2.0) + 4.0, 0.0, 11, false, mm_plot_orange,
                     text);
    }
}

// A dot at the end of the mean and its value, on a light ground so that it can be read over dots.
static void draw_last(cairo_t *cr, const struct mm_plot_series *s, const double *mean,
                      const struct axis *x, const struct axis *y) {
    const double px = place(x, s->points[s->n - 1].step), py = place(y, mean[s->n - 1]);
    char text[32];
    snprintf(text, sizeof text, "%.4g", mean[s->n - 1]);
    mm_plot_set_color(cr, mm_plot_blue);
    cairo_arc(cr, px, py, 4.0, 0, 6.2832);
    cairo_fill(cr);
    const bool below = py - 34 < y->to;
    const double ty = below ? py + 26 : py - 14;
    cairo_text_extents_t e;
    cairo_select_font_face(cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_BOLD);
    cairo_set_font_size(cr, 13);
    cairo_text_extents(cr, text, &e);
    cairo_set_source_rgba(cr, 1, 1, 1, 0.85);
    cairo_rectangle(cr, px - e.x_advance - 4, ty - 13, e.x_advance + 8, 18);
    cairo_fill(cr);
    mm_plot_text(cr, px, ty, 1.0, 13, true, mm_plot_blue, text);
}

void mm_plot_panel(cairo_t *cr, double left, double top, double w, double h, const char *title,
                   const char *what, const struct mm_plot_series *s) {
    double *mean = smoothed(s);
    struct axis y = loss_axis(s, mean);
    y.from = top + h - 52, y.to = top + 34;
    const double last = s->points[s->n - 1].step, first = s->points[0].step;
    struct axis x = {.low = first <= 0.1 * last ? 0.0 : first, .high = last};
    if (x.high <= x.low) x.low = x.high - 1.0, x.high += 1.0;
    x.from = left + 72, x.to = left + w - 62;
    if (title) mm_plot_text(cr, x.from, top + 16, 0.0, 14, true, mm_plot_ink, title);
    draw_axes(cr, &x, &y);
    cairo_save(cr);
    cairo_rectangle(cr, x.from - 2, y.to, x.to - x.from + 4, y.from - y.to);
    cairo_clip(cr);
    draw_points(cr, s, &x, &y);
    cairo_restore(cr);
    draw_lr(cr, s, &x, &y);
    draw_mean(cr, s, mean, &x, &y);
    draw_last(cr, s, mean, &x, &y);
    mm_plot_text(cr, (x.from + x.to) / 2, y.from + 40, 0.5, 12.5, false, mm_plot_ink, "step");
    char label[128];
    snprintf(label, sizeof label, "%s%s", what, y.log ? " (log scale)" : "");
    cairo_save(cr);
    cairo_translate(cr, left + 16, (y.from + y.to) / 2);
    cairo_rotate(cr, -1.5707963267948966);
    mm_plot_text(cr, 0, 0, 0.5, 12.5, false, mm_plot_ink, label);
    cairo_restore(cr);
    free(mean);
}
