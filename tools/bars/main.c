// bars: a table of percentages as groups of bars, in a PNG.
//     bars OUT.png <TABLE       TABLE: tab-separated; the first row and column are names
#include <cairo.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { max_rows = 32, max_cols = 16, max_name = 64, group = 166, tall = 260, left = 46, top = 58 };

struct table {
    int n_rows, n_cols;  // without names
    char row[max_rows][max_name], col[max_cols][max_name];
    double value[max_rows][max_cols];
};

// The names of a table's first line, or the name and numbers of another. False: not a table.
static bool read_line(struct table *t, char *line, bool first) {
    line[strcspn(line, "\n")] = 0;
    char *rest = line;
    const char *name = strsep(&rest, "\t");
    if (!first && t->n_rows == max_rows) return false;
    if (!first) snprintf(t->row[t->n_rows], max_name, "%s", name);
    int n = 0;
    for (const char *cell; (cell = strsep(&rest, "\t")) != NULL; n++) {
        if (n == max_cols) return false;
        if (first) {
            snprintf(t->col[n], max_name, "%s", cell);
            continue;
        }
        char *end;
        t->value[t->n_rows][n] = strtod(cell, &end);
        if (end == cell || *end) return false;
    }
    if (first) t->n_cols = n;
    if (!first) t->n_rows++;
    return n > 0 && n == t->n_cols;
}

static bool read_table(struct table *t, FILE *f) {
    char line[4096];
    for (bool first = true; fgets(line, sizeof line, f); first = false) {
        if (!read_line(t, line, first)) return false;
    }
    return t->n_rows > 0;
}

// From pale to dark as training goes on; the last column, what they are measured by, is grey.
static void pick_colour(cairo_t *c, const struct table *t, int col) {
    const double at = t->n_cols > 2 ? (double)col / (t->n_cols - 2) : 1;
    if (col == t->n_cols - 1) {
        cairo_set_source_rgb(c, 0.6, 0.6, 0.6);
    } else {
        cairo_set_source_rgb(c, 0.75 - 0.7 * at, 0.85 - 0.5 * at, 0.95 - 0.3 * at);
    }
}

static void write_at(cairo_t *c, double x, double y, double size, const char *text) {
    cairo_set_source_rgb(c, 0.15, 0.15, 0.15);
    cairo_set_font_size(c, size);
    cairo_move_to(c, x, y);
    cairo_show_text(c, text);
}

static void draw_axis(cairo_t *c, double width) {
    char text[16];
    for (int p = 0; p <= 100; p += 25) {
        const double y = top + tall * (1 - p / 100.0);
        cairo_set_source_rgb(c, 0.88, 0.88, 0.88);
        cairo_rectangle(c, left, y - 0.5, width - left - 10, 1);
        cairo_fill(c);
        snprintf(text, sizeof text, "%d%%", p);
        write_at(c, 6, y + 4, 11, text);
    }
}

static void draw_bars(cairo_t *c, const struct table *t) {
    const double wide = (group - 24.0) / t->n_cols;
    for (int r = 0; r < t->n_rows; r++) {
        const double x = left + 12 + r * group;
        for (int k = 0; k < t->n_cols; k++) {
            const double v = t->value[r][k] < 0 ? 0 : t->value[r][k] > 100 ? 100 : t->value[r][k];
            pick_colour(c, t, k);
            cairo_rectangle(c, x + k * wide, top + tall * (1 - v / 100), wide - 2, tall * v / 100);
            cairo_fill(c);
        }
        write_at(c, x, top + tall + 18, 11, t->row[r]);
    }
}

static void draw_legend(cairo_t *c, const struct table *t) {
    for (int k = 0; k < t->n_cols; k++) {
        pick_colour(c, t, k);
        cairo_rectangle(c, left + 12 + k * 110, 18, 14, 14);
        cairo_fill(c);
        write_at(c, left + 32 + k * 110, 30, 13, t->col[k]);
    }
}

int main(int argc, char **argv) {
    static struct table t;
    if (argc != 2) {
        fprintf(stderr, "bars: wanted OUT.png, and the table on standard input\n");
        return 2;
    }
    if (!read_table(&t, stdin)) {
        fprintf(stderr,
                "bars: standard input is no table of numbers with names, at most %d by %d\n",
                max_rows, max_cols);
        return 1;
    }
    const int by_rows = left + 20 + t.n_rows * group, by_cols = left + 20 + t.n_cols * 110;
    const int width = by_rows > by_cols ? by_rows : by_cols;
    cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, top + tall + 34);
    cairo_t *c = cairo_create(s);
    cairo_set_source_rgb(c, 1, 1, 1);
    cairo_paint(c);
    cairo_select_font_face(c, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    draw_axis(c, width);
    draw_bars(c, &t);
    draw_legend(c, &t);
    const cairo_status_t status = cairo_surface_write_to_png(s, argv[1]);
    if (status) fprintf(stderr, "bars: %s: %s\n", argv[1], cairo_status_to_string(status));
    cairo_destroy(c);
    cairo_surface_destroy(s);
    return status ? 1 : 0;
}
