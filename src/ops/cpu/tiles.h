// Products of matrices laid out as tiles, for the processors whose instructions multiply short rows
// of bf16 or int8: what is common to both types and to all those instructions.
//
// A tile is 16 rows of 64 bytes. Of A: 16 rows of C, each with 64 bytes of k. Of B: a row holds 4
// bytes of k of each of 16 columns. Tiles lie in pairs, of 32 rows or columns, one k after the
// other: a panel.
//
// All of A is laid out once. Then C is cut into blocks of panels of B and of A; who computes a
// block lays out its panels of B in memory of its own, which stays in the second cache, and walks
// down A. So nothing of B goes through memory twice, and any number of threads finds work even when
// C is narrow.
#ifndef MM_OPS_CPU_TILES_H
#define MM_OPS_CPU_TILES_H

#include "ops/cpu/cpu.h"

enum {
    mm_tile_side = 16,
    mm_tile_row = 64,  // bytes
    mm_tile_bytes = mm_tile_side * mm_tile_row,
    mm_tile_pair = 2 * mm_tile_bytes,
    mm_panel = 2 * mm_tile_side,  // rows of A or columns of B
};

struct mm_tiles;

// What a multiplication gets: rows [row, row + rows) and columns [col, col + cols) of C, and tiles
// [kt, kt + n_k) of k.
struct mm_tiles_part {
    const char *a;  // tile pair kt of the panel of `row`; the next panel is a_panel bytes on
    const char *b;  // the panel of `col`; the next one is b_panel bytes on
    int64_t a_panel, b_panel;
    int64_t row, rows, col, cols;
    float *c;  // where they lie, from (row, col) on
    int64_t ldc;
    int64_t kt, n_k;
    bool add;    // C += , else C =
    bool past;   // lines of C are whole, and too many for a place in the caches
    char *room;  // room_bytes of this thread
};

struct mm_tiles {
    int64_t m, n, k_tiles;
    int64_t tile_k;  // k of a tile
    float *c;
    int64_t ldc;
    int64_t pass;        // tiles of k summed before C is written, even
    int64_t b_tail;      // bytes behind the tiles of a panel of B, for lay_b
    int64_t room_bytes;  // of a thread, for multiply
    int64_t row_block;   // rows of C that a call of multiply likes to have, a multiple of 32
    bool a_by_k;         // a row of A's memory is one k
    const char *laid;    // A, laid out already; NULL: mm_tiles_product does that
    bool accumulate;
    const void *with;  // the owner's own
    // Lay out n_k tiles of k, from kt on, of `panels` panels, the first of row or column `at`, each
    // `next` bytes after the other; rows and columns that are not there become zeros. A is walked
    // along the memory of its source: all panels of one tile of k where a_by_k says so, else part
    // of one panel. B comes whole, and lay_b fills the tails.
    void (*lay_a)(const struct mm_tiles *p, char *to, int64_t next, int64_t at, int64_t panels,
                  int64_t kt, int64_t n_k);
    void (*lay_b)(const struct mm_tiles *p, char *to, int64_t next, int64_t at, int64_t panels,
                  int64_t kt, int64_t n_k);
    // Rows [at, at + 32) of A and some tiles of k, from floats that lie elsewhere: x is (at, the
    // first k of tile kt), with `cols` columns.
    void (*lay_a_from)(const struct mm_tiles *p, char *to, const float *x, int64_t ld, int64_t at,
                       int64_t kt, int64_t cols);
    void (*multiply)(const struct mm_tiles *p, const struct mm_tiles_part *part);
    void (*begin)(void), (*end)(void);  // around the work of a thread; NULL: nothing to do
};

// Over the threads of be->pool. The order of every sum is fixed by k alone. Takes scratch c and d.
void mm_tiles_product(struct mm_backend *be, const struct mm_tiles *p);

// The product of `down` whose A is silu(gate) * up, row by row and laid out as soon as it is there:
// gate and up share their A and have as many columns as `down` has k. Row blocks of row_block of
// `gate`. Takes scratch c, d and e.
void mm_tiles_ffn(struct mm_backend *be, const struct mm_tiles *gate, const struct mm_tiles *up,
                  const struct mm_tiles *down);

#endif
