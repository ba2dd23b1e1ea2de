// Products of bf16 weights (step_many_tile.cuh), and the host's side of those of codes as well.
#include "ops/cuda/step_many_tile.cuh"

enum { step_k = mm_many_step_bytes / 2 };

// COLS: rows of x at a time, 64 or 128.
template <int COLS>
struct shared_of {
    enum { stages = COLS == 64 ? 7 : 5 };
    __nv_bfloat16 w[stages][mm_many_tile * step_k], x[stages][COLS * step_k];
    struct mm_many_sums<COLS> sums;
    uint64_t here[stages], free[stages];
};

#if MM_HOPPER

template <int COLS>
__device__ static void bring(const struct mm_many_task &t, struct shared_of<COLS> &sh) {
    enum { stages = shared_of<COLS>::stages };
    mm_many_bring_steps(
        t, stages, sh.free,
        [&](int n, int row, int k) {
            uint64_t *here = &sh.here[n % stages];
            mm_barrier_expect(here, (2 * t.half + COLS) * mm_many_step_bytes);
            mm_many_bring_tile(t, sh.w[n % stages], row, k, here);
        },
        [&](int n, int, int k) {
            for (int i = 0; i < COLS / 64; i++)
                mm_tile_copy(sh.x[n % stages] + i * 64 * step_k, &t.x, k * step_k, 0, i * 64,
                             &sh.here[n % stages]);
        });
}

