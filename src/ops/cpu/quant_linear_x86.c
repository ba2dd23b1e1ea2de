// Products with quantized weights on x86-64, see quant_linear.h and tiles.h: x is rounded to codes
// and laid out as tiles once; codes of weights are laid out, q4 expanded on the way, by whoever
// multiplies them.
#include "ops/cpu/amx.h"
#include "ops/cpu/quant_linear.h"
#include "ops/cpu/tiles_lay_x86.h"
#include "ops/cpu/tiles_quant.h"
#include "ops/cpu/tiles_x86.h"

#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))

enum {
    tile_codes = 64,  // of 8 bits in a row of a tile
    tile_wide = 32,   // of 16 bits
    pass_blocks = 32  // blocks of k of a pass: a panel of bytes takes 128 KiB
};

struct quant_sides {
    struct mm_tiles_quant q;  // first: what multiplications look at
    struct mm_view x, w;
    float *r;
    int32_t *start;  // NULL: not wanted
    float (*code_block)(int8_t *codes, const float *x, int64_t n);
    bool wide;     // codes of 16 bits
    uint8_t flip;  // what turns codes of B into unsigned ones
};

// ---- A: codes of x ----

AVX512 static float code_block_avx512(int8_t *codes, const float *x, int64_t n) {
    __m512 v[8], top = _mm512_setzero_ps();
    for (int i = 0; i < 8; i++) {
        const int64_t left = n - i * 16;
        const __mmask16 some = (__mmask16)(left >= 16  ? 0xffffu
                                           : left <= 0 ? 0u
                                                       : (1u << left) - 1u);
        v[i] = _mm512_maskz_loadu_ps(some, x + i * 16);
        top = _mm512_max_ps(top, _mm512_abs_ps(v[i]));
    }
    const float most = _mm512_reduce_max_ps(top);
    const __m512 by = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    for (int i = 0; i < 8; i++) {
        const __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], by));
        _mm_store_si128((__m128i *)(void *)(codes + i * 16), _mm512_cvtepi32_epi8(c));
    }
    return most / 127.0f;
}

AVX2 static float code_block_avx2(int8_t *codes, const float *x, int64_t n) {
    _Alignas(32) float v[mm_quant_block] = {0};
    memcpy(v, x, (size_t)n * sizeof *x);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 top = _mm256_setzero_ps();
    for (int i = 0; i < mm_quant_block; i += 8)
        top = _mm256_max_ps(top, _mm256_andnot_ps(sign, _mm256_load_ps(v + i)));
    float tops[8], most = 0;
    _mm256_storeu_ps(tops, top);
    for (int i = 0; i < 8; i++)
        most = tops[i] > most ? tops[i] : most;
    const __m256 by = _mm256_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    int32_t wide[8];
    for (int i = 0; i < mm_quant_block; i += 8) {
        const __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(v + i), by));
        _mm256_storeu_si256((__m256i *)(void *)wide, c);
        for (int l = 0; l < 8; l++)
            codes[i + l] = (int8_t)wide[l];
    }
    return most / 127.0f;
}

// A block of codes into its places in a panel: row `row` of 32.
static void place(const struct quant_sides *s, char *to, const int8_t *codes, int64_t row) {
    to += row / mm_tile_side * mm_tile_bytes + row % mm_tile_side * mm_tile_row;
    if (!s->wide) {
        memcpy(to, codes, tile_codes);
        memcpy(to + mm_tile_pair, codes + tile_codes, tile_codes);
        return;
    }
    for (int tile = 0; tile < mm_quant_block / tile_wide; tile++, to += mm_tile_pair) {
        int16_t wide[tile_wide];
        for (int i = 0; i < tile_wide; i++)
            wide[i] = codes[tile * tile_wide + i];
        memcpy(to, wide, sizeof wide);
    }
}

typedef float code_block_fn(int8_t *codes, const float *x, int64_t n);

// Block b of row `row` of a panel of rows from `at` on; n columns of x are there.
static void lay_block(const struct mm_tiles *p, char *to, int64_t at, int64_t row, int64_t b,
                      const float *x, int64_t n, code_block_fn *code_block) {
    const struct quant_sides *s = p->with;
    const int64_t i = b * s->q.ldr + at + row;
    _Alignas(64) int8_t codes[mm_quant_block] = {0};
    float r = 0.0f;
    if (at + row < p->m) r = code_block(codes, x, n < mm_quant_block ? n : mm_quant_block);
    s->r[i] = r;
    place(s, to, codes, row);
    if (!s->start) return;
    int32_t sum = 0;
    for (int c = 0; c < mm_quant_block; c++)
        sum += codes[c];
    s->start[i] = -128 * sum;
}

