// The frame of the dense products of AArch64, see product_neon.h: layout of panels, blocks for the
// caches, threads; and the tile of floats.
#include "ops/cpu/product_neon.h"
#include <arm_neon.h>
#include "ops/cpu/convert.h"

enum {
    f32_block = 256,        // k of a pass: 12 KiB of B and 8 KiB of A stay in the first cache
    bf16_block = 512,       // the same in bytes
    bf16_unit = 4,          // k that lie side by side for bfmmla
    cache_rows = 128,       // rows of A whose panels stay in the second cache
    b_bytes_max = 8 << 20,  // of B laid out at a time
    small_work = 1 << 20    // operations below which a second thread does not pay
};

// ---- panels ----

// A panel of `width` rows or columns over the k of one pass. f32: one k after another, `width`
// elements each. bf16: for each 4 k, the 4 elements of one row, then of the next.
struct panel {
    const struct mm_side *side;
    int64_t first, n;  // n <= width are there, the others are zero
    int64_t k, n_k;
    int64_t width;
};

static const void *element(const struct mm_side *s, int64_t at, int64_t k) {
    const int64_t i = s->by_k ? k * s->ld + at : at * s->ld + k;
    return (const char *)s->data + (size_t)i * mm_dtype_bytes(s->dtype);
}

// Four rows of n_k floats, k by k into every `width`-th place.
static void interleave(float *to, const float *from, int64_t ld, int64_t n_k, int64_t width) {
    int64_t k = 0;
    for (; k + 4 <= n_k; k += 4) {
        float32x4_t r[4], t[4];
        for (int i = 0; i < 4; i++)
            r[i] = vld1q_f32(from + i * ld + k);
        for (int i = 0; i < 2; i++) {
            t[2 * i] = vzip1q_f32(r[i], r[i + 2]);
            t[2 * i + 1] = vzip2q_f32(r[i], r[i + 2]);
        }
        vst1q_f32(to + k * width, vzip1q_f32(t[0], t[2]));
        vst1q_f32(to + (k + 1) * width, vzip2q_f32(t[0], t[2]));
        vst1q_f32(to + (k + 2) * width, vzip1q_f32(t[1], t[3]));
        vst1q_f32(to + (k + 3) * width, vzip2q_f32(t[1], t[3]));
    }
    for (; k < n_k; k++) {
        for (int i = 0; i < 4; i++)
            to[k * width + i] = from[i * ld + k];
    }
}

static void pack_f32(enum mm_isa isa, float *to, const struct panel *p) {
    const struct mm_side *s = p->side;
    if (s->by_k) {
        for (int64_t k = 0; k < p->n_k; k++, to += p->width) {
            mm_convert_to_f32(isa, to, element(s, p->first, p->k + k), s->dtype, p->n);
            for (int64_t i = p->n; i < p->width; i++)
                to[i] = 0.0f;
        }
        return;
    }
    float rows[4][f32_block];
    for (int64_t r = 0; r < p->width; r += 4) {
        for (int64_t i = 0; i < 4; i++) {
            if (r + i < p->n) {
                mm_convert_to_f32(isa, rows[i], element(s, p->first + r + i, p->k), s->dtype,
                                  p->n_k);
            } else {
                memset(rows[i], 0, sizeof rows[i]);
            }
        }
        interleave(to + r, rows[0], f32_block, p->n_k, p->width);
    }
}

// n elements as bf16: where they are, or converted into `room`.
static const uint16_t *as_bf16(enum mm_isa isa, uint16_t *room, const void *from,
                               enum mm_dtype dtype, int64_t n) {
    if (dtype == mm_dtype_bf16) return from;
    if (dtype == mm_dtype_f32) {
        mm_convert_to_bf16(isa, room, from, n);
        return room;
    }
    float wide[bf16_block];
    mm_convert_to_f32(isa, wide, from, dtype, n);
    mm_convert_to_bf16(isa, room, wide, n);
    return room;
}

static void pack_bf16(enum mm_isa isa, uint16_t *to, const struct panel *p) {
    const struct mm_side *s = p->side;
    const int64_t units = (p->n_k + bf16_unit - 1) / bf16_unit, step = p->width * bf16_unit;
    memset(to, 0, (size_t)(units * step) * sizeof *to);
    uint16_t room[bf16_block];
    if (s->by_k) {
        for (int64_t k = 0; k < p->n_k; k++) {
            const uint16_t *from =
                as_bf16(isa, room, element(s, p->first, p->k + k), s->dtype, p->n);
            uint16_t *at = to + k / bf16_unit * step + k % bf16_unit;
            for (int64_t i = 0; i < p->n; i++)
                at[i * bf16_unit] = from[i];
        }
        return;
    }
    for (int64_t r = 0; r < p->n; r++) {
        const uint16_t *from = as_bf16(isa, room, element(s, p->first + r, p->k), s->dtype, p->n_k);
        uint16_t *at = to + r * bf16_unit;
        int64_t k = 0;
        for (; k + bf16_unit <= p->n_k; k += bf16_unit, at += step)
            memcpy(at, from + k, bf16_unit * sizeof *at);
        for (int64_t i = 0; k + i < p->n_k; i++)
            at[i] = from[k + i];
    }
}

