// Chunks of the recurrence (ssd.h) on the bf16 tiles of the processor. With M the masked products
// of queries and keys, and S the state before the chunk (N, P):
//   y = (e q) S + M v          S_next = total S + k^T (f dt v)
// Keys and values are laid out once for all heads of a group: keys as columns (of q k^T) and as
// rows (of the state), values as columns. Of 32 queries at a time the scores, the masked scores and
// the tiles of y stay in the first cache; a finished piece of the state becomes the columns of the
// next chunk on the way. Every operand is either a sum of two bf16 numbers (parts 2: three
// products, within some 2^-16 of the magnitudes) or rounded to one (parts 1: within 2^-8). The
// state itself is carried in f32.
#include <string.h>
#include "ops/cpu/amx.h"
#include "ops/cpu/mixer.h"
#include "ops/cpu/pack_amx.h"

enum {
    max_tokens = mm_ssd_chunk_max,
    token_tiles = max_tokens / mm_pack_side,
    token_k = max_tokens / mm_pack_k,
    flush_denormals = 0x8040,
};

// ---- memory of a thread ----

struct room {
    int64_t parts, words;           // bf16 numbers an operand, words of a tile
    int64_t k_n, tiles_n, tiles_p;  // tiles of N as k; of N and P as rows or columns, even
    uint32_t *key_cols;             // (token tiles, k_n)
    uint32_t *key_rows;             // (tiles_n, token_k)
    uint32_t *values;               // (tiles_p, token_k)
    uint32_t *scaled;               // (2, token_k): values by f dt
    uint32_t *states;               // (heads, tiles_p, k_n)
    uint32_t *q, *q_in;             // (2, k_n); q_in scaled by the decay of the state
    uint32_t *masked;               // (2, token_k)
    float *scores, *block;          // (32, max_tokens), (32, 32)
};

static int64_t up(int64_t n, int64_t to) {
    return (n + to - 1) / to;
}

static size_t lay_room(struct room *r, unsigned char *base, int64_t P, int64_t N, int64_t heads,
                       int parts) {
    *r = (struct room){.parts = parts, .words = parts * mm_pack_words};
    r->k_n = up(N, mm_pack_k), r->tiles_n = 2 * up(N, 32), r->tiles_p = 2 * up(P, 32);
    const struct {
        uint32_t **to;
        int64_t tiles;
    } all[] = {{&r->key_cols, token_tiles * r->k_n},
               {&r->key_rows, r->tiles_n * token_k},
               {&r->values, r->tiles_p * token_k},
               {&r->scaled, 2 * token_k},
               {&r->states, heads * r->tiles_p * r->k_n},
               {&r->q, 2 * r->k_n},
               {&r->q_in, 2 * r->k_n},
               {&r->masked, 2 * token_k}};
    int64_t used = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (base) *all[i].to = (uint32_t *)base + used;
        used += all[i].tiles * r->words;
    }
    if (base) {
        r->scores = (float *)base + used;
        r->block = r->scores + 32 * max_tokens;
    }
    return (size_t)(used + 32 * max_tokens + 32 * 32) * sizeof(float);
}

static struct room room_of(const struct mm_chunk *c, int parts) {
    struct room r;
    lay_room(&r, c->room, c->P, c->N, c->heads, parts);
    return r;
}

// Asks for some rows more of what comes next: few enough not to wait for a place in the queue.
MM_PACKS void fetch(struct mm_chunk *c) {
    int64_t rows = 4;
    for (size_t i = 0; i < sizeof c->ahead / sizeof *c->ahead && rows > 0; i++) {
        struct mm_ahead *a = c->ahead + i;
        for (; a->rows > 0 && rows > 0; a->rows--, rows--, a->at += a->ld) {
            for (int64_t p = 0; p < c->P; p += 16)
                _mm_prefetch((const char *)(a->at + p), _MM_HINT_T1);
        }
    }
}

// ---- keys, values, states ----

