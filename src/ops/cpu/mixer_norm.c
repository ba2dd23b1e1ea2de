// head_norm, softplus and gated_norm: row operations shared among the threads by rows; sums over
// rows (dw, dbias) by blocks that do not depend on the threads.
#include <string.h>
#include "ops/cpu/mixer.h"

struct rows {
    const struct mm_mixer_kernels *kern;
    struct mm_view out, out2, stats, a, b, c;  // what each operation says
    const float *w, *bias;
    float eps;
    int64_t n_heads, dim;
    struct mm_blocks blocks;
    int64_t n_sums;  // floats of a block's sums, 0: none wanted
    float *partial;  // (blocks, n_sums)
};

static float *at(struct mm_view v, int64_t t) {
    return v.data ? (float *)v.data + t * v.ld : NULL;
}

// Runs fn over the blocks of n_rows rows and clears their n_sums sums first. False: no memory.
static bool run_blocks(struct mm_backend *be, struct rows *f, int64_t n_rows, int64_t n_sums,
                       mm_task_fn *fn) {
    f->blocks = mm_blocks_of(n_rows), f->n_sums = n_sums;
    if (n_sums > 0) {
        const size_t bytes = (size_t)(f->blocks.n * n_sums) * sizeof(float);
        f->partial = mm_cpu_scratch(be, mm_scratch_c, bytes);
        if (!f->partial) return false;
        memset(f->partial, 0, bytes);
    }
    mm_parallel_for(be->pool, f->blocks.n, 1, fn, f);
    return true;
}

static int64_t block_end(const struct rows *f, int64_t b) {
    const int64_t end = (b + 1) * f->blocks.rows;
    return end < f->blocks.n_rows ? end : f->blocks.n_rows;
}

static float *block_sums(const struct rows *f, int64_t b) {
    return f->n_sums ? f->partial + b * f->n_sums : NULL;
}

static void add_sums(const struct rows *f, struct mm_view to, int64_t first, int64_t n) {
    if (to.data) mm_blocks_add(to.data, f->partial + first, f->n_sums, f->blocks.n, n);
}

// Elements before a row is worth a thread's attention.
static int64_t grain(int64_t cols) {
    return 1 + 4096 / (cols + 1);
}

// ---- head_norm: out y / dx, stats, a x, b dy ----

static void head_norm_rows(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct rows *f = arg;
    for (int64_t t = begin; t < end; t++) {
        f->kern->head_norm_fwd(at(f->out, t), at(f->stats, t), at(f->a, t), f->w, f->bias, f->eps,
                               f->n_heads, f->dim);
    }
}

void mm_head_norm_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view stats,
                          struct mm_view x, struct mm_view w, struct mm_view bias, float eps) {
    struct rows f = {.kern = mm_mixer_kernels(be),
                     .out = y,
                     .stats = stats,
                     .a = x,
                     .eps = eps,
                     .n_heads = x.shape[1],
                     .dim = x.shape[2]};
    f.w = mm_cpu_vector(be, mm_scratch_a, w), f.bias = mm_cpu_vector(be, mm_scratch_b, bias);
    if (!f.w || !f.bias) return;
    mm_parallel_for(be->pool, x.shape[0], grain(f.n_heads * f.dim), head_norm_rows, &f);
}

static void head_norm_blocks(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct rows *f = arg;
    for (int64_t b = begin; b < end; b++) {
        float *sums = block_sums(f, b);
        for (int64_t t = b * f->blocks.rows; t < block_end(f, b); t++) {
            f->kern->head_norm_bwd(at(f->out, t), sums, sums ? sums + f->dim : NULL, at(f->b, t),
                                   at(f->a, t), f->w, at(f->stats, t), f->n_heads, f->dim);
        }
    }
}

void mm_head_norm_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                          struct mm_view dbias, struct mm_view dy, struct mm_view x,
                          struct mm_view w, struct mm_view stats) {
    struct rows f = {.kern = mm_mixer_kernels(be),
                     .out = dx,
                     .stats = stats,
                     .a = x,
                     .b = dy,
                     .n_heads = x.shape[1],
                     .dim = x.shape[2]};
    f.w = mm_cpu_vector(be, mm_scratch_a, w);
    if (!f.w) return;
    const int64_t n_sums = dw.data || dbias.data ? 2 * f.dim : 0;
    if (!run_blocks(be, &f, x.shape[0], n_sums, head_norm_blocks)) return;
    add_sums(&f, dw, 0, f.dim);
    add_sums(&f, dbias, f.dim, f.dim);
}

