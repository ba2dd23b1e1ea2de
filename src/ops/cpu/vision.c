// Pictures to rows: patches, position embedding, pixel shuffle. All of it moves memory.
#include "ops/cpu/convert.h"
#include "ops/cpu/kernels.h"

struct vision_job {
    const struct mm_kernels *k;
    struct mm_view y, x;
    const float *e;
    int64_t n_positions, grid, patch;
    bool back;
};

// A tile: from pixels with their channels side by side to planes.
static void normalize_tiles(void *arg, int64_t begin, int64_t end, int thread) {
    const struct vision_job *j = arg;
    const int64_t plane = j->y.shape[2] * j->y.shape[2];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const uint8_t *from = mm_view_at(j->x, i, 0);  // (S, S, 3)
        float *to = mm_view_at(j->y, i, 0);            // (3, S, S)
        for (int64_t p = 0; p < plane; p++) {
            to[p] = j->e[from[3 * p]];
            to[plane + p] = j->e[256 + from[3 * p + 1]];
            to[2 * plane + p] = j->e[512 + from[3 * p + 2]];
        }
    }
}

void mm_normalize_cpu(struct mm_backend *be, struct mm_view y, struct mm_view rgb,
                      struct mm_view table) {
    struct vision_job j = {.y = y, .x = rgb, .e = table.data};
    mm_parallel_for(be->pool, y.shape[0], 1, normalize_tiles, &j);
}

// A row of y: channel, row and column of one patch.
static void patch_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct vision_job *j = arg;
    const int64_t p = j->patch, side = j->x.shape[2], grid = j->grid;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const int64_t in_tile = r % (grid * grid);
        const int64_t at = in_tile / grid * p * side + in_tile % grid * p;
        const float *tile = mm_view_at(j->x, r / (grid * grid), 0);
        float *y = mm_view_at(j->y, r, 0);
        for (int64_t line = 0; line < 3 * p; line++) {
            const int64_t from = (line / p * side + line % p) * side + at;
            memcpy(y + line * p, tile + from, (size_t)p * sizeof *y);
        }
    }
}

void mm_patchify_cpu(struct mm_backend *be, struct mm_view y, struct mm_view pixels,
                     int64_t patch) {
    struct vision_job j = {.y = y, .x = pixels, .patch = patch, .grid = pixels.shape[2] / patch};
    mm_parallel_for(be->pool, y.shape[0], 32, patch_rows, &j);
}

static void position_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct vision_job *j = arg;
    const int64_t cols = mm_view_cols(j->y);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        j->k->add(mm_view_at(j->y, r, 0), mm_view_at(j->x, r, 0), j->e + r % j->n_positions * cols,
                  cols);
    }
}

void mm_add_position_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                             struct mm_view e) {
    struct vision_job j = {.k = mm_kernels_of(be), .y = y, .x = x, .n_positions = e.shape[0]};
    const int64_t cols = mm_view_cols(e);
    // The table is small beside the rows: it is widened, or made dense, at every call.
    float *table = NULL;
    if (e.dtype == mm_dtype_f32 && e.ld == cols) {
        j.e = e.data;
    } else {
        table = mm_cpu_scratch(be, mm_scratch_a, (size_t)mm_view_count(e) * sizeof *table);
        if (!table) return;
        for (int64_t r = 0; r < e.shape[0]; r++) {
            mm_convert_to_f32(mm_cpu_isa(be), table + r * cols, mm_view_at(e, r, 0), e.dtype, cols);
        }
        j.e = table;
    }
    mm_parallel_for(be->pool, y.shape[0], 1 + 8192 / cols, position_rows, &j);
}

static void position_bwd_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct vision_job *j = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        float *de = mm_view_at(j->y, r, 0);
        for (int64_t i = r; i < j->x.shape[0]; i += j->n_positions) {
            j->k->add(de, de, mm_view_at(j->x, i, 0), mm_view_cols(j->y));
        }
    }
}

void mm_add_position_bwd_cpu(struct mm_backend *be, struct mm_view de, struct mm_view dy) {
    struct vision_job j = {.k = mm_kernels_of(be), .y = de, .x = dy, .n_positions = de.shape[0]};
    const int64_t each = mm_view_count(dy) / de.shape[0];
    mm_parallel_for(be->pool, de.shape[0], 1 + 8192 / (each + 1), position_bwd_rows, &j);
}

// Row (a, b) of the half grid holds rows (2a + s, 2b + u) of the full one, for (s, u) = (0,0),
// (0,1), (1,0), (1,1): InternVL's ps v2 written out.
static void shuffle_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct vision_job *j = arg;
    const int64_t grid = j->grid, half = grid / 2, dim = mm_view_cols(j->x);
    const size_t bytes = (size_t)dim * sizeof(float);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const int64_t tile = r / (half * half), a = r % (half * half) / half, b = r % half;
        for (int64_t quarter = 0; quarter < 4; quarter++) {
            const int64_t full =
                tile * grid * grid + (2 * a + quarter / 2) * grid + 2 * b + quarter % 2;
            void *merged = mm_view_at(j->y, r, quarter * dim);
            void *single = mm_view_at(j->x, full, 0);
            if (j->back) {
                memcpy(single, merged, bytes);
            } else {
                memcpy(merged, single, bytes);
            }
        }
    }
}

void mm_pixel_shuffle_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                              int64_t grid) {
    struct vision_job j = {.y = y, .x = x, .grid = grid};
    mm_parallel_for(be->pool, y.shape[0], 1 + 16384 / mm_view_cols(y), shuffle_rows, &j);
}

void mm_pixel_shuffle_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                              int64_t grid) {
    struct vision_job j = {.y = dy, .x = dx, .grid = grid, .back = true};
    mm_parallel_for(be->pool, dy.shape[0], 1 + 16384 / mm_view_cols(dy), shuffle_rows, &j);
}
