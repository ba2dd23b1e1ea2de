// Products of slots of a queue, 16 rows, and the 8 columns that sequences are; two slots at a time,
// whose chains of products do not wait for each other: a warp has only two others beside it.
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

__device__ inline float mm_half_of(uint32_t pair, int which) {
    return __half2float(__ushort_as_half((unsigned short)(which ? pair >> 16 : pair & 0xffff)));
}
// Four factors of 4 bits as four bytes.
__device__ inline uint32_t mm_spread(uint32_t f) {
    return (f & 0xf) | (f & 0xf0) << 4 | (f & 0xf00) << 8 | (f & 0xf000) << 12;
}

// Two neighbours of a row's slots and where they begin in the operand.
struct mm_step_pair {
    const char *from;  // the operand
    int n;             // its sequences
    int n_blocks;      // of 128 columns in a row of the matrix
    uint32_t slot[2];
    int at, s;  // the first: counted from the row's begin; from the operand's
    bool two;   // whether the second is there
};

// A slot and what it meets, as a lane holds them.
template <class KERNEL, int TYPE>
struct mm_slot {
    // half as long; the operand is in parts
    static constexpr bool small = KERNEL::small && TYPE != mm_dtype_q4;
    static constexpr bool exact = TYPE == mm_dtype_bf16 && KERNEL::weights != mm_dtype_bf16;
    static constexpr bool wide = !small && TYPE != mm_dtype_q4;  // 2048 bytes
    static constexpr int parts = exact ? mm_exact_parts : 1;
    uint4 g[2], h[2];               // of rows g and g + 8
    uint4 low[parts], high[parts];  // of sequence g: the k that meet them
    uint4 scales;                   // of rows g and g + 8, of two neighbours each; their factors
    float r[2];                     // scales of sequences 2 t and 2 t + 1
    int sums[2][2];  // q4: sums of their codes in groups 0 and 1, and 2 and 3, 16 bits each

