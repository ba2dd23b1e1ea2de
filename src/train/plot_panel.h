// One panel of the picture of a run: the axes, the losses of one stage, its learning rate.
#ifndef MM_TRAIN_PLOT_PANEL_H
#define MM_TRAIN_PLOT_PANEL_H

#include <cairo.h>
#include <stdbool.h>
#include <stdint.h>

struct mm_plot_point {
    double step, loss, lr;
};

struct mm_plot_series {
    struct mm_plot_point *points;  // steps rise
    int64_t n, cap;
};

struct mm_plot_color {
    double r, g, b, a;
};
extern const struct mm_plot_color mm_plot_ink, mm_plot_faint_ink, mm_plot_blue, mm_plot_dots,
    mm_plot_orange;

void mm_plot_set_color(cairo_t *cr, struct mm_plot_color c);
// Text at (x, y) of its baseline; align 0: starts there, 0.5: centred, 1: ends there. Returns the
// width.
double mm_plot_text(cairo_t *cr, double x, double y, double align, double size, bool bold,
                    struct mm_plot_color color, const char *text);

// The panel fills (x, y, w, h), axis labels and title included. `what` names the loss.
void mm_plot_panel(cairo_t *cr, double x, double y, double w, double h, const char *title,
                   const char *what, const struct mm_plot_series *s);

#endif
