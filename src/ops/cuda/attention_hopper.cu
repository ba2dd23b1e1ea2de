// Softmax attention forward on Hopper, bf16, heads of 64 or 128. A block has 128 queries of a head:
// two groups of four warps multiply and take the softmax of 64 rows each, one thread of a third has
// the copy engine bring keys and values, two tiles ahead. Scores of the next tile are multiplied
// while the softmax of this one is taken, and while its product with the values runs. A block goes
// through several such pieces of work, so that copies for the next run while the last is written.
#include "ops/cuda/attention_hopper.cuh"

enum { tile_rows = 128, stages = 2, n_threads = 384 };

struct maps {
    CUtensorMap q, k, v;
};

template <int D>
struct shared_of {
    __nv_bfloat16 q[tile_rows * D];
    __nv_bfloat16 k[stages][tile_rows * D], v[stages][tile_rows * D];
    uint64_t q_here, q_free, k_here[stages], v_here[stages], k_free[stages], v_free[stages];
};

#if MM_HOPPER

template <int D>
__device__ static void copy_tile(__nv_bfloat16 *to, const CUtensorMap *map, int head, int64_t row,
                                 uint64_t *here) {
    mm_barrier_expect(here, tile_rows * D * 2);
    for (int i = 0; i < D / 64; i++)
        mm_tile_copy(to + i * tile_rows * 64, map, i * 64, head, (int)row, here);
}

// 128 queries of a head and the tiles of keys that they see.
struct work {
    int h, row0, last_row, from, n_tiles;
    // The longest first; every second round of the blocks goes the other way, so that all get
    // alike.
    __device__ bool take(const struct mm_attention &o, int round) {
        const int blocks = gridDim.x, n_rows = (int)((o.n_q + tile_rows - 1) / tile_rows);
        const int at =
            round * blocks + (round % 2 ? blocks - 1 - (int)blockIdx.x : (int)blockIdx.x);
        if (at >= n_rows * o.n_heads) return false;
        h = at % o.n_heads;
        row0 = (n_rows - 1 - at / o.n_heads) * tile_rows;
        last_row = (row0 + tile_rows < o.n_q ? row0 + tile_rows : (int)o.n_q) - 1;
        from = (int)mm_first_key(o, row0);
        n_tiles = ((int)o.past + last_row + 1 - from + tile_rows - 1) / tile_rows;
        return true;
    }
    __device__ int first_of(int tile) const {  // from the last to the first
        return from + (n_tiles - 1 - tile) * tile_rows;
    }
};

// One thread: all tiles in the order in which they are used.
template <int D>
__device__ static void bring(const struct mm_attention &o, const struct maps &m,
                             struct shared_of<D> &sh) {
    struct work w;
    int n = 0;  // tiles so far
    for (int round = 0; w.take(o, round); round++) {
        if (round > 0) mm_barrier_wait(&sh.q_free, (round - 1) & 1);
        copy_tile<D>(sh.q, &m.q, w.h, w.row0, &sh.q_here);
        for (int i = 0; i < w.n_tiles; i++, n++) {
            const int s = n % stages, before = (n / stages - 1) & 1, row = w.first_of(i);
            if (n >= stages) mm_barrier_wait(&sh.k_free[s], before);
            copy_tile<D>(sh.k[s], &m.k, w.h / o.ratio, row, &sh.k_here[s]);
            if (n >= stages) mm_barrier_wait(&sh.v_free[s], before);
            copy_tile<D>(sh.v[s], &m.v, w.h / o.ratio, row, &sh.v_here[s]);
        }
    }
}

template <int D>
struct rows_of {
    const struct mm_attention &o;
    struct shared_of<D> &sh;
    int group, lane, warp, c;
    int row[2], low[2], high[2];  // of this thread; keys [low, high) are seen
    float s[64], out[D / 2], top[2], sum[2];
    uint32_t p[32];

    struct work w;

    __device__ rows_of(const struct mm_attention &o_, struct shared_of<D> &sh_) : o(o_), sh(sh_) {
        group = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
        c = lane % 4 * 2;
    }
    __device__ void start() {
        for (int e = 0; e < 2; e++) {
            row[e] = w.row0 + group * 64 + warp * 16 + lane / 4 + 8 * e;
            const bool real = row[e] < o.n_q;
            low[e] = real ? (int)mm_first_key(o, row[e]) : 0;
            high[e] = real ? (int)o.past + row[e] + 1 : 0;
            top[e] = -INFINITY, sum[e] = 0.0f;
        }
        for (int i = 0; i < D / 2; i++)
            out[i] = 0.0f;
    }

