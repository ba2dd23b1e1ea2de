// One panel of the picture of a run: the axes, the losses of one stage, its learning rate.
#ifndef MM_TRAIN_PLOT_PANEL_H
#define MM_TRAIN_PLOT_PANEL_H

#include <stdint.h>
#include "io/chart.h"

struct mm_plot_point {
    double step, loss, lr;
};

struct mm_plot_series {
    struct mm_plot_point *points;  // steps rise
    int64_t n, cap;
};

// The panel fills (x, y, w, h), axis labels and title included. `what` names the loss.
void mm_plot_panel(cairo_t *cr, double x, double y, double w, double h, const char *title,
                   const char *what, const struct mm_plot_series *s);

#endif
