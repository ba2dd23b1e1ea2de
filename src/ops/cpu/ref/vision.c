// Plain reference: pictures to rows.
#include "ops/cpu/ref/ref.h"

void mm_normalize_ref(struct mm_backend *be, struct mm_view y, struct mm_view rgb,
                      struct mm_view table) {
    (void)be;
    const int64_t plane = y.shape[2] * y.shape[2];
    const uint8_t *from = rgb.data;
    for (int64_t i = 0; i < y.shape[0]; i++) {
        for (int64_t c = 0; c < 3; c++) {
            for (int64_t p = 0; p < plane; p++) {
                ref_put(y, i, c * plane + p, ref_get(table, c, from[(i * plane + p) * 3 + c]));
            }
        }
    }
}

void mm_patchify_ref(struct mm_backend *be, struct mm_view y, struct mm_view pixels,
                     int64_t patch) {
    (void)be;
    const int64_t n = pixels.shape[0], side = pixels.shape[2], grid = side / patch;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t row = 0; row < grid * grid; row++) {
            const int64_t top = row / grid * patch, left = row % grid * patch;
            for (int64_t ch = 0; ch < 3; ch++) {
                for (int64_t p = 0; p < patch * patch; p++) {
                    const int64_t from = (ch * side + top + p / patch) * side + left + p % patch;
                    ref_put(y, i * grid * grid + row, ch * patch * patch + p,
                            ref_get(pixels, i, from));
                }
            }
        }
    }
}

void mm_add_position_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                             struct mm_view e) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++) {
            ref_put(y, r, c, ref_get(x, r, c) + ref_get(e, r % e.shape[0], c));
        }
    }
}

void mm_add_position_bwd_ref(struct mm_backend *be, struct mm_view de, struct mm_view dy) {
    (void)be;
    for (int64_t r = 0; r < de.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(de); c++) {
            double sum = 0.0;
            for (int64_t i = r; i < dy.shape[0]; i += de.shape[0])
                sum += (double)ref_get(dy, i, c);
            ref_put(de, r, c, (float)((double)ref_get(de, r, c) + sum));
        }
    }
}

// Where element (row, col) of the shuffled picture comes from, with grid g and D columns.
// InternVL's ps v2 is written as two reshapes and swaps of (n, w, h, c). Followed through: output
// row (a, b) of the half grid holds, for s = 0..1 and u = 0..1, the D columns of input row
// (2a + s, 2b + u) at column (s * 2 + u) * D.
static void source(int64_t grid, int64_t dim, int64_t row, int64_t col, int64_t *from_row,
                   int64_t *from_col) {
    const int64_t half = grid / 2, tile = row / (half * half), in_tile = row % (half * half);
    const int64_t a = in_tile / half, b = in_tile % half, quarter = col / dim;
    *from_row = tile * grid * grid + (2 * a + quarter / 2) * grid + 2 * b + quarter % 2;
    *from_col = col % dim;
}

void mm_pixel_shuffle_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                              int64_t grid) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++) {
            int64_t from_row, from_col;
            source(grid, mm_view_cols(x), r, c, &from_row, &from_col);
            ref_put(y, r, c, ref_get(x, from_row, from_col));
        }
    }
}

void mm_pixel_shuffle_bwd_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                              int64_t grid) {
    (void)be;
    for (int64_t r = 0; r < dy.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(dy); c++) {
            int64_t to_row, to_col;
            source(grid, mm_view_cols(dx), r, c, &to_row, &to_col);
            ref_put(dx, to_row, to_col, ref_get(dy, r, c));
        }
    }
}
