// Optimal string alignment distance (insert, delete, replace, swap neighbours), in bytes.
#include "base/suggest.h"

#include <string.h>

enum { longest = 64 };

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t distance(const char *a, size_t n, const char *b, size_t m) {
    size_t rows[3][longest + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++) {
        last[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t replaced = last[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = least(replaced, least(last[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = least(row[j], before[j - 2] + 1);
            }
        }
        size_t *t = before;
        before = last, last = row, row = t;
    }
    return last[m];
}

struct mm_suggest mm_suggest_begin(const char *wanted, size_t n) {
    // A third of the word may be wrong; beyond that a suggestion is noise.
    return (struct mm_suggest){.wanted = wanted, .wanted_len = n, .distance = n / 3 + 1 + 1};
}

void mm_suggest_try(struct mm_suggest *s, const char *name, size_t n) {
    if (s->wanted_len > longest || n > longest) return;
    const size_t d = distance(s->wanted, s->wanted_len, name, n);
    if (d < s->distance) {
        s->distance = d;
        s->name = name;
        s->name_len = n;
    }
}