template <int COLS>
__device__ static void multiply(const struct mm_many_task &t, struct shared_of<COLS> &sh) {
    enum { stages = shared_of<COLS>::stages };
    const int group = threadIdx.x / 128;
    int n = 0;
    mm_many_find_factors(t, sh.sums.factor);
    for (int u = blockIdx.x; u < t.tiles * t.parts; u += gridDim.x) {
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
            for (int i = 0; i < step_k / 16; i++)
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

#endif

template <int COLS>
static __global__ void __launch_bounds__(mm_many_product_threads, 1)
    many_product(const __grid_constant__ struct mm_many_task t) {
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

// ---- the host's side ----

int64_t mm_many_row_bytes(struct mm_view w) {
    return mm_dtype_quantized(w.dtype) ? mm_quant_row_bytes(w.dtype, mm_view_cols(w)) : w.ld * 2;
}
int64_t mm_many_code_bytes(struct mm_view w) {
    return mm_dtype_quantized(w.dtype) ? mm_quant_code_bytes(w.dtype, mm_view_cols(w))
                                       : mm_view_cols(w) * 2;
}

int mm_many_hopper_parts(struct mm_backend *be, struct mm_view w, int64_t padded) {
    const bool quantized = mm_dtype_quantized(w.dtype);
    const int64_t bytes = mm_many_code_bytes(w);
    if ((!quantized && w.dtype != mm_dtype_bf16) || padded > mm_many_hopper_rows ||
        mm_view_cols(w) % (quantized ? mm_quant_block : 8) ||
        (quantized && bytes % mm_many_step_bytes) || mm_many_row_bytes(w) % 16 ||
        (uintptr_t)w.data % 16 || !mm_hopper_here(be))
        return 0;
    const int sms = mm_cuda_of(be)->sms;
    const int64_t tiles = mm_many_hopper_tiles(w),
                  steps = (bytes + mm_many_step_bytes - 1) / mm_many_step_bytes;
    int64_t parts = sms / tiles;
    // codes take longer than they are on their way: fewer steps are enough
    const int64_t least = quantized ? 2 : 4;
    if (parts > steps / least) parts = steps / least;
    return parts < 1 ? 1 : parts > mm_many_most_parts ? mm_many_most_parts : (int)parts;
}

int mm_many_hopper_tiles(struct mm_view w) {
    return (int)((w.shape[0] + mm_many_tile - 1) / mm_many_tile);
}

bool mm_many_hopper_meets(struct mm_backend *be, struct mm_view w, int64_t padded) {
    const int parts = mm_many_hopper_parts(be, w, padded);
    return parts && w.shape[0] % 4 == 0 && parts * mm_many_hopper_tiles(w) <= mm_cuda_of(be)->sms;
}

// Rows for a group: 64, or fewer where that gives more blocks something to do. Their sums are the
// same in any case.
static int half_of(struct mm_backend *be, const struct mm_many_product *p, int parts) {
    if (p->w3.data || p->after.x) return mm_many_half_rows;
    const int64_t rows = p->w.shape[0], sms = mm_cuda_of(be)->sms;
    const auto blocks = [&](int half) { return (rows + 2 * half - 1) / (2 * half) * parts; };
    return blocks(32) <= sms ? 32 : blocks(48) <= sms ? 48 : mm_many_half_rows;
}

// Of `box` rows at a time, 128 bytes of each.
static bool map_of(struct mm_backend *be, CUtensorMap *map, const void *p, int64_t rows,
                   int64_t bytes, int64_t row_bytes, int box) {
    struct mm_view v = mm_view3((void *)p, mm_dtype_bf16, rows, 1, bytes / 2);
    v.ld = row_bytes / 2;
    return mm_tile_map_of(map, v, box) ||
           mm_cuda_ok(be, cudaErrorInvalidValue, "describing a matrix to the copy engine");
}

template <int COLS>
static void launch(struct mm_backend *be, const struct mm_many_task &t) {
    const size_t bytes = sizeof(struct shared_of<COLS>);
    if (!mm_cuda_ok(be,
                    cudaFuncSetAttribute(many_product<COLS>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                    "asking for shared memory for products"))
        return;
    const int sms = mm_cuda_of(be)->sms, pieces = t.tiles * t.parts;
    mm_many_launch(be, true, "a product of many sequences", many_product<COLS>,
                   dim3((unsigned)(pieces < sms ? pieces : sms)), dim3(mm_many_product_threads),
                   bytes, t);
}

void mm_many_hopper(struct mm_backend *be, const struct mm_many_product *p, int parts) {
    struct mm_many_task t = {};
    const bool quantized = mm_dtype_quantized(p->w.dtype);
    const int64_t code_bytes = mm_many_code_bytes(p->w), row_bytes = mm_many_row_bytes(p->w);
    const int64_t x_bytes = mm_view_cols(p->w) * (quantized ? 1 : 2);
    t.out = p->out, t.out_ld = p->out_ld, t.part = p->part;
    t.gated = p->gated, t.gated_sums = p->gated_sums, t.gated_met = p->gated_met;
    t.rows = (int)p->w.shape[0], t.both = p->w3.data != NULL;
    t.steps = (int)((code_bytes + mm_many_step_bytes - 1) / mm_many_step_bytes);
    t.ahead = p->ahead;
    t.before = p->before, t.after = p->after;
    t.givers = (int)mm_cuda_givers(mm_cuda_of(be));
    t.n = (int)p->n, t.parts = t.both ? 1 : parts;
    t.half = half_of(be, p, parts);
    const int a_tile = t.both ? t.half : 2 * t.half;
    t.tiles = (t.rows + a_tile - 1) / a_tile;
    t.wide = (uintptr_t)p->out % 16 == 0 && p->out_ld % 4 == 0 && p->part % 4 == 0;
    const void *x = quantized ? (const void *)p->x.codes : (const void *)p->x.u;
    if (!map_of(be, &t.w, p->w.data, t.rows, code_bytes, row_bytes, t.half) ||
        (t.both && !map_of(be, &t.w3, p->w3.data, t.rows, code_bytes, row_bytes, t.half)) ||
        !map_of(be, &t.x, x, p->padded, x_bytes, x_bytes,
                quantized ? mm_many_codes_box(p->padded) : 64))
        return;
    if (quantized) {
        const struct mm_many_rows_of rows = {
            (const char *)p->w.data, (const char *)p->w3.data, row_bytes, code_bytes, p->x.scales,
            p->x.scales_ld};
        mm_many_product_of_codes(be, t, rows, p->w.dtype == mm_dtype_q4, p->padded);
    } else if (p->padded > 64) {
        launch<128>(be, t);
    } else {
        launch<64>(be, t);
    }
}
