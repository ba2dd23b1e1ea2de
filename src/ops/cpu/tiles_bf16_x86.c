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

// 32 of row k as bf16.
BF16 static inline __m512i load_32(const struct mm_side *s, int64_t row, int64_t k, int64_t n_k) {
    const __mmask16 lo = first16(n_k), hi = first16(n_k - 16);
    if (s->dtype == mm_dtype_f32) {
        const float *p = (const float *)s->data + row * s->ld + k;
        return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, p + 16),
                                            _mm512_maskz_loadu_ps(lo, p));
    }
    const uint16_t *p = (const uint16_t *)s->data + row * s->ld + k;
    return _mm512_maskz_loadu_epi16((__mmask32)lo | (__mmask32)hi << 16, p);
}

// 16 columns of rows k and k + 1 as pairs; `first` and `second` are what is there of them.
BF16 static inline __m512i load_pairs(const struct mm_side *s, int64_t k, int64_t col,
                                      __mmask16 first, __mmask16 second) {
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const int64_t at = k * s->ld + col;
    if (s->dtype == mm_dtype_f32) {
        const float *p = (const float *)s->data + at;
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(second, p + s->ld),
                                                          _mm512_maskz_loadu_ps(first, p));
        return _mm512_permutexvar_epi16(zip, both);
    }
    const uint16_t *p = (const uint16_t *)s->data + at;
    const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, p));
    const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(second, p + s->ld));
    return _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
}

struct place {
    char *to;
    int64_t next;        // bytes from panel to panel
    int64_t at, panels;  // the first row or column, and panels from there on
    int64_t n, k;        // rows or columns and k of the whole
    int64_t kt, n_k;
};

// A whose rows hold k: one row after the other.
BF16 static void rows_down(const struct place *p, const struct mm_side *s) {
    for (int64_t r = 0; r < p->panels * mm_panel; r++) {
        char *to = p->to + r / mm_panel * p->next + r % mm_panel * mm_tile_row;
        for (int64_t i = 0; i < p->n_k; i++, to += mm_tile_pair) {
            const int64_t k = (p->kt + i) * tile_k;
            const __m512i v =
                p->at + r < p->n ? load_32(s, p->at + r, k, p->k - k) : _mm512_setzero_si512();
            _mm512_store_si512(to, v);
        }
    }
}

// B whose memory holds the k of a column in a row: 16 of them side by side, turned.
BF16 static void rows_turned(const struct place *p, const struct mm_side *s) {
    for (int64_t c = 0; c < p->panels * mm_panel; c += mm_tile_side) {
        char *to = p->to + c / mm_panel * p->next + c % mm_panel / mm_tile_side * mm_tile_bytes;
        for (int64_t i = 0; i < p->n_k; i++, to += mm_tile_pair) {
            const int64_t k = (p->kt + i) * tile_k;
            __m512i r[16];
            for (int j = 0; j < 16; j++) {
                const int64_t row = p->at + c + j;
                r[j] = row < p->n ? load_32(s, row, k, p->k - k) : _mm512_setzero_si512();
            }
            mm_turn_tile(r);
            for (int j = 0; j < 16; j++)
                _mm512_store_si512(to + j * mm_tile_row, r[j]);
        }
    }
}

// B whose rows are k: two of them after the other.
BF16 static void pairs_down(const struct place *p, const struct mm_side *s) {
    for (int64_t i = 0; i < p->n_k * mm_tile_side; i++) {
        const int64_t k = p->kt * tile_k + 2 * i;
        char *row = p->to + i / mm_tile_side * mm_tile_pair + i % mm_tile_side * mm_tile_row;
        for (int64_t c = 0; c < p->panels * mm_panel; c += mm_tile_side) {
            const __mmask16 some = first16(p->n - p->at - c);
            const __m512i v =
                load_pairs(s, k, p->at + c, k < p->k ? some : 0, k + 1 < p->k ? some : 0);
            _mm512_store_si512(
                row + c / mm_panel * p->next + c % mm_panel / mm_tile_side * mm_tile_bytes, v);
        }
    }
}

