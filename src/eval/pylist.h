// A Python list literal of strings, as cells of TSV files hold them: ['a', "b"].
#ifndef MM_EVAL_PYLIST_H
#define MM_EVAL_PYLIST_H

#include <stdint.h>
#include "base/buf.h"
#include "eval/str.h"

struct mm_pylist {
    struct mm_buf text;  // the strings one behind the other
    size_t *end;         // (n) where each ends in text
    int64_t n, cap;
};

void mm_pylist_free(struct mm_pylist *l);
// Reads s into *l, overwriting it. Understands both quotes, triple quotes, the prefixes r and u,
// neighbours that are one string, all escapes but \N{...}, white space, a comma at the end.
// False when s is anything else.
bool mm_pylist_read(struct mm_pylist *l, struct mm_str s);
struct mm_str mm_pylist_get(const struct mm_pylist *l, int64_t i);

#endif
