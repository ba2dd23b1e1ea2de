// The operation around the matrix-vector kernels: each thread takes a range of weight rows, a piece
// at a time that stays in its cache when more rows of x than one walk takes must go over it.
#include "ops/cpu/gemv.h"

enum { piece_bytes = 1 << 17 };

// ---- the other operand ----

static int64_t whole_supers(int64_t blocks) {
    return (blocks + mm_gemv_super - 1) / mm_gemv_super * mm_gemv_super;
}

size_t mm_gemv_x_bytes(int64_t n, int64_t k) {
    const int64_t blocks = mm_quant_blocks(k);
    return (size_t)n *
           (size_t)(blocks * mm_quant_block + whole_supers(blocks) * (1 + mm_gemv_sums) * 4);
}

struct mm_gemv_x mm_gemv_x_at(void *room, int64_t n, int64_t k) {
    const int64_t blocks = mm_quant_blocks(k), ld = whole_supers(blocks);
    struct mm_gemv_x x = {.k = k, .blocks = blocks, .ld_blocks = ld, .codes = room};
    x.r = (float *)(x.codes + n * blocks * mm_quant_block);
    x.sums = x.r + n * ld;
    return x;
}

void mm_gemv_x_code(const struct mm_gemv_kernels *g, const struct mm_gemv_x *to, int64_t t,
                    const float *x) {
    float *r = to->r + t * to->ld_blocks;
    float *sums = to->sums + t * to->ld_blocks * mm_gemv_sums;
    memset(r, 0, (size_t)to->ld_blocks * sizeof *r);
    memset(sums, 0, (size_t)to->ld_blocks * mm_gemv_sums * sizeof *sums);
    g->quant->code_row(to->codes + t * to->blocks * mm_quant_block, r, sums, x, to->k);
}

// ---- the operation ----

struct gemv_job {
    struct mm_gemv_kernels g;
    struct mm_view y, w;
    struct mm_gemv_x x;
    const float *bias;
    int64_t row_bytes;
};

static void gemv_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct gemv_job *j = arg;
    (void)thread;
    const int64_t t_dim = j->y.shape[0];
    const int64_t most = 1 + piece_bytes / j->row_bytes;
    const int64_t piece = t_dim > mm_gemv_most ? most : end - begin;
    for (int64_t at = begin; at < end; at += piece) {
        const int64_t stop = end - at < piece ? end : at + piece;
        for (int64_t t = 0; t < t_dim; t += mm_gemv_most) {
            const int64_t n = t_dim - t < mm_gemv_most ? t_dim - t : mm_gemv_most;
            const struct mm_gemv_x x = mm_gemv_x_from(j->x, t);
            float *y = mm_view_at(j->y, t, at);
            mm_gemv_rows_of(&j->g, j->w.dtype, n)(y, j->y.ld, &x, j->w, at, stop);
        }
    }
    if (!j->bias) return;
    for (int64_t t = 0; t < t_dim; t++) {
        float *y = mm_view_at(j->y, t, 0);
        for (int64_t i = begin; i < end; i++)
            y[i] += j->bias[i];
    }
}

void mm_gemv(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
             const float *bias) {
    const int64_t t_dim = x.shape[0], k = mm_view_cols(x);
    if (t_dim == 0) return;
    struct gemv_job j = {.g = mm_gemv_kernels_of(be), .y = y, .w = w, .bias = bias};
    if (mm_dtype_quantized(w.dtype)) {
        void *room = mm_cpu_scratch(be, mm_scratch_a, mm_gemv_x_bytes(t_dim, k));
        if (!room) return;
        j.x = mm_gemv_x_at(room, t_dim, k);
        for (int64_t t = 0; t < t_dim; t++)
            mm_gemv_x_code(&j.g, &j.x, t, mm_view_at(x, t, 0));
        j.row_bytes = mm_quant_row_bytes(w.dtype, k);
    } else {
        j.x = (struct mm_gemv_x){.x = x.data, .ld = x.ld, .k = k};
        j.row_bytes = w.ld * (int64_t)mm_dtype_bytes(w.dtype);
    }
    // Below some 60,000 weights waking a second thread costs more than it saves.
    mm_parallel_for(be->pool, w.shape[0], 1 + 32768 / k, gemv_rows, &j);
}
