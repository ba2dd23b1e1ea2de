// A table of texts, printed with aligned columns or as markdown.
#ifndef MM_EVAL_TABLE_H
#define MM_EVAL_TABLE_H

#include <stdbool.h>
#include "base/buf.h"

struct mm_table {
    int n_columns, n_rows;  // row 0 is the head
    char **cell;            // (n_rows, n_columns); NULL: empty
};

void mm_table_init(struct mm_table *t, int n_columns);
void mm_table_free(struct mm_table *t);
int mm_table_row(struct mm_table *t);  // adds one; its number
// Writes a cell of the last row.
void mm_table_set(struct mm_table *t, int column, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// The first `n_left` columns to the left, the others, numbers, to the right.
void mm_table_print(const struct mm_table *t, int n_left, bool markdown, struct mm_buf *out);

#endif
