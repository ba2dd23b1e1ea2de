// Small f32 products on the bf16 tiles of the processor (AMX). An f32 number is a sum of two bf16
// numbers and a rest below 2^-17 of it, so
//   A B = A_hi B_hi + A_hi B_lo + A_lo B_hi    within some 2^-16 of the magnitudes, summed in f32:
// three products at 16 times the rate of f32. Operands are laid out as tiles on the way: a tile
// holds 32 k, as 16 pairs (k, k + 16), which takes no shuffles.
#include "ops/cpu/amx.h"
#include "ops/cpu/mixer.h"
#include "ops/cpu/pack_amx.h"

enum {
    tile_k = mm_pack_k,
    tile_side = mm_pack_side,
    tile_words = mm_pack_words,
    pair_words = 2 * tile_words,  // hi, then lo
    block_k = 128,                // k and columns of B laid out at a time
    block_n = 128,
    k_tiles = block_k / tile_k,
    least_work = 24 * 24 * 24  // below, tiles are mostly edges
};

struct operands {
    _Alignas(64) uint32_t a[2 * k_tiles * pair_words];                    // 32 rows
    _Alignas(64) uint32_t b[block_n / tile_side * k_tiles * pair_words];  // (column tile, k tile)
    _Alignas(64) float edge[32 * 32];
};

// 32 rows of A from row i on, k in [k0, k1).
MM_PACKS void pack_a(uint32_t *to, const struct mm_gemm *g, int64_t i, int64_t k0, int64_t k1) {
    for (int64_t half = 0; half < 2 && i + 16 * half < g->m; half++) {
        const int64_t row = i + 16 * half, rows = g->m - row;
        uint32_t *at = to + half * k_tiles * pair_words;
        for (int64_t k = k0; k < k1; k += tile_k, at += pair_words) {
            const float *from = g->a + row * g->a_row + k * g->a_col;
            if (g->a_col == 1) {
                mm_pack_across(at, from, g->a_row, rows, k1 - k, NULL, 2);
            } else {
                mm_pack_along(at, from, g->a_col, rows, k1 - k, NULL, true, 2);
            }
        }
    }
}

MM_PACKS void pack_b(uint32_t *to, const struct mm_gemm *g, int64_t j0, int64_t j1, int64_t k0,
                     int64_t k1) {
    for (int64_t j = j0; j < j1; j += tile_side, to += k_tiles * pair_words) {
        uint32_t *at = to;
        for (int64_t k = k0; k < k1; k += tile_k, at += pair_words) {
            mm_pack_along(at, g->b + k * g->ldb + j, g->ldb, g->n - j, k1 - k, NULL, false, 2);
        }
    }
}

// Rows x columns of tiles of C, each 1 or 2; the sums of hi hi, lo hi and hi lo.
#define AT(p, t, part) ((p) + ((t)*k_tiles) * pair_words + (part)*tile_words)
MM_TILES static void mul22(const uint32_t *a, const uint32_t *b, int64_t n) {
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

MM_TILES static void mul11(const uint32_t *a, const uint32_t *b, int64_t n) {
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
MM_TILES static void join_buffer(float *c, int64_t ldc, const float *from, int64_t rows,
                                 float alpha) {
    for (int64_t r = 0; r < rows; r++) {
        __m512 x = _mm512_load_ps(from + r * 32);
        float *at = c + r * ldc;
        if (alpha != 0.0f) x = _mm512_fmadd_ps(_mm512_loadu_ps(at), _mm512_set1_ps(alpha), x);
        _mm512_storeu_ps(at, x);
    }
}

MM_TILES static void mul_edge(float *edge, const uint32_t *a, const uint32_t *b, int64_t n,
                              float *c, int64_t ldc, int64_t rows, enum join join, float alpha) {
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
MM_TILES static void mul(struct operands *o, const struct mm_gemm *g, int64_t i, int64_t j,
                         int64_t b, int64_t first, int64_t n, enum join join) {
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

// Columns [j0, j1) and k in [k0, k1), which o->b holds.
MM_TILES static void block(struct operands *o, const struct mm_gemm *g, int64_t j0, int64_t j1,
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

MM_TILES void mm_gemm_amx(const struct mm_gemm *g) {
    if (g->m * g->n * g->k < least_work || g->m < 8 || (g->a_col != 1 && g->a_row != 1)) {
        mm_mixer_avx512.gemm(g);
        return;
    }
    struct operands o;
    mm_amx_begin();
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
    mm_amx_end();
}
