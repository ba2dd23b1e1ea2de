// The kernels of step_many.cu but for the mixers' (step_many_mixer.cuh, step_many_attention.cuh).
// Rows of sequences are dense; a block of threads has one row.
#ifndef MM_OPS_CUDA_STEP_MANY_KERNELS_CUH
#define MM_OPS_CUDA_STEP_MANY_KERNELS_CUH

#include "ops/cuda/step_many_attention.cuh"
#include "ops/cuda/step_many_mixer.cuh"

enum { mm_many_norm_threads = 512 };

// ---- norms of rows ----

struct mm_many_norm {
    struct mm_many_operand u;
    float *x;           // (n, cols) the residual stream
    const float *from;  // NULL: x; else what x begins with
    int64_t from_ld;
    const float *sums;  // (parts, .., cols) of a product, which are added to x first
    int64_t part;
    int parts;
    float *hidden;  // NULL, or the result in f32
    int64_t hidden_ld;
    const float *w;  // (cols)
    int cols;        // a multiple of 8
    float eps;
};

static __global__ void __launch_bounds__(mm_many_norm_threads)
    mm_many_norm_rows(struct mm_many_norm a) {
    mm_many_next();
    mm_many_wait();
    const int64_t r = blockIdx.x;
    const float *from = a.from ? a.from + r * a.from_ld : a.x + r * a.cols;
    float *x = a.x + r * a.cols;
    float4 first = make_float4(0.0f, 0.0f, 0.0f, 0.0f);  // kept for the second time
    float ss = 0.0f;
    for (int c = threadIdx.x * 4; c < a.cols; c += mm_many_norm_threads * 4) {
        float4 v = *(const float4 *)(from + c);
#pragma unroll 8
        for (int i = 0; i < a.parts; i++) {
            const float4 s = *(const float4 *)(a.sums + i * a.part + r * a.cols + c);
            v.x += s.x, v.y += s.y, v.z += s.z, v.w += s.w;
        }
        ss += mm_many_dot(v, v);
        *(float4 *)(x + c) = v;
        if (c < mm_many_norm_threads * 4) first = v;
    }
    const float s = rsqrtf(mm_block_sum(ss) / (float)a.cols + a.eps);
    for (int c = threadIdx.x * 4; c < a.cols; c += mm_many_norm_threads * 4) {
        const float4 w = *(const float4 *)(a.w + c);
        const float4 v = c < mm_many_norm_threads * 4 ? first : *(const float4 *)(x + c);
        const float4 y = make_float4(v.x * s * w.x, v.y * s * w.y, v.z * s * w.z, v.w * s * w.w);
        mm_many_put(a.u, r, c, y, true);  // of codes, columns are whole blocks
        if (!a.hidden) continue;
        float *to = a.hidden + r * a.hidden_ld + c;
        to[0] = y.x, to[1] = y.y, to[2] = y.z, to[3] = y.w;
    }
}

// x = x / ||x||, with parts of a product added to x first.
static __global__ void mm_many_l2_rows(float *x, int cols, const float *sums, int64_t part,
                                       int parts) {
    mm_many_next();
    mm_many_wait();
    float *row = x + (int64_t)blockIdx.x * cols;
    float ss = 0.0f;
    for (int c = threadIdx.x; c < cols; c += mm_many_threads) {
        float v = row[c];
        for (int i = 0; i < parts; i++)
            v += sums[i * part + (int64_t)blockIdx.x * cols + c];
        row[c] = v;
        ss += v * v;
    }
    const float s = 1.0f / sqrtf(mm_block_sum(ss));
    for (int c = threadIdx.x; c < cols; c += mm_many_threads)
        row[c] *= s;
}

// s = silu(a) * b, four neighbours a thread
static __global__ void mm_many_gate(__nv_bfloat16 *s, const float *a, const float *b, int64_t n) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    mm_many_next();
    mm_many_wait();
    if (i >= n) return;
    const float4 x = ((const float4 *)a)[i], y = ((const float4 *)b)[i];
    ((uint2 *)s)[i] = mm_many_halves(x.x * mm_sigmoid(x.x) * y.x, x.y * mm_sigmoid(x.y) * y.y,
                                     x.z * mm_sigmoid(x.z) * y.z, x.w * mm_sigmoid(x.w) * y.w);
}

// ---- rotary angles ----

struct mm_many_rope {
    int half[2];  // pairs of a head; 0: no attention in this stack
    float scale[2];
};

// cosine and sine of every pair at a sequence's new position: blocks (stack, sequence)
static __global__ void mm_many_rope_table(float2 *rope, const struct mm_many_at *at,
                                          struct mm_many_rope r) {
    const int pair = threadIdx.x, stack = blockIdx.x, seq = blockIdx.y;
    if (pair >= r.half[stack]) return;
    const double where = (double)at[seq].past[stack] * (double)r.scale[stack];
    double s, c;
    sincos(where * pow((double)at[seq].base[stack], -(double)pair / (double)r.half[stack]), &s, &c);
    rope[(seq * 2 + stack) * mm_many_pairs + pair] = make_float2((float)c, (float)s);
}

#endif
