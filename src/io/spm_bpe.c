// Owns: byte pair encoding as SentencePiece does it. The text is cut into characters (user-defined
// pieces stay whole and never merge); then, again and again, of all neighbours whose join is a
// piece, those with the best score are joined, the leftmost first. A heap holds the candidates and
// a linked list the symbols, so that n bytes take O(n log n).
#include "io/spm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct symbol {
    int32_t prev, next;   // -1 at the ends
    uint32_t start, len;  // in the text; len 0: swallowed by its left neighbour
    bool frozen;
};

struct pair {
    float score;
    int32_t left, right;
    uint32_t len;  // of both when the pair was made: tells a pair that has gone stale
};

struct bpe {
    const struct mm_spm *m;
    const char *text;
    mm_spm_barred barred;
    struct symbol *symbols;
    struct pair *heap;
    size_t n_heap, cap_heap;
    uint32_t *unused_left;  // (m->n) how an unused piece was put together: the bytes of its left
                            // half, 0 when it was not; NULL until one is met
};

static bool before(const struct pair *a, const struct pair *b) {
    if (a->score != b->score) return a->score > b->score;
    return a->left < b->left;
}

static void heap_push(struct bpe *b, struct pair p) {
    if (b->n_heap == b->cap_heap) {
        b->cap_heap = b->cap_heap ? 2 * b->cap_heap : 64;
        b->heap = mm_xrealloc(b->heap, b->cap_heap * sizeof *b->heap);
    }
    size_t i = b->n_heap++;
    while (i > 0 && before(&p, b->heap + (i - 1) / 2)) {
        b->heap[i] = b->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    b->heap[i] = p;
}

static struct pair heap_pop(struct bpe *b) {
    const struct pair top = b->heap[0], last = b->heap[--b->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= b->n_heap) break;
        if (child + 1 < b->n_heap && before(b->heap + child + 1, b->heap + child)) child++;
        if (!before(b->heap + child, &last)) break;
        b->heap[i] = b->heap[child];
        i = child;
    }
    b->heap[i] = last;
    return top;
}

static void consider(struct bpe *b, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const struct symbol *l = b->symbols + left, *r = b->symbols + right;
    if (l->frozen || r->frozen) return;
    const uint32_t len = l->len + r->len;
    const int32_t id = mm_spm_find_text(b->m, b->text + l->start, len);
    if (id < 0 || (b->barred && b->barred[id])) return;
    heap_push(b, (struct pair){b->m->pieces[id].score, left, right, len});
    if (b->m->pieces[id].type == mm_spm_type_unused) {
        if (!b->unused_left) b->unused_left = mm_xcalloc((size_t)b->m->n, sizeof *b->unused_left);
        b->unused_left[id] = l->len;  // the last way seen counts, as in SentencePiece
    }
}

static int32_t cut_symbols(struct bpe *b, size_t n) {
    int32_t count = 0;
    for (size_t at = 0; at < n;) {
        const size_t user = mm_spm_match_user(b->m, b->text + at, n - at, b->barred);
        const size_t len = user > 0 ? user : mm_spm_char_bytes(b->text + at, n - at);
        b->symbols[count] = (struct symbol){.prev = count - 1,
                                            .next = at + len < n ? count + 1 : -1,
                                            .start = (uint32_t)at,
                                            .len = (uint32_t)len,
                                            .frozen = user > 0};
        count++;
        at += len;
    }
    return count;
}

static void merge(struct bpe *b, const struct pair *p) {
    struct symbol *l = b->symbols + p->left, *r = b->symbols + p->right;
    if (l->len == 0 || r->len == 0 || l->len + r->len != p->len) return;  // stale
    l->len = p->len;
    l->next = r->next;
    if (r->next >= 0) b->symbols[r->next].prev = p->left;
    r->len = 0;
    consider(b, l->prev, p->left);
    consider(b, p->left, l->next);
}

// Writes a symbol's id; an unused piece is taken apart into what it was merged from. The right
// halves that wait are all at least a byte long and lie within the piece.
static void emit(const struct bpe *b, uint32_t start, uint32_t len, bool *after_unknown,
                 struct mm_ids *ids) {
    const uint32_t end = start + len;
    uint32_t *ends = NULL;  // of the halves that wait, the innermost last
    size_t n_ends = 0;
    for (;;) {
        // not mm_spm_find: a control piece never comes out of a text
        int32_t id = mm_spm_find_text(b->m, b->text + start, len);
        if (id >= 0 && b->barred && b->barred[id]) id = -1;
        const uint32_t left_len = id >= 0 && b->unused_left ? b->unused_left[id] : 0;
        if (left_len > 0) {
            ends = ends ? ends : mm_xmalloc(b->m->longest * sizeof *ends);
            ends[n_ends++] = start + len;
            len = left_len;
            continue;
        }
        mm_spm_emit(b->m, b->text + start, len, id, after_unknown, ids);
        start += len;
        if (start == end) break;
        len = ends[--n_ends] - start;
    }
    free(ends);
}

void mm_spm_encode_bpe(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                       struct mm_ids *ids) {
    assert(n < INT32_MAX);
    struct bpe b = {.m = m, .text = text, .barred = barred};
    b.symbols = mm_xmalloc(n * sizeof *b.symbols);
    const int32_t count = cut_symbols(&b, n);
    for (int32_t i = 1; i < count; i++) {
        consider(&b, i - 1, i);
    }
    while (b.n_heap > 0) {
        const struct pair p = heap_pop(&b);
        merge(&b, &p);
    }
    bool after_unknown = false;
    for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = b.symbols[i].next) {
        emit(&b, b.symbols[i].start, b.symbols[i].len, &after_unknown, ids);
    }
    free(b.symbols);
    free(b.heap);
    free(b.unused_left);
}
