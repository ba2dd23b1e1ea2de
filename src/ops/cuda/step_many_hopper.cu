// x w^T of few rows x is a matter of bringing w: 128 rows of it at a time go through shared memory
// in steps of 64 columns, seven steps ahead, and two groups of four warps multiply 64 of them each;
// or 96 or 64 rows where more multiprocessors then have some.
// Weights do not depend on the kernel before, so the first steps are on their way while it ends.
// Where k is cut into parts and a norm follows, the blocks of a tile meet when all parts are in
// memory, and each adds up some of the rows.
#include "ops/cuda/step_many_hopper.cuh"

#include "ops/cuda/attention_hopper.cuh"

enum { tile = 128, step_k = 64, n_threads = 288, half_bytes = 64 * step_k * 2 };

// COLS: rows of x at a time, 64 or 128.
template <int COLS>
struct shared_of {
    enum { stages = COLS == 64 ? 7 : 5, out_ld = tile + 4 };
    __nv_bfloat16 w[stages][tile * step_k], x[stages][COLS * step_k];
    float out[COLS * out_ld];
    float factor[COLS];  // of every row's sums
    unsigned shares;     // of the rows of the tile, that this block adds up: a bit each
    uint64_t here[stages], free[stages];
};

struct task {
    CUtensorMap w, w3, x;
    float *out;
    __nv_bfloat16 *gated;
    int64_t out_ld, part;
    int rows, steps, n, parts, tiles;
    int half;   // rows of w that each group has of a tile, a multiple of 16
    bool wide;  // rows of out can be written four at a time
    struct mm_many_ahead ahead;
    struct mm_many_norm_before before;
    struct mm_many_norm_after after;
};

#if MM_HOPPER

