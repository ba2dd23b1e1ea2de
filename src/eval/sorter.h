// Sorting more than fits in memory: records of a key and a value, in the byte order of their keys;
// equal keys stay in the order in which they came. Memory holds `room` bytes of them; sorted pieces
// of that size go to a temporary file and are merged. A sorter of few records makes no file.
#ifndef MM_EVAL_SORTER_H
#define MM_EVAL_SORTER_H

#include <stdint.h>
#include "base/status.h"
#include "eval/str.h"

struct mm_sorter;

enum { mm_sorter_room = 1 << 20 };

struct mm_sorter *mm_sorter_new(size_t room);  // 0: mm_sorter_room
void mm_sorter_free(struct mm_sorter *s);      // NULL is allowed
enum mm_code mm_sorter_add(struct mm_sorter *s, struct mm_str key, struct mm_str value,
                           struct mm_error *err);
// The value is both, one behind the other.
enum mm_code mm_sorter_add_two(struct mm_sorter *s, struct mm_str key, struct mm_str value,
                               struct mm_str more, struct mm_error *err);
// After the last add and before the first next.
enum mm_code mm_sorter_sort(struct mm_sorter *s, struct mm_error *err);
// Begins again with the first.
enum mm_code mm_sorter_rewind(struct mm_sorter *s, struct mm_error *err);
// The next record, valid until the one after it is asked for; key->s is NULL behind the last.
enum mm_code mm_sorter_next(struct mm_sorter *s, struct mm_str *key, struct mm_str *value,
                            struct mm_error *err);

// Numbers as keys: their bytes from the highest to the lowest, so that they sort by value.
static inline struct mm_str mm_sorter_number(int64_t v, char room[8]) {
    for (int i = 0; i < 8; i++) {
        room[i] = (char)((uint64_t)v >> (56 - 8 * i));
    }
    return (struct mm_str){room, 8};
}

static inline int64_t mm_sorter_number_of(struct mm_str key) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) {
        v = v << 8 | (unsigned char)key.s[i];
    }
    return (int64_t)v;
}

// Values that are structs.
#define MM_SORTER_VALUE(v) ((struct mm_str){(const char *)&(v), sizeof(v)})

#endif
