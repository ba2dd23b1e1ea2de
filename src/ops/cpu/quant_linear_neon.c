// Products of many rows with quantized weights on AArch64, as base/quant.h defines them. x is
// rounded to codes once, in panels of 8 rows; each thread takes columns of y, expands their weights
// to panels of 12, and sums tiles of 8 x 12. The sums of a block are exact at every level: by smmla
// or sdot in integers, else in floats, which hold them.
#include <arm_neon.h>
#include "ops/cpu/product_neon.h"
#include "ops/cpu/quant_linear.h"
#include "ops/cpu/quant_neon.h"

enum {
    pass_blocks = 8,  // of 128 k: 8 KiB of x stay in the first cache
    pass_panels = 8,  // panels of weights that go through together, in the second cache
    width_max = mm_neon_cols,
};

// How a level wants a block of a panel: `unit` codes of one row side by side, then those of the
// next; as floats (unit 0): one k after another. The scales of the rows follow.
struct level {
    mm_neon_blocks_fn *tile;
    int64_t unit;
};

static struct level level_of(enum mm_isa isa) {
    if (isa >= mm_isa_neon_bf16) return (struct level){mm_neon_blocks_i8mm, 8};
    if (isa >= mm_isa_neon_dotprod) return (struct level){mm_neon_blocks_dot, 4};
    return (struct level){mm_neon_blocks_f32, 0};
}

static size_t block_bytes(const struct level *l, int64_t width) {
    return (size_t)width * ((l->unit ? 1 : sizeof(float)) * mm_quant_block + sizeof(float));
}

// Row `at` of a panel's block gets its 128 codes and its scale.
static void put_row(const struct level *l, char *block, int64_t width, int64_t at,
                    const int8_t *codes, float scale) {
    const int64_t unit = l->unit;
    if (unit == 8) {
        for (int64_t i = 0; i < mm_quant_block / 8; i++)
            memcpy(block + (i * width + at) * 8, codes + i * 8, 8);
    } else if (unit == 4) {
        for (int64_t i = 0; i < mm_quant_block / 4; i++)
            memcpy(block + (i * width + at) * 4, codes + i * 4, 4);
    } else {
        float *to = (float *)block + at;
        for (int64_t i = 0; i < mm_quant_block; i++)
            to[i * width] = (float)codes[i];
    }
    const size_t all = block_bytes(l, width) - (size_t)width * sizeof scale;
    memcpy(block + all + (size_t)at * sizeof scale, &scale, sizeof scale);
}

struct quant_job {
    struct level level;
    struct mm_view y, x, w;
    const float *bias;
    int64_t k, blocks;
    char *a;         // (row panels, blocks)
    size_t a_block;  // bytes
    char *room;      // (threads, pass_panels, pass_blocks)
    size_t b_block, room_bytes;
};

static void code_panels(void *arg, int64_t begin, int64_t end, int thread) {
    static const int8_t zeros[mm_quant_block] = {0};
    const struct quant_job *j = arg;
    (void)thread;
    for (int64_t p = begin; p < end; p++) {
        for (int64_t r = 0; r < mm_neon_rows; r++) {
            const int64_t t = p * mm_neon_rows + r;
            char *block = j->a + (size_t)(p * j->blocks) * j->a_block;
            for (int64_t b = 0; b < j->blocks; b++, block += j->a_block) {
                int8_t codes[mm_quant_block];
                float scale = 0.0f;
                const int64_t at = b * mm_quant_block, left = j->k - at;
                if (t < j->x.shape[0]) {
                    scale = mm_neon_code_block(codes, mm_view_at(j->x, t, at),
                                               left < mm_quant_block ? left : mm_quant_block);
                }
                put_row(&j->level, block, mm_neon_rows, r, t < j->x.shape[0] ? codes : zeros,
                        scale);
            }
        }
    }
}

// Blocks [b0, b0 + n) of columns [col, col + 12) of W^T.
static void expand_panel(const struct quant_job *j, char *to, int64_t col, int64_t b0, int64_t n) {
    static const int8_t zeros[mm_quant_block] = {0};
    const enum mm_dtype type = j->w.dtype;
    for (int64_t c = 0; c < mm_neon_cols; c++) {
        char *block = to;
        if (col + c >= j->w.shape[0]) {
            for (int64_t b = 0; b < n; b++, block += j->b_block)
                put_row(&j->level, block, mm_neon_cols, c, zeros, 0.0f);
            continue;
        }
        const char *row = mm_view_at(j->w, col + c, 0);
        const uint16_t *scales = mm_quant_scales(type, row, j->k);
        const uint16_t *factors = mm_quant_factors(row, j->k);
        for (int64_t b = b0; b < b0 + n; b++, block += j->b_block) {
            int8_t room[mm_quant_block];
            const int8_t *codes = (const int8_t *)row + b * mm_quant_block;
            if (type == mm_dtype_q4) {
                mm_neon_expand_q4(room, (const uint8_t *)row + b * (mm_quant_block / 2),
                                  factors[b]);
                codes = room;
            }
            put_row(&j->level, block, mm_neon_cols, c, codes, mm_f16_to_f32(scales[b]));
        }
    }
}

