#include "io/chart.h"

#include <math.h>
#include <stdio.h>

#include "base/buf.h"
#include "io/file.h"

const struct mm_chart_color mm_chart_ink = {0.13, 0.15, 0.18, 1.0},
                            mm_chart_faint_ink = {0.40, 0.43, 0.47, 1.0},
                            mm_chart_blue = {0.11, 0.35, 0.63, 1.0},
                            mm_chart_orange = {0.85, 0.48, 0.14, 1.0},
                            mm_chart_green = {0.18, 0.55, 0.34, 1.0};
static const struct mm_chart_color grid = {0.90, 0.91, 0.93, 1.0};

void mm_chart_set_color(cairo_t *cr, struct mm_chart_color c) {
    cairo_set_source_rgba(cr, c.r, c.g, c.b, c.a);
}

double mm_chart_text_width(cairo_t *cr, double size, bool bold, const char *text) {
    cairo_text_extents_t e;
    cairo_select_font_face(cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, size);
    cairo_text_extents(cr, text, &e);
    return e.x_advance;
}

double mm_chart_text(cairo_t *cr, double x, double y, double align, double size, bool bold,
                     struct mm_chart_color color, const char *text) {
    const double width = mm_chart_text_width(cr, size, bold, text);
    mm_chart_set_color(cr, color);
    cairo_move_to(cr, x - align * width, y);
    cairo_show_text(cr, text);
    cairo_new_path(cr);  // what comes next does not start here
    return width;
}

// ---- scales -------------------------------------------------------------------------------------

double mm_chart_place(const struct mm_chart_axis *a, double v) {
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

static int linear_ticks(const struct mm_chart_axis *a, int wanted, double out[max_ticks]) {
    double step = nice_step(a->high - a->low, wanted);
    if (a->counts && step < 1.0) step = 1.0;
    int n = 0;
    for (double k = ceil(a->low / step - 1e-9); n < max_ticks && k * step <= a->high + step * 1e-9;
         k++) {
        out[n++] = k * step;
    }
    return n;
}

// Powers of ten; where they are few, 2 and 5 times them too.
static int log_ticks(const struct mm_chart_axis *a, double out[max_ticks]) {
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

static int ticks_of(const struct mm_chart_axis *a, int wanted, double out[max_ticks]) {
    return a->log ? log_ticks(a, out) : linear_ticks(a, wanted, out);
}

void mm_chart_number(char out[32], double v, bool counts) {
    if (counts && v >= 1e6) {
        snprintf(out, 32, "%gM", v / 1e6);
    } else if (counts && v >= 1e3) {
        snprintf(out, 32, "%gk", v / 1e3);
    } else {
        snprintf(out, 32, "%.4g", fabs(v) < 1e-300 ? 0.0 : v);
    }
}

// ---- axes ---------------------------------------------------------------------------------------

static double half_pixel(double v) {
    return floor(v * mm_chart_scale) / mm_chart_scale + 0.25;
}

void mm_chart_axes(cairo_t *cr, const struct mm_chart_axis *x, const struct mm_chart_axis *y) {
    double ticks[max_ticks];
    char text[32];
    cairo_set_line_width(cr, 1.0);
    int n = ticks_of(y, 5, ticks);
    for (int i = 0; i < n; i++) {
        const double at = half_pixel(mm_chart_place(y, ticks[i]));
        mm_chart_set_color(cr, grid);
        cairo_move_to(cr, x->from, at);
        cairo_line_to(cr, x->to, at);
        cairo_stroke(cr);
        mm_chart_number(text, ticks[i], y->counts);
        mm_chart_text(cr, x->from - 8, at + 4.2, 1.0, 12, false, mm_chart_faint_ink, text);
    }
    n = ticks_of(x, (int)((x->to - x->from) / 90.0), ticks);
    for (int i = 0; i < n; i++) {
        const double at = half_pixel(mm_chart_place(x, ticks[i]));
        mm_chart_set_color(cr, mm_chart_faint_ink);
        cairo_move_to(cr, at, y->from);
        cairo_line_to(cr, at, y->from + 5);
        cairo_stroke(cr);
        mm_chart_number(text, ticks[i], x->counts);
        mm_chart_text(cr, at, y->from + 19, 0.5, 12, false, mm_chart_faint_ink, text);
    }
    mm_chart_set_color(cr, mm_chart_faint_ink);
    cairo_move_to(cr, x->from, half_pixel(y->from));
    cairo_line_to(cr, x->to, half_pixel(y->from));
    cairo_stroke(cr);
}

void mm_chart_axis_names(cairo_t *cr, const struct mm_chart_axis *x, const struct mm_chart_axis *y,
                         double left, const char *below, const char *beside) {
    mm_chart_text(cr, (x->from + x->to) / 2, y->from + 40, 0.5, 12.5, false, mm_chart_ink, below);
    cairo_save(cr);
    cairo_translate(cr, left, (y->from + y->to) / 2);
    cairo_rotate(cr, -1.5707963267948966);
    mm_chart_text(cr, 0, 0, 0.5, 12.5, false, mm_chart_ink, beside);
    cairo_restore(cr);
}

// ---- the picture --------------------------------------------------------------------------------

cairo_t *mm_chart_begin(double w, double h) {
    cairo_surface_t *surface = cairo_image_surface_create(
        CAIRO_FORMAT_RGB24, (int)(w * mm_chart_scale), (int)(h * mm_chart_scale));
    cairo_t *cr = cairo_create(surface);
    cairo_surface_destroy(surface);  // cr holds it
    cairo_scale(cr, mm_chart_scale, mm_chart_scale);
    cairo_set_source_rgb(cr, 1, 1, 1);
    cairo_paint(cr);
    return cr;
}

static cairo_status_t add_bytes(void *to, const unsigned char *data, unsigned int n) {
    mm_buf_add(to, data, n);
    return CAIRO_STATUS_SUCCESS;
}

enum mm_code mm_chart_end(cairo_t *cr, const char *path, struct mm_error *err) {
    struct mm_buf png = {0};
    const cairo_status_t s =
        cairo_surface_write_to_png_stream(cairo_get_target(cr), add_bytes, &png);
    const enum mm_code code = s == CAIRO_STATUS_SUCCESS
                                  ? mm_file_write(path, png.data, png.len, err)
                                  : mm_fail(err, mm_code_memory, "%s: cannot be drawn: %s", path,
                                            cairo_status_to_string(s));
    cairo_destroy(cr);
    mm_buf_free(&png);
    return code;
}
