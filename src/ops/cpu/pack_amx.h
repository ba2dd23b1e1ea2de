// Laying f32 operands out as bf16 tiles (AMX). A tile holds 16 rows or columns and 32 k, as 16
// pairs (k, k + 16), which takes no shuffles. `parts` 1: rounded to bf16. 2: as a sum of two bf16
// numbers, with a rest below 2^-17 of it; the tile of the upper halves, then that of the lower.
#ifndef MM_OPS_CPU_PACK_AMX_H
#define MM_OPS_CPU_PACK_AMX_H

#include "ops/cpu/tiles_lay_x86.h"
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define MM_PACKS  \
    static inline \
        __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"), unused, always_inline))
#define MM_TILES __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl")))
#define MM_TILES_INLINE static inline MM_TILES __attribute__((always_inline, unused))

enum {
    mm_pack_k = 32,
    mm_pack_side = 16,
    mm_pack_words = 256,  // of 32 bits, of one part of a tile
};

MM_PACKS __mmask16 mm_pack_first(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

// Pairs (x, y) of words: rounded, and what is left rounded.
MM_PACKS void mm_pack_split(__m512 x, __m512 y, __m512i *hi, __m512i *lo, const int parts) {
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-65536);
    const __m512i xi = _mm512_add_epi32(_mm512_castps_si512(x), half);
    const __m512i yi = _mm512_add_epi32(_mm512_castps_si512(y), half);
    const __m512i yh = _mm512_and_si512(yi, upper);
    *hi = _mm512_or_si512(_mm512_srli_epi32(xi, 16), yh);
    if (parts == 1) return;
    const __m512i xh = _mm512_and_si512(xi, upper);
    const __m512i xl = _mm512_castps_si512(_mm512_sub_ps(x, _mm512_castsi512_ps(xh)));
    const __m512i yl = _mm512_castps_si512(_mm512_sub_ps(y, _mm512_castsi512_ps(yh)));
    *lo = _mm512_or_si512(_mm512_srli_epi32(_mm512_add_epi32(xl, half), 16),
                          _mm512_and_si512(_mm512_add_epi32(yl, half), upper));
}

// Row r of a tile.
MM_PACKS void mm_pack_row(uint32_t *to, int64_t r, __m512 x, __m512 y, const int parts) {
    __m512i hi, lo;
    mm_pack_split(x, y, &hi, &lo, parts);
    _mm512_store_si512(to + r * 16, hi);
    if (parts == 2) _mm512_store_si512(to + mm_pack_words + r * 16, lo);
}

MM_PACKS void mm_pack_store(uint32_t *to, __m512i hi[16], __m512i lo[16], bool turn,
                            const int parts) {
    if (turn) mm_turn_tile(hi);
    for (int r = 0; r < 16; r++)
        _mm512_store_si512(to + r * 16, hi[r]);
    if (parts == 1) return;
    if (turn) mm_turn_tile(lo);
    for (int r = 0; r < 16; r++)
        _mm512_store_si512(to + mm_pack_words + r * 16, lo[r]);
}

// One tile. A row of `from` holds the k of one row of the tile; n_side rows and n_k are there, the
// rest becomes zero. scale: a factor a row, or NULL.
MM_PACKS void mm_pack_across(uint32_t *to, const float *from, int64_t ld, int64_t n_side,
                             int64_t n_k, const float *scale, const int parts) {
    const __mmask16 low = mm_pack_first(n_k), high = mm_pack_first(n_k - 16);
    for (int r = 0; r < 16; r++, from += ld) {
        const bool there = r < n_side;
        __m512 x = _mm512_maskz_loadu_ps(there ? low : 0, from);
        __m512 y = _mm512_maskz_loadu_ps(there ? high : 0, from + 16);
        if (scale) {
            const __m512 by = _mm512_set1_ps(there ? scale[r] : 0.0f);
            x = _mm512_mul_ps(by, x), y = _mm512_mul_ps(by, y);
        }
        mm_pack_row(to, r, x, y, parts);
    }
}