static void put_bias(const struct quant_job *j, int64_t begin, int64_t end) {
    for (int64_t t = 0; t < j->y.shape[0]; t++) {
        float *y = mm_view_at(j->y, t, 0);
        for (int64_t i = begin; i < end; i++)
            y[i] = j->bias ? j->bias[i] : 0.0f;
    }
}

static void one_tile(const struct quant_job *j, const char *a, const char *b, int64_t n,
                     int64_t row, int64_t col) {
    const int64_t rows = j->y.shape[0] - row, cols = j->w.shape[0] - col;
    float *y = mm_view_at(j->y, row, col);
    if (rows >= mm_neon_rows && cols >= mm_neon_cols) {
        j->level.tile(a, b, n, y, j->y.ld);
        return;
    }
    float edge[mm_neon_rows * mm_neon_cols] = {0};
    j->level.tile(a, b, n, edge, mm_neon_cols);
    for (int64_t r = 0; r < rows && r < mm_neon_rows; r++) {
        for (int64_t c = 0; c < cols && c < mm_neon_cols; c++)
            y[r * j->y.ld + c] += edge[r * mm_neon_cols + c];
    }
}

static void columns(void *arg, int64_t begin, int64_t end, int thread) {
    const struct quant_job *j = arg;
    char *room = j->room + (size_t)thread * j->room_bytes;
    const size_t panel = pass_blocks * j->b_block;
    const int64_t n_dim = j->w.shape[0], last = end * mm_neon_cols;
    put_bias(j, begin * mm_neon_cols, last < n_dim ? last : n_dim);
    for (int64_t p0 = begin; p0 < end; p0 += pass_panels) {
        const int64_t n_p = end - p0 < pass_panels ? end - p0 : pass_panels;
        for (int64_t b0 = 0; b0 < j->blocks; b0 += pass_blocks) {
            const int64_t n = j->blocks - b0 < pass_blocks ? j->blocks - b0 : pass_blocks;
            for (int64_t p = 0; p < n_p; p++)
                expand_panel(j, room + (size_t)p * panel, (p0 + p) * mm_neon_cols, b0, n);
            const char *a = j->a + (size_t)b0 * j->a_block;
            for (int64_t t = 0; t < j->y.shape[0]; t += mm_neon_rows) {
                for (int64_t p = 0; p < n_p; p++)
                    one_tile(j, a, room + (size_t)p * panel, n, t, (p0 + p) * mm_neon_cols);
                a += (size_t)j->blocks * j->a_block;
            }
        }
    }
}

void mm_quant_linear(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                     const float *bias) {
    const int64_t t_dim = x.shape[0], k = mm_view_cols(x);
    if (t_dim == 0) return;
    struct quant_job j = {.level = level_of(mm_cpu_isa(be)),
                          .y = y,
                          .x = x,
                          .w = w,
                          .bias = bias,
                          .k = k,
                          .blocks = mm_quant_blocks(k)};
    j.a_block = block_bytes(&j.level, mm_neon_rows);
    j.b_block = block_bytes(&j.level, mm_neon_cols);
    j.room_bytes = mm_cpu_piece(pass_panels * pass_blocks * j.b_block);
    const int64_t row_panels = (t_dim + mm_neon_rows - 1) / mm_neon_rows;
    const int64_t col_panels = (w.shape[0] + mm_neon_cols - 1) / mm_neon_cols;
    j.a = mm_cpu_scratch(be, mm_scratch_c, (size_t)(row_panels * j.blocks) * j.a_block);
    j.room = mm_cpu_scratch(be, mm_scratch_d, (size_t)mm_pool_size(be->pool) * j.room_bytes);
    if (be->error.code) return;
    const bool small = t_dim * w.shape[0] * k < 1 << 20;
    mm_parallel_for(be->pool, row_panels, small ? row_panels : 1, code_panels, &j);
    mm_parallel_for(be->pool, col_panels, small ? col_panels : pass_panels, columns, &j);
}