// A whose memory has a row for each k.
BF16 static void pairs_turned(const struct place *p, const struct mm_side *s) {
    for (int64_t i = 0; i < p->n_k; i++) {
        for (int64_t c = 0; c < p->panels * mm_panel; c += mm_tile_side) {
            const __mmask16 some = first16(p->n - p->at - c);
            char *to = p->to + c / mm_panel * p->next + i * mm_tile_pair +
                       c % mm_panel / mm_tile_side * mm_tile_bytes;
            __m512i r[16];
            for (int j = 0; j < 16; j++) {
                const int64_t k = (p->kt + i) * tile_k + 2 * j;
                r[j] = load_pairs(s, k, p->at + c, k < p->k ? some : 0, k + 1 < p->k ? some : 0);
            }
            mm_turn_tile(r);
            for (int j = 0; j < 16; j++)
                _mm512_store_si512(to + j * mm_tile_row, r[j]);
        }
    }
}

static void lay_a(const struct mm_tiles *p, char *to, int64_t next, int64_t at, int64_t panels,
                  int64_t kt, int64_t n_k) {
    const struct mm_dense *d = p->with;
    const struct place place = {to, next, at, panels, d->m, d->k, kt, n_k};
    (d->a.by_k ? pairs_turned : rows_down)(&place, &d->a);
}

BF16 static void lay_a_from(const struct mm_tiles *p, char *to, const float *x, int64_t ld,
                            int64_t at, int64_t kt, int64_t cols) {
    const struct mm_side s = {x, mm_dtype_f32, ld, false};
    const struct place place = {to, 0, 0, 1, p->m - at, cols, 0, (cols + tile_k - 1) / tile_k};
    (void)kt;
    rows_down(&place, &s);
}

static void lay_b(const struct mm_tiles *p, char *to, int64_t next, int64_t at, int64_t panels,
                  int64_t kt, int64_t n_k) {
    const struct mm_dense *d = p->with;
    const struct place place = {to, next, at, panels, d->n, d->k, kt, n_k};
    (d->b.by_k ? pairs_down : rows_turned)(&place, &d->b);
}

static struct mm_tiles tiles_of(enum mm_isa isa, const struct mm_dense *d) {
    struct mm_tiles p = {.m = d->m,
                         .n = d->n,
                         .k_tiles = (d->k + tile_k - 1) / tile_k,
                         .tile_k = tile_k,
                         .pass = pass_tiles,
                         .c = d->c,
                         .ldc = d->ldc,
                         .row_block = 4 * mm_panel,
                         .a_by_k = d->a.by_k,
                         .accumulate = d->accumulate,
                         .with = d,
                         .lay_a = lay_a,
                         .lay_b = lay_b,
                         .lay_a_from = lay_a_from,
                         .multiply = mm_avx512_bf16_multiply};
    if (isa >= mm_isa_amx) {
        p.row_block = 32 * mm_panel;
        p.multiply = mm_amx_bf16_multiply;
        p.begin = mm_amx_begin, p.end = mm_amx_end;
    }
    return p;
}

void mm_tiles_bf16_product(struct mm_backend *be, const struct mm_dense *d) {
    const struct mm_tiles p = tiles_of(mm_cpu_isa(be), d);
    mm_tiles_product(be, &p);
}

void mm_tiles_bf16_ffn(struct mm_backend *be, const struct mm_dense *gate,
                       const struct mm_dense *up, const struct mm_dense *down) {
    const enum mm_isa isa = mm_cpu_isa(be);
    struct mm_tiles p[3] = {tiles_of(isa, gate), tiles_of(isa, up), tiles_of(isa, down)};
    p[0].row_block = mm_panel;  // both products of a panel of A while it is near
    mm_tiles_ffn(be, &p[0], &p[1], &p[2]);
}
