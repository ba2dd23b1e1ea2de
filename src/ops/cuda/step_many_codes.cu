// Products of q8 and q4 weights with rows of codes (base/quant.h), on Hopper. Codes of q8 are
// multiplied where they lie; a lane expands those of q4 that it has in the operand. Sums over a
// block of 128 are integers, and exact; each is scaled and added to the row's sum in f32.
#include "ops/cuda/step_many_bf16.cuh"

// The sum of a block is at most 127 * 127 * 128 < 2^22 in size. Added to the bits of 1.5 * 2^23, it
// makes the bits of that number plus itself.
enum { sum_zero = 0x4b400000 };

// COLS: rows of x at a time, 32, 64 or 128; a product takes 64 of them at most.
template <int COLS, bool Q4>
struct shared_of {
    enum {
        blocks = Q4 ? 2 : 1,  // of codes, of a step
        stages = COLS == 32   ? (Q4 ? 8 : 9)
                 : COLS == 64 ? (Q4 ? 5 : 7)
                              : (Q4 ? 3 : 4),
        box = COLS < 64 ? COLS : 64
    };
    int8_t w[stages][mm_many_tile * mm_many_step_bytes];
    int8_t x[stages][blocks][COLS * mm_quant_block];
    float scales[stages][blocks][COLS];  // of x
    struct mm_many_sums<COLS> sums;
    uint64_t here[stages], free[stages];
};

#if MM_HOPPER

template <int COLS, bool Q4>
__device__ static void bring(const struct mm_many_task &t, const struct mm_many_rows_of &rows,
                             struct shared_of<COLS, Q4> &sh) {
    using shared = struct shared_of<COLS, Q4>;
    enum { stages = shared::stages, blocks = shared::blocks, box = shared::box };
    const int scale_bytes = (int)rows.x_scales_ld * (int)sizeof(float);  // no more than COLS
    mm_many_bring_steps(
        t, stages, sh.free,
        [&](int n, int row, int k) {
            uint64_t *here = &sh.here[n % stages];
            mm_barrier_expect(here, 2 * t.half * mm_many_step_bytes +
                                        blocks * (COLS * mm_quant_block + scale_bytes));
            mm_many_bring_tile(t, sh.w[n % stages], row, k, here);
        },
        [&](int n, int, int k) {
            const int s = n % stages;
            for (int b = 0; b < blocks; b++) {
                const int block = k * blocks + b;
                for (int i = 0; i < COLS; i += box)
                    mm_tile_copy(sh.x[s][b] + i * mm_quant_block, &t.x, block * mm_quant_block / 2,
                                 0, i, &sh.here[s]);
                mm_bulk_copy(sh.scales[s][b], rows.x_scales + block * rows.x_scales_ld, scale_bytes,
                             &sh.here[s]);
            }
        });
}

// Scales (and for q4 factors) of the two rows of w of which a lane has sums, for a step.
template <int BLOCKS, bool Q4>
struct step_scales {
    unsigned short scale[BLOCKS][2], factors[BLOCKS][2];

    __device__ void load(const unsigned short *const (&of)[2], int k, int row_blocks) {
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                scale[b][e] = __ldg(of[e] + k * BLOCKS + b);
                if (Q4) factors[b][e] = __ldg(of[e] + row_blocks + k * BLOCKS + b);
            }
        }
    }
};

// The left operand of a block of q4, 32 columns for every four registers: u (c + 8) + 128 - 8 u is
// u c + 128, of four codes in one multiplication, and no byte passes anything on to the next.
__device__ static void expand(uint32_t (&a)[16], mm_shared_ptr w, int row, int block,
                              const unsigned short (&factors)[2]) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const mm_shared_ptr at = w + (row + 8 * e) * mm_many_step_bytes + t * 4;
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; i++)  // pieces of 16 bytes are exchanged (hopper.cuh)
            words[i] = mm_read(at + (((block * 4 + i) ^ (row % 8)) << 4));
#pragma unroll
        for (int g = 0; g < 4; g++) {
            const uint32_t u = factors[e] >> (4 * g) & 15, zero = 0x80808080u - u * 0x08080808u;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const uint32_t codes = words[g % 2 * 2 + h] >> (g / 2 * 4) & 0x0f0f0f0fu;
                a[4 * g + 2 * h + e] = (codes * u + zero) ^ 0x80808080u;
            }
        }
    }
}

