// Softmax attention of some queries of the heads of one group on the bf16 tiles of the processor:
// tiles of 128 keys are laid out once for all of them. Of 32 rows at a time the scores and their
// exponentials stay in the first cache. With a running maximum and sum, as attention.c. Operands
// are sums of two bf16 numbers (parts 2) or rounded to one (parts 1).
#include <math.h>
#include <string.h>
#include "ops/cpu/amx.h"
#include "ops/cpu/mixer.h"
#include "ops/cpu/pack_amx.h"

enum { tile_keys = 128, key_tiles = tile_keys / 16, key_k = tile_keys / 32 };

struct room {
    int64_t words, k_n, tiles_p, rows, ldo;  // rows: of a head, a multiple of 32
    uint32_t *q;                             // (heads, rows / 16, k_n)
    uint32_t *keys, *values;                 // (key_tiles, k_n), (tiles_p, key_k)
    uint32_t *weights;                       // (2, key_k)
    float *scores;                           // (32, tile_keys)
    float *out;                              // (heads, rows, ldo)
    float *top, *sum;                        // (heads, rows), top in powers of two
    uint32_t *unread;                        // one tile
    int64_t asked, ask;                      // rows of keys that have been asked for, and shall be
};

static size_t lay_room(struct room *r, unsigned char *base, int64_t P, int64_t heads, int64_t n,
                       int parts) {
    *r = (struct room){.words = parts * mm_pack_words};
    r->k_n = (P + 31) / 32, r->tiles_p = 2 * r->k_n, r->rows = (n + 31) / 32 * 32;
    r->ldo = r->tiles_p * 16;
    const int64_t tiles[] = {heads * r->rows / 16 * r->k_n, key_tiles * r->k_n, r->tiles_p * key_k,
                             2 * key_k, 1};
    const int64_t floats[] = {32 * tile_keys, heads * r->rows * r->ldo, heads * r->rows,
                              heads * r->rows};
    uint32_t **const to[] = {&r->q, &r->keys, &r->values, &r->weights, &r->unread};
    float **const also[] = {&r->scores, &r->out, &r->top, &r->sum};
    int64_t used = 0;
    for (int i = 0; i < 5; i++) {
        if (base) *to[i] = (uint32_t *)base + used;
        used += tiles[i] * r->words;
    }
    for (int i = 0; i < 4; i++) {
        if (base) *also[i] = (float *)base + used;
        used += (floats[i] + 15) / 16 * 16;
    }
    return (size_t)used * sizeof(float);
}

// 2^x for x <= 0, and 0 below -120. Within 2e-7.
MM_PACKS __m512 power(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 z = _mm512_mul_ps(_mm512_sub_ps(x, n), _mm512_set1_ps(0.69314718056f));
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(z, z), z), _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-120.0f), _CMP_GT_OQ), p, n);
}

// Row i of the weights of a tile of which `seen` keys count: 2^(by score - top), packed. The sums
// under an older top are moved to the new one.
MM_PACKS void soften(const struct room *r, int64_t i, int64_t at, int64_t seen, float by,
                     const int parts) {
    const float *s = r->scores + i * tile_keys;
    uint32_t *to = r->weights + i / 16 * key_k * r->words;
    if (seen <= 0) {
        for (int64_t k = 0; k < key_k; k++, to += r->words)
            mm_pack_row(to, i % 16, _mm512_setzero_ps(), _mm512_setzero_ps(), parts);
        return;
    }
    const __m512 scale = _mm512_set1_ps(by);
    __m512 x[key_tiles], high = _mm512_set1_ps(-HUGE_VALF);
    for (int v = 0; v < key_tiles; v++) {
        const __mmask16 some = mm_pack_first(seen - v * 16);
        x[v] =
            _mm512_mask_mul_ps(_mm512_set1_ps(-HUGE_VALF), some, _mm512_load_ps(s + v * 16), scale);
        high = _mm512_max_ps(high, x[v]);
    }
    const float before = r->top[at], now = fmaxf(before, _mm512_reduce_max_ps(high));
    const __m512 top = _mm512_set1_ps(now);
    __m512 sum = _mm512_setzero_ps();
    for (int v = 0; v < key_tiles; v++) {
        x[v] = power(_mm512_sub_ps(x[v], top));
        sum = _mm512_add_ps(sum, x[v]);
    }
    for (int64_t k = 0; k < key_k; k++, to += r->words)
        mm_pack_row(to, i % 16, x[2 * k], x[2 * k + 1], parts);
    float factor = 1.0f;
    if (now > before) {
        factor = exp2f(before - now);
        float *out = r->out + at * r->ldo;
        for (int64_t p = 0; p < r->ldo; p += 16) {
            _mm512_store_ps(out + p,
                            _mm512_mul_ps(_mm512_load_ps(out + p), _mm512_set1_ps(factor)));
        }
    }
    r->top[at] = now;
    r->sum[at] = r->sum[at] * factor + _mm512_reduce_add_ps(sum);
}

MM_TILES_INLINE void get(const float *c, int64_t ld) {
    _tile_loadd(0, c, ld * 4);
    _tile_loadd(1, c + 16, ld * 4);
    _tile_loadd(2, c + 16 * ld, ld * 4);
    _tile_loadd(3, c + 16 * ld + 16, ld * 4);
}