MM_TILES_INLINE void keys(struct mm_chunk *c, const float *k, int64_t ldk, const float *v,
                          int64_t ldv, int64_t n, const int parts) {
    const struct room r = room_of(c, parts);
    const int64_t w = r.words, n_k = up(n, mm_pack_k);
    c->n = n, c->v = v, c->ldv = ldv;
    for (int64_t t = 0; t < 2 * n_k; t++) {
        for (int64_t i = 0; i < r.k_n; i++) {
            mm_pack_turned(r.key_cols + (t * r.k_n + i) * w, k + t * 16 * ldk + i * 32, ldk,
                           n - t * 16, c->N - i * 32, parts);
        }
    }
    for (int64_t i = 0; i < n_k; i++) {
        for (int64_t t = 0; t < r.tiles_n; t++) {
            mm_pack_along(r.key_rows + (t * token_k + i) * w, k + i * 32 * ldk + t * 16, ldk,
                          c->N - t * 16, n - i * 32, NULL, true, parts);
        }
        for (int64_t t = 0; t < r.tiles_p; t++) {
            mm_pack_along(r.values + (t * token_k + i) * w, v + i * 32 * ldv + t * 16, ldv,
                          c->P - t * 16, n - i * 32, NULL, false, parts);
        }
    }
}

MM_TILES_INLINE void lay_state(struct mm_chunk *c, int64_t head, const float *state, int64_t lds,
                               const int parts) {
    const struct room r = room_of(c, parts);
    uint32_t *to = r.states + head * r.tiles_p * r.k_n * r.words;
    for (int64_t i = 0; i < r.k_n; i++) {
        for (int64_t t = 0; t < r.tiles_p; t++) {
            mm_pack_along(to + (t * r.k_n + i) * r.words, state + i * 32 * lds + t * 16, lds,
                          c->P - t * 16, c->N - i * 32, NULL, false, parts);
        }
    }
}

// ---- the mask ----

// exp(min(x, 0)), and 0 below -80, as mm_v_decay.
MM_PACKS __m512 decayed(__m512 x) {
    const __m512 y = _mm512_min_ps(x, _mm512_setzero_ps());
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(y, _mm512_set1_ps(1.44269504088896341f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 z = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), y);
    z = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), z);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(z, z), z), _mm512_set1_ps(1.0f));
    const __mmask16 counts = _mm512_cmp_ps_mask(y, _mm512_set1_ps(-80.0f), _CMP_GT_OQ);
    return _mm512_maskz_scalef_ps(counts, p, n);
}

// exp(L_i - L_j) from the two floats of either.
MM_PACKS __m512 between(__m512 hi_i, __m512 lo_i, __m512 hi_j, __m512 lo_j) {
    return decayed(_mm512_add_ps(_mm512_sub_ps(hi_i, hi_j), _mm512_sub_ps(lo_i, lo_j)));
}

// Row tile t of the masked scores: score_ij exp(L_i - L_j) dt_j for j <= i, and skip on the
// diagonal. Left of the tile on the diagonal, with r the token before the tile, the exponential is
// exp(L_i - L_r) exp(L_r - L_j): neither factor is above 1.
MM_PACKS void mask_tile(uint32_t *to, const float *scores, int64_t t, const struct mm_decay *d,
                        float skip, const int parts) {
    _Alignas(64) float row[16], left[max_tokens];
    const int64_t words = parts * mm_pack_words, first = t * 16;
    const __m512 hi = _mm512_load_ps(d->hi + first), lo = _mm512_load_ps(d->lo + first);
    const __m512 dt = _mm512_load_ps(d->dt + first);
    if (t > 0) {
        const __m512 hi_r = _mm512_set1_ps(d->hi[first - 1]),
                     lo_r = _mm512_set1_ps(d->lo[first - 1]);
        _mm512_store_ps(row, between(hi, lo, hi_r, lo_r));
        for (int64_t j = 0; j < first; j += 16) {
            const __m512 e =
                between(hi_r, lo_r, _mm512_load_ps(d->hi + j), _mm512_load_ps(d->lo + j));
            _mm512_store_ps(left + j, _mm512_mul_ps(e, _mm512_load_ps(d->dt + j)));
        }
    }
    for (int64_t k = 0; k < t / 2; k++, to += words) {
        const __m512 fx = _mm512_load_ps(left + k * 32), fy = _mm512_load_ps(left + k * 32 + 16);
        for (int64_t i = 0; i < 16; i++) {
            const float *s = scores + i * max_tokens + k * 32;
            const __m512 by = _mm512_set1_ps(row[i]);
            mm_pack_row(to, i, _mm512_mul_ps(_mm512_mul_ps(_mm512_load_ps(s), fx), by),
                        _mm512_mul_ps(_mm512_mul_ps(_mm512_load_ps(s + 16), fy), by), parts);
        }
    }
    const __m512 skips = _mm512_set1_ps(skip);
    const bool odd = t % 2;
    const __m512 fx = odd ? _mm512_load_ps(left + first - 16) : _mm512_setzero_ps();
    for (int i = 0; i < 16; i++) {
        const float *s = scores + i * max_tokens + first;
        const __m512 e =
            between(_mm512_set1_ps(d->hi[first + i]), _mm512_set1_ps(d->lo[first + i]), hi, lo);
        const __mmask16 seen = (__mmask16)((2u << i) - 1u), own = (__mmask16)(1u << i);
        __m512 x = _mm512_maskz_mul_ps(seen, _mm512_mul_ps(e, dt), _mm512_load_ps(s));
        x = _mm512_mask_add_ps(x, own, x, skips);
        if (odd) {
            const __m512 by = _mm512_mul_ps(fx, _mm512_set1_ps(row[i]));
            mm_pack_row(to, i, _mm512_mul_ps(_mm512_load_ps(s - 16), by), x, parts);
        } else {
            mm_pack_row(to, i, x, _mm512_setzero_ps(), parts);
        }
    }
}

