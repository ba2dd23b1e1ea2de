// What the products of step_many_hopper.cu (bf16) and step_many_codes.cu (q8, q4) share. x w^T of
// few rows x is a matter of bringing w: 128 rows of it at a time go through shared memory in steps
// of 128 bytes, several steps ahead, and two groups of four warps multiply 64 of them each; or 96
// or 64 rows where more multiprocessors then have some. Weights do not depend on the kernel before,
// so the first steps are on their way while it ends. Where k is cut into parts and a norm follows,
// the blocks of a tile meet when all parts are in memory, and each adds up some of the rows.
#ifndef MM_OPS_CUDA_STEP_MANY_TILE_CUH
#define MM_OPS_CUDA_STEP_MANY_TILE_CUH

#include "ops/cuda/attention_hopper.cuh"
#include "ops/cuda/step_many_hopper.cuh"

enum { mm_many_tile = 128, mm_many_step_bytes = 128, mm_many_product_threads = 288 };
enum { mm_many_half_rows = 64, mm_many_half_bytes = mm_many_half_rows * mm_many_step_bytes };

struct mm_many_task {
    CUtensorMap w, w3, x;
    float *out;
    struct mm_many_operand gated;  // given: `out` is not
    float *gated_sums;
    unsigned *gated_met;
    int64_t out_ld, part;
    int rows, steps, n, parts, tiles;
    int block, blocks;  // of the launch: the first of this product's, and how many it has
    int half;           // rows of w that each group has of a tile, a multiple of 16
    bool both;          // w3 is there: its rows are the second half
    int givers;         // lanes of a warp that say that it has read (mm_cuda_givers)
    bool wide;          // rows of out can be written four at a time
    struct mm_many_ahead ahead;
    struct mm_many_norm_before before;
    struct mm_many_norm_after after;
};

// The sums of a tile before they are written.
template <int COLS>
struct mm_many_sums {
    enum { ld = mm_many_tile + 4 };
    float out[COLS * ld];
    float factor[COLS];  // of every row's sums
    unsigned shares;     // of the rows of the tile, that this block adds up: a bit each
};

#if MM_HOPPER

// Of the product's blocks.
__device__ inline int mm_many_block(const struct mm_many_task &t) {
    return (int)blockIdx.x - t.block;
}

// Piece `u` of the work: a tile of w's rows and a part of k.
struct mm_many_piece {
    int row, part, from, to;  // row: the first; steps [from, to)
    __device__ mm_many_piece(const struct mm_many_task &t, int u) {
        const int a_tile = t.both ? t.half : 2 * t.half;
        row = u / t.parts * a_tile, part = u % t.parts;
        from = t.steps * part / t.parts, to = t.steps * (part + 1) / t.parts;
    }
};

// One thread brings all steps in their order: `f(number, row, step)` for each from `begin` on.
template <class F>
__device__ inline int mm_many_each_step(const struct mm_many_task &t, int begin, int end,
                                        const F &f) {
    int n = 0;
    for (int u = mm_many_block(t); u < t.tiles * t.parts; u += t.blocks) {
        const struct mm_many_piece p(t, u);
        for (int k = p.from; k < p.to; k++, n++) {
            if (n >= end) return n;
            if (n >= begin) f(n, p.row, k);
        }
    }
    return n;
}

// weights: says how many bytes a step is and brings those of w; rows: brings those of x.
template <class W, class X>
__device__ inline void mm_many_bring_steps(const struct mm_many_task &t, int stages, uint64_t *free,
                                           const W &weights, const X &rows) {
    const bool all = mm_many_each_step(t, 0, stages, weights) < stages;
    if (all) mm_many_bring(t.ahead, mm_many_block(t), t.blocks);
    mm_many_wait();
    mm_many_each_step(t, 0, stages, rows);
    if (all) return;
    mm_many_each_step(t, stages, INT32_MAX, [&](int n, int row, int k) {
        mm_barrier_wait(&free[n % stages], (n / stages - 1) & 1);
        weights(n, row, k);
        rows(n, row, k);
    });
    mm_many_bring(t.ahead, mm_many_block(t), t.blocks);
}

// The step of a tile of w, both halves.
__device__ inline void mm_many_bring_tile(const struct mm_many_task &t, void *to, int row, int k,
                                          uint64_t *here) {
    const int col = k * mm_many_step_bytes / 2;  // of the map
    mm_tile_copy(to, &t.w, col, 0, row, here);
    mm_tile_copy((char *)to + mm_many_half_bytes, t.both ? &t.w3 : &t.w, col, 0,
                 t.both ? row : row + t.half, here);
}