// Rows [row, row + 32) of head h against the tile of n keys from `key` on.
MM_TILES_INLINE void some_rows(const struct mm_attend *a, struct room *r, int64_t h, int64_t row,
                               int64_t key, int64_t n, const int parts) {
    const int64_t w = r->words, first = h * r->rows + row;
    const int64_t last =
        a->past + (row + 32 < a->n ? row + 32 : a->n) - key;  // seen by the last row
    if (last <= 0) return;
    const int64_t wanted = last < n ? last : n, tiles = (wanted + 31) / 32 * 2;
    const uint32_t *q = r->q + first / 16 * r->k_n * w;
    for (int64_t j = 0; j < tiles; j += 2) {
        mm_pack_zero();
        mm_pack_multiply(q, r->k_n * w, r->keys + j * r->k_n * w, r->k_n * w, r->k_n, 2, parts);
        mm_pack_put(r->scores + j * 16, tile_keys, 2);
    }
    const float by = 1.44269504f / sqrtf((float)a->P);
    for (int64_t i = 0; i < 32; i++) {
        const int64_t seen = row + i < a->n ? a->past + row + i + 1 - key : 0;
        soften(r, i, first + i, seen < wanted ? seen : wanted, by, parts);
        if (i % 8 == 7) mm_pack_stay_awake(r->unread);
        for (int part = 0; part < 2 && r->asked < r->ask; part++, r->asked++) {
            for (int64_t p = 0; p < a->P; p += 16) {
                _mm_prefetch((const char *)(a->k + r->asked * a->ldk + p), _MM_HINT_T1);
                _mm_prefetch((const char *)(a->v + r->asked * a->ldv + p), _MM_HINT_T1);
            }
        }
    }
    for (int64_t p = 0; p < r->tiles_p; p += 2) {
        float *out = r->out + first * r->ldo + p * 16;
        get(out, r->ldo);
        mm_pack_multiply(r->weights, key_k * w, r->values + p * key_k * w, key_k * w, tiles / 2, 2,
                         parts);
        mm_pack_put(out, r->ldo, 2);
    }
}

MM_TILES_INLINE void lay_queries(const struct mm_attend *a, const struct room *r, const int parts) {
    for (int64_t h = 0; h < a->heads; h++) {
        for (int64_t row = 0; row < r->rows; row += 16) {
            uint32_t *to = r->q + (h * r->rows + row) / 16 * r->k_n * r->words;
            for (int64_t k = 0; k < r->k_n; k++, to += r->words) {
                mm_pack_across(to, a->q + row * a->ldq + h * a->P + k * 32, a->ldq, a->n - row,
                               a->P - k * 32, NULL, parts);
            }
        }
    }
}

MM_TILES_INLINE void lay_keys(const struct mm_attend *a, const struct room *r, int64_t key,
                              int64_t n, const int parts) {
    const float *k = a->k + key * a->ldk, *v = a->v + key * a->ldv;
    const int64_t tiles = (n + 31) / 32 * 2;
    for (int64_t t = 0; t < tiles; t++) {
        for (int64_t i = 0; i < r->k_n; i++) {
            mm_pack_turned(r->keys + (t * r->k_n + i) * r->words, k + t * 16 * a->ldk + i * 32,
                           a->ldk, n - t * 16, a->P - i * 32, parts);
        }
        mm_pack_stay_awake(r->unread);
    }
    for (int64_t i = 0; i < tiles / 2; i++) {
        for (int64_t t = 0; t < r->tiles_p; t++) {
            mm_pack_along(r->values + (t * key_k + i) * r->words, v + i * 32 * a->ldv + t * 16,
                          a->ldv, a->P - t * 16, n - i * 32, NULL, false, parts);
        }
        mm_pack_stay_awake(r->unread);
    }
}

MM_TILES_INLINE void attend(const struct mm_attend *a, const int parts) {
    struct room r;
    lay_room(&r, a->room, a->P, a->heads, a->n, parts);
    const int64_t n_keys = a->past + a->n, rows = a->heads * r.rows;
    memset(r.out, 0, (size_t)(rows * r.ldo) * sizeof *r.out);
    memset(r.sum, 0, (size_t)rows * sizeof *r.sum);
    for (int64_t i = 0; i < rows; i++)
        r.top[i] = -HUGE_VALF;
    mm_amx_begin();
    lay_queries(a, &r, parts);
    for (int64_t key = 0; key < n_keys; key += tile_keys) {
        const int64_t n = n_keys - key < tile_keys ? n_keys - key : tile_keys;
        lay_keys(a, &r, key, n, parts);
        r.asked = key + n;
        r.ask = key + n + (n_keys - key - n < tile_keys ? n_keys - key - n : tile_keys);
        for (int64_t i = 0; i < rows; i += 32)
            some_rows(a, &r, i / r.rows, i % r.rows, key, n, parts);
    }
    mm_amx_end();
    for (int64_t i = 0; i < a->heads * a->n; i++) {
        const int64_t h = i % a->heads, row = i / a->heads, at = h * r.rows + row;
        const float by = 1.0f / r.sum[at], *out = r.out + at * r.ldo;
        float *y = a->y + row * a->ldy + h * a->P;
        for (int64_t p = 0; p < a->P; p += 16) {
            const __mmask16 some = mm_pack_first(a->P - p);
            _mm512_mask_storeu_ps(y + p, some,
                                  _mm512_mul_ps(_mm512_load_ps(out + p), _mm512_set1_ps(by)));
        }
        if (a->lse) a->lse[row * a->ldl + h] = r.top[at] * 0.69314718056f + logf(r.sum[at]);
    }
}

size_t mm_attend_room_halves(int64_t P, int64_t heads, int64_t n) {
    struct room r;
    return lay_room(&r, NULL, P, heads, n, 2);
}

MM_TILES void mm_attend_halves(const struct mm_attend *a) {
    attend(a, 2);
}

MM_TILES void mm_attend_rounded(const struct mm_attend *a) {
    attend(a, 1);
}
