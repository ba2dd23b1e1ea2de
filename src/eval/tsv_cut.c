// Cutting tables into rows and cells as pandas' C parser does.
#include "eval/tsv_cut.h"

void mm_tsv_find_stop(struct mm_tsv_walk *w) {
    if (!w->lf || w->lf < w->p) {
        w->lf = memchr(w->p, '\n', (size_t)(w->end - w->p));
        if (!w->lf) w->lf = w->end;
    }
    const char *cr = memchr(w->p, '\r', (size_t)(w->lf - w->p));
    w->stop = cr ? cr : w->lf;
}

static void skip_line_end(struct mm_tsv_walk *w) {
    if (w->p < w->end && *w->p == '\r') {
        w->p++;
        if (w->p < w->end && *w->p == '\n') w->p++;
    } else if (w->p < w->end) {
        w->p++;
    }
}

// To the next line that is not empty or of spaces only. False at the end of the file.
bool mm_tsv_next_line(struct mm_tsv_walk *w) {
    while (w->p < w->end) {
        const char *q = w->p;
        while (q < w->end && *q == ' ')
            q++;
        if (q == w->end) return false;
        if (*q != '\n' && *q != '\r') {
            mm_tsv_find_stop(w);
            return true;
        }
        w->p = q + 1;
        // Behind an empty line that ends with CR alone, pandas loses a tab.
        if (*q == '\r' && w->p < w->end && (*w->p == '\n' || *w->p == '\t')) w->p++;
    }
    return false;
}

// A quoted cell, w->p at its first quote: to the tab or line end behind the closing quote.
static void skip_quoted(struct mm_tsv_walk *w) {
    const char *q = w->p + 1;
    for (;;) {
        q = memchr(q, '"', (size_t)(w->end - q));
        if (!q) {
            w->open_quote = true;
            w->p = w->stop = w->end;
            return;
        }
        if (q + 1 < w->end && q[1] == '"') {
            q += 2;
        } else {
            break;
        }
    }
    w->p = q + 1;
    if (w->p > w->stop) mm_tsv_find_stop(w);
}

// Cuts the row at w->p into at most `room` cells and goes behind its line end. Returns the number
// of cells that the row has.
int mm_tsv_cut_row(struct mm_tsv_walk *w, struct mm_tsv_raw *raw, int room) {
    int n = 0;
    for (;;) {
        const char *begin = w->p;
        if (w->p < w->end && *w->p == '"') skip_quoted(w);
        const char *tab = memchr(w->p, '\t', (size_t)(w->stop - w->p));
        const char *end = tab ? tab : w->stop;
        if (n < room) raw[n] = (struct mm_tsv_raw){begin, end};
        n++;
        w->p = end;
        if (!tab) break;
        w->p = tab + 1;
    }
    skip_line_end(w);
    return n;
}

// The text of a cell; decoded into *room where quotes have to be taken off.
struct mm_str mm_tsv_decode(struct mm_tsv_raw raw, struct mm_buf *room) {
    const size_t n = (size_t)(raw.end - raw.begin);
    if (n == 0 || raw.begin[0] != '"') return (struct mm_str){raw.begin, n};
    if (n >= 2 && raw.end[-1] == '"' && !memchr(raw.begin + 1, '"', n - 2)) {
        return (struct mm_str){raw.begin + 1, n - 2};
    }
    mm_buf_reset(room);
    mm_buf_add(room, "", 0);
    const char *p = raw.begin + 1;
    for (;;) {
        const char *q = memchr(p, '"', (size_t)(raw.end - p));
        mm_buf_add(room, p, (size_t)(q - p));
        p = q + 1;
        if (p == raw.end || *p != '"') break;
        mm_buf_add(room, "\"", 1);
        p++;
    }
    mm_buf_add(room, p, (size_t)(raw.end - p));  // what follows the closing quote
    return (struct mm_str){room->data ? room->data : "", room->len};
}
