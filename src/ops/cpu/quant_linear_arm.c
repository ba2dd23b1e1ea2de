// Products with quantized weights: x is rounded to codes once, then each thread takes a range of
// weight rows, expands a row to int8 and multiplies it with every row of codes.
#include "ops/cpu/quant_linear.h"

struct codes_job {
    struct mm_view x;
    int8_t *a;  // (T, blocks * 128)
    float *r;   // (T, blocks)
};

static void code_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct codes_job *j = arg;
    const int64_t k = mm_view_cols(j->x), blocks = mm_quant_blocks(k);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        mm_quantize_x(j->a + t * blocks * mm_quant_block, j->r + t * blocks, mm_view_at(j->x, t, 0),
                      k);
    }
}

struct quant_job {
    struct mm_view y, w;
    const int8_t *a;
    const float *r, *bias;
    char *room;  // an expanded row a thread
    size_t room_bytes;
};

static int32_t dot_block(const int8_t *a, const int8_t *b) {
    int32_t sum = 0;
    for (int i = 0; i < mm_quant_block; i++)
        sum += a[i] * b[i];
    return sum;
}

static void weight_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct quant_job *j = arg;
    const int64_t k = mm_view_cols(j->w), blocks = mm_quant_blocks(k);
    int8_t *w8 = (int8_t *)j->room + (size_t)thread * j->room_bytes;
    for (int64_t n = begin; n < end; n++) {
        const void *row = mm_view_at(j->w, n, 0);
        const uint16_t *scales = mm_quant_scales(j->w.dtype, row, k);
        mm_quant_expand_row(w8, j->w.dtype, row, k);
        for (int64_t t = 0; t < j->y.shape[0]; t++) {
            float sum = 0.0f;
            for (int64_t b = 0; b < blocks; b++) {
                const int8_t *a = j->a + (t * blocks + b) * mm_quant_block;
                sum += mm_f16_to_f32(scales[b]) * j->r[t * blocks + b] *
                       (float)dot_block(a, w8 + b * mm_quant_block);
            }
            *(float *)mm_view_at(j->y, t, n) = sum + (j->bias ? j->bias[n] : 0.0f);
        }
    }
}

void mm_quant_linear(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                     const float *bias) {
    const int64_t t_dim = x.shape[0], k = mm_view_cols(x), blocks = mm_quant_blocks(k);
    if (t_dim == 0) return;
    struct codes_job c = {.x = x};
    struct quant_job j = {.y = y, .w = w, .bias = bias};
    j.room_bytes = mm_cpu_piece((size_t)(blocks * mm_quant_block));
    c.a = mm_cpu_scratch(be, mm_scratch_a, (size_t)(t_dim * blocks * mm_quant_block));
    c.r = mm_cpu_scratch(be, mm_scratch_c, (size_t)(t_dim * blocks) * sizeof *c.r);
    j.room = mm_cpu_scratch(be, mm_scratch_d, (size_t)mm_pool_size(be->pool) * j.room_bytes);
    if (!c.a || !c.r || !j.room) return;
    j.a = c.a, j.r = c.r;
    mm_parallel_for(be->pool, t_dim, 1 + 16384 / k, code_rows, &c);
    mm_parallel_for(be->pool, w.shape[0], 1 + 32768 / (k * t_dim), weight_rows, &j);
}
