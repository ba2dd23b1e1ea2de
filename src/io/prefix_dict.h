// A set of byte strings that answers: which of them are prefixes of this text? A sorted array that
// is narrowed by one byte at a time serves as the trie; it needs no memory beyond the array.
#ifndef MM_IO_PREFIX_DICT_H
#define MM_IO_PREFIX_DICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mm_prefix_entry {
    const char *text;  // not zero-terminated, borrowed
    uint32_t len;      // >= 1
    int32_t value;     // >= 0
};

struct mm_prefix_dict {
    struct mm_prefix_entry *entries;  // (n), in byte order
    int32_t n;
    int32_t first[257];  // entries that open with byte c are [first[c], first[c + 1])
};

// Takes over `entries` (from mm_xmalloc; NULL when n is 0) and sorts them. Texts must differ.
void mm_prefix_dict_init(struct mm_prefix_dict *d, struct mm_prefix_entry *entries, int32_t n);
void mm_prefix_dict_deinit(struct mm_prefix_dict *d);

// Walks down a text: after k steps the entries [lo, hi) are those that open with its first k bytes.
struct mm_prefix_cursor {
    int32_t lo, hi;
    uint32_t depth;
};
// False when no entry opens with the bytes so far. *value is the value of the entry that is exactly
// the bytes so far, or -1.
bool mm_prefix_step(const struct mm_prefix_dict *d, struct mm_prefix_cursor *c, unsigned char byte,
                    int32_t *value);

// Value of the longest entry that is a prefix of text[0, n), with its length in *len; -1: none.
int32_t mm_prefix_longest(const struct mm_prefix_dict *d, const char *text, size_t n, size_t *len);

#endif