// ---- the tile of floats ----

#define ROW(r, x, lane)                                  \
    sum[r][0] = vfmaq_laneq_f32(sum[r][0], b0, x, lane); \
    sum[r][1] = vfmaq_laneq_f32(sum[r][1], b1, x, lane); \
    sum[r][2] = vfmaq_laneq_f32(sum[r][2], b2, x, lane);

static void tile_f32(const void *a_panel, const void *b_panel, int64_t n_k, float *c, int64_t ldc,
                     bool add) {
    const float *a = a_panel, *b = b_panel;
    float32x4_t sum[mm_neon_rows][3];
#pragma GCC unroll 8
    for (int r = 0; r < mm_neon_rows; r++)
        sum[r][0] = sum[r][1] = sum[r][2] = vdupq_n_f32(0.0f);
    for (int64_t k = 0; k < n_k; k++, a += mm_neon_rows, b += mm_neon_cols) {
        const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4), b2 = vld1q_f32(b + 8);
        const float32x4_t low = vld1q_f32(a), high = vld1q_f32(a + 4);
        ROW(0, low, 0)
        ROW(1, low, 1)
        ROW(2, low, 2)
        ROW(3, low, 3)
        ROW(4, high, 0)
        ROW(5, high, 1)
        ROW(6, high, 2)
        ROW(7, high, 3)
    }
#pragma GCC unroll 8
    for (int r = 0; r < mm_neon_rows; r++, c += ldc) {
#pragma GCC unroll 3
        for (int v = 0; v < 3; v++) {
            if (add) sum[r][v] = vaddq_f32(sum[r][v], vld1q_f32(c + 4 * v));
            vst1q_f32(c + 4 * v, sum[r][v]);
        }
    }
}

void mm_neon_blocks_f32(const char *a, const char *b, int64_t n, float *c, int64_t ldc) {
    const float *ai = (const float *)a, *bi = (const float *)b;
    for (int64_t i = 0; i < n; i++) {
        float exact[mm_neon_rows * mm_neon_cols];
        tile_f32(ai, bi, mm_quant_block, exact, mm_neon_cols, false);
        ai += mm_quant_block * mm_neon_rows, bi += mm_quant_block * mm_neon_cols;
        for (int r = 0; r < mm_neon_rows; r++) {
            for (int v = 0; v < mm_neon_cols; v++)
                c[r * ldc + v] += exact[r * mm_neon_cols + v] * (ai[r] * bi[v]);
        }
        ai += mm_neon_rows, bi += mm_neon_cols;
    }
}

// ---- one pass: the k of one block ----

struct pass {
    enum mm_isa isa;
    bool bf16, round;  // bf16 tiles; floats rounded to bf16
    const struct mm_side *a, *b;
    mm_neon_tile_fn *tile;
    char *a_panels, *b_panels;
    size_t a_bytes, b_bytes;  // of one panel
    float *c;
    int64_t ldc, m, n, k, n_k;  // n: columns from `first` on
    int64_t first;
    bool add, by_rows;
};

static void pack_panel(const struct pass *f, char *to, const struct panel *p) {
    if (f->bf16) {
        pack_bf16(f->isa, (uint16_t *)to, p);
        return;
    }
    pack_f32(f->isa, (float *)to, p);
    if (f->round) mm_convert_round_bf16((float *)to, (float *)to, p->n_k * p->width);
}

static int64_t at_most(int64_t n, int64_t most) {
    return n < most ? n : most;
}

static void pack_a(void *arg, int64_t begin, int64_t end, int thread) {
    const struct pass *f = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t row = i * mm_neon_rows;
        pack_panel(f, f->a_panels + (size_t)i * f->a_bytes,
                   &(struct panel){f->a, row, at_most(f->m - row, mm_neon_rows), f->k, f->n_k,
                                   mm_neon_rows});
    }
}

static void pack_b(void *arg, int64_t begin, int64_t end, int thread) {
    const struct pass *f = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t col = i * mm_neon_cols;
        pack_panel(f, f->b_panels + (size_t)i * f->b_bytes,
                   &(struct panel){f->b, f->first + col, at_most(f->n - col, mm_neon_cols), f->k,
                                   f->n_k, mm_neon_cols});
    }
}

