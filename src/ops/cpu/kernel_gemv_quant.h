// Body of the matrix-vector kernels with quantized weights. The including file gives
//   LANES, vec                  floats of a vector, and the vector
//   STREAMS(t)                  weight rows that go side by side with t rows of x
//   AMD_STREAMS(type, t, small) the same on AMD's processors; small: x leaves room in the first
//                               cache
//   AMD_FAR(type, small)        and whether weights are brought to the second cache only; both
//                               may be left out
//   add_lanes(v)                the sum of a vector
//   QBYTES, qvec, ivec          codes of a vector, the vector, and the vector of sums of products
//   SHIFT(type)                 what makes weights unsigned bytes where the instructions want that:
//                               0 (nothing), 128, or 8 (times the factor of the group)
//   FACTORS                     q4_part wants the factors from struct prepared, not from the row
//   load_codes(codes)           QBYTES of the codes of x
//   part                        QBYTES of weights, ready for dot_part
//   q8_part(codes, i)           part i of a block
//   q4_part(codes, u, i)        the same of q4; u: the block's factors as they lie in the row, or
//                               u[g * super] that of group g in both halves of 32 bits
//   dot_first(w, x, type)       sums of products of neighbours
//   dot_part(sums, w, x, type)  the same added to sums
//   sums_float(sums)            LANES of them as floats
//   halves(f, h)                `super` f16 as f32
//   code_some(codes, x, by, n)  codes[i] = x[i] * by to nearest even, i < n <= LANES
//   QUANT                       the name of the table
#include "ops/cpu/kernel_gemv.h"

enum { super = mm_gemv_super, parts = mm_quant_block / QBYTES };

// Of `super` blocks of a row: f = s r for each row of x, and the factors.
struct prepared {
    _Alignas(64) float f[mm_gemv_most][super];
    _Alignas(64) uint32_t u[4][super];
};

// n numbers of 16 bits; if they are fewer than `super`, copied and zeros after them.
INLINE const uint16_t *whole(uint16_t *room, const uint16_t *from, int n) {
    if (n == super) return from;
    memset(room, 0, super * sizeof *room);
    memcpy(room, from, (size_t)n * sizeof *room);
    return room;
}

INLINE void unpack_factors(struct prepared *p, const uint16_t *factors) {
    for (int g = 0; g < 4; g++) {
        for (int b = 0; b < super; b++)
            p->u[g][b] = (uint32_t)(factors[b] >> (4 * g) & 15) * 0x10001u;
    }
}

// What shifted weights add to the sums, with the other sign. It is rounded as the sums are.
INLINE float shifted(const struct prepared *p, const float *a, int b, int shift) {
    if (shift == 128) return a[4 * super + b];
    float sum = 0.0f;
    for (int g = 0; g < 4; g++)
        sum += (float)(int32_t)(p->u[g][b] & 15) * a[g * super + b];
    return -8.0f * sum;
}

// Blocks from b0 on, n of them.
INLINE void prepare(struct prepared *p, vec *sum, const struct mm_gemv_x *x, const char *row,
                    int64_t b0, int n, int t_dim, enum mm_dtype type) {
    uint16_t room[super];
    float s[super];
    halves(s, whole(room, mm_quant_scales(type, row, x->k) + b0, n));
    if (type == mm_dtype_q4 && FACTORS) {
        unpack_factors(p, whole(room, mm_quant_factors(row, x->k) + b0, n));
    }
    for (int t = 0; t < t_dim; t++) {
        const float *r = x->r + t * x->ld_blocks + b0;
        for (int b = 0; b < super; b++)
            p->f[t][b] = s[b] * r[b];
        if (SHIFT(type) == 0) continue;
        const float *a = x->sums + (t * x->ld_blocks + b0) * mm_gemv_sums;
        _Alignas(64) float c[super];
        for (int b = 0; b < super; b++)
            c[b] = shifted(p, a, b, SHIFT(type));
        for (int b = 0; b < super; b += LANES)
            sum[t] += *(const vec *)(c + b) * *(const vec *)(p->f[t] + b);
    }
}

// Part i of block b, which is block b - b0 of those prepared.
INLINE part part_of(const struct prepared *p, const struct mm_gemv_x *x, const char *row,
                    int64_t b0, int64_t b, int i, enum mm_dtype type) {
    if (type == mm_dtype_q8) return q8_part(row + b * mm_quant_block, i);
    const char *codes = row + b * (mm_quant_block / 2);
#if FACTORS
    (void)x;
    return q4_part(codes, &p->u[0][b - b0], i);
#else
    (void)p, (void)b0;
    return q4_part(codes, (const uint8_t *)(mm_quant_factors(row, x->k) + b), i);
#endif
}

