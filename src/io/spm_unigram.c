// Owns: the unigram model: of all ways to cut the text into pieces the one with the largest sum of
// scores, by Viterbi over byte positions. An unknown character costs 10 less than the worst piece.
// Sums are kept in single precision, as SentencePiece does: ties and near-ties go its way.
#include "io/spm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct node {
    float score;    // of the best way to this position
    int32_t id;     // its last piece, -1: unknown
    int32_t start;  // where that piece opens; -1: not reached yet
};

static void offer(struct node *nodes, size_t from, size_t to, int32_t id, double score) {
    if (nodes[to].start >= 0 && score <= (double)nodes[to].score) return;
    nodes[to] = (struct node){(float)score, id, (int32_t)from};
}

// All pieces that open at `from`.
static void offer_pieces(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                         struct node *nodes, size_t from) {
    const size_t char_bytes = mm_spm_char_bytes(text + from, n - from);
    bool single = false;
    struct mm_prefix_cursor c = {0, 0, 0};
    for (size_t to = from + 1; to <= n; to++) {
        int32_t id;
        if (!mm_prefix_step(&m->text, &c, (unsigned char)text[to - 1], &id)) break;
        if (id < 0 || (barred && barred[id])) continue;
        const struct mm_spm_piece *p = m->pieces + id;
        if (p->type == mm_spm_type_unused) continue;
        const size_t len = to - from;
        // a user-defined piece gets a bonus so that it is always chosen
        const double score = p->type == mm_spm_type_user_defined
                                 ? (double)((float)len * m->max_score) - 0.1
                                 : (double)p->score;
        offer(nodes, from, to, id, score + (double)nodes[from].score);
        single = single || len == char_bytes;
    }
    if (!single) {
        const float unknown = m->min_score - 10.0f;
        offer(nodes, from, from + char_bytes, -1, (double)(unknown + nodes[from].score));
    }
}

void mm_spm_encode_unigram(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                           struct mm_ids *ids) {
    assert(n < INT32_MAX);
    struct node *nodes = mm_xmalloc((n + 1) * sizeof *nodes);
    for (size_t i = 0; i <= n; i++) {
        nodes[i] = (struct node){0.0f, -1, -1};
    }
    for (size_t at = 0; at < n; at += mm_spm_char_bytes(text + at, n - at)) {
        offer_pieces(m, text, n, barred, nodes, at);
    }
    // walk back, turning each node's start into a link forward
    int32_t to = (int32_t)n, next = -1;
    while (to > 0) {
        const int32_t from = nodes[to].start;
        nodes[to].start = next;
        next = to;
        to = from;
    }
    bool after_unknown = false;
    for (int32_t from = 0; next > 0;) {
        const struct node *node = nodes + next;
        mm_spm_emit(m, text + from, (size_t)(next - from), node->id, &after_unknown, ids);
        from = next;
        next = node->start;
    }
    free(nodes);
}