static void lay_codes(const struct mm_tiles *p, char *to, int64_t at, int64_t kt, int64_t n_k,
                      code_block_fn *code_block) {
    const struct quant_sides *s = p->with;
    const int64_t deep = s->wide ? 4 : 2, k = mm_view_cols(s->x);
    for (int64_t row = 0; row < mm_panel; row++) {
        const int64_t there = at + row < p->m ? at + row : 0;
        for (int64_t b = kt / deep; b < (kt + n_k) / deep; b++) {
            const int64_t from = b * mm_quant_block;
            lay_block(p, to + (b * deep - kt) * mm_tile_pair, at, row, b,
                      mm_view_at(s->x, there, from), k - from, code_block);
        }
    }
}

static void lay_codes_from(const struct mm_tiles *p, char *to, const float *x, int64_t ld,
                           int64_t at, int64_t kt, int64_t cols) {
    const struct quant_sides *s = p->with;
    const int64_t deep = s->wide ? 4 : 2;
    for (int64_t row = 0; row < mm_panel; row++) {
        for (int64_t from = 0; from < cols; from += mm_quant_block) {
            const int64_t b = from / mm_quant_block;
            lay_block(p, to + b * deep * mm_tile_pair, at, row, kt / deep + b, x + row * ld + from,
                      cols - from, s->code_block);
        }
    }
}

static void lay_a_avx2(const struct mm_tiles *p, char *to, int64_t next, int64_t at, int64_t panels,
                       int64_t kt, int64_t n_k) {
    for (int64_t i = 0; i < panels; i++)
        lay_codes(p, to + i * next, at + i * mm_panel, kt, n_k, code_block_avx2);
}

AVX512 static void lay_a_avx512(const struct mm_tiles *p, char *to, int64_t next, int64_t at,
                                int64_t panels, int64_t kt, int64_t n_k) {
    for (int64_t i = 0; i < panels; i++)
        lay_codes(p, to + i * next, at + i * mm_panel, kt, n_k, code_block_avx512);
}

// ---- B: codes of weights ----

// What the 16 codes of a group with factor u stand for.
#define TIMES(u)                                                                            \
    {                                                                                       \
        -8 * (u), -7 * (u), -6 * (u), -5 * (u), -4 * (u), -3 * (u), -2 * (u), -(u), 0, (u), \
            2 * (u), 3 * (u), 4 * (u), 5 * (u), 6 * (u), 7 * (u)                            \
    }
static const _Alignas(16) int8_t times[16][16] = {
    TIMES(0), TIMES(1), TIMES(2),  TIMES(3),  TIMES(4),  TIMES(5),  TIMES(6),  TIMES(7),
    TIMES(8), TIMES(9), TIMES(10), TIMES(11), TIMES(12), TIMES(13), TIMES(14), TIMES(15)};

AVX512 static inline __m512i group_tables(unsigned low, unsigned high) {
    const __m256i a = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)times[low]));
    const __m256i b = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)times[high]));
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

// The 128 codes of block b of a row, as two halves.
AVX512 static inline void load_block(__m512i out[2], enum mm_dtype type, const char *row,
                                     const uint16_t *factors, int64_t b) {
    if (type == mm_dtype_q8) {
        out[0] = _mm512_loadu_si512(row + b * mm_quant_block);
        out[1] = _mm512_loadu_si512(row + b * mm_quant_block + tile_codes);
        return;
    }
    const unsigned u = factors[b];
    const __m512i both = _mm512_loadu_si512(row + b * (mm_quant_block / 2));
    const __m512i low = _mm512_set1_epi8(15);
    out[0] = _mm512_shuffle_epi8(group_tables(u & 15, u >> 4 & 15), _mm512_and_si512(both, low));
    out[1] = _mm512_shuffle_epi8(group_tables(u >> 8 & 15, u >> 12),
                                 _mm512_and_si512(_mm512_srli_epi16(both, 4), low));
}