// sums += what the codes d of a block are worth: of rows of w with `scale`, and of x with r.
template <int N>
__device__ static void add_block(float (&sums)[N], const uint32_t (&d)[N],
                                 const unsigned short (&scale)[2], const float2 (&r)[N / 4]) {
    const float of_rows[2] = {__half2float(__ushort_as_half(scale[0])),
                              __half2float(__ushort_as_half(scale[1]))};
#pragma unroll
    for (int j = 0; j < N / 4; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float sum = __uint_as_float(d[4 * j + e]) - __uint_as_float(sum_zero);
            sums[4 * j + e] =
                fmaf(of_rows[e / 2] * (e % 2 ? r[j].y : r[j].x), sum, sums[4 * j + e]);
        }
    }
}

template <int COLS, bool Q4>
__device__ static void multiply(const struct mm_many_task &t, const struct mm_many_rows_of &rows,
                                struct shared_of<COLS, Q4> &sh) {
    using shared = struct shared_of<COLS, Q4>;
    enum { stages = shared::stages, blocks = shared::blocks, box = shared::box };
    const int group = threadIdx.x / 128, lane = threadIdx.x % 32;
    const int row = threadIdx.x / 32 % 4 * 16 + lane / 4;  // of the group's, and the eighth after
    const int row_blocks = t.steps * blocks;
    const unsigned short *of[2];
    const auto aim = [&](int u) {
        const struct mm_many_piece p(t, u);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int r = p.row + (t.both ? 0 : group * t.half) + row + 8 * e;
            const char *w = (t.both && group ? rows.w3 : rows.w) +
                            (r < t.rows ? r : t.rows - 1) * rows.row_bytes;
            of[e] = (const unsigned short *)(w + rows.code_bytes);
        }
        return p.from;
    };
    struct step_scales<blocks, Q4> now, next;
    next.load(of, aim(mm_many_block(t)), row_blocks);
    mm_many_wait();
    mm_many_find_factors(t, sh.sums.factor);
    int n = 0;
    for (int u = mm_many_block(t); u < t.tiles * t.parts; u += t.blocks) {
        const struct mm_many_piece p(t, u);
        const int after = u + t.blocks;
        float sums[COLS / box][box / 2];
#pragma unroll
        for (int i = 0; i < COLS / 2; i++)
            sums[i / (box / 2)][i % (box / 2)] = 0.0f;
        for (int k = p.from; k < p.to; k++, n++) {
            const int s = n % stages;
            now = next;
            if (k + 1 < p.to) {
                next.load(of, k + 1, row_blocks);
            } else if (after < t.tiles * t.parts) {
                next.load(of, aim(after), row_blocks);
            }
            const mm_shared_ptr w = mm_shared_at(sh.w[s]) + group * mm_many_half_bytes;
            mm_barrier_wait(&sh.here[s], n / stages & 1);
#pragma unroll
            for (int b = 0; b < blocks; b++) {
                uint32_t a[16];
                if (Q4) expand(a, w, row, b, now.factors[b]);
#pragma unroll
                for (int c = 0; c < COLS / box; c++) {
                    const mm_shared_ptr x = mm_shared_at(sh.x[s][b]) + c * box * mm_quant_block;
                    uint32_t d[box / 2];
#pragma unroll
                    for (int i = 0; i < box / 2; i++)
                        d[i] = sum_zero;
                    mm_wgmma_hold(d);
                    if (Q4) mm_wgmma_hold(a);
                    mm_wgmma_begin();
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        if (Q4) {
                            mm_wgmma_rs(d, a + 4 * i, mm_wgmma_rows(x + i * 32));
                        } else {
                            mm_wgmma_ss(d, mm_wgmma_rows(w + i * 32), mm_wgmma_rows(x + i * 32));
                        }
                    }
                    mm_wgmma_end();
                    float2 r[box / 8];
#pragma unroll
                    for (int j = 0; j < box / 8; j++)
                        r[j] = *(const float2 *)&sh.scales[s][b][c * box + j * 8 + lane % 4 * 2];
                    mm_wgmma_wait<0>();
                    mm_wgmma_hold(d);
                    if (b == blocks - 1 && c == COLS / box - 1) {  // the warp has read all of it
                        __syncwarp();
                        if (lane < t.givers) mm_barrier_arrive(&sh.free[s]);
                    }
                    add_block<box / 2>(sums[c], d, now.scale[b], r);
                }
            }
        }
        if (!mm_many_finish<COLS>(t, p, sh.sums, sums[0])) return;
    }
}