// ---- softplus: out y / dx, a x, b dy ----

static void softplus_rows(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct rows *f = arg;
    for (int64_t t = begin; t < end; t++) {
        f->kern->softplus_fwd(at(f->out, t), at(f->a, t), f->bias, f->dim);
    }
}

void mm_softplus_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                         struct mm_view bias) {
    struct rows f = {.kern = mm_mixer_kernels(be), .out = y, .a = x, .dim = x.shape[1]};
    f.bias = mm_cpu_vector(be, mm_scratch_a, bias);
    if (!f.bias) return;
    mm_parallel_for(be->pool, x.shape[0], grain(f.dim), softplus_rows, &f);
}

static void softplus_blocks(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct rows *f = arg;
    for (int64_t b = begin; b < end; b++) {
        for (int64_t t = b * f->blocks.rows; t < block_end(f, b); t++) {
            f->kern->softplus_bwd(at(f->out, t), block_sums(f, b), at(f->b, t), at(f->a, t),
                                  f->bias, f->dim);
        }
    }
}

void mm_softplus_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dbias,
                         struct mm_view dy, struct mm_view x, struct mm_view bias) {
    struct rows f = {.kern = mm_mixer_kernels(be), .out = dx, .a = x, .b = dy, .dim = x.shape[1]};
    f.bias = mm_cpu_vector(be, mm_scratch_a, bias);
    if (!f.bias) return;
    if (!run_blocks(be, &f, x.shape[0], dbias.data ? f.dim : 0, softplus_blocks)) return;
    add_sums(&f, dbias, 0, f.dim);
}

// ---- gated_norm: out o / dy, out2 dg, stats rinv, a y, b g, c d_o ----

static void gated_norm_rows(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct rows *f = arg;
    for (int64_t t = begin; t < end; t++) {
        f->kern->gated_norm_fwd(at(f->out, t), at(f->stats, t), at(f->a, t), at(f->b, t), f->w,
                                f->eps, f->n_heads, f->dim);
    }
}

void mm_gated_norm_fwd_cpu(struct mm_backend *be, struct mm_view o, struct mm_view rinv,
                           struct mm_view y, struct mm_view g, struct mm_view w, float eps) {
    struct rows f = {.kern = mm_mixer_kernels(be),
                     .out = o,
                     .stats = rinv,
                     .a = y,
                     .b = g,
                     .eps = eps,
                     .n_heads = y.shape[1],
                     .dim = y.shape[2]};
    f.w = mm_cpu_vector(be, mm_scratch_a, w);
    if (w.data && !f.w) return;
    mm_parallel_for(be->pool, y.shape[0], grain(f.n_heads * f.dim), gated_norm_rows, &f);
}

static void gated_norm_blocks(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct rows *f = arg;
    for (int64_t b = begin; b < end; b++) {
        for (int64_t t = b * f->blocks.rows; t < block_end(f, b); t++) {
            f->kern->gated_norm_bwd(at(f->out, t), at(f->out2, t), block_sums(f, b), at(f->c, t),
                                    at(f->a, t), at(f->b, t), f->w, at(f->stats, t), f->n_heads,
                                    f->dim);
        }
    }
}

void mm_gated_norm_bwd_cpu(struct mm_backend *be, struct mm_view dy, struct mm_view dg,
                           struct mm_view dw, struct mm_view d_o, struct mm_view y,
                           struct mm_view g, struct mm_view w, struct mm_view rinv) {
    struct rows f = {.kern = mm_mixer_kernels(be),
                     .out = dy,
                     .out2 = dg,
                     .stats = rinv,
                     .a = y,
                     .b = g,
                     .c = d_o,
                     .n_heads = y.shape[1],
                     .dim = y.shape[2]};
    f.w = mm_cpu_vector(be, mm_scratch_a, w);
    if (w.data && !f.w) return;
    const int64_t n_sums = dw.data && w.data ? f.dim : 0;
    if (!run_blocks(be, &f, y.shape[0], n_sums, gated_norm_blocks)) return;
    if (n_sums) add_sums(&f, dw, 0, f.dim);
}
