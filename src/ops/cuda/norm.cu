// Norms over a row: one block a row.
#include "ops/cuda/cuda.h"

enum { row_threads = 128 };

static __global__ void rmsnorm_fwd(struct mm_mat y, float *rinv, struct mm_mat x, const float *w,
                                   int cols, float eps) {
    const int64_t r = blockIdx.x;
    float ss = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        ss += x(r, c) * x(r, c);
    const float s = rsqrtf(mm_block_sum(ss) / (float)cols + eps);
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        y(r, c) = x(r, c) * s * w[c];
    if (rinv && threadIdx.x == 0) rinv[r] = s;
}

void mm_rmsnorm_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                         struct mm_view x, struct mm_view w, float eps) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w);
    if (!wv || x.shape[0] == 0) return;
    MM_LAUNCH(be, rmsnorm_fwd, (unsigned)x.shape[0], row_threads, 0, mm_mat_of(y),
              (float *)rinv.data, mm_mat_of(x), wv, (int)mm_view_cols(x), eps);
}

// With n = x * rinv: dx = rinv * (dy w - n * mean(dy w n)). dx may be dy.
static __global__ void rmsnorm_bwd(struct mm_mat dx, struct mm_mat dy, struct mm_mat x,
                                   const float *w, const float *rinv, int cols) {
    const int64_t r = blockIdx.x;
    const float s = rinv[r];
    float dot = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        dot += dy(r, c) * w[c] * x(r, c) * s;
    dot = mm_block_sum(dot) / (float)cols;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        dx(r, c) = s * (dy(r, c) * w[c] - x(r, c) * s * dot);
}

void mm_rmsnorm_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                         struct mm_view dy, struct mm_view x, struct mm_view w,
                         struct mm_view rinv) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w), *ri = (const float *)rinv.data;
    if (!wv || x.shape[0] == 0) return;
    const struct mm_mat ym = mm_mat_of(dy), xm = mm_mat_of(x);
    if (dw.data) {  // first: dx may be dy
        mm_add_column_sums(
            be, mm_cuda_slot_b, (float *)dw.data, 1, x.shape[0], mm_view_cols(x),
            [=] __device__(int64_t r, int64_t c) { return ym(r, c) * xm(r, c) * ri[r]; });
    }
    MM_LAUNCH(be, rmsnorm_bwd, (unsigned)x.shape[0], row_threads, 0, mm_mat_of(dx), ym, xm, wv, ri,
              (int)mm_view_cols(x));
}

// A row of zeros stays zeros, with rinv 0.
static __global__ void l2norm_fwd(struct mm_mat y, float *rinv, struct mm_mat x, int cols) {
    const int64_t r = blockIdx.x;
    float ss = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        ss += x(r, c) * x(r, c);
    ss = mm_block_sum(ss);
    const float s = ss > 0.0f ? rsqrtf(ss) : 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        y(r, c) = x(r, c) * s;
    if (rinv && threadIdx.x == 0) rinv[r] = s;
}

void mm_l2norm_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                        struct mm_view x) {
    if (x.shape[0] == 0) return;
    MM_LAUNCH(be, l2norm_fwd, (unsigned)x.shape[0], row_threads, 0, mm_mat_of(y),
              (float *)rinv.data, mm_mat_of(x), (int)mm_view_cols(x));
}

static __global__ void l2norm_bwd(struct mm_mat dx, struct mm_mat dy, struct mm_mat y,
                                  const float *rinv, int cols) {
    const int64_t r = blockIdx.x;
    float dot = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        dot += dy(r, c) * y(r, c);
    dot = mm_block_sum(dot);
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        dx(r, c) = (dy(r, c) - y(r, c) * dot) * rinv[r];
}

void mm_l2norm_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                        struct mm_view y, struct mm_view rinv) {
    if (y.shape[0] == 0) return;
    MM_LAUNCH(be, l2norm_bwd, (unsigned)y.shape[0], row_threads, 0, mm_mat_of(dx), mm_mat_of(dy),
              mm_mat_of(y), (const float *)rinv.data, (int)mm_view_cols(y));
}
