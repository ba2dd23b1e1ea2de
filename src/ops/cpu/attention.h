// Tiles of softmax attention, shared by attention.c (forward, decoding) and attention_bwd.c.
#ifndef MM_OPS_CPU_ATTENTION_H
#define MM_OPS_CPU_ATTENTION_H

#include "ops/cpu/kernels.h"
#include "ops/cpu/mixer.h"

// Rows of a tile: a multiple of the six rows that the product kernel works on, and as many keys
// as leave a tile in the first cache.
enum { mm_tile_queries = 48, mm_tile_keys = 128 };

static inline int64_t mm_padded(const struct mm_mixer_kernels *x, int64_t n) {
    return (n + x->lanes - 1) / x->lanes * x->lanes;
}

// Up to mm_tile_keys rows of keys (P columns from `col` on) as (P, ld), and of values as (n, pad).
static inline void mm_tile_transpose(const struct mm_mixer_kernels *x, float *dst, int64_t ld,
                                     struct mm_view v, int64_t row, int64_t col, int64_t n) {
    x->transpose(dst, ld, mm_view_at(v, row, col), v.ld, n, v.shape[2]);
}
static inline void mm_tile_pack(const struct mm_mixer_kernels *x, float *dst, int64_t pad,
                                struct mm_view v, int64_t row, int64_t col, int64_t n) {
    x->pack(dst, pad, mm_view_at(v, row, col), v.ld, NULL, n, v.shape[2]);
}

#endif