// Piece `u` of the work: a tile of w's rows and a part of k.
struct piece {
    int row, part, from, to;  // row: the first; steps [from, to)
    __device__ piece(const struct task &t, int u) {
        const int a_tile = t.gated ? t.half : 2 * t.half;
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

template <int COLS>
__device__ static void bring(const struct task &t, struct shared_of<COLS> &sh) {
    enum { stages = shared_of<COLS>::stages };
    const auto weights = [&](int n, int row, int k) {
        const int s = n % stages;
        mm_barrier_expect(&sh.here[s], (2 * t.half + COLS) * step_k * 2);
        mm_tile_copy(sh.w[s], &t.w, k * step_k, 0, row, &sh.here[s]);
        mm_tile_copy(sh.w[s] + 64 * step_k, t.gated ? &t.w3 : &t.w, k * step_k, 0,
                     t.gated ? row : row + t.half, &sh.here[s]);
    };
    const auto rows = [&](int n, int, int k) {
        for (int i = 0; i < COLS / 64; i++)
            mm_tile_copy(sh.x[n % stages] + i * 64 * step_k, &t.x, k * step_k, 0, i * 64,
                         &sh.here[n % stages]);
    };
    const bool all = each_step(t, 0, stages, weights) < stages;
    if (all) mm_many_bring(t.ahead, blockIdx.x, gridDim.x);
    mm_many_wait();
    each_step(t, 0, stages, rows);
    if (all) return;
    each_step(t, stages, INT32_MAX, [&](int n, int row, int k) {
        mm_barrier_wait(&sh.free[n % stages], (n / stages - 1) & 1);
        weights(n, row, k);
        rows(n, row, k);
    });
    mm_many_bring(t.ahead, blockIdx.x, gridDim.x);
}

__device__ static void multipliers_meet() {
    asm volatile("bar.sync 1, 256;" ::: "memory");
}

__device__ static float4 times(float4 x, float f) {
    return make_float4(x.x * f, x.y * f, x.z * f, x.w * f);
}

// The tiles' squares are added in their order, so a row's factor depends on that row only.
template <int COLS>
__device__ static void find_factors(const struct task &t, struct shared_of<COLS> &sh) {
    for (int r = threadIdx.x; r < t.n; r += 256) {
        float ss = 0.0f;
#pragma unroll 8
        for (int i = 0; t.before.ss && i < t.before.tiles; i++)
            ss += t.before.ss[r * t.before.tiles + i];
        sh.factor[r] = t.before.ss ? rsqrtf(ss / (float)t.before.cols + t.before.eps) : 1.0f;
    }
}

// The sums of a tile, COLS rows of 128 columns or as many as it has, from shared memory to where
// they go.
template <int COLS>
__device__ static void write(const struct task &t, const struct piece &p,
                             const struct shared_of<COLS> &sh) {
    enum { ld = shared_of<COLS>::out_ld };
    if (t.gated) {
        for (int e = threadIdx.x; e < t.n * 16; e += 256) {
            const int r = e / 16, c = e % 16 * 4;
            if (p.row + c >= t.rows) continue;
            const float4 a = times(*(const float4 *)&sh.out[r * ld + c], sh.factor[r]),
                         b = times(*(const float4 *)&sh.out[r * ld + 64 + c], sh.factor[r]);
            *(uint2 *)(t.gated + (int64_t)r * t.rows + p.row + c) =
                mm_many_halves(a.x * mm_sigmoid(a.x) * b.x, a.y * mm_sigmoid(a.y) * b.y,
                               a.z * mm_sigmoid(a.z) * b.z, a.w * mm_sigmoid(a.w) * b.w);
        }
        return;
    }
    for (int e = threadIdx.x; e < t.n * 32; e += 256) {
        const int r = e / 32, c = e % 32 * 4;
        if (c >= 2 * t.half) continue;
        float *to = t.out + t.part * p.part + r * t.out_ld + p.row + c;
        const float4 a = times(*(const float4 *)&sh.out[r * ld + c], sh.factor[r]);
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

// ---- a norm after the product ----

// Of a tile's word the low bits count the parts that are there; above are those whose blocks left.
enum { met_bits = 8, met_all = (1 << met_bits) - 1, patience = 1 << 14 };

// Says that a part of the tile is in memory, waits for the others, and returns which shares of the
// rows are the caller's. All blocks have room at once unless others use the device, too; so who has
// waited long leaves its share to the last one, and nothing waits for a block that cannot begin.
__device__ static unsigned meet(unsigned *met, int part, int parts) {
    const unsigned mine = 1u << part;
    unsigned was = mm_many_add(met, 1);
    bool all = (int)(was & met_all) + 1 == parts;
    const unsigned others = all ? was >> met_bits : 0;
    for (int i = 0; !all && i < patience; i++)
        all = (int)(mm_many_read(met) & met_all) == parts;
    if (!all) {
        was = mm_many_add(met, mine << met_bits);
        all = (int)(was & met_all) == parts;
    }
    return all ? mine | others : 0;
}

// Four columns of a row: the parts in their order onto x, and what the norm needs of it.
__device__ static void add_row(const struct task &t, int r, int c, int a_tile, float4 x, float4 w) {
    const bool in = c < t.rows;
    const float *from = t.out + r * t.out_ld + c;
    float4 part[mm_many_most_parts];
#pragma unroll
    for (int i = 0; i < mm_many_most_parts; i++, from += t.part)
        if (in && i < t.parts) part[i] = __ldcg((const float4 *)from);
#pragma unroll
    for (int i = 0; i < mm_many_most_parts; i++) {
        if (!in || i >= t.parts) continue;
        x.x += part[i].x, x.y += part[i].y, x.z += part[i].z, x.w += part[i].w;
    }
    const float ss = mm_warp_sum(mm_many_dot(x, x));
    if (threadIdx.x % 32 == 0) t.after.ss[r * t.tiles + a_tile] = ss;
    if (!in) return;
    const int64_t at = (int64_t)r * t.rows + c;
    *(float4 *)(t.after.x + at) = x;
    *(uint2 *)(t.after.u + at) = mm_many_halves(x.x * w.x, x.y * w.y, x.z * w.z, x.w * w.w);
}

// A warp has a row at a time; what does not depend on the other blocks is loaded before they meet.
template <int COLS>
__device__ static void add_up(const struct task &t, const struct piece &p,
                              struct shared_of<COLS> &sh) {
    const int warp = threadIdx.x / 32, c = p.row + threadIdx.x % 32 * 4, a_tile = p.row / tile;
    const auto first_of = [&](int share) { return t.n * share / t.parts + warp; };
    const auto x_of = [&](int r) {
        return c < t.rows && r < t.n ? *(const float4 *)(t.after.x + (int64_t)r * t.rows + c)
                                     : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    };
    const int mine = first_of(p.part);
    const float4 x = x_of(mine), w = c < t.rows ? *(const float4 *)(t.after.w + c) : x;
    multipliers_meet();
    if (threadIdx.x == 0) sh.shares = meet(t.after.met + a_tile, p.part, t.parts);
    multipliers_meet();
    for (int share = 0; share < t.parts; share++) {
        if (!(sh.shares >> share & 1)) continue;
        const int end = t.n * (share + 1) / t.parts;
        for (int r = first_of(share); r < end; r += 8)
            add_row(t, r, c, a_tile, r == mine ? x : x_of(r), w);
    }
}

template <int COLS>
__device__ static void multiply(const struct task &t, struct shared_of<COLS> &sh) {
    enum { stages = shared_of<COLS>::stages, ld = shared_of<COLS>::out_ld };
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    int n = 0;
    find_factors<COLS>(t, sh);
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
        float *to = sh.out + group * t.half + warp * 16 + lane / 4;
#pragma unroll
        for (int j = 0; j < COLS / 8; j++) {
            if (warp * 16 >= t.half) break;  // of rows that were not brought
            const int r = j * 8 + lane % 4 * 2;
            to[r * ld] = d[4 * j], to[(r + 1) * ld] = d[4 * j + 1];
            to[r * ld + 8] = d[4 * j + 2], to[(r + 1) * ld + 8] = d[4 * j + 3];
        }
        multipliers_meet();
        write<COLS>(t, p, sh);
        if (t.after.x) {
            add_up<COLS>(t, p, sh);
            return;  // a block has one piece
        }
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

int mm_many_hopper_tiles(struct mm_view w) {
    return (int)((w.shape[0] + tile - 1) / tile);
}

bool mm_many_hopper_meets(struct mm_backend *be, struct mm_view w, int64_t padded) {
    const int parts = mm_many_hopper_parts(be, w, padded);
    return parts && w.shape[0] % 4 == 0 && parts * mm_many_hopper_tiles(w) <= mm_cuda_of(be)->sms;
}

// Rows for a group: 64, or fewer where that gives more blocks something to do. Their sums are the
// same in any case.
static int half_of(struct mm_backend *be, const struct mm_many_product *p, int parts) {
    if (p->gated || p->after.x) return 64;
    const int64_t rows = p->w.shape[0], sms = mm_cuda_of(be)->sms;
    const auto blocks = [&](int half) { return (rows + 2 * half - 1) / (2 * half) * parts; };
    return blocks(32) <= sms ? 32 : blocks(48) <= sms ? 48 : 64;
}

// Of `box` rows at a time.
static bool map_of(struct mm_backend *be, CUtensorMap *map, const void *p, int64_t rows,
                   int64_t cols, int64_t ld, int box) {
    struct mm_view v = mm_view3((void *)p, mm_dtype_bf16, rows, 1, cols);
    v.ld = ld;
    return mm_tile_map_of(map, v, box) ||
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
    t.ahead = p->ahead;
    t.before = p->before, t.after = p->after;
    t.n = (int)p->n, t.parts = p->gated ? 1 : parts;
    t.half = half_of(be, p, parts);
    const int a_tile = p->gated ? t.half : 2 * t.half;
    t.tiles = (t.rows + a_tile - 1) / a_tile;
    t.wide = (uintptr_t)p->out % 16 == 0 && p->out_ld % 4 == 0 && p->part % 4 == 0;
    if (!map_of(be, &t.w, p->w.data, t.rows, K, p->w.ld, t.half) ||
        (p->gated && !map_of(be, &t.w3, p->w3.data, t.rows, K, p->w3.ld, t.half)) ||
        !map_of(be, &t.x, p->x, p->padded, K, K, 64))
        return;
    if (p->padded > 64) {
        launch<128>(be, t);
    } else {
        launch<64>(be, t);
    }
}
