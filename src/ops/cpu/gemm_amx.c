// Small f32 products on the bf16 tiles of the processor (AMX). An f32 number is a sum of two bf16
// numbers and a rest below 2^-17 of it, so
//   A B = A_hi B_hi + A_hi B_lo + A_lo B_hi    within some 2^-16 of the magnitudes, summed in f32:
// three products at 16 times the rate of f32. Operands are laid out as tiles on the way: a tile
// holds 32 k, as 16 pairs (k, k + 16), which takes no shuffles.
#include "ops/cpu/mixer.h"
#include <immintrin.h>

#define PACKS static inline __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define TILES __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl")))

enum {
    tile_k = 32,
    tile_side = 16,
    tile_words = 256,  // of 32 bits: a tile of hi or lo
    pair_words = 512,  // hi, then lo
    block_k = 128,     // k and columns of B laid out at a time
    block_n = 128,
    k_tiles = block_k / tile_k,
    least_work = 24 * 24 * 24  // below, tiles are mostly edges
};

struct operands {
    _Alignas(64) uint32_t a[2 * k_tiles * pair_words];                    // 32 rows
    _Alignas(64) uint32_t b[block_n / tile_side * k_tiles * pair_words];  // (column tile, k tile)
    _Alignas(64) float edge[32 * 32];
};

PACKS __mmask16 first16(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

// Pairs (x, y) of words: the upper halves rounded, and what is left rounded.
PACKS void split(__m512 x, __m512 y, __m512i *hi, __m512i *lo) {
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-65536);
    const __m512i xi = _mm512_add_epi32(_mm512_castps_si512(x), half);
    const __m512i yi = _mm512_add_epi32(_mm512_castps_si512(y), half);
    const __m512i xh = _mm512_and_si512(xi, upper), yh = _mm512_and_si512(yi, upper);
    *hi = _mm512_or_si512(_mm512_srli_epi32(xi, 16), yh);
    const __m512i xl = _mm512_castps_si512(_mm512_sub_ps(x, _mm512_castsi512_ps(xh)));
    const __m512i yl = _mm512_castps_si512(_mm512_sub_ps(y, _mm512_castsi512_ps(yh)));
    *lo = _mm512_or_si512(_mm512_srli_epi32(_mm512_add_epi32(xl, half), 16),
                          _mm512_and_si512(_mm512_add_epi32(yl, half), upper));
}

