// Products of slots of a queue, 16 rows, and the 8 columns that sequences are, or of one sequence.
// Slots are multiplied two or four at a time, so that they wait for shared memory together: a warp
// has only two others beside it.
//
// A lane has 16 bytes of a row as they lie in memory. Words 0 and 2 of the four make one step of a
// tensor-core product and words 1 and 3 another, with sums of their own; operands have their words
// in the order 0, 2, 1, 3 for that.
#ifndef MM_OPS_CUDA_STEP_SLOT_CUH
#define MM_OPS_CUDA_STEP_SLOT_CUH

#include "ops/cuda/step_queue.cuh"

__device__ inline void mm_mma_bf16(float c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                   uint32_t b0, uint32_t b1) {
    const uint32_t a[4] = {a0, a1, a2, a3};
    mm_mma(*(float(*)[4])c, a, b0, b1);
}
__device__ inline void mm_mma_s8(int c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                 uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ inline void mm_mma_u8(int c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                 uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline float mm_half_of(uint32_t bits) {
    return __half2float(__ushort_as_half((unsigned short)bits));
}
// Four factors of 4 bits as four bytes.
__device__ inline uint32_t mm_spread(uint32_t f) {
    return (f & 0xf) | (f & 0xf0) << 4 | (f & 0xf00) << 8 | (f & 0xf000) << 12;
}

// Neighbours of a row's slots and where they begin in the operand.
struct mm_step_pair {
    const char *from;  // the operand
    int n;             // its sequences
    uint32_t slot[4];  // of two pairs, where there are as many
    uint32_t scales;   // where their scales are held, and which those are
    struct mm_scales of;
    int at, s;  // the first: counted from the row's begin; from the operand's
    bool two;   // whether the second is there
};

// A warp's sums of a tile, as its products leave them; end() makes of them what it is: c[e] of row
// g and sequence 2 t + e, c[2 + e] of row g + 8.
//   bf16    even and odd words of columns 0 to 31 of every slot, and of the others
//   exact   even and odd words, of every part of the operand
//   codes   first slots of pairs, second ones
// All are added two and two, so that one sequence and many have the same sum.
template <class KERNEL>
struct mm_step_sums {
    static constexpr int most = KERNEL::weights == mm_dtype_bf16 ? 4 : 6;
    float s[most][4];

    __device__ __forceinline__ void end(float c[4], int) const {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            c[e] = (s[0][e] + s[1][e]) + (s[2][e] + s[3][e]);
            if (most > 4) c[e] += s[most - 2][e] + s[most - 1][e];
        }
    }
};

// A slot and what it meets, as a lane holds them.
template <class KERNEL, int TYPE>
struct mm_slot {
    // half as long; the operand is in parts
    static constexpr bool small = KERNEL::small && TYPE != mm_dtype_q4;
    static constexpr bool exact = TYPE == mm_dtype_bf16 && KERNEL::weights != mm_dtype_bf16;
    static constexpr bool wide = !small && TYPE != mm_dtype_q4;  // 2048 bytes
    static constexpr int parts = exact ? mm_exact_parts : 1;
    uint4 g[2], h[2];                // of rows g and g + 8
    uint4 low[parts], high[parts];   // of sequence g: the k that meet them
    uint32_t scales[2], factors[2];  // of rows g and g + 8
    float r[2];                      // scales of sequences 2 t and 2 t + 1
    int sums[2][2];  // q4: sums of their codes in groups 0 and 1, and 2 and 3, 16 bits each

    // Where there are fewer sequences than columns, some are multiplied again, and nobody looks.
    __device__ __forceinline__ void load(const struct mm_step_pair &p, int i) {
        const int lane = threadIdx.x % 32, row = lane / 4, t = lane % 4, s = p.s + i;
        const int seq = min(row, p.n - 1);
        const uint32_t at = p.slot[i] + lane * 16;
        g[0] = mm_load16_shared(at), h[0] = mm_load16_shared(at + (wide ? 1024 : 512));
        if (wide) g[1] = mm_load16_shared(at + 512), h[1] = mm_load16_shared(at + 1536);
        if constexpr (exact) {
            const int unit = small ? s / 2 : s;  // of 64 columns
            const char *x = p.from + (unit * p.n + seq) * (mm_step_row_exact / 2) +
                            (small ? s % 2 * 64 : 0) + t * 16;
#pragma unroll
            for (int e = 0; e < parts; e++) {
                low[e] = *(const uint4 *)(x + e * 128);
                if (!small) high[e] = *(const uint4 *)(x + e * 128 + 64);
            }
        } else if constexpr (TYPE == mm_dtype_bf16) {
            const char *x = p.from + (s / 2 * p.n + seq) * mm_step_row_bf16 + s % 2 * 128 + t * 16;
            low[0] = *(const uint4 *)x, high[0] = *(const uint4 *)(x + 64);
        } else {
            const int b = small ? s / 2 : s;
            const char *x = p.from + (b * p.n + seq) * KERNEL::row_codes + t * 16;
            low[0] = *(const uint4 *)(x + (small ? s % 2 * 64 : 0));
            if (!small) high[0] = *(const uint4 *)(x + 64);
            const uint32_t of_row = p.scales + row * KERNEL::scales_row;
            const int block = small ? (p.at + i) / 2 : p.at + i;
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const uint32_t of = of_row + e * 8 * KERNEL::scales_row;
                scales[e] = mm_load2_shared(of + p.of.scale(block));
                if (TYPE == mm_dtype_q4)
                    factors[e] = mm_load2_shared(of + KERNEL::factors + p.of.factors(block));
            }
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const char *of = p.from + (b * p.n + min(2 * t + e, p.n - 1)) * KERNEL::row_codes;
                r[e] = *(const float *)(of + 128);
                if constexpr (TYPE == mm_dtype_q4) {
                    const uint2 of_codes = *(const uint2 *)(of + 136);
                    sums[e][0] = (int)of_codes.x, sums[e][1] = (int)of_codes.y;
                }
            }
        }
    }

    __device__ __forceinline__ void bf16(float (*s)[4]) const {
#pragma unroll
        for (int e = 0; e < parts; e++) {
            float(*first)[4] = s + 2 * e, (*second)[4] = exact ? first : s + 2;
            mm_mma_bf16(first[0], g[0].x, h[0].x, g[0].z, h[0].z, low[e].x, low[e].y);
            mm_mma_bf16(first[1], g[0].y, h[0].y, g[0].w, h[0].w, low[e].z, low[e].w);
            if (!wide) continue;
            mm_mma_bf16(second[0], g[1].x, h[1].x, g[1].z, h[1].z, high[e].x, high[e].y);
            mm_mma_bf16(second[1], g[1].y, h[1].y, g[1].w, h[1].w, high[e].z, high[e].w);
        }
    }
    __device__ __forceinline__ void q8(int i[4]) const {
        mm_mma_s8(i, g[0].x, h[0].x, g[0].z, h[0].z, low[0].x, low[0].y);
        mm_mma_s8(i, g[0].y, h[0].y, g[0].w, h[0].w, low[0].z, low[0].w);
        if (!wide) return;
        mm_mma_s8(i, g[1].x, h[1].x, g[1].z, h[1].z, high[0].x, high[0].y);
        mm_mma_s8(i, g[1].y, h[1].y, g[1].w, h[1].w, high[0].z, high[0].w);
    }
    // u (c + 8) of four codes in one multiplication; 8 u times the sum of x goes off again
    __device__ __forceinline__ void q4(int i[4]) const {
        const uint32_t fg = factors[0], fh = factors[1];
        const uint32_t ug = mm_spread(fg), uh = mm_spread(fh);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            i[e] = -8 * __dp2a_lo(sums[e][0], (int)ug, __dp2a_hi(sums[e][1], (int)ug, 0));
            i[e + 2] = -8 * __dp2a_lo(sums[e][0], (int)uh, __dp2a_hi(sums[e][1], (int)uh, 0));
        }
        const uint32_t mask = 0x0f0f0f0fu;
        const int shift = threadIdx.x % 4 / 2 * 4;
        const uint32_t gl = fg >> shift & 15, gh = fg >> (8 + shift) & 15;
        const uint32_t hl = fh >> shift & 15, hh = fh >> (8 + shift) & 15;
        const uint4 u = g[0], v = h[0];
        mm_mma_u8(i, (u.x & mask) * gl, (v.x & mask) * hl, (u.z & mask) * gl, (v.z & mask) * hl,
                  low[0].x, low[0].y);
        mm_mma_u8(i, (u.y & mask) * gl, (v.y & mask) * hl, (u.w & mask) * gl, (v.w & mask) * hl,
                  low[0].z, low[0].w);
        mm_mma_u8(i, (u.x >> 4 & mask) * gh, (v.x >> 4 & mask) * hh, (u.z >> 4 & mask) * gh,
                  (v.z >> 4 & mask) * hh, high[0].x, high[0].y);
        mm_mma_u8(i, (u.y >> 4 & mask) * gh, (v.y >> 4 & mask) * hh, (u.w >> 4 & mask) * gh,
                  (v.w >> 4 & mask) * hh, high[0].z, high[0].w);
    }
    // to: what comes of codes
    __device__ __forceinline__ void multiply(float (*s)[4], int to) const {
        if constexpr (TYPE == mm_dtype_bf16) {
            bf16(s);
        } else {
            int i[4] = {0, 0, 0, 0};
            if constexpr (TYPE == mm_dtype_q4) {
                q4(i);
            } else {
                q8(i);
            }
            const float sg = mm_half_of(scales[0]), sh = mm_half_of(scales[1]);
            float *c = s[to];
            c[0] = fmaf(sg * r[0], (float)i[0], c[0]);
            c[1] = fmaf(sg * r[1], (float)i[1], c[1]);
            c[2] = fmaf(sh * r[0], (float)i[2], c[2]);
            c[3] = fmaf(sh * r[1], (float)i[3], c[3]);
        }
    }
};

