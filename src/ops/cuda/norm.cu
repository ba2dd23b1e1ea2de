// Norms over a row. RMSNorm of bf16 rows of up to 2048 columns: a warp has a row in registers and
// reads it once. All else: one block a row, which it meets twice; the second time it is in the
// cache.
#include "ops/cuda/wide.cuh"

enum { row_threads = 128, block_rows = 4, most_packs = 8 };
#define EACH(c, W, cols) for (int c = threadIdx.x * W; c < (cols); c += blockDim.x * W)

// kernel<8> where rows lie for it, else kernel<1>
#define LAUNCH_ROWS(be, kernel, rows, wide, ...)                                     \
    do {                                                                             \
        if (wide) {                                                                  \
            MM_LAUNCH(be, kernel<8>, (unsigned)(rows), row_threads, 0, __VA_ARGS__); \
        } else {                                                                     \
            MM_LAUNCH(be, kernel<1>, (unsigned)(rows), row_threads, 0, __VA_ARGS__); \
        }                                                                            \
    } while (0)

template <int W>
__device__ static float sum_of_squares(const struct mm_mat &x, int64_t r, int cols) {
    float ss = 0.0f;
    EACH(c, W, cols) {
        const mm_pack<W> v = mm_load<W>(x, r, c);
        for (int k = 0; k < W; k++)
            ss += v.x[k] * v.x[k];
    }
    return mm_block_sum(ss);
}

template <int W>
static __global__ void rmsnorm_fwd(struct mm_mat y, float *rinv, struct mm_mat x, const float *w,
                                   int cols, float eps) {
    const int64_t r = blockIdx.x;
    const float s = rsqrtf(sum_of_squares<W>(x, r, cols) / (float)cols + eps);
    EACH(c, W, cols) {
        mm_pack<W> v = mm_load<W>(x, r, c);
        const mm_pack<W> scale = mm_load_vector<W>(w, c, 1.0f);
        for (int k = 0; k < W; k++)
            v.x[k] *= s * scale.x[k];
        mm_store(y, r, c, v);
    }
    if (rinv && threadIdx.x == 0) rinv[r] = s;
}

// ---- a warp a row ----

// A lane has every 32nd pack of eight columns; what is past the end is zeros.
template <int N>
struct packs {
    uint4 raw[N];
    __device__ void load(const __nv_bfloat16 *row, int cols) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int c = (i * 32 + (int)threadIdx.x % 32) * 8;
            raw[i] = c < cols ? *(const uint4 *)(row + c) : make_uint4(0, 0, 0, 0);
        }
    }
    __device__ mm_pack<8> open(int i) const {
        return mm_open(mm_raw<8>{raw[i], {}, true});
    }
};

__device__ static mm_pack<8> eight_of(const float *w, int c) {
    const float4 a = *(const float4 *)(w + c), b = *(const float4 *)(w + c + 4);
    return mm_pack<8>{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

template <int N>
static __global__ void __launch_bounds__(32 * block_rows)
    rmsnorm_rows_fwd(struct mm_mat y, float *rinv, struct mm_mat x, const float *w, int64_t rows,
                     int cols, float eps) {
    const int64_t r = (int64_t)blockIdx.x * block_rows + threadIdx.x / 32;
    if (r >= rows) return;
    packs<N> v;
    v.load((const __nv_bfloat16 *)x.p + r * x.ld, cols);
    float ss = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const mm_pack<8> a = v.open(i);
        for (int k = 0; k < 8; k++)
            ss += a.x[k] * a.x[k];
    }
    const float s = rsqrtf(mm_warp_sum(ss) / (float)cols + eps);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int c = (i * 32 + (int)threadIdx.x % 32) * 8;
        if (c >= cols) break;
        mm_pack<8> a = v.open(i);
        const mm_pack<8> scale = eight_of(w, c);
        for (int k = 0; k < 8; k++)
            a.x[k] *= s * scale.x[k];
        mm_store(y, r, c, a);
    }
    if (rinv && threadIdx.x % 32 == 0) rinv[r] = s;
}

// dx may be dy: a row is read before any of it is written.
template <int N>
static __global__ void __launch_bounds__(32 * block_rows)
    rmsnorm_rows_bwd(struct mm_mat dx, struct mm_mat dy, struct mm_mat x, const float *w,
                     const float *rinv, int64_t rows, int cols) {
    const int64_t r = (int64_t)blockIdx.x * block_rows + threadIdx.x / 32;
    if (r >= rows) return;
    packs<N> d, v;
    d.load((const __nv_bfloat16 *)dy.p + r * dy.ld, cols);
    v.load((const __nv_bfloat16 *)x.p + r * x.ld, cols);
    const float s = rinv[r];
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int c = (i * 32 + (int)threadIdx.x % 32) * 8;
        if (c >= cols) break;
        const mm_pack<8> a = d.open(i), b = v.open(i), scale = eight_of(w, c);
        for (int k = 0; k < 8; k++)
            dot += a.x[k] * scale.x[k] * b.x[k] * s;
    }
    dot = mm_warp_sum(dot) / (float)cols;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int c = (i * 32 + (int)threadIdx.x % 32) * 8;
        if (c >= cols) break;
        mm_pack<8> a = d.open(i);
        const mm_pack<8> b = v.open(i), scale = eight_of(w, c);
        for (int k = 0; k < 8; k++)
            a.x[k] = s * (a.x[k] * scale.x[k] - b.x[k] * s * dot);
        mm_store(dx, r, c, a);
    }
}

static bool warp_takes(const float *w, int64_t cols, const struct mm_mat &y, const struct mm_mat &a,
                       const struct mm_mat &b) {
    return a.half && b.half && w && (uintptr_t)w % 16 == 0 && cols <= most_packs * 256 &&
           mm_wide(cols, y, a, b);
}