INLINE void rows_of_streams(float *y, int64_t ldy, int64_t apart, const struct mm_gemv_x *x,
                            const char *const *w, int streams, bool far, int t_dim,
                            enum mm_dtype type) {
    const int block_bytes = type == mm_dtype_q4 ? mm_quant_block / 2 : mm_quant_block;
    const int64_t ldx = x->blocks * mm_quant_block;
    vec sum[most_streams][mm_gemv_most];
    for (int s = 0; s < streams; s++) {
        for (int t = 0; t < t_dim; t++)
            sum[s][t] = (vec){0};
    }
    for (int64_t b0 = 0; b0 < x->blocks; b0 += super) {
        const int n = x->blocks - b0 < super ? (int)(x->blocks - b0) : super;
        struct prepared p[most_streams];
        for (int s = 0; s < streams; s++)
            prepare(&p[s], sum[s], x, w[s], b0, n, t_dim, type);
        for (int b = 0; b < n; b++) {
            part wv[most_streams][parts];
            for (int s = 0; s < streams; s++) {
                const char *codes = w[s] + (b0 + b) * block_bytes;
                for (int at = 0; at < block_bytes; at += line)
                    bring(codes + ahead + at, far);
                for (int i = 0; i < parts; i++)
                    wv[s][i] = part_of(&p[s], x, w[s], b0, b0 + b, i, type);
            }
            const char *xb = (const char *)x->codes + (b0 + b) * mm_quant_block;
            for (int t = 0; t < t_dim; t++, xb += ldx) {
                qvec xv[parts];
                for (int i = 0; i < parts; i++)
                    xv[i] = load_codes(xb + i * QBYTES);
                for (int s = 0; s < streams; s++) {
                    ivec acc = dot_first(wv[s][0], xv[0], type);
                    for (int i = 1; i < parts; i++)
                        acc = dot_part(acc, wv[s][i], xv[i], type);
                    sum[s][t] += sums_float(acc) * p[s].f[t][b];
                }
            }
        }
    }
    for (int s = 0; s < streams; s++) {
        for (int t = 0; t < t_dim; t++)
            y[t * ldy + s * apart] = add_lanes(sum[s][t]);
    }
}

// ---- the other operand of quantized weights ----

static void code_row(int8_t *codes, float *r, float *sums, const float *x, int64_t k) {
    const int64_t blocks = mm_quant_blocks(k);
    for (int64_t b = 0; b < blocks; b++) {
        const float *xb = x + b * mm_quant_block;
        int8_t *to = codes + b * mm_quant_block;
        const int n = k - b * mm_quant_block < mm_quant_block ? (int)(k - b * mm_quant_block)
                                                              : mm_quant_block;
        int32_t top = 0;  // magnitudes compare as integers do
        for (int i = 0; i < n; i++) {
            const int32_t bits = mm_v_bits(xb[i]) & 0x7fffffff;
            top = bits > top ? bits : top;
        }
        const float most = mm_v_from_bits(top), by = most > 0.0f ? 127.0f / most : 0.0f;
        r[b] = most / 127.0f;
        if (n < mm_quant_block) memset(to, 0, mm_quant_block);
        for (int i = 0; i < n; i += LANES)
            code_some(to + i, xb + i, by, n - i < LANES ? n - i : LANES);
        float *of_block = sums + b / super * super * mm_gemv_sums + b % super;
        int32_t all = 0;
        for (int g = 0; g < 4; g++) {
            int32_t sum = 0;
            for (int i = 0; i < mm_quant_group; i++)
                sum += to[g * mm_quant_group + i];
            of_block[g * super] = (float)sum;
            all += sum;
        }
        of_block[4 * super] = -128.0f * (float)all;
    }
}

INLINE int64_t row_bytes_of(struct mm_view w, enum mm_dtype type) {
    return mm_quant_row_bytes(type, mm_view_cols(w));
}

ROWS_OF(q8)
ROWS_OF(q4)

const struct mm_gemv_quant QUANT = {.rows = {NAMES_OF(q8), NAMES_OF(q4)}, .code_row = code_row};
