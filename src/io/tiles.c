// Dynamic tiling: a picture is stretched over the grid of square tiles whose shape is nearest to
// its own, and cut; a thumbnail of the whole comes last.
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/image.h"

// Grids of cols x rows with min_tiles <= cols * rows <= max_tiles, by ascending number of tiles.
// The nearest ratio wins; at exactly equal distance the later (larger) one, if the picture has
// more than half the pixels of that grid. Doubles and comparisons as in the published code.
void mm_tiles_grid(int32_t w, int32_t h, int32_t size, int32_t min_tiles, int32_t max_tiles,
                   int32_t *cols, int32_t *rows) {
    assert(w > 0 && h > 0 && size > 0 && min_tiles > 0 && min_tiles <= max_tiles);
    const double ratio = (double)w / h;
    const double area = (double)w * h;
    double best = INFINITY;
    *cols = *rows = 1;
    for (int32_t n = min_tiles; n <= max_tiles; n++) {
        for (int32_t i = 1; i <= n; i++) {
            if (n % i != 0) {
                continue;
            }
            const int32_t j = n / i;
            const double d = fabs(ratio - (double)i / j);
            if (d < best || (d == best && area > 0.5 * size * size * i * j)) {
                best = d;
                *cols = i;
                *rows = j;
            }
        }
    }
}

static void cut(uint8_t *tiles, const struct mm_image *whole, int32_t cols, int32_t rows,
                int32_t size) {
    const size_t row_bytes = (size_t)size * 3;
    for (int32_t k = 0; k < cols * rows; k++) {
        const size_t x = (size_t)(k % cols) * (size_t)size;
        const size_t y = (size_t)(k / cols) * (size_t)size;
        for (size_t r = 0; r < (size_t)size; r++) {
            memcpy(tiles, whole->rgb + ((y + r) * (size_t)whole->width + x) * 3, row_bytes);
            tiles += row_bytes;
        }
    }
}

enum mm_code mm_tiles_make(struct mm_tiles *t, const struct mm_image *im, int32_t size,
                           int32_t min_tiles, int32_t max_tiles, bool thumbnail,
                           struct mm_error *err) {
    *t = (struct mm_tiles){0};
    if (size < 1 || size > mm_image_max_side) {
        return mm_fail(err, mm_code_input, "the tile size is %d, must be 1 to %d", size,
                       mm_image_max_side);
    }
    if (min_tiles < 1 || min_tiles > max_tiles || max_tiles > mm_tiles_max) {
        return mm_fail(err, mm_code_input,
                       "the number of tiles is to be %d to %d, wanted a range within 1 to %d",
                       min_tiles, max_tiles, mm_tiles_max);
    }
    struct mm_tiles made = {.size = size};
    mm_tiles_grid(im->width, im->height, size, min_tiles, max_tiles, &made.cols, &made.rows);
    if ((int64_t)made.cols * size > mm_image_max_side ||
        (int64_t)made.rows * size > mm_image_max_side) {
        return mm_fail(err, mm_code_input,
                       "%d x %d tiles of %d pixels are too many: a side would pass %d", made.cols,
                       made.rows, size, mm_image_max_side);
    }
    const int32_t n_grid = made.cols * made.rows;
    made.n = n_grid + (thumbnail && n_grid > 1);
    struct mm_image whole = {0}, small = {0};
    MM_TRY(mm_image_resize(&whole, im, made.cols * size, made.rows * size, mm_filter_bicubic, err));
    if (made.n == 1) {
        made.rgb = whole.rgb;
        *t = made;
        return mm_code_ok;
    }
    const size_t tile_bytes = (size_t)size * (size_t)size * 3;
    enum mm_code code = mm_code_ok;
    made.rgb = malloc((size_t)made.n * tile_bytes);
    if (!made.rgb) {
        code = mm_fail(err, mm_code_memory, "no memory for %d tiles of %d x %d pixels", made.n,
                       size, size);
    } else {
        cut(made.rgb, &whole, made.cols, made.rows, size);
    }
    mm_image_free(&whole);
    if (code == mm_code_ok && made.n > n_grid) {
        code = mm_image_resize(&small, im, size, size, mm_filter_bicubic, err);
        if (code == mm_code_ok) {
            memcpy(made.rgb + (size_t)n_grid * tile_bytes, small.rgb, tile_bytes);
            mm_image_free(&small);
        }
    }
    if (code != mm_code_ok) {
        mm_tiles_free(&made);
        return code;
    }
    *t = made;
    return mm_code_ok;
}

void mm_tiles_free(struct mm_tiles *t) {
    free(t->rgb);
    *t = (struct mm_tiles){0};
}

void mm_tiles_table(float table[3][256]) {
    static const float mean[3] = {0.485f, 0.456f, 0.406f};
    static const float std[3] = {0.229f, 0.224f, 0.225f};
    for (int c = 0; c < 3; c++) {
        for (int v = 0; v < 256; v++) {
            // the same three roundings as torchvision's
            table[c][v] = ((float)v / 255.0f - mean[c]) / std[c];
        }
    }
}

void mm_tiles_normalize(float *pixels, const uint8_t *rgb, int64_t n, int64_t size) {
    float table[3][256];
    mm_tiles_table(table);
    const int64_t plane = size * size;
    for (int64_t t = 0; t < n; t++) {
        float *to = pixels + t * 3 * plane;         // (3, size, size)
        const uint8_t *from = rgb + t * 3 * plane;  // (size, size, 3)
        for (int64_t p = 0; p < plane; p++) {
            to[p] = table[0][from[3 * p]];
            to[plane + p] = table[1][from[3 * p + 1]];
            to[2 * plane + p] = table[2][from[3 * p + 2]];
        }
    }
}
