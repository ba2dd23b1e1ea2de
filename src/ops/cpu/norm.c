// RMSNorm and L2 norm over rows.
#include "ops/cpu/kernels.h"
#include "ops/cpu/mixer.h"

struct norm_job {
    const struct mm_kernels *k;
    struct mm_view y, x, dy;
    const float *w;
    float *rinv, *partial;  // partial (blocks, ld)
    int64_t ld;
    float eps;
    struct mm_blocks blocks;
};

static int64_t row_grain(struct mm_view x) {
    return 1 + 8192 / mm_view_cols(x);
}

static void rmsnorm_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct norm_job *j = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const float s = j->k->rmsnorm_fwd(mm_view_at(j->y, r, 0), mm_view_at(j->x, r, 0), j->w,
                                          j->eps, mm_view_cols(j->x));
        if (j->rinv) j->rinv[r] = s;
    }
}

void mm_rmsnorm_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                        struct mm_view x, struct mm_view w, float eps) {
    struct norm_job j = {.k = mm_kernels_of(be), .y = y, .x = x, .rinv = rinv.data, .eps = eps};
    j.w = mm_cpu_vector(be, mm_scratch_a, w);
    if (!j.w) return;
    mm_parallel_for(be->pool, x.shape[0], row_grain(x), rmsnorm_rows, &j);
}

static void rmsnorm_bwd_blocks(void *arg, int64_t begin, int64_t end, int thread) {
    const struct norm_job *j = arg;
    const int64_t cols = mm_view_cols(j->x);
    (void)thread;
    for (int64_t b = begin; b < end; b++) {
        float *dw = j->partial ? j->partial + b * j->ld : NULL;
        if (dw) memset(dw, 0, (size_t)cols * sizeof *dw);
        const int64_t first = b * j->blocks.rows, last = first + j->blocks.rows;
        for (int64_t r = first; r < last && r < j->blocks.n_rows; r++) {
            j->k->rmsnorm_bwd(mm_view_at(j->y, r, 0), dw, mm_view_at(j->dy, r, 0),
                              mm_view_at(j->x, r, 0), j->w, j->rinv[r], cols);
        }
    }
}

void mm_rmsnorm_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                        struct mm_view dy, struct mm_view x, struct mm_view w,
                        struct mm_view rinv) {
    struct norm_job j = {.k = mm_kernels_of(be), .y = dx, .x = x, .dy = dy, .rinv = rinv.data};
    const int64_t cols = mm_view_cols(x);
    if (x.shape[0] == 0) return;
    j.w = mm_cpu_vector(be, mm_scratch_a, w);
    j.blocks = mm_blocks_of(x.shape[0]);
    j.ld = (cols + 31) / 32 * 32;  // blocks on cache lines of their own
    if (dw.data) {
        const int64_t n = j.blocks.n * j.ld;
        j.partial = mm_cpu_scratch(be, mm_scratch_b, (size_t)n * sizeof *j.partial);
    }
    if (be->error.code) return;
    mm_parallel_for(be->pool, j.blocks.n, 1, rmsnorm_bwd_blocks, &j);
    if (dw.data) mm_blocks_add(dw.data, j.partial, j.ld, j.blocks.n, cols);
}

static void l2norm_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct norm_job *j = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const float s =
            j->k->l2norm_fwd(mm_view_at(j->y, r, 0), mm_view_at(j->x, r, 0), mm_view_cols(j->x));
        if (j->rinv) j->rinv[r] = s;
    }
}

void mm_l2norm_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                       struct mm_view x) {
    struct norm_job j = {.k = mm_kernels_of(be), .y = y, .x = x, .rinv = rinv.data};
    mm_parallel_for(be->pool, x.shape[0], row_grain(x), l2norm_rows, &j);
}

static void l2norm_bwd_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct norm_job *j = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        j->k->l2norm_bwd(mm_view_at(j->x, r, 0), mm_view_at(j->dy, r, 0), mm_view_at(j->y, r, 0),
                         j->rinv[r], mm_view_cols(j->y));
    }
}

void mm_l2norm_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                       struct mm_view y, struct mm_view rinv) {
    struct norm_job j = {.k = mm_kernels_of(be), .y = y, .x = dx, .dy = dy, .rinv = rinv.data};
    mm_parallel_for(be->pool, y.shape[0], row_grain(y), l2norm_bwd_rows, &j);
}
