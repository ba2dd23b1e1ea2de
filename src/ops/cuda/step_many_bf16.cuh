// Products of bf16 weights (step_many_tile.cuh), a block of threads.
#ifndef MM_OPS_CUDA_STEP_MANY_BF16_CUH
#define MM_OPS_CUDA_STEP_MANY_BF16_CUH

#include "ops/cuda/step_many_tile.cuh"

enum { mm_many_step_k = mm_many_step_bytes / 2 };

// COLS: rows of x at a time, 64 or 128.
template <int COLS>
struct mm_many_bf16 {
    enum { stages = COLS == 64 ? 7 : 5 };
    __nv_bfloat16 w[stages][mm_many_tile * mm_many_step_k], x[stages][COLS * mm_many_step_k];
    struct mm_many_sums<COLS> sums;
    uint64_t here[stages], free[stages];
};

#if MM_HOPPER

template <int COLS>
__device__ static void mm_many_bring_bf16(const struct mm_many_task &t,
                                          struct mm_many_bf16<COLS> &sh) {
    enum { stages = mm_many_bf16<COLS>::stages };
    mm_many_bring_steps(
        t, stages, sh.free,
        [&](int n, int row, int k) {
            uint64_t *here = &sh.here[n % stages];
            mm_barrier_expect(here, (2 * t.half + COLS) * mm_many_step_bytes);
            mm_many_bring_tile(t, sh.w[n % stages], row, k, here);
        },
        [&](int n, int, int k) {
            for (int i = 0; i < COLS / 64; i++)
                mm_tile_copy(sh.x[n % stages] + i * 64 * mm_many_step_k, &t.x, k * mm_many_step_k,
                             0, i * 64, &sh.here[n % stages]);
        });
}

template <int COLS>
__device__ static void mm_many_multiply_bf16(const struct mm_many_task &t,
                                             struct mm_many_bf16<COLS> &sh) {
    enum { stages = mm_many_bf16<COLS>::stages };
    const int group = threadIdx.x / 128;
    int n = 0;
    mm_many_find_factors(t, sh.sums.factor);
    for (int u = mm_many_block(t); u < t.tiles * t.parts; u += t.blocks) {
        const struct mm_many_piece p(t, u);
        float d[COLS / 2];
        for (int k = p.from; k < p.to; k++, n++) {
            const int s = n % stages;
            const mm_shared_ptr w = mm_shared_at(sh.w[s]) + group * mm_many_half_bytes,
                                x = mm_shared_at(sh.x[s]);
            mm_barrier_wait(&sh.here[s], n / stages & 1);
            mm_wgmma_hold(d);
            mm_wgmma_begin();
#pragma unroll
            for (int i = 0; i < mm_many_step_k / 16; i++)
                mm_wgmma_ss(d, mm_wgmma_rows(w + i * 32), mm_wgmma_rows(x + i * 32),
                            k > p.from || i > 0);
            mm_wgmma_end();
            mm_wgmma_wait<0>();
            mm_wgmma_hold(d);
            if (threadIdx.x % 128 == 0) mm_barrier_arrive(&sh.free[s]);
        }
        if (!mm_many_finish<COLS>(t, p, sh.sums, d)) return;
    }
}

// All that a block does.
template <int COLS>
__device__ static void mm_many_run_bf16(const struct mm_many_task &t, void *memory) {
    struct mm_many_bf16<COLS> &sh = *(struct mm_many_bf16<COLS> *)memory;
    mm_many_next();
    if (threadIdx.x == 0) {
        for (int i = 0; i < mm_many_bf16<COLS>::stages; i++) {
            mm_barrier_init(&sh.here[i], 1);
            mm_barrier_init(&sh.free[i], 2);
        }
        mm_barrier_inits_done();
    }
    __syncthreads();
    if (threadIdx.x < 256) {
        mm_many_wait();
        mm_many_multiply_bf16<COLS>(t, sh);
    } else if (threadIdx.x == 256) {
        mm_many_bring_bf16<COLS>(t, sh);
    }
}

#endif

#endif