template <class KERNEL, int TYPE>
__device__ __forceinline__ void mm_pair_of(struct mm_step_sums<KERNEL> &sums,
                                           const struct mm_step_pair &p) {
    mm_slot<KERNEL, TYPE> first;
    first.load(p, 0);
    if (p.two) {
        mm_slot<KERNEL, TYPE> second;
        second.load(p, 1);
        first.multiply(sums.s, 0);
        second.multiply(sums.s, 1);
    } else {
        first.multiply(sums.s, 0);
    }
}

template <class KERNEL>
__device__ __forceinline__ void mm_pair(struct mm_step_sums<KERNEL> &sums,
                                        const struct mm_step_pair &p, int type) {
    if (KERNEL::weights == mm_dtype_bf16 || type == mm_dtype_bf16) {
        mm_pair_of<KERNEL, mm_dtype_bf16>(sums, p);
    } else if constexpr (KERNEL::weights != mm_dtype_bf16) {
        if (KERNEL::weights == mm_dtype_q8 || type == mm_dtype_q8) {
            mm_pair_of<KERNEL, mm_dtype_q8>(sums, p);
        } else {
            mm_pair_of<KERNEL, mm_dtype_q4>(sums, p);
        }
    }
}

// ---- one sequence ----
// Seven columns of eight have no sequence, so they do something else. A lane's 16 bytes are the
// product's 16 x 16 operand as they are: its rows g are words 0 and 2, its rows g + 8 words 1 and
// 3, all of row g of the tile (or of its row g + 8, in a product of its own). Column 0 has what
// meets the even words, column 1 what meets the odd ones, and what is wanted is c[0] + c[3] of
// lanes t = 0. The other pairs of columns, whose sums the lanes t > 0 have, are for other parts of
// an exact operand, or for other groups of 32 columns, each of which has a factor of its own in q4.