    __device__ __forceinline__ void load(const struct mm_step_pair &p, int i) {
        const int lane = threadIdx.x % 32, row = lane / 4, t = lane % 4, s = p.s + i;
        const uint32_t at = p.slot[i] + lane * 16;
        g[0] = mm_load16_shared(at), h[0] = mm_load16_shared(at + 512);
        if (wide) g[1] = mm_load16_shared(at + 1024), h[1] = mm_load16_shared(at + 1536);
        const bool there = row < p.n;
        const uint4 zero = make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int e = 0; e < parts; e++)
            low[e] = high[e] = zero;
        if constexpr (exact) {
            const int unit = small ? s / 2 : s;  // of 64 columns
            const char *x = p.from + (unit * p.n + row) * (mm_step_row_exact / 2) +
                            (small ? s % 2 * 64 : 0) + t * 16;
#pragma unroll
            for (int e = 0; e < parts; e++) {
                if (there) low[e] = *(const uint4 *)(x + e * 128);
                if (there && !small) high[e] = *(const uint4 *)(x + e * 128 + 64);
            }
        } else if constexpr (TYPE == mm_dtype_bf16) {
            const char *x = p.from + (s / 2 * p.n + row) * mm_step_row_bf16 + s % 2 * 128 + t * 16;
            if (there) low[0] = *(const uint4 *)x, high[0] = *(const uint4 *)(x + 64);
        } else {
            const int b = small ? s / 2 : s;
            const char *x = p.from + (b * p.n + row) * mm_step_row_codes + t * 16;
            if (there) low[0] = *(const uint4 *)(x + (small ? s % 2 * 64 : 0));
            if (there && !small) high[0] = *(const uint4 *)(x + 64);
            scales = mm_load16_shared(p.slot[i] + KERNEL::codes + row * 16);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const bool other = 2 * t + e < p.n;
                const char *of = p.from + (b * p.n + (other ? 2 * t + e : 0)) * mm_step_row_codes;
                r[e] = other ? *(const float *)(of + 128) : 0.0f;
                if constexpr (TYPE == mm_dtype_q4) {
                    const uint2 of_codes = other ? *(const uint2 *)(of + 136) : make_uint2(0, 0);
                    sums[e][0] = (int)of_codes.x, sums[e][1] = (int)of_codes.y;
                }
            }
        }
    }

    __device__ __forceinline__ void bf16(float c[4]) const {
#pragma unroll
        for (int e = 0; e < parts; e++) {
            mm_mma_bf16(c, g[0].x, h[0].x, g[0].y, h[0].y, low[e].x, low[e].y);
            mm_mma_bf16(c, g[0].z, h[0].z, g[0].w, h[0].w, low[e].z, low[e].w);
            if (!wide) continue;
            mm_mma_bf16(c, g[1].x, h[1].x, g[1].y, h[1].y, high[e].x, high[e].y);
            mm_mma_bf16(c, g[1].z, h[1].z, g[1].w, h[1].w, high[e].z, high[e].w);
        }
    }
    __device__ __forceinline__ void q8(int i[4]) const {
        mm_mma_s8(i, g[0].x, h[0].x, g[0].y, h[0].y, low[0].x, low[0].y);
        mm_mma_s8(i, g[0].z, h[0].z, g[0].w, h[0].w, low[0].z, low[0].w);
        if (!wide) return;
        mm_mma_s8(i, g[1].x, h[1].x, g[1].y, h[1].y, high[0].x, high[0].y);
        mm_mma_s8(i, g[1].z, h[1].z, g[1].w, h[1].w, high[0].z, high[0].w);
    }
    // u (c + 8) of four codes in one multiplication; 8 u times the sum of x goes off again
    __device__ __forceinline__ void q4(int i[4], int odd) const {
        const uint32_t fg = odd ? scales.z >> 16 : scales.z & 0xffff,
                       fh = odd ? scales.w >> 16 : scales.w & 0xffff;
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
        mm_mma_u8(i, (u.x & mask) * gl, (v.x & mask) * hl, (u.y & mask) * gl, (v.y & mask) * hl,
                  low[0].x, low[0].y);
        mm_mma_u8(i, (u.z & mask) * gl, (v.z & mask) * hl, (u.w & mask) * gl, (v.w & mask) * hl,
                  low[0].z, low[0].w);
        mm_mma_u8(i, (u.x >> 4 & mask) * gh, (v.x >> 4 & mask) * hh, (u.y >> 4 & mask) * gh,
                  (v.y >> 4 & mask) * hh, high[0].x, high[0].y);
        mm_mma_u8(i, (u.z >> 4 & mask) * gh, (v.z >> 4 & mask) * hh, (u.w >> 4 & mask) * gh,
                  (v.w >> 4 & mask) * hh, high[0].z, high[0].w);
    }
    // Block `block` of a row.
    __device__ __forceinline__ void multiply(float c[4], int block, int n_blocks) const {
        if constexpr (TYPE == mm_dtype_bf16) {
            bf16(c);
        } else {
            int i[4] = {0, 0, 0, 0};
            if constexpr (TYPE == mm_dtype_q4) {
                q4(i, (block + n_blocks) & 1);
            } else {
                q8(i);
            }
            const float sg = mm_half_of(scales.x, block & 1), sh = mm_half_of(scales.y, block & 1);
            c[0] = fmaf(sg * r[0], (float)i[0], c[0]);
            c[1] = fmaf(sg * r[1], (float)i[1], c[1]);
            c[2] = fmaf(sh * r[0], (float)i[2], c[2]);
            c[3] = fmaf(sh * r[1], (float)i[3], c[3]);
        }
    }
};

// The first slot's sums go to c, the second's to d.
template <class KERNEL, int TYPE>
__device__ __forceinline__ void mm_pair_of(float c[4], float d[4], const struct mm_step_pair &p) {
    using slot = mm_slot<KERNEL, TYPE>;
    const int b0 = slot::small ? p.at / 2 : p.at, b1 = slot::small ? (p.at + 1) / 2 : p.at + 1;
    slot first;
    first.load(p, 0);
    if (p.two) {
        slot second;
        second.load(p, 1);
        first.multiply(c, b0, p.n_blocks);
        second.multiply(d, b1, p.n_blocks);
    } else {
        first.multiply(c, b0, p.n_blocks);
    }
}

template <class KERNEL>
__device__ __forceinline__ void mm_pair(float c[4], float d[4], const struct mm_step_pair &p,
                                        int type) {
    if (KERNEL::weights == mm_dtype_bf16 || type == mm_dtype_bf16) {
        mm_pair_of<KERNEL, mm_dtype_bf16>(c, d, p);
    } else if constexpr (KERNEL::weights != mm_dtype_bf16) {
        if (KERNEL::weights == mm_dtype_q8 || type == mm_dtype_q8) {
            mm_pair_of<KERNEL, mm_dtype_q8>(c, d, p);
        } else if constexpr (KERNEL::weights == mm_dtype_q4) {
            mm_pair_of<KERNEL, mm_dtype_q4>(c, d, p);
        }
    }
}