// ---- a chunk ----

// `rows` tiles of rows of y from tile t on.
MM_TILES_INLINE void output_rows(struct mm_chunk *c, const struct room *r, int64_t t,
                                 const uint32_t *state, float *y, int64_t ldy, const float *q,
                                 int64_t ldq, const struct mm_decay *d, float skip, const int rows,
                                 const int parts) {
    const int64_t w = r->words, left = c->n - t * 16;
    for (int64_t i = 0; i < rows * r->k_n; i++) {
        const int64_t half = i / r->k_n, k = i % r->k_n, row = (t + half) * 16;
        const float *from = q + row * ldq + k * 32;
        mm_pack_across(r->q + i * w, from, ldq, c->n - row, c->N - k * 32, NULL, parts);
        if (!state) continue;
        mm_pack_across(r->q_in + i * w, from, ldq, c->n - row, c->N - k * 32, d->in + row, parts);
    }
    for (int64_t j = 0; j < t + rows; j += 2) {
        mm_pack_zero();
        mm_pack_multiply(r->q, r->k_n * w, r->key_cols + j * r->k_n * w, r->k_n * w, r->k_n, rows,
                         parts);
        mm_pack_put(r->scores + j * 16, max_tokens, rows);
        fetch(c);
    }
    const int64_t n_k = t / 2 + 1;
    for (int64_t i = 0; i < rows; i++) {
        uint32_t *to = r->masked + i * token_k * w;
        mask_tile(to, r->scores + i * 16 * max_tokens, t + i, d, skip, parts);
    }
    for (int64_t p = 0; p < r->tiles_p; p += 2) {
        mm_pack_zero();
        if (state) {
            mm_pack_multiply(r->q_in, r->k_n * w, state + p * r->k_n * w, r->k_n * w, r->k_n, rows,
                             parts);
        }
        mm_pack_multiply(r->masked, token_k * w, r->values + p * token_k * w, token_k * w, n_k,
                         rows, parts);
        fetch(c);
        float *to = y + t * 16 * ldy + p * 16;
        const int64_t cols = c->P - p * 16;
        if (left >= rows * 16 && cols >= 32) {
            mm_pack_put(to, ldy, rows);
            continue;
        }
        mm_pack_put(r->block, 32, rows);
        for (int64_t i = 0; i < rows * 16 && i < left; i++) {
            memcpy(to + i * ldy, r->block + i * 32, (size_t)(cols < 32 ? cols : 32) * sizeof *to);
        }
    }
}

MM_TILES_INLINE void outputs(struct mm_chunk *c, int64_t head, bool with_state, float *y,
                             int64_t ldy, const float *q, int64_t ldq, const struct mm_decay *d,
                             float skip, const int parts) {
    const struct room r = room_of(c, parts);
    const uint32_t *state = with_state ? r.states + head * r.tiles_p * r.k_n * r.words : NULL;
    const int64_t n_tiles = up(c->n, 16);
    int64_t t = 0;
    for (; t + 1 < n_tiles; t += 2) {
        output_rows(c, &r, t, state, y, ldy, q, ldq, d, skip, 2, parts);
    }
    if (t < n_tiles) output_rows(c, &r, t, state, y, ldy, q, ldq, d, skip, 1, parts);
}