// A row of `from` holds one k of 16 rows or columns of the matrix. scale: a factor a k. `turn`: the
// rows of the tile are those of the matrix (A), else they are pairs of k (B).
MM_PACKS void mm_pack_along(uint32_t *to, const float *from, int64_t ld, int64_t n_side,
                            int64_t n_k, const float *scale, bool turn, const int parts) {
    const __mmask16 some = mm_pack_first(n_side);
    __m512i hi[16], lo[16];
    for (int r = 0; r < 16; r++) {
        __m512 x = _mm512_maskz_loadu_ps(r < n_k ? some : 0, from + r * ld);
        __m512 y = _mm512_maskz_loadu_ps(r + 16 < n_k ? some : 0, from + (r + 16) * ld);
        if (scale) {
            x = _mm512_mul_ps(x, _mm512_set1_ps(r < n_k ? scale[r] : 0.0f));
            y = _mm512_mul_ps(y, _mm512_set1_ps(r + 16 < n_k ? scale[r + 16] : 0.0f));
        }
        mm_pack_split(x, y, hi + r, lo + r, parts);
    }
    mm_pack_store(to, hi, lo, turn, parts);
}

// A row of `from` holds the k of one column of B.
MM_PACKS void mm_pack_turned(uint32_t *to, const float *from, int64_t ld, int64_t n_side,
                             int64_t n_k, const int parts) {
    const __mmask16 low = mm_pack_first(n_k), high = mm_pack_first(n_k - 16);
    __m512i hi[16], lo[16];
    for (int r = 0; r < 16; r++) {
        const bool there = r < n_side;
        mm_pack_split(_mm512_maskz_loadu_ps(there ? low : 0, from + r * ld),
                      _mm512_maskz_loadu_ps(there ? high : 0, from + r * ld + 16), hi + r, lo + r,
                      parts);
    }
    mm_pack_store(to, hi, lo, true, parts);
}

// ---- products ----

// Sums of `rows` x 2 tiles over n tiles of k are added to tiles 0 to 3. The next row of A is a_next
// words on, the next column of B b_next.
#define MM_PACK_PRODUCTS(upper_a, lower_a) \
    _tile_dpbf16ps(0, upper_a, 4);         \
    _tile_dpbf16ps(1, upper_a, 5);         \
    if (rows == 2) {                       \
        _tile_dpbf16ps(2, lower_a, 4);     \
        _tile_dpbf16ps(3, lower_a, 5);     \
    }
MM_TILES_INLINE void mm_pack_multiply(const uint32_t *a, int64_t a_next, const uint32_t *b,
                                      int64_t b_next, int64_t n, const int rows, const int parts) {
    const int64_t words = parts * mm_pack_words;
    for (int64_t k = 0; k < n; k++, a += words, b += words) {
        _tile_loadd(4, b, 64);
        _tile_loadd(6, a, 64);
        _tile_loadd(5, b + b_next, 64);
        if (rows == 2) _tile_loadd(7, a + a_next, 64);
        MM_PACK_PRODUCTS(6, 7)
        if (parts == 1) continue;
        _tile_loadd(6, a + mm_pack_words, 64);
        if (rows == 2) _tile_loadd(7, a + a_next + mm_pack_words, 64);
        MM_PACK_PRODUCTS(6, 7)
        _tile_loadd(6, a, 64);
        _tile_loadd(4, b + mm_pack_words, 64);
        _tile_loadd(5, b + b_next + mm_pack_words, 64);
        if (rows == 2) _tile_loadd(7, a + a_next, 64);
        MM_PACK_PRODUCTS(6, 7)
    }
}

// A tile store after some 1,500 cycles without one takes some 1,000 (docs/PERFORMANCE.md): where
// there is other work between products, one that nobody reads now and then keeps the next one
// short.
MM_TILES_INLINE void mm_pack_stay_awake(uint32_t *unread) {
    _tile_stored(7, unread, 64);
}

MM_TILES_INLINE void mm_pack_zero(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

MM_TILES_INLINE void mm_pack_put(float *c, int64_t ld, const int rows) {
    _tile_stored(0, c, ld * 4);
    _tile_stored(1, c + 16, ld * 4);
    if (rows == 1) return;
    _tile_stored(2, c + 16 * ld, ld * 4);
    _tile_stored(3, c + 16 * ld + 16, ld * 4);
}

#endif
