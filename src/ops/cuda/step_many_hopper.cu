// x w^T of few rows x is a matter of bringing w: 128 rows of it at a time go through shared memory
// in steps of 64 columns, seven steps ahead, and two groups of four warps multiply 64 of them each.
// Weights do not depend on the kernel before, so the first steps are on their way while it ends.
#include "ops/cuda/step_many_hopper.cuh"

#include "ops/cuda/attention_hopper.cuh"

enum { tile = 128, step_k = 64, n_threads = 288, half_bytes = 64 * step_k * 2 };

// COLS: rows of x at a time, 64 or 128.
template <int COLS>
struct shared_of {
    enum { stages = COLS == 64 ? 7 : 5, out_ld = tile + 4 };
    __nv_bfloat16 w[stages][tile * step_k], x[stages][COLS * step_k];
    float out[COLS * out_ld];
    uint64_t here[stages], free[stages];
};

struct task {
    CUtensorMap w, w3, x;
    float *out;
    __nv_bfloat16 *gated;
    int64_t out_ld, part;
    int rows, steps, n, parts, tiles;
    bool wide;  // rows of out can be written four at a time
    struct mm_many_ahead ahead;
    struct mm_many_ahead_states states;
};

#if MM_HOPPER

// Piece `u` of the work: a tile of w's rows and a part of k.
struct piece {
    int row, part, from, to;  // row: the first; steps [from, to)
    __device__ piece(const struct task &t, int u) {
        const int a_tile = t.gated ? 64 : tile;
        row = u / t.parts * a_tile, part = u % t.parts;
        from = t.steps * part / t.parts, to = t.steps * (part + 1) / t.parts;
    }
};

// One thread brings all steps in their order: `f(number, row, step)` for each from `begin` on.
template <class F>
__device__ static int each_step(const struct task &t, int begin, int end, const F &f) {
    int n = 0;
    for (int u = blockIdx.x; u < t.tiles * t.parts; u += gridDim.x) {
        const struct piece p(t, u);
        for (int k = p.from; k < p.to; k++, n++) {
            if (n >= end) return n;
            if (n >= begin) f(n, p.row, k);
        }
    }
    return n;
}

// What the next kernel reads first, this block's share of it.
__device__ static void bring_ahead(const struct task &t) {
    mm_many_bring(t.ahead, blockIdx.x, gridDim.x);
    mm_many_bring(t.states, blockIdx.x, gridDim.x);
}

template <int COLS>
__device__ static void bring(const struct task &t, struct shared_of<COLS> &sh) {
    enum { stages = shared_of<COLS>::stages };
    const auto weights = [&](int n, int row, int k) {
        const int s = n % stages;
        mm_barrier_expect(&sh.here[s], 2 * half_bytes + COLS * step_k * 2);
        mm_tile_copy(sh.w[s], &t.w, k * step_k, 0, row, &sh.here[s]);
        mm_tile_copy(sh.w[s] + 64 * step_k, t.gated ? &t.w3 : &t.w, k * step_k, 0,
                     t.gated ? row : row + 64, &sh.here[s]);
    };
    const auto rows = [&](int n, int, int k) {
        for (int i = 0; i < COLS / 64; i++)
            mm_tile_copy(sh.x[n % stages] + i * 64 * step_k, &t.x, k * step_k, 0, i * 64,
                         &sh.here[n % stages]);
    };
    const bool all = each_step(t, 0, stages, weights) < stages;
    if (all) bring_ahead(t);
    mm_many_wait();
    each_step(t, 0, stages, rows);
    if (all) return;
    each_step(t, stages, INT32_MAX, [&](int n, int row, int k) {
        mm_barrier_wait(&sh.free[n % stages], (n / stages - 1) & 1);
        weights(n, row, k);
        rows(n, row, k);
    });
    bring_ahead(t);
}

__device__ static void multipliers_meet() {
    asm volatile("bar.sync 1, 256;" ::: "memory");
}

