// A table of tab-separated values as pandas.read_csv(file, sep='\t') reads it:
// - quoted cells may hold tabs and line ends, "" inside them is one quote, text after the closing
//   quote belongs to the cell, a quote inside an unquoted cell is an ordinary character;
// - lines end with LF, CR or CR LF; empty lines and lines of spaces are skipped; short rows are
//   filled with missing cells;
// - a cell, quoted or not, that is one of 19 texts ("", "NA", "None", ...) is missing;
// - a column whose cells that are there are all whole numbers, numbers or True/False is numeric,
//   and its cells read as Python prints them.
// Refused, where pandas would guess: rows longer than the header, zero bytes.
// The file is mapped, and what was read is given back: a table of any size takes a few megabytes.
// Kept are the places of some rows; cells are decoded when asked for.
#ifndef MM_EVAL_TSV_H
#define MM_EVAL_TSV_H

#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/mmap.h"
#include "base/status.h"
#include "eval/str.h"

enum mm_tsv_kind {
    mm_tsv_kind_text,
    mm_tsv_kind_int,  // 64 bits, or unsigned 64 bits
    mm_tsv_kind_float,
    mm_tsv_kind_bool,
};

struct mm_tsv_column {
    char *name;
    enum mm_tsv_kind kind;
    int64_t n_missing;  // cells
    bool whole;         // a float column without a fraction
    bool from_int;      // a float column only because cells are missing
};

struct mm_tsv {
    char *path;
    struct mm_map map;
    bool pandas1;  // "None" is text, as before pandas 2
    int n_columns;
    struct mm_tsv_column *column;  // (n_columns)
    int64_t n_rows;
    int64_t step;     // of rows between two places that are kept
    int64_t *anchor;  // (n_anchors) where rows 0, step, 2 * step, ... begin
    int64_t n_anchors;
};

enum { mm_tsv_max_columns = 1024, mm_tsv_max_anchors = 1 << 15 };

// On failure *t holds nothing. Errors name the file, the line and the column.
enum mm_code mm_tsv_open(struct mm_tsv *t, const char *path, bool pandas1, struct mm_error *err);
void mm_tsv_close(struct mm_tsv *t);
int mm_tsv_find(const struct mm_tsv *t, const char *name);  // the first of that name; -1: none
int64_t mm_tsv_line(const struct mm_tsv *t, int64_t row);   // in the file, from 1; reads the file

// Counts n_missing and whole again without the rows whose cell in `column` is missing: what the
// result form goes by once those rows have been dropped.
void mm_tsv_recount(struct mm_tsv *t, int column);

struct mm_tsv_raw {  // a cell as it stands in the file
    const char *begin, *end;
};

// One row of a table; reading another row reuses the memory.
struct mm_tsv_row {
    const struct mm_tsv *tsv;
    int64_t row;
    struct mm_tsv_raw *raw;  // (n_columns)
    struct mm_buf *text;     // (n_columns) cells that had to be decoded
    size_t end;              // of the file, where the row ends
    size_t passed;           // bytes of the mapping before this are given back
};
void mm_tsv_row_init(struct mm_tsv_row *r, const struct mm_tsv *t);
void mm_tsv_row_deinit(struct mm_tsv_row *r);
void mm_tsv_row_load(struct mm_tsv_row *r, int64_t row);

// How a cell prints: as in the table, or after the results were written to an xlsx file and read
// back, as VLMEvalKit does before it scores (True in a column with missing cells has become 1.0,
// and 5.0 in a whole column without missing cells 5).
enum mm_tsv_form { mm_tsv_form_table, mm_tsv_form_result };

// The cell's text, valid until the next load; .s is NULL when the cell is missing or column < 0.
struct mm_str mm_tsv_cell(struct mm_tsv_row *r, int column, enum mm_tsv_form form);

// Whether a text alone in a cell counts as missing.
bool mm_tsv_is_missing(struct mm_str cell, bool pandas1);

// "<file>: line 12: column 'answer': <what>"; column may be NULL.
enum mm_code mm_tsv_wrong(const struct mm_tsv *t, int64_t row, const char *column,
                          struct mm_error *err, const char *what, ...)
    __attribute__((format(printf, 5, 6)));

#endif