    __device__ void scores(int stage) {
        const mm_shared_ptr q = mm_shared_at(sh.q) + group * 64 * 128;
        const mm_shared_ptr k = mm_shared_at(sh.k[stage]);
        mm_wgmma_hold(s);
        mm_wgmma_begin();
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            const int at = i / 4 * tile_rows * 128 + i % 4 * 32;
            mm_wgmma_ss(s, mm_wgmma_rows(q + at), mm_wgmma_rows(k + at), i > 0);
        }
        mm_wgmma_end();
        mm_wgmma_hold(s);
    }
    __device__ void values(int stage) {
        const mm_shared_ptr v = mm_shared_at(sh.v[stage]);
        mm_wgmma_hold(out);
        mm_wgmma_hold(p);
        mm_wgmma_begin();
#pragma unroll
        for (int i = 0; i < tile_rows / 16; i++)
            mm_wgmma_rs(out, p + 4 * i, mm_wgmma_turned(v + i * 16 * 128, tile_rows * 128));
        mm_wgmma_end();
        mm_wgmma_hold(out);
    }

    // Scores outside of what a row sees become nothing; `edge`: some may be.
    __device__ void hide(int64_t j0) {
#pragma unroll
        for (int i = 0; i < 64; i++) {
            const int j = (int)j0 + i / 4 * 8 + c + i % 2;
            const int e = i / 2 % 2;
            if (j < low[e] || j >= high[e]) s[i] = -INFINITY;
        }
    }
    // From scores to exponentials; *keep: what earlier sums are to be multiplied with.
    __device__ void softmax(float (&keep)[2]) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float most = top[e];
#pragma unroll
            for (int i = 0; i < 32; i++)
                most = fmaxf(most, s[i / 2 * 4 + 2 * e + i % 2]);
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            const float shift = most == -INFINITY ? 0.0f : most * o.scale_log2;
            keep[e] = mm_exp2(top[e] * o.scale_log2 - shift);
            top[e] = most;
            float add = 0.0f;
#pragma unroll
            for (int i = 0; i < 32; i++) {
                float &x = s[i / 2 * 4 + 2 * e + i % 2];
                x = mm_exp2(x * o.scale_log2 - shift);
                add += x;
            }
            sum[e] = sum[e] * keep[e] + add;
        }
    }
    __device__ void weights() {
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                p[4 * i + e] = mm_pair(s[8 * i + 2 * e], s[8 * i + 2 * e + 1]);
    }
    __device__ void rescale(const float (&keep)[2]) {
#pragma unroll
        for (int i = 0; i < D / 2; i++)
            out[i] *= keep[i / 2 % 2];
    }

    __device__ void write() {
        const int h = w.h;
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float all = sum[e];
            all += __shfl_xor_sync(0xffffffffu, all, 1);
            all += __shfl_xor_sync(0xffffffffu, all, 2);
            if (row[e] >= o.n_q) continue;
            const float scale = 1.0f / all;
            __nv_bfloat16 *to = (__nv_bfloat16 *)o.y.p + (int64_t)row[e] * o.y.ld + h * D + c;
#pragma unroll
            for (int i = 0; i < D / 8; i++)
                *(uint32_t *)(to + 8 * i) =
                    mm_pair(out[4 * i + 2 * e] * scale, out[4 * i + 2 * e + 1] * scale);
            if (o.lse && c == 0) {
                o.lse[(int64_t)row[e] * o.ld_lse + h] =
                    top[e] * o.scale_log2 * 0.69314718f + logf(all);
            }
        }
    }

    __device__ void arrive(uint64_t *barrier) const {
        if (threadIdx.x % 128 == 0) mm_barrier_arrive(barrier);
    }

    // The work `w`, whose first tile is the n-th of the block.
    __device__ void run(int round, int n) {
        float keep[2];
        const int low_last = (int)mm_first_key(o, w.last_row);
        start();
        mm_barrier_wait(&sh.q_here, round & 1);
        for (int i = 0; i < w.n_tiles; i++, n++) {
            const int stage = n % stages, before = (n + stages - 1) % stages, j0 = w.first_of(i);
            mm_barrier_wait(&sh.k_here[stage], n / stages & 1);
            if (i == 0) {
                scores(stage);
                mm_wgmma_wait<0>();
            } else {
                scores(stage);
                mm_barrier_wait(&sh.v_here[before], (n - 1) / stages & 1);
                values(before);
                mm_wgmma_wait<1>();
            }
            mm_wgmma_hold(s);
            arrive(&sh.k_free[stage]);
            if (i + 1 == w.n_tiles) arrive(&sh.q_free);
            // some of the keys may be hidden from some of this group's rows
            if (i == 0 || j0 + tile_rows > (int)o.past + w.row0 + group * 64 + 1 || j0 < low_last) {
                hide(j0);
            }
            softmax(keep);
            if (i > 0) {
                mm_wgmma_wait<0>();
                mm_wgmma_hold(out);
                mm_wgmma_hold(p);
                arrive(&sh.v_free[before]);
                rescale(keep);
            }
            weights();
        }
        mm_barrier_wait(&sh.v_here[(n - 1) % stages], (n - 1) / stages & 1);
        values((n - 1) % stages);
        mm_wgmma_wait<0>();
        mm_wgmma_hold(out);
        arrive(&sh.v_free[(n - 1) % stages]);
        write();
    }
    __device__ void run_all() {
        for (int round = 0, n = 0; w.take(o, round); round++, n += w.n_tiles)
            run(round, n);
    }
};