// The sums of a tile, COLS rows of 128 columns, from shared memory to where they go.
template <int COLS>
__device__ static void write(const struct task &t, const struct piece &p,
                             const struct shared_of<COLS> &sh) {
    enum { ld = shared_of<COLS>::out_ld };
    if (t.gated) {
        for (int e = threadIdx.x; e < t.n * 16; e += 256) {
            const int r = e / 16, c = e % 16 * 4;
            if (p.row + c >= t.rows) continue;
            const float4 a = *(const float4 *)&sh.out[r * ld + c],
                         b = *(const float4 *)&sh.out[r * ld + 64 + c];
            *(uint2 *)(t.gated + (int64_t)r * t.rows + p.row + c) =
                mm_many_halves(a.x * mm_sigmoid(a.x) * b.x, a.y * mm_sigmoid(a.y) * b.y,
                               a.z * mm_sigmoid(a.z) * b.z, a.w * mm_sigmoid(a.w) * b.w);
        }
        return;
    }
    for (int e = threadIdx.x; e < t.n * 32; e += 256) {
        const int r = e / 32, c = e % 32 * 4;
        float *to = t.out + t.part * p.part + r * t.out_ld + p.row + c;
        const float4 a = *(const float4 *)&sh.out[r * ld + c];
        const float each[4] = {a.x, a.y, a.z, a.w};
        if (t.wide && p.row + c + 4 <= t.rows) {
            *(float4 *)to = a;
            continue;
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (p.row + c + i < t.rows) to[i] = each[i];
    }
}

template <int COLS>
__device__ static void multiply(const struct task &t, struct shared_of<COLS> &sh) {
    enum { stages = shared_of<COLS>::stages, ld = shared_of<COLS>::out_ld };
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    int n = 0;
    for (int u = blockIdx.x; u < t.tiles * t.parts; u += gridDim.x) {
        const struct piece p(t, u);
        float d[COLS / 2];
        for (int k = p.from; k < p.to; k++, n++) {
            const int s = n % stages;
            const mm_shared_ptr w = mm_shared_at(sh.w[s]) + group * half_bytes,
                                x = mm_shared_at(sh.x[s]);
            mm_barrier_wait(&sh.here[s], n / stages & 1);
            mm_wgmma_hold(d);
            mm_wgmma_begin();
#pragma unroll
            for (int i = 0; i < step_k / 16; i++)
                mm_wgmma_ss(d, mm_wgmma_rows(w + i * 32), mm_wgmma_rows(x + i * 32),
                            k > p.from || i > 0);
            mm_wgmma_end();
            mm_wgmma_wait<0>();
            mm_wgmma_hold(d);
            if (threadIdx.x % 128 == 0) mm_barrier_arrive(&sh.free[s]);
        }
        multipliers_meet();  // the last tile was written
        float *to = sh.out + group * 64 + warp * 16 + lane / 4;
#pragma unroll
        for (int j = 0; j < COLS / 8; j++) {
            const int r = j * 8 + lane % 4 * 2;
            to[r * ld] = d[4 * j], to[(r + 1) * ld] = d[4 * j + 1];
            to[r * ld + 8] = d[4 * j + 2], to[(r + 1) * ld + 8] = d[4 * j + 3];
        }
        multipliers_meet();
        write<COLS>(t, p, sh);
    }
}

#endif

template <int COLS>
static __global__ void __launch_bounds__(n_threads, 1)
    many_product(const __grid_constant__ struct task t) {
#if MM_HOPPER
    MM_DYNAMIC_SHARED(memory);
    struct shared_of<COLS> &sh = *(struct shared_of<COLS> *)memory;
    mm_many_next();
    if (threadIdx.x == 0) {
        for (int i = 0; i < shared_of<COLS>::stages; i++) {
            mm_barrier_init(&sh.here[i], 1);
            mm_barrier_init(&sh.free[i], 2);
        }
        mm_barrier_inits_done();
    }
    __syncthreads();
    if (threadIdx.x < 256) {
        mm_many_wait();
        multiply<COLS>(t, sh);
    } else if (threadIdx.x == 256) {
        bring<COLS>(t, sh);
    }
#endif
}

int mm_many_hopper_parts(struct mm_backend *be, struct mm_view w, int64_t padded) {
    if (w.dtype != mm_dtype_bf16 || padded > mm_many_hopper_rows || mm_view_cols(w) % 8 ||
        w.ld % 8 || (uintptr_t)w.data % 16 || !mm_hopper_here(be))
        return 0;
    const int sms = mm_cuda_of(be)->sms;
    const int64_t tiles = (w.shape[0] + tile - 1) / tile,
                  steps = (mm_view_cols(w) + step_k - 1) / step_k;
    int64_t parts = sms / tiles;
    if (parts > steps / 4) parts = steps / 4;
    return parts < 1 ? 1 : parts > mm_many_most_parts ? mm_many_most_parts : (int)parts;
}

static bool map_of(struct mm_backend *be, CUtensorMap *map, const void *p, int64_t rows,
                   int64_t cols, int64_t ld) {
    struct mm_view v = mm_view3((void *)p, mm_dtype_bf16, rows, 1, cols);
    v.ld = ld;
    return mm_tile_map_of(map, v, 64) ||
           mm_cuda_ok(be, cudaErrorInvalidValue, "describing a matrix to the copy engine");
}

template <int COLS>
static void launch(struct mm_backend *be, const struct task &t) {
    const size_t bytes = sizeof(struct shared_of<COLS>);
    if (!mm_cuda_ok(be,
                    cudaFuncSetAttribute(many_product<COLS>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                    "asking for shared memory for products"))
        return;
    const int sms = mm_cuda_of(be)->sms, pieces = t.tiles * t.parts;
    mm_many_launch(be, true, "a product of many sequences", many_product<COLS>,
                   dim3((unsigned)(pieces < sms ? pieces : sms)), dim3(n_threads), bytes, t);
}

void mm_many_hopper(struct mm_backend *be, const struct mm_many_product *p, int parts) {
    struct task t = {};
    const int64_t K = mm_view_cols(p->w);
    t.out = p->out, t.out_ld = p->out_ld, t.part = p->part, t.gated = p->gated;
    t.rows = (int)p->w.shape[0], t.steps = (int)((K + step_k - 1) / step_k);
    t.ahead = p->ahead, t.states = p->states;
    t.n = (int)p->n, t.parts = p->gated ? 1 : parts;
    t.tiles = (t.rows + (p->gated ? 63 : tile - 1)) / (p->gated ? 64 : tile);
    t.wide = (uintptr_t)p->out % 16 == 0 && p->out_ld % 4 == 0 && p->part % 4 == 0;
    if (!map_of(be, &t.w, p->w.data, t.rows, K, p->w.ld) ||
        (p->gated && !map_of(be, &t.w3, p->w3.data, t.rows, K, p->w3.ld)) ||
        !map_of(be, &t.x, p->x, p->padded, K, K))
        return;
    if (p->padded > 64) {
        launch<128>(be, t);
    } else {
        launch<64>(be, t);
    }
}
