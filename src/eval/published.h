// Figures that others have published. Shown beside ours, marked as published, never mixed with
// what was measured here.
#ifndef MM_EVAL_PUBLISHED_H
#define MM_EVAL_PUBLISHED_H

#include "eval/str.h"

// Where they are from, and what is not certain about them: for under the table.
extern const char mm_published_source[], mm_published_speed_source[];

// Rows of an embedded table of tab-separated values; row 0 names the columns.
int mm_published_rows(const char *table);
int mm_published_columns(const char *table);
// The text of a cell; empty where nothing was published.
struct mm_str mm_published_cell(const char *table, int row, int column);
int mm_published_find(const char *table, const char *column);  // -1: there is none

#endif