#endif

template <int D>
__global__ void __launch_bounds__(n_threads, 1)
    attention_hopper(const struct mm_attention o, const __grid_constant__ struct maps m) {
#if MM_HOPPER
    MM_DYNAMIC_SHARED(shared);
    struct shared_of<D> &sh = *(struct shared_of<D> *)shared;
    if (threadIdx.x == 0) {
        mm_barrier_init(&sh.q_here, 1), mm_barrier_init(&sh.q_free, 2);
        for (int i = 0; i < stages; i++) {
            mm_barrier_init(&sh.k_here[i], 1), mm_barrier_init(&sh.v_here[i], 1);
            mm_barrier_init(&sh.k_free[i], 2), mm_barrier_init(&sh.v_free[i], 2);
        }
        mm_barrier_inits_done();
    }
    __syncthreads();
    if (threadIdx.x / 128 == 2) {
        mm_registers_less<24>();
        if (threadIdx.x % 128 == 0) bring<D>(o, m, sh);
    } else {
        mm_registers_more<240>();
        rows_of<D> rows(o, sh);
        rows.run_all();
    }
#endif
}

static __global__ void is_hopper(int *yes) {
    *yes = MM_HOPPER;
}

bool mm_hopper_here(struct mm_backend *be) {
    static int known = -1;
    if (mm_cuda_of(be)->as_older) return false;
    if (known >= 0) return known;
    int *yes = (int *)mm_cuda_scratch(be, mm_cuda_slot_a, sizeof *yes);
    if (!yes) return false;
    MM_LAUNCH(be, is_hopper, 1, 1, 0, yes);
    int answer = 0;
    if (!mm_cuda_ok(be,
                    cudaMemcpyAsync(&answer, yes, sizeof answer, cudaMemcpyDeviceToHost,
                                    mm_cuda_of(be)->stream),
                    "asking what the card can do") ||
        !mm_cuda_ok(be, cudaStreamSynchronize(mm_cuda_of(be)->stream), "waiting")) {
        return false;
    }
    known = answer;
    return known;
}

typedef CUresult encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                           const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                           const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                           CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static encode_fn *encoder() {
    static encode_fn *f = nullptr;
    cudaDriverEntryPointQueryResult found;
    void *p = nullptr;
    if (!f &&
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &p, 12000, cudaEnableDefault,
                                         &found) == cudaSuccess &&
        found == cudaDriverEntryPointSuccess) {
        f = (encode_fn *)p;
    }
    return f;
}

bool mm_tile_map_of(CUtensorMap *map, struct mm_view x, int rows) {
    encode_fn *encode = encoder();
    if (!encode) return false;
    const cuuint64_t dims[] = {(cuuint64_t)x.shape[2], (cuuint64_t)x.shape[1],
                               (cuuint64_t)x.shape[0]};
    const cuuint64_t strides[] = {(cuuint64_t)x.shape[2] * 2, (cuuint64_t)x.ld * 2};
    const cuuint32_t box[] = {64, 1, (cuuint32_t)rows}, steps[] = {1, 1, 1};
    return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, x.data, dims, strides, box, steps,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool mm_boxes_of(CUtensorMap *map, const void *p, int n, const cuuint64_t *dims,
                 const cuuint64_t *strides, const cuuint32_t *box) {
    encode_fn *encode = encoder();
    const cuuint32_t steps[] = {1, 1, 1, 1, 1};
    return encode && encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, (cuuint32_t)n, (void *)p, dims,
                            strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                            CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                            CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <int D>
static void launch(struct mm_backend *be, const struct mm_attention &o, const struct maps &m) {
    auto kernel = attention_hopper<D>;
    const size_t bytes = sizeof(struct shared_of<D>);
    if (!mm_cuda_ok(
            be,
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            "asking for shared memory for attention")) {
        return;
    }
    int sms = 132;
    mm_cuda_ok(be,
               cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, mm_cuda_of(be)->device),
               "asking for the number of multiprocessors");
    const int64_t n = (o.n_q + tile_rows - 1) / tile_rows * o.n_heads;
    MM_LAUNCH(be, kernel, (unsigned)(n < sms ? n : sms), n_threads, bytes, o, m);
}

bool mm_attention_fwd_hopper(struct mm_backend *be, const struct mm_attention *o, struct mm_view q,
                             struct mm_view k, struct mm_view v) {
    struct maps m;
    if ((o->dim != 64 && o->dim != 128) || !mm_hopper_here(be)) return false;
    if (!mm_tile_map_of(&m.q, q, tile_rows) || !mm_tile_map_of(&m.k, k, tile_rows) ||
        !mm_tile_map_of(&m.v, v, tile_rows))
        return false;
    if (o->dim == 64) {
        launch<64>(be, *o, m);
    } else {
        launch<128>(be, *o, m);
    }
    return true;
}