__device__ inline void mm_many_multipliers_meet() {
    asm volatile("bar.sync 1, 256;" ::: "memory");
}

__device__ inline float4 mm_many_times(float4 x, float f) {
    return make_float4(x.x * f, x.y * f, x.z * f, x.w * f);
}

// The tiles' squares are added in their order, so a row's factor depends on that row only.
__device__ inline void mm_many_find_factors(const struct mm_many_task &t, float *factor) {
    for (int r = threadIdx.x; r < t.n; r += 256) {
        float ss = 0.0f;
#pragma unroll 8
        for (int i = 0; t.before.ss && i < t.before.tiles; i++)
            ss += t.before.ss[r * t.before.tiles + i];
        factor[r] = t.before.ss ? rsqrtf(ss / (float)t.before.cols + t.before.eps) : 1.0f;
    }
}

// ---- blocks that meet ----

// Of a tile's word the low bits count the parts that are there; above are those whose blocks left.
enum { mm_many_met_bits = 8, mm_many_patience = 1 << 14 };

// Says that a part of the tile is in memory, waits for the others, and returns which shares of the
// rows are the caller's. All blocks have room at once unless others use the device, too; so who has
// waited long leaves its share to the last one, and nothing waits for a block that cannot begin.
__device__ inline unsigned mm_many_meet(unsigned *met, int part, int parts) {
    enum { all_met = (1 << mm_many_met_bits) - 1 };
    const unsigned mine = 1u << part;
    unsigned was = mm_many_add(met, 1);
    bool all = (int)(was & all_met) + 1 == parts;
    const unsigned others = all ? was >> mm_many_met_bits : 0;
    for (int i = 0; !all && i < mm_many_patience; i++)
        all = (int)(mm_many_read(met) & all_met) == parts;
    if (!all) {
        was = mm_many_add(met, mine << mm_many_met_bits);
        all = (int)(was & all_met) == parts;
    }
    return all ? mine | others : 0;
}

// Four columns of a row: the parts in their order onto x, and what the norm needs of it.
__device__ inline void mm_many_add_row(const struct mm_many_task &t, int r, int c, int a_tile,
                                       float4 x, float4 w) {
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
    if (in) *(float4 *)(t.after.x + (int64_t)r * t.rows + c) = x;
    mm_many_put(t.after.u, r, c, make_float4(x.x * w.x, x.y * w.y, x.z * w.z, x.w * w.w), in);
}

// A warp has a row at a time; what does not depend on the other blocks is loaded before they meet.
__device__ inline void mm_many_add_up(const struct mm_many_task &t, const struct mm_many_piece &p,
                                      unsigned *shares) {
    const int warp = threadIdx.x / 32, c = p.row + threadIdx.x % 32 * 4,
              a_tile = p.row / mm_many_tile;
    const auto first_of = [&](int share) { return t.n * share / t.parts + warp; };
    const auto x_of = [&](int r) {
        return c < t.rows && r < t.n ? *(const float4 *)(t.after.x + (int64_t)r * t.rows + c)
                                     : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    };
    const int mine = first_of(p.part);
    const float4 x = x_of(mine), w = c < t.rows ? *(const float4 *)(t.after.w + c) : x;
    mm_many_multipliers_meet();
    if (threadIdx.x == 0) *shares = mm_many_meet(t.after.met + a_tile, p.part, t.parts);
    mm_many_multipliers_meet();
    for (int share = 0; share < t.parts; share++) {
        if (!(*shares >> share & 1)) continue;
        const int end = t.n * (share + 1) / t.parts;
        for (int r = first_of(share); r < end; r += 8)
            mm_many_add_row(t, r, c, a_tile, r == mine ? x : x_of(r), w);
    }
}

// Two tiles of 64 columns are a block of codes: their blocks meet, and each has half of the rows.
__device__ inline void mm_many_code_gated(const struct mm_many_task &t,
                                          const struct mm_many_piece &p, unsigned *shares) {
    const int warp = threadIdx.x / 32, pair = p.row / mm_quant_block,
              c = pair * mm_quant_block + threadIdx.x % 32 * 4;
    mm_many_multipliers_meet();
    if (threadIdx.x == 0)
        *shares = mm_many_meet(t.gated_met + pair, p.row / mm_many_half_rows % 2, 2);
    mm_many_multipliers_meet();
    for (int share = 0; share < 2; share++) {
        if (!(*shares >> share & 1)) continue;
        const int end = t.n * (share + 1) / 2;
#pragma unroll 4
        for (int r = t.n * share / 2 + warp; r < end; r += 8)
            mm_many_put(t.gated, r, c,
                        __ldcg((const float4 *)(t.gated_sums + (int64_t)r * t.rows + c)), true);
    }
}

