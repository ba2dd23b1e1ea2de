// "Did you mean": the nearest of some names by edit distance, when one is near enough.
#ifndef MM_BASE_SUGGEST_H
#define MM_BASE_SUGGEST_H

#include <stddef.h>

struct mm_suggest {
    const char *wanted;
    size_t wanted_len;
    const char *name;  // the best so far, borrowed; NULL: none is near
    size_t name_len;
    size_t distance;  // of the best; above the limit while there is none
};

struct mm_suggest mm_suggest_begin(const char *wanted, size_t n);
void mm_suggest_try(struct mm_suggest *s, const char *name, size_t n);  // the first of equals wins

#endif
