// The softmax attention of a token step: a group of heads that share keys reads them once. Long
// caches are cut into pieces that run side by side; how they are cut depends on their length alone.
// A piece keeps a running maximum and sum over tiles of keys, so the memory for it does not grow.
#include <math.h>
#include "ops/cpu/step.h"

enum { piece_keys = 512 };

int64_t mm_step_attention_floats(const struct mm_step_block *b) {
    return b->H / b->G * mm_step_tile;
}

static int64_t pieces_of(int64_t keys) {
    const int64_t n = (keys + piece_keys - 1) / piece_keys;
    return n < mm_step_pieces ? n : mm_step_pieces;
}

static const struct mm_step_block *attention_of(const struct mm_step *s, int stack) {
    for (int64_t i = 0; i < s->n_blocks; i++) {
        if (s->blocks[i].attention && s->blocks[i].stack == stack) return &s->blocks[i];
    }
    return NULL;
}

static float *angles_of(const struct mm_stepping *r, int64_t t, int stack) {
    return r->angles + (t * 2 + stack) * 2 * r->ld_angles;
}

void mm_step_angles(const struct mm_stepping *r, int thread) {
    double *freq = (double *)mm_step_room(r, thread);
    for (int stack = 0; stack < 2; stack++) {
        const struct mm_step_block *b = attention_of(r->s, stack);
        if (!b) continue;
        const int64_t half = b->P / 2;
        for (int64_t t = 0; t < r->n; t++) {
            const struct mm_step_seq *seq = &r->s->seqs[t];
            const double base = (double)seq->rope_base[stack];
            if (t == 0 || seq->rope_base[stack] != seq[-1].rope_base[stack]) {
                for (int64_t i = 0; i < half; i++)
                    freq[i] = pow(base, -2.0 * (double)i / (double)b->P);
            }
            float *cosines = angles_of(r, t, stack);
            r->k->angles(cosines, cosines + r->ld_angles,
                         (double)seq->past[stack] * (double)b->pos_scale, freq, half);
        }
    }
}

// Turns the queries where they lie, and writes the new row of the cache.
static void enter(const struct mm_stepping *r, const struct mm_step_block *b,
                  const struct mm_block_state *state, int64_t t, int64_t g) {
    const int64_t P = b->P, ratio = b->H / b->G, past = r->s->seqs[t].past[b->stack];
    const float *cosines = angles_of(r, t, b->stack), *sines = cosines + r->ld_angles;
    float *packed = r->z + t * r->ldz + g * (ratio + 2) * P;
    for (int64_t h = 0; h < ratio; h++)
        r->k->turn(packed + h * P, packed + h * P, cosines, sines, 1.0f, P / 2);
    r->k->turn(mm_view_at(state->k, past, g * P), packed + ratio * P, cosines, sines, 1.0f, P / 2);
    memcpy(mm_view_at(state->v, past, g * P), packed + (ratio + 1) * P, (size_t)P * sizeof(float));
}

static float *partial_of(const struct mm_stepping *r, const struct mm_step_block *b, int64_t t,
                         int64_t h, int64_t piece) {
    return r->partial + ((t * b->H + h) * mm_step_pieces + piece) * r->ld_partial;
}