// ---- q4 of one sequence ----
// Of a tensor-core product one column in eight would be used, and codes prepared for it; sums of
// four products at a time take less. The sums of integers are the same, and so is what is made of
// them: to the bit what the sequence gets among others.

// A word's codes of the low or high halves of its bytes, 16 times, with their signs.
__device__ __forceinline__ int mm_low16(uint32_t w) {
    return (int)((w << 4 ^ 0x80808080u) & 0xf0f0f0f0u);
}
__device__ __forceinline__ int mm_high16(uint32_t w) {
    return (int)((w ^ 0x80808080u) & 0xf0f0f0f0u);
}
// 16 times a lane's part of a row's product with x: its low halves have factor gl, the others gh.
__device__ __forceinline__ int mm_row16(uint4 w, uint4 low, uint4 high, int gl, int gh) {
    int l = __dp4a(mm_low16(w.x), (int)low.x, 0), h = __dp4a(mm_high16(w.x), (int)high.x, 0);
    l = __dp4a(mm_low16(w.y), (int)low.y, l), h = __dp4a(mm_high16(w.y), (int)high.y, h);
    l = __dp4a(mm_low16(w.z), (int)low.z, l), h = __dp4a(mm_high16(w.z), (int)high.z, h);
    l = __dp4a(mm_low16(w.w), (int)low.w, l), h = __dp4a(mm_high16(w.w), (int)high.w, h);
    return gl * l + gh * h;
}

// Lane 4 g + t has, in `own`, the sum of row g + 8 (t % 2), of first slots where t < 2, else of
// second ones.
template <class KERNEL>
__device__ __forceinline__ void mm_alone_pair(float &own, const struct mm_step_pair &p) {
    const int lane = threadIdx.x % 32, row = lane / 4, t = lane % 4;
    int sums[2][2] = {};
    uint4 scales[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (i && !p.two) {
            scales[1] = scales[0];
            break;
        }
        const char *x = p.from + (p.s + i) * mm_step_row_codes + t * 16;
        const uint4 low = *(const uint4 *)x, high = *(const uint4 *)(x + 64);
        const uint32_t at = p.slot[i] + lane * 16;
        const uint4 g = mm_load16_shared(at), h = mm_load16_shared(at + 512);
        scales[i] = mm_load16_shared(p.slot[i] + KERNEL::codes + row * 16);
        const int shift = ((p.at + i + p.n_blocks) & 1) * 16 + t / 2 * 4;
        sums[i][0] = mm_row16(g, low, high, (int)(scales[i].z >> shift & 15),
                              (int)(scales[i].z >> (shift + 8) & 15));
        sums[i][1] = mm_row16(h, low, high, (int)(scales[i].w >> shift & 15),
                              (int)(scales[i].w >> (shift + 8) & 15));
    }
    // four lanes have a part of four sums each, and add up one
    const bool second = t >= 2, odd = t & 1;
    int to[2];
#pragma unroll
    for (int e = 0; e < 2; e++)
        to[e] = (second ? sums[1][e] : sums[0][e]) +
                __shfl_xor_sync(0xffffffffu, second ? sums[0][e] : sums[1][e], 2);
    const int sum = (odd ? to[1] : to[0]) + __shfl_xor_sync(0xffffffffu, odd ? to[0] : to[1], 1);
    if (second && !p.two) return;
    const uint4 mine = second ? scales[1] : scales[0];
    const int i = second ? 1 : 0;
    const float scale = mm_half_of(odd ? mine.y : mine.x, (p.at + i) & 1);
    const float r = *(const float *)(p.from + (p.s + i) * mm_step_row_codes + 128);
    own = fmaf(scale * r, (float)sum * 0.0625f, own);
}

// What lanes own becomes what mm_pair would have left in d, were c zero.
__device__ __forceinline__ void mm_alone_sums(float d[4]) {
    const float sum = d[0] + __shfl_down_sync(0xffffffffu, d[0], 2);
    const float other = __shfl_down_sync(0xffffffffu, sum, 1);
    const bool first = threadIdx.x % 4 == 0;
    d[0] = first ? sum : 0.0f, d[2] = first ? other : 0.0f;
}

#endif
