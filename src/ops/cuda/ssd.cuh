// The chunked recurrence on the GPU: the table of chunks, decays, and a product of 64 x 64 tiles
// that all its kernels are made of. Formulas: src/ops/cpu/ssd.h and ssd_bwd.c.
#ifndef MM_OPS_CUDA_SSD_CUH
#define MM_OPS_CUDA_SSD_CUH

#include "ops/cuda/cuda.h"

enum { mm_ssd_q = 64, mm_ssd_threads = 256, mm_ssd_step_k = 16 };

struct mm_chunk {
    int32_t begin, n, seq, first;  // first row, rows, sequence, 1 for the first of its sequence
};

struct mm_ssd_gpu {
    struct mm_mat v, k, q, dt;
    const float *a_log, *d;  // NULL: no decay, no skip
    const struct mm_chunk *chunks;
    int n_chunks, heads, groups, rows, cols;  // P, N
    float *cum;                               // (T, H): sums of -rate dt inside a chunk, inclusive
    float *states;                            // (chunks, H, P, N): before each chunk
    const int32_t *first_chunk;               // (S + 1)
    __device__ float rate(int h) const {
        return a_log ? expf(a_log[h]) : 0.0f;
    }
    __device__ int64_t state_at(int64_t c, int h) const {
        return (c * heads + h) * rows * cols;
    }
};

// A thread's 4 x 4 part of a 64 x 64 tile: rows ty * 4 + i, columns tx * 4 + j.
struct mm_tile {
    float x[4][4];
    __device__ void zero() {
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++)
                x[i][j] = 0.0f;
    }
};
struct mm_tile_shared {
    float a[mm_ssd_step_k][68], b[mm_ssd_step_k][68];
};

// tile (i, j) += sum over k of a(i, k) b(k, j), i and j in 0..63. A_ROWS: a's neighbours in memory
// are along k; B_ROWS: b's are along k. Only how the loads are dealt to threads depends on it.
template <bool A_ALONG_K, bool B_ALONG_K, class A, class B>
__device__ void mm_tile_add(struct mm_tile &c, struct mm_tile_shared &s, int n_k, A a, B b) {
    const int tid = threadIdx.x, tx = tid % 16, ty = tid / 16;
    for (int k0 = 0; k0 < n_k; k0 += mm_ssd_step_k) {
        __syncthreads();
        for (int e = tid; e < 64 * mm_ssd_step_k; e += mm_ssd_threads) {
            const int ka = A_ALONG_K ? e % mm_ssd_step_k : e / 64;
            const int ia = A_ALONG_K ? e / mm_ssd_step_k : e % 64;
            s.a[ka][ia] = k0 + ka < n_k ? a(ia, k0 + ka) : 0.0f;
            const int kb = B_ALONG_K ? e % mm_ssd_step_k : e / 64;
            const int jb = B_ALONG_K ? e / mm_ssd_step_k : e % 64;
            s.b[kb][jb] = k0 + kb < n_k ? b(k0 + kb, jb) : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < mm_ssd_step_k; k++) {
            const float4 av = *(const float4 *)&s.a[k][ty * 4],
                         bv = *(const float4 *)&s.b[k][tx * 4];
            const float ar[4] = {av.x, av.y, av.z, av.w}, br[4] = {bv.x, bv.y, bv.z, bv.w};
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    c.x[i][j] += ar[i] * br[j];
        }
    }
}

#define MM_TILE_EACH(i, j, r, c)                                    \
    for (int i = 0, r = (int)threadIdx.x / 16 * 4; i < 4; i++, r++) \
        for (int j = 0, c = (int)threadIdx.x % 16 * 4; j < 4; j++, c++)

// Fills everything but cum and states: chunk table uploaded, slots b (table) and c (cum and
// states); false when memory failed.
bool mm_ssd_gpu_of(struct mm_backend *be, struct mm_ssd_gpu *o, struct mm_view v, struct mm_view k,
                   struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                   struct mm_segs segs);
// cum, and the states before each chunk from `state` (S,H,P,N; NULL: zeros), which is overwritten
// with the states at the ends.
void mm_ssd_gpu_states(struct mm_backend *be, const struct mm_ssd_gpu *o, float *state, int n_seqs);

#endif
