// Pictures to rows.
#include "ops/cuda/cuda.h"

void mm_normalize_cuda(struct mm_backend *be, struct mm_view y, struct mm_view rgb,
                       struct mm_view table) {
    float *to = (float *)y.data;
    const uint8_t *from = (const uint8_t *)rgb.data;
    const float *values = (const float *)table.data;
    const int64_t plane = y.shape[2] * y.shape[2];
    mm_each(be, y.shape[0] * 3, plane, [=] __device__(int64_t r, int64_t p) {
        const int64_t tile = r / 3, c = r % 3;
        to[r * plane + p] = values[c * 256 + from[(tile * plane + p) * 3 + c]];
    });
}

void mm_patchify_cuda(struct mm_backend *be, struct mm_view y, struct mm_view pixels,
                      int64_t patch) {
    const struct mm_mat ym = mm_mat_of(y);
    const float *px = (const float *)pixels.data;
    const int64_t side = pixels.shape[2], grid = side / patch, area = patch * patch;
    const int64_t tile = pixels.ld;
    mm_each(be, y.shape[0], mm_view_cols(y), [=] __device__(int64_t r, int64_t c) {
        const int64_t n = r / (grid * grid), in = r % (grid * grid), ch = c / area, p = c % area;
        const int64_t row = in / grid * patch + p / patch, col = in % grid * patch + p % patch;
        ym(r, c) = px[n * tile + (ch * side + row) * side + col];
    });
}

void mm_add_position_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                              struct mm_view e) {
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    const int64_t rows = e.shape[0], cols = mm_view_cols(e);
    const float *em = mm_cuda_vector(be, mm_cuda_slot_a, mm_view_flat(e));
    const int64_t ld = e.dtype == mm_dtype_f32 ? e.ld : cols;
    if (!em) return;
    mm_each(be, y.shape[0], cols,
            [=] __device__(int64_t r, int64_t c) { ym(r, c) = xm(r, c) + em[r % rows * ld + c]; });
}

void mm_add_position_bwd_cuda(struct mm_backend *be, struct mm_view de, struct mm_view dy) {
    const struct mm_mat dm = mm_mat_of(de), ym = mm_mat_of(dy);
    const int64_t rows = de.shape[0], n = dy.shape[0];
    mm_each(be, rows, mm_view_cols(de), [=] __device__(int64_t r, int64_t c) {
        float sum = 0.0f;
        for (int64_t i = r; i < n; i += rows)
            sum += ym(i, c);
        dm(r, c) += sum;
    });
}

// Output row (a, b) of the half grid holds, for s and u in 0..1, the D columns of input row
// (2a + s, 2b + u) at column (2s + u) D (docs/MODEL.md section 1).
static __device__ void source(int64_t grid, int64_t dim, int64_t row, int64_t col,
                              int64_t *from_row, int64_t *from_col) {
    const int64_t half = grid / 2, tile = row / (half * half), in = row % (half * half);
    const int64_t a = in / half, b = in % half, quarter = col / dim;
    *from_row = tile * grid * grid + (2 * a + quarter / 2) * grid + 2 * b + quarter % 2;
    *from_col = col % dim;
}

void mm_pixel_shuffle_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                               int64_t grid) {
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    const int64_t dim = mm_view_cols(x);
    mm_each(be, y.shape[0], mm_view_cols(y), [=] __device__(int64_t r, int64_t c) {
        int64_t row, col;
        source(grid, dim, r, c, &row, &col);
        ym(r, c) = xm(row, col);
    });
}

void mm_pixel_shuffle_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                               int64_t grid) {
    const struct mm_mat xm = mm_mat_of(dx), ym = mm_mat_of(dy);
    const int64_t dim = mm_view_cols(dx);
    mm_each(be, dy.shape[0], mm_view_cols(dy), [=] __device__(int64_t r, int64_t c) {
        int64_t row, col;
        source(grid, dim, r, c, &row, &col);
        xm(row, col) = ym(r, c);
    });
}