#define LAUNCH_WARPS(be, kernel, rows, cols, ...)                                     \
    do {                                                                              \
        const unsigned grid = (unsigned)(((rows) + block_rows - 1) / block_rows);     \
        if ((cols) <= 1024) {                                                         \
            MM_LAUNCH(be, kernel<4>, grid, 32 * block_rows, 0, __VA_ARGS__);          \
        } else {                                                                      \
            MM_LAUNCH(be, kernel<most_packs>, grid, 32 * block_rows, 0, __VA_ARGS__); \
        }                                                                             \
    } while (0)

void mm_rmsnorm_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                         struct mm_view x, struct mm_view w, float eps) {
    const float *wv = mm_cuda_vector(be, mm_cuda_slot_a, w);
    if (!wv || x.shape[0] == 0) return;
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    const int64_t cols = mm_view_cols(x), rows = x.shape[0];
    if (warp_takes(wv, cols, ym, xm, xm)) {
        LAUNCH_WARPS(be, rmsnorm_rows_fwd, rows, cols, ym, (float *)rinv.data, xm, wv, rows,
                     (int)cols, eps);
        return;
    }
    LAUNCH_ROWS(be, rmsnorm_fwd, x.shape[0], mm_wide(cols, ym, xm), ym, (float *)rinv.data, xm, wv,
                (int)cols, eps);
}

// With n = x * rinv: dx = rinv * (dy w - n * mean(dy w n)). dx may be dy.
template <int W>
static __global__ void rmsnorm_bwd(struct mm_mat dx, struct mm_mat dy, struct mm_mat x,
                                   const float *w, const float *rinv, int cols) {
    const int64_t r = blockIdx.x;
    const float s = rinv[r];
    float dot = 0.0f;
    EACH(c, W, cols) {
        const mm_raw<W> rd = mm_fetch<W>(dy, r, c), rx = mm_fetch<W>(x, r, c);
        const mm_pack<W> d = mm_open(rd), v = mm_open(rx), scale = mm_load_vector<W>(w, c, 1.0f);
        for (int k = 0; k < W; k++)
            dot += d.x[k] * scale.x[k] * v.x[k] * s;
    }
    dot = mm_block_sum(dot) / (float)cols;
    EACH(c, W, cols) {
        const mm_raw<W> rd = mm_fetch<W>(dy, r, c), rx = mm_fetch<W>(x, r, c);
        mm_pack<W> d = mm_open(rd);
        const mm_pack<W> v = mm_open(rx), scale = mm_load_vector<W>(w, c, 1.0f);
        for (int k = 0; k < W; k++)
            d.x[k] = s * (d.x[k] * scale.x[k] - v.x[k] * s * dot);
        mm_store(dx, r, c, d);
    }
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
    const struct mm_mat dm = mm_mat_of(dx);
    const int64_t cols = mm_view_cols(x), rows = x.shape[0];
    if (warp_takes(wv, cols, dm, ym, xm)) {
        LAUNCH_WARPS(be, rmsnorm_rows_bwd, rows, cols, dm, ym, xm, wv, ri, rows, (int)cols);
        return;
    }
    LAUNCH_ROWS(be, rmsnorm_bwd, x.shape[0], mm_wide(cols, dm, ym, xm), dm, ym, xm, wv, ri,
                (int)cols);
}

// A row of zeros stays zeros, with rinv 0.
template <int W>
static __global__ void l2norm_fwd(struct mm_mat y, float *rinv, struct mm_mat x, int cols) {
    const int64_t r = blockIdx.x;
    const float ss = sum_of_squares<W>(x, r, cols);
    const float s = ss > 0.0f ? rsqrtf(ss) : 0.0f;
    EACH(c, W, cols) {
        mm_pack<W> v = mm_load<W>(x, r, c);
        for (int k = 0; k < W; k++)
            v.x[k] *= s;
        mm_store(y, r, c, v);
    }
    if (rinv && threadIdx.x == 0) rinv[r] = s;
}

void mm_l2norm_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                        struct mm_view x) {
    if (x.shape[0] == 0) return;
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    const int64_t cols = mm_view_cols(x);
    LAUNCH_ROWS(be, l2norm_fwd, x.shape[0], mm_wide(cols, ym, xm), ym, (float *)rinv.data, xm,
                (int)cols);
}

template <int W>
static __global__ void l2norm_bwd(struct mm_mat dx, struct mm_mat dy, struct mm_mat y,
                                  const float *rinv, int cols) {
    const int64_t r = blockIdx.x;
    float dot = 0.0f;
    EACH(c, W, cols) {
        const mm_pack<W> d = mm_load<W>(dy, r, c), v = mm_load<W>(y, r, c);
        for (int k = 0; k < W; k++)
            dot += d.x[k] * v.x[k];
    }
    dot = mm_block_sum(dot);
    EACH(c, W, cols) {
        mm_pack<W> d = mm_load<W>(dy, r, c);
        const mm_pack<W> v = mm_load<W>(y, r, c);
        for (int k = 0; k < W; k++)
            d.x[k] = (d.x[k] - v.x[k] * dot) * rinv[r];
        mm_store(dx, r, c, d);
    }
}

void mm_l2norm_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                        struct mm_view y, struct mm_view rinv) {
    if (y.shape[0] == 0) return;
    const struct mm_mat dxm = mm_mat_of(dx), dym = mm_mat_of(dy), ym = mm_mat_of(y);
    const int64_t cols = mm_view_cols(y);
    LAUNCH_ROWS(be, l2norm_bwd, y.shape[0], mm_wide(cols, dxm, dym, ym), dxm, dym, ym,
                (const float *)rinv.data, (int)cols);
}