static void one_tile(const struct pass *f, int64_t row, int64_t col) {
    const char *a = f->a_panels + (size_t)(row / mm_neon_rows) * f->a_bytes;
    const char *b = f->b_panels + (size_t)(col / mm_neon_cols) * f->b_bytes;
    const int64_t rows = at_most(f->m - row, mm_neon_rows);
    const int64_t cols = at_most(f->n - col, mm_neon_cols);
    float *c = f->c + row * f->ldc + f->first + col;
    if (rows == mm_neon_rows && cols == mm_neon_cols) {
        f->tile(a, b, f->n_k, c, f->ldc, f->add);
        return;
    }
    float edge[mm_neon_rows * mm_neon_cols] = {0};
    for (int64_t r = 0; f->add && r < rows; r++)
        memcpy(edge + r * mm_neon_cols, c + r * f->ldc, (size_t)cols * sizeof *c);
    f->tile(a, b, f->n_k, edge, mm_neon_cols, f->add);
    for (int64_t r = 0; r < rows; r++)
        memcpy(c + r * f->ldc, edge + r * mm_neon_cols, (size_t)cols * sizeof *c);
}

static void multiply(void *arg, int64_t begin, int64_t end, int thread) {
    const struct pass *f = arg;
    (void)thread;
    const int64_t unit = f->by_rows ? mm_neon_rows : mm_neon_cols;
    const int64_t r0 = f->by_rows ? begin * unit : 0, c0 = f->by_rows ? 0 : begin * unit;
    const int64_t r1 = f->by_rows ? at_most(end * unit, f->m) : f->m;
    const int64_t c1 = f->by_rows ? f->n : at_most(end * unit, f->n);
    for (int64_t r = r0; r < r1; r += cache_rows) {
        for (int64_t col = c0; col < c1; col += mm_neon_cols) {
            for (int64_t i = r; i < r1 && i < r + cache_rows; i += mm_neon_rows)
                one_tile(f, i, col);
        }
    }
}

static int64_t panels(int64_t n, int64_t width) {
    return (n + width - 1) / width;
}

void mm_dense_product(struct mm_backend *be, const struct mm_dense *d) {
    if (d->m == 0 || d->n == 0) return;
    const enum mm_isa isa = mm_cpu_isa(be);
    struct pass f = {.isa = isa, .a = &d->a, .b = &d->b, .c = d->c, .ldc = d->ldc, .m = d->m};
    f.bf16 = (d->round || d->b.dtype == mm_dtype_bf16) && mm_isa_bf16(isa);
    f.round = d->round && !f.bf16;
    f.tile = f.bf16 ? mm_neon_tile_bf16 : tile_f32;
    const int64_t block = at_most(d->k, f.bf16 ? bf16_block : f32_block);
    const int64_t unit = f.bf16 ? bf16_unit : 1;
    const size_t k_bytes = (size_t)((block + unit - 1) / unit * unit) * (f.bf16 ? 2 : 4);
    f.a_bytes = k_bytes * mm_neon_rows, f.b_bytes = k_bytes * mm_neon_cols;
    const int64_t parts = panels(d->m, mm_neon_rows);
    const int64_t step = at_most(panels(d->n, mm_neon_cols), (int64_t)(b_bytes_max / f.b_bytes));
    f.a_panels = mm_cpu_scratch(be, mm_scratch_c, (size_t)parts * f.a_bytes);
    f.b_panels = mm_cpu_scratch(be, mm_scratch_d, (size_t)step * f.b_bytes);
    if (be->error.code) return;
    for (f.k = 0; f.k < d->k; f.k += block) {
        f.n_k = at_most(d->k - f.k, block);
        f.add = d->accumulate || f.k > 0;
        const bool small = d->m * d->n * f.n_k < small_work;
        mm_parallel_for(be->pool, parts, small ? parts : 1, pack_a, &f);
        for (f.first = 0; f.first < d->n; f.first += step * mm_neon_cols) {
            f.n = at_most(d->n - f.first, step * mm_neon_cols);
            f.by_rows = f.m >= f.n;
            const int64_t cols = panels(f.n, mm_neon_cols), tiles = f.by_rows ? parts : cols;
            mm_parallel_for(be->pool, cols, small ? cols : 1, pack_b, &f);
            mm_parallel_for(be->pool, tiles, small ? tiles : 1, multiply, &f);
        }
    }
}

bool mm_ffn_product(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                    struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    (void)be, (void)y, (void)x, (void)h, (void)w1, (void)w3, (void)w2;
    return false;
}

enum mm_code mm_products_open(struct mm_cpu *cpu, int n_threads, struct mm_error *err) {
    (void)cpu, (void)n_threads, (void)err;
    return mm_code_ok;
}

void mm_products_close(struct mm_cpu *cpu) {
    (void)cpu;
}
