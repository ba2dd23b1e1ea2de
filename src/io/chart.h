// What pictures of numbers are drawn with: ink, text, scales, axes, and the PNG at the end.
#ifndef MM_IO_CHART_H
#define MM_IO_CHART_H

#include <cairo.h>
#include <stdbool.h>
#include "base/status.h"

enum { mm_chart_scale = 2 };  // pictures are drawn at twice their size

struct mm_chart_color {
    double r, g, b, a;
};
extern const struct mm_chart_color mm_chart_ink, mm_chart_faint_ink, mm_chart_blue, mm_chart_orange,
    mm_chart_green;

void mm_chart_set_color(cairo_t *cr, struct mm_chart_color c);
// Text at (x, y) of its baseline; align 0: starts there, 0.5: centred, 1: ends there. Returns the
// width.
double mm_chart_text(cairo_t *cr, double x, double y, double align, double size, bool bold,
                     struct mm_chart_color color, const char *text);
double mm_chart_text_width(cairo_t *cr, double size, bool bold, const char *text);

struct mm_chart_axis {
    double low, high;  // values at the two ends; of the logarithm where `log` is set
    bool log;
    bool counts;      // whole numbers, shown as 12k and 3M
    double from, to;  // pixels
};
double mm_chart_place(const struct mm_chart_axis *a, double v);
void mm_chart_number(char out[32], double v, bool counts);  // "12k", "0.5", "2e-07"
// Grid and numbers: x below, y on the left.
void mm_chart_axes(cairo_t *cr, const struct mm_chart_axis *x, const struct mm_chart_axis *y);
// What the two axes show: `below` under the x axis, `beside` along the y axis at `left`.
void mm_chart_axis_names(cairo_t *cr, const struct mm_chart_axis *x, const struct mm_chart_axis *y,
                         double left, const char *below, const char *beside);

// A white picture of w x h at mm_chart_scale, and its end: written to path as PNG, atomic.
cairo_t *mm_chart_begin(double w, double h);
enum mm_code mm_chart_end(cairo_t *cr, const char *path, struct mm_error *err);

#endif