// Piece i of the keys for groups [g0, g1): tile by tile, so that all of a row of the cache is read
// at about the same time.
static void piece(const struct mm_stepping *r, const struct mm_step_block *b,
                  const struct mm_block_state *state, int64_t t, int64_t g0, int64_t g1, int64_t i,
                  float *scores) {
    const int64_t P = b->P, ratio = b->H / b->G, keys = r->s->seqs[t].past[b->stack] + 1;
    const int64_t n_pieces = pieces_of(keys);
    const int64_t first = keys * i / n_pieces, last = keys * (i + 1) / n_pieces;
    const float by = 1.0f / sqrtf((float)P);
    for (int64_t h = g0 * ratio; h < g1 * ratio; h++) {
        float *out = partial_of(r, b, t, h, i);
        memset(out, 0, (size_t)r->ld_partial * sizeof *out);
        out[0] = -HUGE_VALF;
    }
    for (int64_t at = first; at < last; at += mm_step_tile) {
        const int64_t n = last - at < mm_step_tile ? last - at : mm_step_tile;
        for (int64_t g = g0; g < g1; g++) {
            const float *q = r->z + t * r->ldz + g * (ratio + 2) * P;
            r->k->scores(scores, mm_step_tile, q, ratio, mm_view_at(state->k, at, g * P),
                         state->k.ld, n, P);
            for (int64_t h = 0; h < ratio; h++) {
                float *out = partial_of(r, b, t, g * ratio + h, i), *s = scores + h * mm_step_tile;
                const float factor = r->k->soften(s, n, (n + 15) / 16 * 16, by, &out[0], &out[1]);
                if (at > first && factor != 1.0f) r->k->scale(out + 16, out + 16, factor, P);
            }
            r->k->weigh(partial_of(r, b, t, g * ratio, i) + 16, mm_step_pieces * r->ld_partial,
                        scores, mm_step_tile, ratio, mm_view_at(state->v, at, g * P), state->v.ld,
                        n, P);
        }
    }
}

// Adds the pieces in their order.
static void join(const struct mm_stepping *r, const struct mm_step_block *b, int64_t t, int64_t h) {
    const int64_t P = b->P, n = pieces_of(r->s->seqs[t].past[b->stack] + 1);
    const float *part = partial_of(r, b, t, h, 0);
    float *out = r->o + t * r->ldo + h * P, top = -HUGE_VALF, sum = 0.0f;
    for (int64_t i = 0; i < n; i++)
        top = fmaxf(top, part[i * r->ld_partial]);
    memset(out, 0, (size_t)P * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const float *p = part + i * r->ld_partial, factor = expf(p[0] - top);
        sum += factor * p[1];
        r->k->axpy(out, factor, p + 16, P);
    }
    r->k->scale(out, out, 1.0f / sum, P);
}

// Parts of the groups that a piece is cut into as well: where there are few pieces. How it is cut
// does not show in the results.
static int64_t parts_of(const struct mm_step_block *b, int64_t keys) {
    return pieces_of(keys) < mm_step_pieces / 2 ? b->G : 1;
}

static int64_t items_of(const struct mm_stepping *r, const struct mm_step_block *b, int64_t t) {
    const int64_t keys = r->s->seqs[t].past[b->stack] + 1;
    return parts_of(b, keys) * pieces_of(keys);
}

// Item i of the pieces of all sequences.
static void some_piece(const struct mm_stepping *r, const struct mm_step_block *b, int64_t block,
                       int64_t i, float *scores) {
    int64_t t = 0, n;
    for (;; t++, i -= n) {
        n = items_of(r, b, t);
        if (i < n) break;
    }
    const int64_t parts = parts_of(b, r->s->seqs[t].past[b->stack] + 1), part = i % parts;
    piece(r, b, &r->s->seqs[t].blocks[block], t, b->G * part / parts, b->G * (part + 1) / parts,
          i / parts, scores);
}

void mm_step_attention(const struct mm_stepping *r, struct mm_team *team, int64_t block,
                       int thread) {
    const struct mm_step_block *b = &r->s->blocks[block];
    int64_t begin, end, items = 0;
    while (mm_team_take(team, r->n * b->G, 1, &begin, &end)) {
        for (int64_t i = begin; i < end; i++)
            enter(r, b, &r->s->seqs[i / b->G].blocks[block], i / b->G, i % b->G);
    }
    mm_team_meet(team);
    for (int64_t t = 0; t < r->n; t++)
        items += items_of(r, b, t);
    while (mm_team_take(team, items, 1, &begin, &end)) {
        for (int64_t i = begin; i < end; i++)
            some_piece(r, b, block, i, mm_step_work(r, thread));
    }
    mm_team_meet(team);
    while (mm_team_take(team, r->n * b->H, 1, &begin, &end)) {
        for (int64_t i = begin; i < end; i++)
            join(r, b, i / b->H, i % b->H);
    }
}
