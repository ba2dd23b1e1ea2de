#include "train/plot_panel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"

static const struct mm_chart_color dots = {0.11, 0.35, 0.63, 0.22};

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
static struct mm_chart_axis loss_axis(const struct mm_plot_series *s, const double *mean) {
    double *sorted = mm_xmalloc((size_t)s->n * sizeof *sorted);
    struct mm_chart_axis a = {.low = mean[0], .high = mean[0]};
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

// One dot a step; where dots would cover each other, a stroke from the least to the largest loss in
// each column of pixels.
static void draw_points(cairo_t *cr, const struct mm_plot_series *s, const struct mm_chart_axis *x,
                        const struct mm_chart_axis *y) {
    const int64_t columns = (int64_t)((x->to - x->from) * 2.0);
    if (s->n <= 3 * columns) {
        mm_chart_set_color(cr, dots);
        for (int64_t i = 0; i < s->n; i++) {
            cairo_arc(cr, mm_chart_place(x, s->points[i].step),
                      mm_chart_place(y, s->points[i].loss), 1.8, 0, 6.2832);
            cairo_fill(cr);
        }
        return;
    }
    mm_chart_set_color(cr, dots);
    cairo_set_line_width(cr, 0.5);
    for (int64_t c = 0; c < columns; c++) {
        const int64_t begin = c * s->n / columns, end = (c + 1) * s->n / columns;
        double least = s->points[begin].loss, most = least;
        for (int64_t i = begin; i < end; i++) {
            least = fmin(least, s->points[i].loss);
            most = fmax(most, s->points[i].loss);
        }
        const double at = x->from + ((double)c + 0.5) / 2.0;
        cairo_move_to(cr, at, mm_chart_place(y, least));
        cairo_line_to(cr, at, mm_chart_place(y, most) - 0.5);
        cairo_stroke(cr);
    }
}

static void draw_mean(cairo_t *cr, const struct mm_plot_series *s, const double *mean,
                      const struct mm_chart_axis *x, const struct mm_chart_axis *y) {
    const int64_t most = (int64_t)(x->to - x->from), stride = s->n / most + 1;
    for (int64_t i = 0; i < s->n; i += stride)
        cairo_line_to(cr, mm_chart_place(x, s->points[i].step), mm_chart_place(y, mean[i]));
    cairo_line_to(cr, mm_chart_place(x, s->points[s->n - 1].step),
                  mm_chart_place(y, mean[s->n - 1]));
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
    cairo_set_line_width(cr, 2.6);
    mm_chart_set_color(cr, mm_chart_blue);
    cairo_stroke(cr);
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_BUTT);
}

// The learning rate from 0 at the foot to its peak near the top, with an axis of its own.
static void draw_lr(cairo_t *cr, const struct mm_plot_series *s, const struct mm_chart_axis *x,
                    const struct mm_chart_axis *y) {
    double peak = 0.0;
    for (int64_t i = 0; i < s->n; i++)
        peak = fmax(peak, s->points[i].lr);
    if (peak <= 0.0) return;
    const struct mm_chart_axis a = {.low = 0.0, .high = peak / 0.96, .from = y->from, .to = y->to};
    const int64_t most = (int64_t)(x->to - x->from) * 2, stride = s->n / most + 1;
    for (int64_t i = 0; i < s->n; i += stride)
        cairo_line_to(cr, mm_chart_place(x, s->points[i].step),
                      mm_chart_place(&a, s->points[i].lr));
    cairo_line_to(cr, mm_chart_place(x, s->points[s->n - 1].step),
                  mm_chart_place(&a, s->points[s->n - 1].lr));
    cairo_set_line_width(cr, 1.2);
    mm_chart_set_color(cr, mm_chart_orange);
    cairo_stroke(cr);
    for (int i = 0; i <= 2; i++) {
        char text[32];
        mm_chart_number(text, peak * i / 2.0, false);
        mm_chart_text(cr, x->to + 8, mm_chart_place(&a, peak * i / 2.0) + 4.0, 0.0, 11, false,
                      mm_chart_orange, text);
    }
}

// A dot at the end of the mean and its value, on a light ground so that it can be read over dots.
static void draw_last(cairo_t *cr, const struct mm_plot_series *s, const double *mean,
                      const struct mm_chart_axis *x, const struct mm_chart_axis *y) {
    const double px = mm_chart_place(x, s->points[s->n - 1].step),
                 py = mm_chart_place(y, mean[s->n - 1]);
    char text[32];
    snprintf(text, sizeof text, "%.4g", mean[s->n - 1]);
    mm_chart_set_color(cr, mm_chart_blue);
    cairo_arc(cr, px, py, 4.0, 0, 6.2832);
    cairo_fill(cr);
    const bool below = py - 34 < y->to;
    const double ty = below ? py + 26 : py - 14;
    const double width = mm_chart_text_width(cr, 13, true, text);
    cairo_set_source_rgba(cr, 1, 1, 1, 0.85);
    cairo_rectangle(cr, px - width - 4, ty - 13, width + 8, 18);
    cairo_fill(cr);
    mm_chart_text(cr, px, ty, 1.0, 13, true, mm_chart_blue, text);
}

void mm_plot_panel(cairo_t *cr, double left, double top, double w, double h, const char *title,
                   const char *what, const struct mm_plot_series *s) {
    double *mean = smoothed(s);
    struct mm_chart_axis y = loss_axis(s, mean);
    y.from = top + h - 52, y.to = top + 34;
    const double last = s->points[s->n - 1].step, first = s->points[0].step;
    struct mm_chart_axis x = {
        .low = first <= 0.1 * last ? 0.0 : first, .high = last, .counts = true};
    if (x.high <= x.low) x.low = x.high - 1.0, x.high += 1.0;
    x.from = left + 72, x.to = left + w - 62;
    if (title) mm_chart_text(cr, x.from, top + 16, 0.0, 14, true, mm_chart_ink, title);
    mm_chart_axes(cr, &x, &y);
    cairo_save(cr);
    cairo_rectangle(cr, x.from - 2, y.to, x.to - x.from + 4, y.from - y.to);
    cairo_clip(cr);
    draw_points(cr, s, &x, &y);
    cairo_restore(cr);
    draw_lr(cr, s, &x, &y);
    draw_mean(cr, s, mean, &x, &y);
    draw_last(cr, s, mean, &x, &y);
    char label[128];
    snprintf(label, sizeof label, "%s%s", what, y.log ? " (log scale)" : "");
    mm_chart_axis_names(cr, &x, &y, left + 16, "step", label);
    free(mean);
}
