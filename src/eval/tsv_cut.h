// Cutting tables into rows and cells; for tsv.c alone.
#ifndef MM_EVAL_TSV_CUT_H
#define MM_EVAL_TSV_CUT_H

#include "eval/tsv.h"

// A walk over the file's bytes. stop is the end of the line that p is in (its CR or LF, or the
// file's end), valid while p <= stop.
struct mm_tsv_walk {
    const char *p, *stop, *end;
    const char *lf;   // the first LF at or behind p, where one was looked for
    bool open_quote;  // the file ended inside a quoted cell
};

void mm_tsv_find_stop(struct mm_tsv_walk *w);  // for the line that p is in
// To the next line that is not empty or of spaces only. False at the end of the file.
bool mm_tsv_next_line(struct mm_tsv_walk *w);
// Cuts the row at w->p into at most `room` cells and goes behind its line end. Returns the number
// of cells that the row has.
int mm_tsv_cut_row(struct mm_tsv_walk *w, struct mm_tsv_raw *raw, int room);
// The text of a cell; decoded into *room where quotes have to be taken off.
struct mm_str mm_tsv_decode(struct mm_tsv_raw raw, struct mm_buf *room);

#endif
