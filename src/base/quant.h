// Quantized weights: the two formats, as they lie in files and in memory, and what a product with
// them is. A row of K weights is self-contained: its codes, then its scales, padded to 64 bytes, so
// that rows can be stacked, cut and mapped, and a thread that walks down rows reads one stream.
//
// Blocks of mm_quant_block = 128 weights along K share one f16 scale s. K is padded to whole blocks
// with weights of zero.
//
//   q8   w = s * c             c in -127..127                            8.125 bits a weight
//        row: c, one byte each; then s of each block
//   q4   w = s * u * c         c in -8..7, u in 1..15 for each 32 weights  4.25 bits a weight
//        row: 64 bytes a block, byte i holds c[i] + 8 in its low and c[64 + i] + 8 in its high
//        half; then s of each block; then u of each block's four groups, 16 bits, the first group
//        in the lowest 4
//
// u * c fits a signed byte (-120..105): a q4 row expands to int8 exactly, and both formats go
// through the same integer products.
//
// A product with a quantized weight also rounds its other operand: x of a block becomes r * a,
//   r = max |x| / 127      a = x * (127 / max |x|) rounded to nearest even, in f32
// (all a = 0 where max |x| <= 1e-36). Then
//   y[t, n] = sum over blocks b of  (s[n, b] * r[t, b]) * (sum over k in b of  w8[n, k] * a[t, k])
// The inner sums are exact integers on every instruction set, prefill and step alike; the outer sum
// is f32 in any order.
#ifndef MM_BASE_QUANT_H
#define MM_BASE_QUANT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/dtype.h"

enum { mm_quant_block = 128, mm_quant_group = 32, mm_quant_align = 64 };

static inline bool mm_dtype_quantized(enum mm_dtype t) {
    return t == mm_dtype_q8 || t == mm_dtype_q4;
}
static inline int64_t mm_quant_blocks(int64_t k) {
    return (k + mm_quant_block - 1) / mm_quant_block;
}
// Bytes of the codes of a row; the scales begin there.
static inline int64_t mm_quant_code_bytes(enum mm_dtype t, int64_t k) {
    return mm_quant_blocks(k) * (t == mm_dtype_q4 ? mm_quant_block / 2 : mm_quant_block);
}
// Bytes from one row to the next.
static inline int64_t mm_quant_row_bytes(enum mm_dtype t, int64_t k) {
    const int64_t scales = mm_quant_blocks(k) * (t == mm_dtype_q4 ? 4 : 2);
    const int64_t bytes = mm_quant_code_bytes(t, k) + scales;
    return (bytes + mm_quant_align - 1) / mm_quant_align * mm_quant_align;
}
// Inside a row: (blocks) f16 scales; for q4 (blocks) 16-bit packs of four group factors.
static inline const uint16_t *mm_quant_scales(enum mm_dtype t, const void *row, int64_t k) {
    return (const uint16_t *)((const char *)row + mm_quant_code_bytes(t, k));
}
static inline const uint16_t *mm_quant_factors(const void *row, int64_t k) {
    return mm_quant_scales(mm_dtype_q4, row, k) + mm_quant_blocks(k);
}

// Rounds K weights to a row, least squares a block weighted by `importance` (K, >= 0; NULL: all
// alike; the mean square of the inputs that meet each weight, for calibration). False when a weight
// is not finite or beyond mm_quant_largest in size; the row is then worth nothing.
enum { mm_quant_largest = 60000 };
bool mm_quantize_row(void *row, enum mm_dtype t, const float *w, const float *importance,
                     int64_t k);
// Block b of a row that begins as zeros: n = at most 128 weights, rounded as mm_quantize_row does.
// With `u` (n, n), rows ld apart, upper triangular, column by column: what rounding leaves over is
// passed on to the columns behind, w[j] -= e[i] u[i][j] with e[i] = (w[i] - rounded) / u[i][i]
// (GPTQ, Frantar et al. 2023). w then holds what was rounded in the end, and e (n) what columns
// behind the block still have to take.
bool mm_quantize_block(void *row, enum mm_dtype t, int64_t k, int64_t b, float *w,
                       const float *importance, const float *u, int64_t ld, float *e);
// A row as f32: what the codes stand for.
void mm_dequantize_row(float *w, enum mm_dtype t, const void *row, int64_t k);
// A row's weights as int8 (blocks * 128); times the block's scale they are the row.
void mm_quant_expand_row(int8_t *w8, enum mm_dtype t, const void *row, int64_t k);
// The other operand: codes (blocks * 128, zeros at the end) and scales (blocks) of one row of x.
void mm_quantize_x(int8_t *a, float *r, const float *x, int64_t k);

#endif