// Scales of the 32 columns of a panel behind its tiles.
AVX2 static void lay_scales(const struct quant_sides *s, float *to, int64_t at, int64_t n_cols,
                            int64_t b0, int64_t blocks) {
    const int64_t k = mm_view_cols(s->w);
    for (int64_t col = 0; col < mm_panel; col++) {
        if (col >= n_cols) {
            for (int64_t b = 0; b < blocks; b++)
                to[b * mm_panel + col] = 0.0f;
            continue;
        }
        const void *row = mm_view_at(s->w, at + col, 0);
        const uint16_t *scales = mm_quant_scales(s->w.dtype, row, k) + b0;
        for (int64_t b = 0; b < blocks; b++)
            to[b * mm_panel + col] = _cvtsh_ss(scales[b]);
    }
}

AVX512 static void panel_bytes(const struct mm_tiles *p, char *to, int64_t at, int64_t kt,
                               int64_t n_k) {
    const struct quant_sides *s = p->with;
    const int64_t n_cols = p->n - at < mm_panel ? p->n - at : mm_panel;
    const int64_t k = mm_view_cols(s->w), b0 = kt / 2, blocks = n_k / 2;
    const __m512i flip = _mm512_set1_epi8((char)s->flip);
    for (int half = 0; half < 2; half++) {
        const char *rows[mm_tile_side];
        const uint16_t *factors[mm_tile_side];
        const int64_t first = half * mm_tile_side;
        for (int i = 0; i < mm_tile_side; i++) {  // past the last column: the last one again
            const int64_t col = first + i < n_cols ? first + i : n_cols - 1;
            rows[i] = mm_view_at(s->w, at + col, 0);
            factors[i] = s->w.dtype == mm_dtype_q4 ? mm_quant_factors(rows[i], k) : NULL;
        }
        for (int64_t b = 0; b < blocks; b++) {
            char *tile = to + 2 * b * mm_tile_pair + half * mm_tile_bytes;
            __m512i r[2][16];
            for (int i = 0; i < mm_tile_side; i++) {
                __m512i codes[2];
                load_block(codes, s->w.dtype, rows[i], factors[i], b0 + b);
                r[0][i] = _mm512_xor_si512(codes[0], flip);
                r[1][i] = _mm512_xor_si512(codes[1], flip);
            }
            for (int part = 0; part < 2; part++) {
                mm_turn_tile(r[part]);
                for (int i = 0; i < 16; i++)
                    _mm512_store_si512(tile + part * mm_tile_pair + i * mm_tile_row, r[part][i]);
            }
        }
    }
    lay_scales(s, (float *)(void *)(to + n_k * mm_tile_pair), at, n_cols, b0, blocks);
}

// Codes of 16 bits: a row is expanded a block at a time, and its pairs go down the tiles.
AVX2 static void panel_wide(const struct mm_tiles *p, char *to, int64_t at, int64_t kt,
                            int64_t n_k) {
    const struct quant_sides *s = p->with;
    const int64_t n_cols = p->n - at < mm_panel ? p->n - at : mm_panel;
    const int64_t k = mm_view_cols(s->w), b0 = kt / 4, blocks = n_k / 4;
    const bool q4 = s->w.dtype == mm_dtype_q4;
    for (int64_t col = 0; col < mm_panel; col++) {
        const char *row = mm_view_at(s->w, at + (col < n_cols ? col : n_cols - 1), 0);
        char *down = to + col / mm_tile_side * mm_tile_bytes + col % mm_tile_side * 4;
        for (int64_t b = 0; b < blocks; b++) {
            int8_t codes[mm_quant_block];
            if (!q4) memcpy(codes, row + (b0 + b) * mm_quant_block, sizeof codes);
            for (int i = 0; q4 && i < mm_quant_block / 2; i++) {
                const uint8_t both = (uint8_t)row[(b0 + b) * (mm_quant_block / 2) + i];
                const unsigned u = mm_quant_factors(row, k)[b0 + b];
                codes[i] = times[u >> (i / mm_quant_group * 4) & 15][both & 15];
                codes[64 + i] = times[u >> (8 + i / mm_quant_group * 4) & 15][both >> 4];
            }
            for (int i = 0; i < mm_quant_block / 2; i++) {
                const int16_t pair[2] = {codes[2 * i], codes[2 * i + 1]};
                char *tile = down + (b * 4 + i / mm_tile_side) * mm_tile_pair;
                memcpy(tile + i % mm_tile_side * mm_tile_row, pair, sizeof pair);
            }
        }
    }
    lay_scales(s, (float *)(void *)(to + n_k * mm_tile_pair), at, n_cols, b0, blocks);
}

