// Owns: the sorted array that stands in for a trie.
#include "io/prefix_dict.h"

#include <stdlib.h>
#include <string.h>

static int by_text(const void *pa, const void *pb) {
    const struct mm_prefix_entry *a = pa, *b = pb;
    const uint32_t n = a->len < b->len ? a->len : b->len;
    const int order = memcmp(a->text, b->text, n);
    return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

void mm_prefix_dict_init(struct mm_prefix_dict *d, struct mm_prefix_entry *entries, int32_t n) {
    d->entries = entries;
    d->n = n;
    if (n > 0) qsort(entries, (size_t)n, sizeof *entries, by_text);
    int32_t at = 0;
    for (int c = 0; c < 256; c++) {
        while (at < n && (unsigned char)entries[at].text[0] < c) {
            at++;
        }
        d->first[c] = at;
    }
    d->first[256] = n;
}

void mm_prefix_dict_deinit(struct mm_prefix_dict *d) {
    free(d->entries);
    memset(d, 0, sizeof *d);
}

// The first entry of [lo, hi) whose byte at `depth` is >= want. All of them are longer than depth,
// but for the first, which is stepped over before.
static int32_t lower_bound(const struct mm_prefix_dict *d, int32_t lo, int32_t hi, uint32_t depth,
                           int want) {
    while (lo < hi) {
        const int32_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)d->entries[mid].text[depth] < want) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

bool mm_prefix_step(const struct mm_prefix_dict *d, struct mm_prefix_cursor *c, unsigned char byte,
                    int32_t *value) {
    *value = -1;
    if (c->depth == 0) {
        c->lo = d->first[byte];
        c->hi = d->first[byte + 1];
    } else {
        if (c->lo < c->hi && d->entries[c->lo].len == c->depth) c->lo++;
        c->lo = lower_bound(d, c->lo, c->hi, c->depth, byte);
        c->hi = lower_bound(d, c->lo, c->hi, c->depth, byte + 1);
    }
    c->depth++;
    if (c->lo == c->hi) return false;
    if (d->entries[c->lo].len == c->depth) *value = d->entries[c->lo].value;
    return true;
}

int32_t mm_prefix_longest(const struct mm_prefix_dict *d, const char *text, size_t n, size_t *len) {
    struct mm_prefix_cursor c = {0, 0, 0};
    int32_t best = -1;
    for (size_t i = 0; i < n; i++) {
        int32_t value;
        if (!mm_prefix_step(d, &c, (unsigned char)text[i], &value)) break;
        if (value >= 0) {
            best = value;
            *len = i + 1;
        }
    }
    return best;
}
