// A borrowed piece of text: what the readers hand to prompts and scorers without copying.
#ifndef MM_EVAL_STR_H
#define MM_EVAL_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct mm_str {
    const char *s;  // UTF-8, not zero-terminated; NULL: there is none (a missing cell)
    size_t n;
};

static inline struct mm_str mm_str_of(const char *s) {
    return (struct mm_str){s, strlen(s)};
}
static inline bool mm_str_equal(struct mm_str a, struct mm_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.s, b.s, a.n) == 0);
}
// Byte order: below zero, zero or above it as a comes before b.
static inline int mm_str_compare(struct mm_str a, struct mm_str b) {
    const size_t n = a.n < b.n ? a.n : b.n;
    const int order = n ? memcmp(a.s, b.s, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}
static inline bool mm_str_is(struct mm_str a, const char *b) {
    return mm_str_equal(a, mm_str_of(b));
}
static inline bool mm_str_contains(struct mm_str text, struct mm_str part) {
    return part.n == 0 || (text.n >= part.n && memmem(text.s, text.n, part.s, part.n) != NULL);
}

#endif
