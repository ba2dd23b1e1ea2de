// The two sides of a bf16 product as tiles, see tiles.h. This is also where f32 is rounded, so that
// no separate conversion is needed.
#include "ops/cpu/tiles_bf16.h"
#include "ops/cpu/amx.h"
#include "ops/cpu/tiles_lay_x86.h"
#include "ops/cpu/tiles_x86.h"

#define BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

enum {
    tile_k = 32,     // k of a tile
    pass_tiles = 64  // a panel of one pass takes 128 KiB
};

BF16 static inline __mmask16 first16(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

// 16 rows of 32 k each from a matrix whose rows hold k: n_rows and n_k of them are there.
BF16 static inline void load_rows(__m512i out[16], const struct mm_side *s, int64_t row, int64_t k,
                                  int64_t n_rows, int64_t n_k) {
    const __mmask16 lo = first16(n_k), hi = first16(n_k - 16);
    for (int r = 0; r < 16; r++) {
        if (r >= n_rows) {
            out[r] = _mm512_setzero_si512();
        } else if (s->dtype == mm_dtype_f32) {
            const float *p = (const float *)s->data + (row + r) * s->ld + k;
            out[r] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, p + 16),
                                                  _mm512_maskz_loadu_ps(lo, p));
        } else {
            const uint16_t *p = (const uint16_t *)s->data + (row + r) * s->ld + k;
            out[r] = _mm512_maskz_loadu_epi16((__mmask32)lo | (__mmask32)hi << 16, p);
        }
    }
}

// 16 pairs of k by 16 columns from a matrix whose rows are k.
BF16 static inline void load_pairs(__m512i out[16], const struct mm_side *s, int64_t k, int64_t col,
                                   int64_t n_k, int64_t n_cols) {
    const __mmask16 some = first16(n_cols);
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int pair = 0; pair < 16; pair++) {
        const __mmask16 first = 2 * pair < n_k ? some : 0;
        const __mmask16 second = 2 * pair + 1 < n_k ? some : 0;
        const int64_t at = (k + 2 * pair) * s->ld + col;
        if (s->dtype == mm_dtype_f32) {
            const float *p = (const float *)s->data + at;
            const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(
                _mm512_maskz_loadu_ps(second, p + s->ld), _mm512_maskz_loadu_ps(first, p));
            out[pair] = _mm512_permutexvar_epi16(zip, both);
        } else {
            const uint16_t *p = (const uint16_t *)s->data + at;
            const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, p));
            const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(second, p + s->ld));
            out[pair] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
        }
    }
}

// Tiles of k from kt on of one panel, which begins at row or column `at` of n; `is_b` decides how
// pairs of k must lie.
BF16 static inline void lay(char *to, const struct mm_side *s, int64_t at, int64_t n, int64_t k_dim,
                            int64_t kt, int64_t n_k, bool is_b) {
    for (int64_t i = 0; i < n_k; i++) {
        for (int half = 0; half < 2; half++, to += mm_tile_bytes) {
            const int64_t first = at + half * mm_tile_side, k = (kt + i) * tile_k;
            __m512i r[16];
            if (s->by_k) {
                load_pairs(r, s, k, first, k_dim - k, n - first);
            } else {
                load_rows(r, s, first, k, n - first, k_dim - k);
            }
            if (s->by_k != is_b) mm_turn_tile(r);
            for (int j = 0; j < 16; j++)
                _mm512_store_si512(to + j * mm_tile_row, r[j]);
        }
    }
}

BF16 static void lay_a(const struct mm_tiles *p, char *to, int64_t at, int64_t kt, int64_t n_k) {
    const struct mm_dense *d = p->with;
    lay(to, &d->a, at, d->m, d->k, kt, n_k, false);
}

BF16 static void lay_b(const struct mm_tiles *p, char *to, int64_t at, int64_t kt, int64_t n_k) {
    const struct mm_dense *d = p->with;
    lay(to, &d->b, at, d->n, d->k, kt, n_k, true);
}

void mm_tiles_bf16_product(struct mm_backend *be, const struct mm_dense *d) {
    struct mm_tiles p = {.m = d->m,
                         .n = d->n,
                         .k_tiles = (d->k + tile_k - 1) / tile_k,
                         .pass = pass_tiles,
                         .c = d->c,
                         .ldc = d->ldc,
                         .row_block = 4 * mm_panel,
                         .a_by_k = d->a.by_k,
                         .b_by_k = d->b.by_k,
                         .accumulate = d->accumulate,
                         .with = d,
                         .lay_a = lay_a,
                         .lay_b = lay_b,
                         .multiply = mm_avx512_bf16_multiply};
    if (mm_cpu_isa(be) >= mm_isa_amx) {
        p.row_block = 32 * mm_panel;
        p.multiply = mm_amx_bf16_multiply;
        p.begin = mm_amx_begin, p.end = mm_amx_end;
    }
    mm_tiles_product(be, &p);
}
