// Texts counted once, by open addressing.
#include "eval/names.h"

#include <stdlib.h>
#include <xxhash.h>

void mm_names_free(struct mm_names *names) {
    mm_buf_free(&names->text);
    free(names->at);
    free(names->hash);
    free(names->slot);
    *names = (struct mm_names){0};
}

struct mm_str mm_names_get(const struct mm_names *names, int64_t number) {
    const size_t at = names->at[number];
    return (struct mm_str){names->text.data + at, names->at[number + 1] - at - 1};
}

// The slot that holds s, or the empty one where it belongs.
static int64_t find_slot(const struct mm_names *names, struct mm_str s, uint64_t hash) {
    const uint64_t mask = (uint64_t)names->n_slots - 1;
    for (uint64_t k = hash & mask;; k = (k + 1) & mask) {
        const int64_t number = names->slot[k];
        if (number < 0) return (int64_t)k;
        if (names->hash[number] == hash && mm_str_equal(mm_names_get(names, number), s)) {
            return (int64_t)k;
        }
    }
}

static void grow(struct mm_names *names) {
    names->cap = names->cap ? 2 * names->cap : 64;
    names->at = mm_xrealloc(names->at, ((size_t)names->cap + 1) * sizeof *names->at);
    names->hash = mm_xrealloc(names->hash, (size_t)names->cap * sizeof *names->hash);
    names->n_slots = 2 * names->cap;
    free(names->slot);
    names->slot = mm_xmalloc((size_t)names->n_slots * sizeof *names->slot);
    memset(names->slot, 0xff, (size_t)names->n_slots * sizeof *names->slot);
    const uint64_t mask = (uint64_t)names->n_slots - 1;
    for (int64_t i = 0; i < names->n; i++) {
        uint64_t k = names->hash[i] & mask;
        while (names->slot[k] >= 0)
            k = (k + 1) & mask;
        names->slot[k] = i;
    }
}

int64_t mm_names_add(struct mm_names *names, struct mm_str s) {
    if (names->n == names->cap) grow(names);
    const uint64_t hash = XXH3_64bits(s.n ? s.s : "", s.n);
    const int64_t slot = find_slot(names, s, hash);
    if (names->slot[slot] >= 0) return names->slot[slot];
    const int64_t number = names->n++;
    names->slot[slot] = number;
    names->hash[number] = hash;
    names->at[number] = names->text.len;
    mm_buf_add(&names->text, s.n ? s.s : "", s.n);
    mm_buf_add(&names->text, "", 1);
    names->at[number + 1] = names->text.len;
    return number;
}

int64_t mm_names_find(const struct mm_names *names, struct mm_str s) {
    if (names->n == 0) return -1;
    return names->slot[find_slot(names, s, XXH3_64bits(s.n ? s.s : "", s.n))];
}

static int by_text(const void *a, const void *b, void *arg) {
    const struct mm_names *names = arg;
    return mm_str_compare(mm_names_get(names, *(const int64_t *)a),
                          mm_names_get(names, *(const int64_t *)b));
}

int64_t *mm_names_sorted(const struct mm_names *names) {
    int64_t *order = mm_xmalloc(((size_t)names->n + 1) * sizeof *order);
    for (int64_t i = 0; i < names->n; i++) {
        order[i] = i;
    }
    qsort_r(order, (size_t)names->n, sizeof *order, by_text, (void *)(uintptr_t)names);
    return order;
}