static void lay_b(const struct mm_tiles *p, char *to, int64_t next, int64_t at, int64_t panels,
                  int64_t kt, int64_t n_k) {
    const struct quant_sides *s = p->with;
    for (int64_t i = 0; i < panels; i++)
        (s->wide ? panel_wide : panel_bytes)(p, to + i * next, at + i * mm_panel, kt, n_k);
}

// ---- the product ----

static void choose_level(enum mm_isa isa, struct quant_sides *s, struct mm_tiles *p) {
    s->wide = isa < mm_isa_avx512bf16;
    p->row_block = 4 * mm_panel;
    p->lay_a = isa >= mm_isa_avx512 ? lay_a_avx512 : lay_a_avx2;
    s->code_block = isa >= mm_isa_avx512 ? code_block_avx512 : code_block_avx2;
    p->lay_a_from = lay_codes_from;
    p->lay_b = lay_b;
    if (isa >= mm_isa_amx) {
        p->row_block = mm_amx_int8_rows, p->room_bytes = mm_amx_int8_room;
        p->multiply = mm_amx_int8_multiply;
        p->begin = mm_amx_begin, p->end = mm_amx_end;
    } else if (!s->wide) {
        s->flip = 0x80;
        p->multiply = mm_vnni_int8_multiply;
    } else {
        p->multiply = isa >= mm_isa_avx512 ? mm_avx512_int16_multiply : mm_avx2_int16_multiply;
    }
}

struct bias_job {
    struct mm_view y;
    const float *bias;
};

static void bias_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bias_job *j = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        memcpy(mm_view_at(j->y, r, 0), j->bias, (size_t)mm_view_cols(j->y) * sizeof(float));
}

// The product of x (T, K), which may be laid out later, and w; its scales of x in `slot`.
static bool sides_of(struct mm_backend *be, struct mm_tiles *p, struct quant_sides *s,
                     enum mm_scratch slot, struct mm_view y, struct mm_view x, struct mm_view w) {
    *s = (struct quant_sides){.x = x, .w = w};
    *p = (struct mm_tiles){.m = x.shape[0], .n = w.shape[0], .c = y.data, .ldc = y.ld, .with = s};
    choose_level(mm_cpu_isa(be), s, p);
    const int64_t blocks = mm_quant_blocks(mm_view_cols(x)), deep = s->wide ? 4 : 2;
    p->k_tiles = blocks * deep;
    p->tile_k = mm_quant_block / deep;
    p->pass = pass_blocks * 2;
    p->b_tail = p->pass / deep * mm_panel * (int64_t)sizeof(float);
    s->q.ldr = (p->m + mm_panel - 1) / mm_panel * mm_panel;
    const size_t each = (size_t)(blocks * s->q.ldr);
    s->r = mm_cpu_scratch(be, slot, each * (sizeof *s->r + sizeof *s->start));
    if (!s->r) return false;
    if (s->flip) s->start = (int32_t *)(void *)(s->r + each);
    s->q.r = s->r, s->q.start = s->start;
    return true;
}

void mm_quant_linear(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                     const float *bias) {
    if (x.shape[0] == 0) return;
    struct quant_sides s;
    struct mm_tiles p;
    if (!sides_of(be, &p, &s, mm_scratch_a, y, x, w)) return;
    if (bias) {
        struct bias_job j = {y, bias};
        mm_parallel_for(be->pool, y.shape[0], 64, bias_rows, &j);
        p.accumulate = true;
    }
    mm_tiles_product(be, &p);
}

void mm_quant_ffn(struct mm_backend *be, struct mm_view y, struct mm_view h, struct mm_view w1,
                  struct mm_view w3, struct mm_view w2) {
    struct quant_sides s[3];
    struct mm_tiles p[3];
    const struct mm_view between = mm_view2(NULL, mm_dtype_f32, h.shape[0], w1.shape[0]);
    if (!sides_of(be, &p[0], &s[0], mm_scratch_a, MM_NONE, h, w1) ||
        !sides_of(be, &p[1], &s[1], mm_scratch_a, MM_NONE, h, w3) ||
        !sides_of(be, &p[2], &s[2], mm_scratch_b, y, between, w2)) {
        return;
    }
    p[2].accumulate = true;
    mm_tiles_ffn(be, &p[0], &p[1], &p[2]);
}