// ---- what becomes of sums ----

// silu(a) * b of a tile's two halves.
template <int COLS>
__device__ inline void mm_many_write_gated(const struct mm_many_task &t,
                                           const struct mm_many_piece &p,
                                           const struct mm_many_sums<COLS> &sums) {
    enum { ld = mm_many_sums<COLS>::ld };
    for (int e = threadIdx.x; e < t.n * 16; e += 256) {
        const int r = e / 16, c = e % 16 * 4;
        if (p.row + c >= t.rows) continue;
        const float4 a = mm_many_times(*(const float4 *)&sums.out[r * ld + c], sums.factor[r]),
                     b = mm_many_times(*(const float4 *)&sums.out[r * ld + 64 + c], sums.factor[r]);
        const float4 y = make_float4(a.x * mm_sigmoid(a.x) * b.x, a.y * mm_sigmoid(a.y) * b.y,
                                     a.z * mm_sigmoid(a.z) * b.z, a.w * mm_sigmoid(a.w) * b.w);
        const int64_t at = (int64_t)r * t.rows + p.row + c;
        if (t.gated.u) {
            *(uint2 *)(t.gated.u + at) = mm_many_halves(y.x, y.y, y.z, y.w);
        } else {
            *(float4 *)(t.gated_sums + at) = y;
        }
    }
}

// COLS rows of 128 columns, or as many as the tile has, to where they go.
template <int COLS>
__device__ inline void mm_many_write(const struct mm_many_task &t, const struct mm_many_piece &p,
                                     const struct mm_many_sums<COLS> &sums) {
    for (int e = threadIdx.x; e < t.n * 32; e += 256) {
        const int r = e / 32, c = e % 32 * 4;
        if (c >= 2 * t.half) continue;
        float *to = t.out + t.part * p.part + r * t.out_ld + p.row + c;
        const float4 a = mm_many_times(*(const float4 *)&sums.out[r * mm_many_sums<COLS>::ld + c],
                                       sums.factor[r]);
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

// A group's sums d of a piece, and all that follows. false: the block has nothing else to do.
template <int COLS>
__device__ inline bool mm_many_finish(const struct mm_many_task &t, const struct mm_many_piece &p,
                                      struct mm_many_sums<COLS> &sums, const float *d) {
    enum { ld = mm_many_sums<COLS>::ld };
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    mm_many_multipliers_meet();  // the last tile was written
    float *to = sums.out + group * t.half + warp * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < COLS / 8; j++) {
        if (warp * 16 >= t.half) break;  // of rows that were not brought
        const int r = j * 8 + lane % 4 * 2;
        to[r * ld] = d[4 * j], to[(r + 1) * ld] = d[4 * j + 1];
        to[r * ld + 8] = d[4 * j + 2], to[(r + 1) * ld + 8] = d[4 * j + 3];
    }
    mm_many_multipliers_meet();
    if (t.both) {
        mm_many_write_gated<COLS>(t, p, sums);
        if (t.gated.codes) mm_many_code_gated(t, p, &sums.shares);
        return true;
    }
    mm_many_write<COLS>(t, p, sums);
    if (!t.after.x) return true;
    mm_many_add_up(t, p, &sums.shares);
    return false;  // a block has one piece
}

#endif

// step_many_codes.cu: `q4` or q8. code_bytes, row_bytes: of w's rows, which begin at w and w3.
struct mm_many_rows_of {
    const char *w, *w3;
    int64_t row_bytes, code_bytes;
    const float *x_scales;
    int64_t x_scales_ld;
};
void mm_many_product_of_codes(struct mm_backend *be, const struct mm_many_task &t,
                              const struct mm_many_rows_of &rows, bool q4, int64_t padded);
// beside: a product of bf16 in the same launch, whose blocks follow.
void mm_many_products_of_q8(struct mm_backend *be, const struct mm_many_task &t,
                            const struct mm_many_rows_of &rows, const struct mm_many_task &beside,
                            int64_t padded);
// Rows of x that its map brings at a time.
int mm_many_codes_box(int64_t padded);

#endif