// The thread, of `of` of them. What is made of it is made again where it is wanted, for every slot,
// or every product of a group: kept through a whole token, as the compiler would, it takes the
// registers that loads on their way need.
__device__ __forceinline__ uint32_t mm_thread_again(int of) {
    uint32_t thread = threadIdx.x % of;
    asm volatile("" : "+r"(thread));
    return thread;
}

template <class KERNEL>
struct mm_one_sums {
    // bf16, exact: rows g and g + 8 of a slot's columns 0 to 31, then of the others (exact: no
    // difference). q8: s[e] of pairs' first or second slots, s[e][0] row g, s[e][2] row g + 8.
    // q4: own[0] of lane 4 g + t is the sum of row g + 8 (t % 2), of first slots where t < 2.
    float s[4][4], own;

    __device__ __forceinline__ void end(float c[4], int type) const {
        c[1] = c[3] = 0.0f;
        if (KERNEL::weights == mm_dtype_q4 && type == mm_dtype_q4) {
            const float sum = own + __shfl_down_sync(0xffffffffu, own, 2);
            c[0] = sum, c[2] = __shfl_down_sync(0xffffffffu, sum, 1);
            return;
        }
        const bool exact = KERNEL::weights != mm_dtype_bf16 && type == mm_dtype_bf16;
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const float even = s[row][0] + s[row][3];
            if (exact) {
                const float second = __shfl_down_sync(0xffffffffu, even, 1);
                c[2 * row] = even + second + __shfl_down_sync(0xffffffffu, even, 2);
            } else if (KERNEL::weights == mm_dtype_bf16) {
                c[2 * row] = even + (s[2 + row][0] + s[2 + row][3]);
            } else {
                c[2 * row] = s[0][2 * row] + s[1][2 * row];
            }
        }
    }
};