// 16 x 16 words.
PACKS void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int j = 0; j < 4; j++) {  // lanes of 128 bits: 0 and 2, then 1 and 3
        const __m512i a = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        const __m512i c = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
        const __m512i d = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
        t[j] = _mm512_shuffle_i32x4(a, b, 0x88);
        t[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
        t[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}

// One tile, hi and lo. `across`: a row of `from` holds the k of one row of the tile; else it holds
// one k. n_side rows of the tile (columns of B) and n_k are there, the rest becomes zero.
PACKS void pack_across(uint32_t *to, const float *from, int64_t ld, int64_t n_side, int64_t n_k,
                       const float *scale) {
    const __mmask16 low = first16(n_k), high = first16(n_k - 16);
    for (int r = 0; r < 16; r++, from += ld) {
        const bool there = r < n_side;
        const __m512 by = _mm512_set1_ps(scale && there ? scale[r] : 1.0f);
        __m512i hi, lo;
        split(_mm512_mul_ps(by, _mm512_maskz_loadu_ps(there ? low : 0, from)),
              _mm512_mul_ps(by, _mm512_maskz_loadu_ps(there ? high : 0, from + 16)), &hi, &lo);
        _mm512_store_si512(to + r * 16, hi);
        _mm512_store_si512(to + tile_words + r * 16, lo);
    }
}

PACKS void store_tile(uint32_t *to, const __m512i hi[16], const __m512i lo[16]) {
    for (int r = 0; r < 16; r++) {
        _mm512_store_si512(to + r * 16, hi[r]);
        _mm512_store_si512(to + tile_words + r * 16, lo[r]);
    }
}

PACKS void pack_along(uint32_t *to, const float *from, int64_t ld, int64_t n_side, int64_t n_k,
                      const float *scale, bool turn) {
    const __mmask16 some = first16(n_side);
    __m512i hi[16], lo[16];
    for (int r = 0; r < 16; r++) {
        __m512 x = _mm512_maskz_loadu_ps(r < n_k ? some : 0, from + r * ld);
        __m512 y = _mm512_maskz_loadu_ps(r + 16 < n_k ? some : 0, from + (r + 16) * ld);
        if (scale) {
            x = _mm512_mul_ps(x, _mm512_set1_ps(r < n_k ? scale[r] : 0.0f));
            y = _mm512_mul_ps(y, _mm512_set1_ps(r + 16 < n_k ? scale[r + 16] : 0.0f));
        }
        split(x, y, hi + r, lo + r);
    }
    if (turn) transpose(hi), transpose(lo);
    store_tile(to, hi, lo);
}

// The same with rows of `from` that hold the k of one column each: 16 columns of B.
PACKS void pack_turned(uint32_t *to, const float *from, int64_t ld, int64_t n_side, int64_t n_k) {
    const __mmask16 low = first16(n_k), high = first16(n_k - 16);
    __m512i hi[16], lo[16];
    for (int r = 0; r < 16; r++) {
        const bool there = r < n_side;
        split(_mm512_maskz_loadu_ps(there ? low : 0, from + r * ld),
              _mm512_maskz_loadu_ps(there ? high : 0, from + r * ld + 16), hi + r, lo + r);
    }
    transpose(hi), transpose(lo);
    store_tile(to, hi, lo);
}

// 32 rows of A from row i on, k in [k0, k1).
PACKS void pack_a(uint32_t *to, const struct mm_gemm *g, int64_t i, int64_t k0, int64_t k1) {
    for (int64_t half = 0; half < 2 && i + 16 * half < g->m; half++) {
        const int64_t row = i + 16 * half, rows = g->m - row;
        uint32_t *at = to + half * k_tiles * pair_words;
        for (int64_t k = k0; k < k1; k += tile_k, at += pair_words) {
            const float *from = g->a + row * g->a_row + k * g->a_col;
            if (g->a_col == 1) {
                pack_across(at, from, g->a_row, rows, k1 - k, g->scale_a ? g->scale_a + row : NULL);
            } else {
                pack_along(at, from, g->a_col, rows, k1 - k, NULL, true);
            }
        }
    }
}

PACKS void pack_b(uint32_t *to, const struct mm_gemm *g, int64_t j0, int64_t j1, int64_t k0,
                  int64_t k1) {
    const int64_t n_b = g->n_b ? g->n_b : g->n;
    for (int64_t j = j0; j < j1; j += tile_side, to += k_tiles * pair_words) {
        uint32_t *at = to;
        for (int64_t k = k0; k < k1; k += tile_k, at += pair_words) {
            if (g->b_turned) {
                pack_turned(at, g->b + j * g->ldb + k, g->ldb, n_b - j, k1 - k);
            } else {
                pack_along(at, g->b + k * g->ldb + j, g->ldb, n_b - j, k1 - k,
                           g->scale_b ? g->scale_b + k : NULL, false);
            }
        }
    }
}

// Rows x columns of tiles of C, each 1 or 2; the sums of hi hi, lo hi and hi lo.
#define AT(p, t, part) ((p) + ((t)*k_tiles) * pair_words + (part)*tile_words)
TILES static void mul22(const uint32_t *a, const uint32_t *b, int64_t n) {
    for (int64_t k = 0; k < n; k++, a += pair_words, b += pair_words) {
        _tile_loadd(4, AT(b, 0, 0), 64);
        _tile_loadd(6, AT(a, 0, 0), 64);
        _tile_loadd(5, AT(b, 1, 0), 64);
        _tile_dpbf16ps(0, 6, 4);
        _tile_loadd(7, AT(a, 1, 0), 64);
        _tile_dpbf16ps(1, 6, 5);
        _tile_dpbf16ps(2, 7, 4);
        _tile_dpbf16ps(3, 7, 5);
        _tile_loadd(6, AT(a, 0, 1), 64);
        _tile_loadd(7, AT(a, 1, 1), 64);
        _tile_dpbf16ps(0, 6, 4);
        _tile_dpbf16ps(1, 6, 5);
        _tile_dpbf16ps(2, 7, 4);
        _tile_dpbf16ps(3, 7, 5);
        _tile_loadd(6, AT(a, 0, 0), 64);
        _tile_loadd(4, AT(b, 0, 1), 64);
        _tile_loadd(5, AT(b, 1, 1), 64);
        _tile_loadd(7, AT(a, 1, 0), 64);
        _tile_dpbf16ps(0, 6, 4);
        _tile_dpbf16ps(1, 6, 5);
        _tile_dpbf16ps(2, 7, 4);
        _tile_dpbf16ps(3, 7, 5);
    }
}

TILES static void mul11(const uint32_t *a, const uint32_t *b, int64_t n) {
    for (int64_t k = 0; k < n; k++, a += pair_words, b += pair_words) {
        _tile_loadd(4, b, 64);
        _tile_loadd(5, b + tile_words, 64);
        _tile_loadd(6, a, 64);
        _tile_loadd(7, a + tile_words, 64);
        _tile_dpbf16ps(0, 6, 4);
        _tile_dpbf16ps(0, 7, 4);
        _tile_dpbf16ps(0, 6, 5);
    }
}

// How a block of sums joins C: it is C, or C goes on being summed, or C becomes alpha C + block.
// The last in one multiply-add of the finished sum, as scan() of kernel_ssd.h has it.
enum join { join_store, join_sum, join_scaled };

// rows x 16 of C and of a buffer whose rows are 32 apart.
TILES static void join_buffer(float *c, int64_t ldc, const float *from, int64_t rows, float alpha) {
    for (int64_t r = 0; r < rows; r++) {
        __m512 x = _mm512_load_ps(from + r * 32);
        float *at = c + r * ldc;
        if (alpha != 0.0f) x = _mm512_fmadd_ps(_mm512_loadu_ps(at), _mm512_set1_ps(alpha), x);
        _mm512_storeu_ps(at, x);
    }
}

TILES static void mul_edge(float *edge, const uint32_t *a, const uint32_t *b, int64_t n, float *c,
                           int64_t ldc, int64_t rows, enum join join, float alpha) {
    if (rows > 16) rows = 16;
    _tile_zero(0);
    mul11(a, b, n);
    if (rows == 16 && join == join_store) {
        _tile_stored(0, c, ldc * 4);
        return;
    }
    _tile_stored(0, edge, 128);
    join_buffer(c, ldc, edge, rows, join == join_store ? 0.0f : join == join_sum ? 1.0f : alpha);
}

// Up to 32 x 32 of C at row i, column j.
TILES static void mul(struct operands *o, const struct mm_gemm *g, int64_t i, int64_t j, int64_t b,
                      int64_t first, int64_t n, enum join join) {
    const uint32_t *pa = o->a + first * pair_words;
    const uint32_t *pb = o->b + (b * k_tiles + first) * pair_words;
    float *c = g->c + i * g->ldc + j, *to = join == join_scaled ? o->edge : c;
    const int64_t rows = g->m - i, cols = g->n - j, ld = join == join_scaled ? 32 : g->ldc;
    if (rows < 32 || cols < 32) {
        for (int64_t r = 0; r < 2 && r * 16 < rows; r++) {
            for (int64_t t = 0; t < 2 && t * 16 < cols; t++) {
                mul_edge(o->edge, AT(pa, r, 0), AT(pb, t, 0), n, c + r * 16 * g->ldc + t * 16,
                         g->ldc, rows - r * 16, join, g->alpha);
            }
        }
        return;
    }
    if (join == join_sum) {
        _tile_loadd(0, c, ld * 4);
        _tile_loadd(1, c + 16, ld * 4);
        _tile_loadd(2, c + 16 * ld, ld * 4);
        _tile_loadd(3, c + 16 * ld + 16, ld * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    mul22(pa, pb, n);
    _tile_stored(0, to, ld * 4);
    _tile_stored(1, to + 16, ld * 4);
    _tile_stored(2, to + 16 * ld, ld * 4);
    _tile_stored(3, to + 16 * ld + 16, ld * 4);
    if (join != join_scaled) return;
    join_buffer(c, g->ldc, to, 32, g->alpha);
    join_buffer(c + 16, g->ldc, to + 16, 32, g->alpha);
}

// In memory of its own: gcc's intrinsic names only the first eight bytes as read, and the rest of a
// local one would be left out.
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} config = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

TILES static void configure(void) {
    _tile_loadconfig(&config);
}

// Columns [j0, j1) and k in [k0, k1), which o->b holds.
TILES static void block(struct operands *o, const struct mm_gemm *g, int64_t j0, int64_t j1,
                        int64_t k0, int64_t k1, enum join join) {
    for (int64_t i = 0; i < g->m; i += 32) {
        int64_t from = k0, to = k1, last = j1;
        if (g->part == mm_part_lower && i + 32 < last) last = i + 32;
        if (g->part == mm_part_a_lower && i + 32 < to) to = i + 32;
        if (g->part == mm_part_a_upper && i > from) from = i;
        if (last <= j0) continue;
        if (from >= to && join != join_store) continue;
        const int64_t first = (from - k0) / tile_k, n = (to - from + tile_k - 1) / tile_k;
        if (from < to) pack_a(o->a + first * pair_words, g, i, from, to);
        for (int64_t j = j0; j < last; j += 32) {
            mul(o, g, i, j, (j - j0) / tile_side, first, from < to ? n : 0, join);
        }
    }
}

TILES void mm_gemm_amx(const struct mm_gemm *g) {
    const bool folded = g->b_turned || g->n_b || g->scale_a || g->scale_b;
    if (!folded &&
        (g->m * g->n * g->k < least_work || g->m < 8 || (g->a_col != 1 && g->a_row != 1))) {
        mm_mixer_avx512.gemm(g);
        return;
    }
    struct operands o;
    configure();
    for (int64_t j = 0; j < g->n; j += block_n) {
        const int64_t j1 = g->n - j < block_n ? g->n : j + block_n;
        for (int64_t k = 0; k < g->k; k += block_k) {
            const int64_t k1 = g->k - k < block_k ? g->k : k + block_k;
            pack_b(o.b, g, j, j1, k, k1);
            block(&o, g, j, j1, k, k1,
                  k > 0              ? join_sum
                  : g->alpha != 0.0f ? join_scaled
                                     : join_store);
        }
    }
    _tile_release();
}
