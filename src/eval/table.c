// Tables of texts.
#include "eval/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void mm_table_init(struct mm_table *t, int n_columns) {
    *t = (struct mm_table){.n_columns = n_columns};
}

void mm_table_free(struct mm_table *t) {
    for (int i = 0; i < t->n_rows * t->n_columns; i++) {
        free(t->cell[i]);
    }
    free(t->cell);
    *t = (struct mm_table){0};
}

int mm_table_row(struct mm_table *t) {
    const size_t n = (size_t)t->n_columns;
    t->cell = mm_xrealloc(t->cell, ((size_t)t->n_rows + 1) * n * sizeof(char *));
    for (size_t i = 0; i < n; i++) {
        t->cell[(size_t)t->n_rows * n + i] = NULL;
    }
    return t->n_rows++;
}

void mm_table_set(struct mm_table *t, int column, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char **cell = &t->cell[(t->n_rows - 1) * t->n_columns + column];
    free(*cell);
    *cell = mm_xstrdup(text);
}

// Characters, not bytes: what a column's width is made of.
static int width_of(const char *s) {
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static const char *text_at(const struct mm_table *t, int row, int column) {
    const char *s = t->cell[row * t->n_columns + column];
    return s ? s : "";
}

static void print_markdown(const struct mm_table *t, int n_left, struct mm_buf *out) {
    for (int row = 0; row < t->n_rows; row++) {
        for (int c = 0; c < t->n_columns; c++) {
            mm_buf_adds(out, c ? " | " : "| ");
            for (const char *s = text_at(t, row, c); *s; s++) {
                if (*s == '|') mm_buf_adds(out, "\\");
                mm_buf_add(out, s, 1);
            }
        }
        mm_buf_adds(out, " |\n");
        for (int c = 0; row == 0 && c < t->n_columns; c++) {
            mm_buf_adds(out, c < n_left ? "|---" : "|---:");
        }
        if (row == 0) mm_buf_adds(out, "|\n");
    }
}

void mm_table_print(const struct mm_table *t, int n_left, bool markdown, struct mm_buf *out) {
    if (markdown) {
        print_markdown(t, n_left, out);
        return;
    }
    int *wide = mm_xcalloc((size_t)t->n_columns, sizeof *wide);
    for (int row = 0; row < t->n_rows; row++) {
        for (int c = 0; c < t->n_columns; c++) {
            const int w = width_of(text_at(t, row, c));
            if (w > wide[c]) wide[c] = w;
        }
    }
    for (int row = 0; row < t->n_rows; row++) {
        int owed = 0;  // spaces, written when something follows
        for (int c = 0; c < t->n_columns; c++) {
            const char *s = text_at(t, row, c);
            const int rest = wide[c] - width_of(s);
            owed += (c ? 2 : 0) + (c < n_left ? 0 : rest);
            if (*s) {
                mm_buf_addf(out, "%*s%s", owed, "", s);
                owed = 0;
            } else {
                owed += wide[c] - rest;
            }
            if (c < n_left) owed += rest;
        }
        mm_buf_adds(out, "\n");
    }
    free(wide);
}