__device__ __forceinline__ void mm_one_mma(float (&c)[4], uint4 w, uint2 x) {
    mm_mma_bf16(c, w.x, w.y, w.z, w.w, x.x, x.y);
}
__device__ __forceinline__ void mm_one_mma(int (&c)[4], uint4 w, uint2 x) {
    mm_mma_s8(c, w.x, w.y, w.z, w.w, x.x, x.y);
}

template <class KERNEL>
__device__ __forceinline__ void mm_one_bf16(struct mm_one_sums<KERNEL> &sums,
                                            const struct mm_step_pair &p, uint32_t lane) {
    constexpr bool exact = KERNEL::weights != mm_dtype_bf16, wide = !KERNEL::small;
    const int g = lane / 4, t = lane % 4;
    const int place = t * 16 + g % 2 * 8 + (exact ? min(g / 2, mm_exact_parts - 1) * 128 : 0);
    uint4 w[2][4];
    uint2 x[2][2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int s = p.s + (i && p.two ? 1 : 0), unit = exact && wide ? s : s / 2;
        const int in = exact && wide ? 0 : s % 2 * (wide ? 128 : 64);
        const char *from =
            p.from + unit * (exact ? mm_step_row_exact / 2 : mm_step_row_bf16) + in + place;
        const uint32_t at = p.slot[i] + lane * 16;
#pragma unroll
        for (int e = 0; e < (wide ? 2 : 1); e++) {
            w[i][2 * e] = mm_load16_shared(at + e * KERNEL::piece_next);
            w[i][2 * e + 1] = mm_load16_shared(at + e * KERNEL::piece_next + KERNEL::piece_below);
            x[i][e] = *(const uint2 *)(from + e * 64);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (i && !p.two) break;
#pragma unroll
        for (int e = 0; e < (wide ? 2 : 1); e++) {
            const int to = exact ? 0 : 2 * e;
            mm_one_mma(sums.s[to], w[i][2 * e], x[i][e]);
            mm_one_mma(sums.s[to + 1], w[i][2 * e + 1], x[i][e]);
        }
    }
}

template <class KERNEL>
__device__ __forceinline__ void mm_one_q8(struct mm_one_sums<KERNEL> &sums,
                                          const struct mm_step_pair &p, uint32_t lane) {
    constexpr bool wide = !KERNEL::small;
    const int g = lane / 4, t = lane % 4;
    uint4 w[2][4];
    uint2 x[2][2];
    uint32_t scales[2][2];
    float r[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int s = p.s + (i && p.two ? 1 : 0), at = p.at + (i && p.two ? 1 : 0);
        const char *row = p.from + (wide ? s : s / 2) * KERNEL::row_codes;
        const char *from = row + (wide ? 0 : s % 2 * 64) + t * 16 + g % 2 * 8;
        const uint32_t of = p.scales + g * KERNEL::scales_row + p.of.scale(wide ? at : at / 2);
        const uint32_t slot = p.slot[i] + lane * 16;
#pragma unroll
        for (int e = 0; e < (wide ? 2 : 1); e++) {
            w[i][2 * e] = mm_load16_shared(slot + e * KERNEL::piece_next);
            w[i][2 * e + 1] = mm_load16_shared(slot + e * KERNEL::piece_next + KERNEL::piece_below);
            x[i][e] = *(const uint2 *)(from + e * 64);
        }
        scales[i][0] = mm_load2_shared(of);
        scales[i][1] = mm_load2_shared(of + 8 * KERNEL::scales_row);
        r[i] = *(const float *)(row + 128);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (i && !p.two) break;
#pragma unroll
        for (int row = 0; row < 2; row++) {
            int c[4] = {0, 0, 0, 0};
            mm_one_mma(c, w[i][row], x[i][0]);
            if (wide) mm_one_mma(c, w[i][2 + row], x[i][1]);
            float *sum = &sums.s[i][2 * row];
            *sum = fmaf(mm_half_of(scales[i][row]) * r[i], (float)(c[0] + c[3]), *sum);
        }
    }
}

// Groups of q4 in pairs of columns: 0 and 1 meet low halves of bytes, 2 and 3 high ones. Low halves
// are masked; high ones are not, so what their low halves add goes off again, which the negated
// codes in the operand do. A code is c + 8, and the operand has what all the 8 add.
// Where a lane's numbers are, from the begins of an operand's row, of scales and of factors, and
// what it does with factors.
struct alignas(16) mm_q4_lane {
    uint16_t low, high, eights, r;
    uint8_t turn, mask;
    uint16_t scales, factors, none;
};
template <class KERNEL>
__device__ __forceinline__ struct mm_q4_lane mm_q4_lane_make(int lane) {
    const int g = lane / 4, t = lane % 4, group = g / 2, place = t * 16 + g % 2 * 8;
    const bool meets = group % 2 == t / 2;
    struct mm_q4_lane of = {};
    of.low = (uint16_t)(meets ? place + (group < 2 ? 0 : mm_step_negated) : mm_step_zeros);
    of.high = (uint16_t)(meets && group >= 2 ? place + 64 : mm_step_zeros);
    of.eights = (uint16_t)(mm_step_eights + t * 4);
    // that of the slot, of two, whose sum the lane adds up
    of.r = (uint16_t)(128 + (t >= 2 ? KERNEL::row_codes : 0));
    // the lane's group's factor, 16 times where it meets low halves: its place, turned to the left
    of.turn = (uint8_t)(t == 0 ? 28 : t == 1 ? 0 : t * 4), of.mask = t < 2 ? 0xf0 : 0xf;
    of.scales = (uint16_t)((g + t % 2 * 8) * KERNEL::scales_row);
    of.factors = (uint16_t)(g * KERNEL::scales_row);
    return of;
}

template <class KERNEL, int PAIRS>
__device__ __forceinline__ void mm_one_q4(float &own, const struct mm_step_pair &p, uint32_t lane) {
    const bool two = PAIRS > 1 || p.two;
    const int g = lane / 4, t = lane % 4;
    const struct mm_q4_lane my = mm_q4_lane_make<KERNEL>((int)lane);
    const uint32_t of_row = p.scales + g * KERNEL::scales_row;
    int sums[2 * PAIRS][2] = {};
#pragma unroll
    for (int i = 0; i < 2 * PAIRS; i++) {
        if (i == 1 && !two) break;
        const char *x = p.from + (p.s + i) * KERNEL::row_codes;
        const uint2 xl = *(const uint2 *)(x + my.low), xh = *(const uint2 *)(x + my.high);
        const int eights = *(const int *)(x + my.eights);
        const uint32_t factors = of_row + KERNEL::factors + p.of.factors(p.at + i);
        const uint32_t slot = p.slot[i] + lane * 16, m = 0x0f0f0f0fu;
        const uint4 w[2] = {mm_load16_shared(slot), mm_load16_shared(slot + 512)};
        uint32_t f[2];
#pragma unroll
        for (int row = 0; row < 2; row++)
            f[row] = mm_load2_shared(factors + row * 8 * KERNEL::scales_row);
        int c[2][4] = {};
#pragma unroll
        for (int row = 0; row < 2; row++)
            mm_mma_u8(c[row], w[row].x & m, w[row].y & m, w[row].z & m, w[row].w & m, xl.x, xl.y);
#pragma unroll
        for (int row = 0; row < 2; row++)
            mm_mma_u8(c[row], w[row].x, w[row].y, w[row].z, w[row].w, xh.x, xh.y);
#pragma unroll
        for (int row = 0; row < 2; row++)
            sums[i][row] = (int)(__funnelshift_r(f[row], f[row], my.turn) & my.mask) *
                           (c[row][0] + c[row][3] + eights);
    }
    // four lanes have a part of four sums of a pair each, and add up one
    const bool second = t >= 2, odd = t & 1;
    int sum[PAIRS];
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        const int(*of)[2] = sums + 2 * k;
        int to[2];
#pragma unroll
        for (int e = 0; e < 2; e++)
            to[e] = (second ? of[1][e] : of[0][e]) +
                    __shfl_xor_sync(0xffffffffu, second ? of[0][e] : of[1][e], 2);
        sum[k] = (odd ? to[1] : to[0]) + __shfl_xor_sync(0xffffffffu, odd ? to[0] : to[1], 1);
    }
    if (second && !two) return;
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        const int i = 2 * k + (second ? 1 : 0);
        const uint32_t of = of_row + (odd ? 8 * KERNEL::scales_row : 0) + p.of.scale(p.at + i);
        const float r = *(const float *)(p.from + (p.s + i) * KERNEL::row_codes + 128);
        own = fmaf(mm_half_of(mm_load2_shared(of)) * r, (float)(sum[k] >> 4), own);
    }
}

// four: the slots are two pairs.
template <class KERNEL>
__device__ __forceinline__ void mm_one(struct mm_one_sums<KERNEL> &sums,
                                       const struct mm_step_pair &p, int type, bool four,
                                       uint32_t lane) {
    if (KERNEL::weights == mm_dtype_bf16 || type == mm_dtype_bf16) {
        mm_one_bf16<KERNEL>(sums, p, lane);
    } else if constexpr (KERNEL::weights != mm_dtype_bf16) {
        if (KERNEL::weights == mm_dtype_q8 || type == mm_dtype_q8) {
            mm_one_q8<KERNEL>(sums, p, lane);
        } else if (four) {
            mm_one_q4<KERNEL, 2>(sums.own, p, lane);
        } else {
            mm_one_q4<KERNEL, 1>(sums.own, p, lane);
        }
    }
}

#endif