// 32 x 32 of the state from row i, column j: joined as scan() of kernel_ssd.h does it, so that the
// bits agree. `to`: the two tiles of the next chunk's columns, or NULL.
MM_PACKS void join(const struct mm_chunk *c, const struct room *r, float *state, int64_t lds,
                   int64_t i, int64_t j, float alpha, uint32_t *to, const int parts) {
    const __m512 by = _mm512_set1_ps(alpha);
    for (int half = 0; half < 2 && j + 16 * half < c->P; half++) {
        float *at = state + i * lds + j + 16 * half;
        uint32_t *tile = to ? to + half * r->k_n * r->words : NULL;
        for (int64_t k = 0; k < 16; k++) {
            __m512 x[2];
            for (int64_t u = 0; u < 2; u++) {
                const int64_t row = k + 16 * u;
                const __mmask16 there = i + row < c->N ? 0xffff : 0;
                x[u] = _mm512_load_ps(r->block + row * 32 + 16 * half);
                if (alpha != 0.0f) {
                    x[u] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(there, at + row * lds), by, x[u]);
                }
                _mm512_mask_storeu_ps(at + row * lds, there, x[u]);
            }
            if (tile) mm_pack_row(tile, k, x[0], x[1], parts);
        }
    }
}

MM_TILES_INLINE void advance(struct mm_chunk *c, int64_t head, float *state, int64_t lds,
                             float alpha, const struct mm_decay *d, const int parts) {
    const struct room r = room_of(c, parts);
    const int64_t w = r.words, n_k = up(c->n, mm_pack_k);
    uint32_t *next = head >= 0 ? r.states + head * r.tiles_p * r.k_n * w : NULL;
    for (int64_t p = 0; p < r.tiles_p; p += 2) {
        for (int64_t i = 0; i < 2 * n_k; i++) {
            const int64_t t = p + i / n_k, k = i % n_k;
            mm_pack_along(r.scaled + (i / n_k * token_k + k) * w, c->v + k * 32 * c->ldv + t * 16,
                          c->ldv, c->P - t * 16, c->n - k * 32, d->out + k * 32, false, parts);
        }
        for (int64_t k = 0; k < r.k_n; k++) {
            mm_pack_zero();
            mm_pack_multiply(r.key_rows + 2 * k * token_k * w, token_k * w, r.scaled, token_k * w,
                             n_k, 2, parts);
            mm_pack_put(r.block, 32, 2);
            fetch(c);
            join(c, &r, state, lds, k * 32, p * 16, alpha, next ? next + (p * r.k_n + k) * w : NULL,
                 parts);
        }
    }
}

// ---- the two tables ----

// Products of two decays may be too small for a float; as denormals they would cost a hundred times
// as much as any other.
MM_TILES static void begin(struct mm_chunk *c) {
    c->float_mode = _mm_getcsr();
    _mm_setcsr(c->float_mode | flush_denormals);
    mm_amx_begin();
}

MM_TILES static void end(struct mm_chunk *c) {
    mm_amx_end();
    _mm_setcsr(c->float_mode);
}

#define CHUNKS(name, parts)                                                                   \
    static size_t room_bytes_##name(int64_t P, int64_t N, int64_t heads) {                    \
        struct room r;                                                                        \
        return lay_room(&r, NULL, P, N, heads, parts);                                        \
    }                                                                                         \
    MM_TILES static void keys_##name(struct mm_chunk *c, const float *k, int64_t ldk,         \
                                     const float *v, int64_t ldv, int64_t n) {                \
        keys(c, k, ldk, v, ldv, n, parts);                                                    \
    }                                                                                         \
    MM_TILES static void state_##name(struct mm_chunk *c, int64_t head, const float *state,   \
                                      int64_t lds) {                                          \
        lay_state(c, head, state, lds, parts);                                                \
    }                                                                                         \
    MM_TILES static void outputs_##name(struct mm_chunk *c, int64_t head, bool with_state,    \
                                        float *y, int64_t ldy, const float *q, int64_t ldq,   \
                                        const struct mm_decay *d, float skip) {               \
        outputs(c, head, with_state, y, ldy, q, ldq, d, skip, parts);                         \
    }                                                                                         \
    MM_TILES static void advance_##name(struct mm_chunk *c, int64_t head, float *state,       \
                                        int64_t lds, float alpha, const struct mm_decay *d) { \
        advance(c, head, state, lds, alpha, d, parts);                                        \
    }                                                                                         \
    const struct mm_chunks mm_chunks_##name = {                                               \
        room_bytes_##name, begin, end, keys_##name, state_##name, outputs_##name, advance_##name};
CHUNKS(halves, 2)
CHUNKS(rounded, 1)
