// Texts counted once: each different text gets the next number, from 0.
#ifndef MM_EVAL_NAMES_H
#define MM_EVAL_NAMES_H

#include <stdint.h>
#include "base/buf.h"
#include "eval/str.h"

struct mm_names {
    struct mm_buf text;  // all of them, each followed by a zero byte
    int64_t n, cap;
    size_t *at;       // (n + 1) where each begins in text
    uint64_t *hash;   // (n)
    int64_t *slot;    // (n_slots) number, or -1
    int64_t n_slots;  // a power of two
};

void mm_names_free(struct mm_names *names);
// The number of s; a new one when it was not there (then it equals the old names->n).
int64_t mm_names_add(struct mm_names *names, struct mm_str s);
int64_t mm_names_find(const struct mm_names *names, struct mm_str s);      // -1: not there
struct mm_str mm_names_get(const struct mm_names *names, int64_t number);  // zero-terminated too
// Numbers in byte order of their texts; (n) malloc'ed.
int64_t *mm_names_sorted(const struct mm_names *names);

#endif