// All that a block does.
template <int COLS, bool Q4>
__device__ static void run(const struct mm_many_task &t, const struct mm_many_rows_of &rows,
                           void *memory) {
    struct shared_of<COLS, Q4> &sh = *(struct shared_of<COLS, Q4> *)memory;
    mm_many_next();
    if (threadIdx.x == 0) {
        for (int i = 0; i < shared_of<COLS, Q4>::stages; i++) {
            mm_barrier_init(&sh.here[i], 1);
            mm_barrier_init(&sh.free[i], 8 * t.givers);
        }
        mm_barrier_inits_done();
    }
    __syncthreads();
    if (threadIdx.x < 256) {
        multiply<COLS, Q4>(t, rows, sh);
    } else if (threadIdx.x == 256) {
        bring<COLS, Q4>(t, rows, sh);
    }
}

#endif

template <int COLS, bool Q4>
static __global__ void __launch_bounds__(mm_many_product_threads, 1)
    many_product_of_codes(const __grid_constant__ struct mm_many_task t,
                          const __grid_constant__ struct mm_many_rows_of rows) {
#if MM_HOPPER
    MM_DYNAMIC_SHARED(memory);
    run<COLS, Q4>(t, rows, memory);
#endif
}

// The two products of one operand of which one stays bf16; the other is q8.
template <int COLS>
static __global__ void __launch_bounds__(mm_many_product_threads, 1)
    many_products(const __grid_constant__ struct mm_many_task t,
                  const __grid_constant__ struct mm_many_rows_of rows,
                  const __grid_constant__ struct mm_many_task beside) {
#if MM_HOPPER
    MM_DYNAMIC_SHARED(memory);
    if ((int)blockIdx.x < beside.block) {
        run<COLS, false>(t, rows, memory);
    } else {
        mm_many_run_bf16<COLS == 32 ? 64 : COLS>(beside, memory);
    }
#endif
}

static bool asked(struct mm_backend *be, const void *kernel, size_t bytes) {
    return mm_cuda_ok(
        be, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        "asking for shared memory for products");
}

template <int COLS, bool Q4>
static void launch(struct mm_backend *be, const struct mm_many_task &t,
                   const struct mm_many_rows_of &rows) {
    const size_t bytes = sizeof(struct shared_of<COLS, Q4>);
    if (asked(be, (const void *)many_product_of_codes<COLS, Q4>, bytes))
        mm_many_launch(be, true, "a product of many sequences", many_product_of_codes<COLS, Q4>,
                       dim3((unsigned)t.blocks), dim3(mm_many_product_threads), bytes, t, rows);
}

template <int COLS>
static void launch_two(struct mm_backend *be, const struct mm_many_task &t,
                       const struct mm_many_rows_of &rows, const struct mm_many_task &beside) {
    const size_t codes = sizeof(struct shared_of<COLS, false>),
                 bf16 = sizeof(struct mm_many_bf16 < COLS == 32 ? 64 : COLS >),
                 bytes = bf16 > codes ? bf16 : codes;
    if (asked(be, (const void *)many_products<COLS>, bytes))
        mm_many_launch(be, true, "two products of many sequences", many_products<COLS>,
                       dim3((unsigned)(t.blocks + beside.blocks)), dim3(mm_many_product_threads),
                       bytes, t, rows, beside);
}

int mm_many_codes_box(int64_t padded) {
    return padded <= 32 ? 32 : 64;
}

void mm_many_product_of_codes(struct mm_backend *be, const struct mm_many_task &t,
                              const struct mm_many_rows_of &rows, bool q4, int64_t padded) {
    if (padded <= 32) {
        q4 ? launch<32, true>(be, t, rows) : launch<32, false>(be, t, rows);
    } else if (padded <= 64) {
        q4 ? launch<64, true>(be, t, rows) : launch<64, false>(be, t, rows);
    } else {
        q4 ? launch<128, true>(be, t, rows) : launch<128, false>(be, t, rows);
    }
}

void mm_many_products_of_q8(struct mm_backend *be, const struct mm_many_task &t,
                            const struct mm_many_rows_of &rows, const struct mm_many_task &beside,
                            int64_t padded) {
    if (padded <= 32) {
        launch_two<32>(be, t, rows, beside);
    } else if (padded <= 64) {
        launch_two<64>(be, t, rows, beside);
    } else {
        launch_two<128>(be, t, rows, beside);
    }
}
