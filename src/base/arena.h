// Bump allocation out of one block with one lifetime. The same code that takes memory can first
// be run on a dry arena, which only counts: that is how a run says what it will need before it
// starts, and why the plan cannot drift from the use.
#ifndef MM_BASE_ARENA_H
#define MM_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"

struct mm_arena {
    unsigned char *base;  // NULL when dry
    size_t cap;           // bytes; SIZE_MAX when dry
    size_t used;          // bytes, always a multiple of mm_arena_align
    size_t peak;          // the largest `used` so far
    bool owned;           // deinit unmaps base
};

enum { mm_arena_align = 64 };

enum mm_code mm_arena_init(struct mm_arena *a, size_t bytes, struct mm_error *err);  // zero pages
void mm_arena_init_dry(struct mm_arena *a);
void mm_arena_init_over(struct mm_arena *a, void *base, size_t bytes);  // borrowed, any device
void mm_arena_deinit(struct mm_arena *a);

// 64-byte aligned. On a dry arena the result is NULL and only the count moves. Asking for more
// than was planned is a bug and asserts.
void *mm_arena_take(struct mm_arena *a, size_t bytes);

static inline size_t mm_arena_mark(const struct mm_arena *a) {
    return a->used;
}
static inline void mm_arena_release(struct mm_arena *a, size_t mark) {
    a->used = mark;
}

#endif
