// Body of the multiplications of tiles on vectors. The including file gives
//   NAME                        of the function to define
//   QUANT                       1 for codes, 0 for bf16
//   VECTOR_BYTES, fvec, ivec    a vector of floats, and of what products of pairs are summed in
//   ROWS                        rows of A that go side by side with two vectors of columns
//   BLOCK_TILES                 (codes) tiles of k of a block of 128
//   LOAD(p), SPREAD(p)          a vector of B; the 4 bytes at p in every place
//   DOT(sum, a, b)              sum += products of neighbours
//   START(i), TO_FLOAT(v)       (codes) every sum = i; sums as floats
//   F_LOAD, F_STORE, F_SPREAD, F_MUL, F_FMA
#include "ops/cpu/tiles_quant.h"
#include "ops/cpu/tiles_x86.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    lanes = VECTOR_BYTES / 4,
    side_vectors = mm_tile_row / VECTOR_BYTES,  // of a row of a tile of B
    strips = VECTOR_BYTES == 64 ? 1 : 2,        // of two vectors in a panel, see strip_vector
};

// Byte of vector v (0 or 1) of a strip in the row of a pair of tiles of B.
INLINE int64_t strip_vector(int strip, int v) {
    return side_vectors == 1 ? v * mm_tile_bytes : strip * mm_tile_bytes + v * VECTOR_BYTES;
}

// sums[r][v] += A B over n_k tiles of k, for ROWS rows of a tile of A.
INLINE void dot_tiles(ivec sums[ROWS][2], const char *a, const char *b, int64_t n_k, int strip) {
    for (int64_t k = 0; k < n_k; k++, a += mm_tile_pair, b += mm_tile_pair) {
        for (int i = 0; i < mm_tile_side; i++) {
            const ivec b0 = LOAD(b + i * mm_tile_row + strip_vector(strip, 0));
            const ivec b1 = LOAD(b + i * mm_tile_row + strip_vector(strip, 1));
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const ivec x = SPREAD(a + r * mm_tile_row + i * 4);
                DOT(sums[r][0], x, b0);
                DOT(sums[r][1], x, b1);
            }
        }
    }
}

// ROWS rows by two vectors of C, in `c` (ROWS, 32), to which they are added.
INLINE void strip_rows(const struct mm_tiles_quant *q, const struct mm_tiles_part *part, float *c,
                       const char *a, const char *b, int64_t row, int strip) {
    c += strip * 2 * lanes;
#if QUANT
    const float *s = (const float *)(b + part->n_k * mm_tile_pair) + strip * 2 * lanes;
    for (int64_t k = 0; k < part->n_k; k += BLOCK_TILES, s += mm_panel) {
        const int64_t at = (part->kt + k) / BLOCK_TILES * q->ldr + row;
        ivec sums[ROWS][2];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
            sums[r][0] = sums[r][1] = START(q->start ? q->start[at + r] : 0);
        dot_tiles(sums, a + k * mm_tile_pair, b + k * mm_tile_pair, BLOCK_TILES, strip);
        const fvec s0 = F_LOAD(s), s1 = F_LOAD(s + lanes);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            const fvec by = F_SPREAD(q->r[at + r]);
            float *to = c + r * mm_panel;
            F_STORE(to, F_FMA(F_MUL(TO_FLOAT(sums[r][0]), s0), by, F_LOAD(to)));
            F_STORE(to + lanes, F_FMA(F_MUL(TO_FLOAT(sums[r][1]), s1), by, F_LOAD(to + lanes)));
        }
    }
#else
    (void)q, (void)row;
    ivec sums[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        sums[r][0] = F_LOAD(c + r * mm_panel);
        sums[r][1] = F_LOAD(c + r * mm_panel + lanes);
    }
    dot_tiles(sums, a, b, part->n_k, strip);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        F_STORE(c + r * mm_panel, sums[r][0]);
        F_STORE(c + r * mm_panel + lanes, sums[r][1]);
    }
#endif
}

// A panel of B with a few rows of A stays in the caches while the rows pass by.
void NAME(const struct mm_tiles *p, const struct mm_tiles_part *part) {
    for (int64_t col = 0; col < part->cols; col += mm_panel) {
        const char *b = part->b + col / mm_panel * part->b_panel;
        const int64_t cols = part->cols - col < mm_panel ? part->cols - col : mm_panel;
        for (int64_t r = 0; r < part->rows; r += ROWS) {
            const int64_t row = part->row + r, rows = part->rows - r < ROWS ? part->rows - r : ROWS;
            const char *a = part->a + r / mm_panel * part->a_panel +
                            r % mm_panel / mm_tile_side * mm_tile_bytes +
                            r % mm_tile_side * mm_tile_row;
            float *c = part->c + r * part->ldc + col;
            _Alignas(64) float block[ROWS * mm_panel] = {0};
            for (int64_t i = 0; part->add && i < rows; i++)
                memcpy(block + i * mm_panel, c + i * part->ldc, (size_t)cols * sizeof *c);
            for (int strip = 0; strip < strips; strip++)
                strip_rows(p->with, part, block, a, b, row, strip);
            for (int64_t i = 0; i < rows; i++)
                memcpy(c + i * part->ldc, block + i * mm_panel, (size_t)cols * sizeof *c);
        }
    }
}
