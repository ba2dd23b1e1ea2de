// Products of slots that the four warps of a group share (mm_step_args_linear), all n of a warp's
// part of a product: four at a time and one that is left, or two at a time (step_maps.cu asks for
// no others). A scheduler's four warps are at it all the time, so what counts is how many
// instructions a slot takes. What comes of it has the bits of step_slot.cuh.
//
// x, scales, factors: where those of the first slot begin, in shared memory.
#ifndef MM_OPS_CUDA_STEP_SLOT_GROUPS_CUH
#define MM_OPS_CUDA_STEP_SLOT_GROUPS_CUH

#include "ops/cuda/step_slot.cuh"

// Where a thread's 16 bytes begin in a slot: in the first 64 of the rows of its warp's piece.
__device__ __forceinline__ uint32_t mm_group_place(uint32_t thread) {
    return thread % 32 * 16 + thread / 32 * 1024;
}

// Slots that all lanes have read.
template <class KERNEL, class ARGS, int N>
__device__ __forceinline__ void mm_group_give(const ARGS &a, const uint32_t (&full)[N]) {
    __syncwarp();
    if (threadIdx.x % 32 >= a.givers) return;
#pragma unroll
    for (int i = 0; i < N; i++)
        mm_bar_arrive(full[i] + KERNEL::free);
}

// bf16, or what is not quantized of a quantized model, whose operand has three parts. begin: even,
// as n is; x: of slot 0.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_group_bf16(struct mm_one_sums<KERNEL> &sums, const ARGS &a,
                                              struct mm_queue<KERNEL> &queue, uint32_t x, int begin,
                                              int n) {
    constexpr bool exact = KERNEL::weights != mm_dtype_bf16, wide = !KERNEL::small;
    constexpr int each = wide ? 2 : 1;  // 64 bytes of a row, of a slot
    // from a pair to the next; from a slot to the next of the pair
    constexpr int step = !exact ? mm_step_row_bf16 : mm_step_row_exact / (wide ? 1 : 2);
    constexpr int second = !exact ? 128 : wide ? mm_step_row_exact / 2 : 64;
    const uint32_t thread = mm_thread_again(32 * mm_step_group), mine = mm_group_place(thread);
    const int g = thread % 32 / 4, t = thread % 4;
    x += begin / 2 * step + t * 16 + g % 2 * 8 + (exact ? min(g / 2, mm_exact_parts - 1) * 128 : 0);
#pragma unroll 1
    for (; n > 0; n -= 2, x += step) {
        uint32_t slot[2], full[2];
        queue.take_all(mine, slot, full);
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int e = 0; e < each; e++) {
                const uint32_t at = slot[i] + e * KERNEL::piece_next;
                const uint2 v = mm_load8_shared(x + i * second + e * 64);
                float(*to)[4] = &sums.s[exact ? 0 : 2 * e];
                mm_one_mma(to[0], mm_load16_shared(at), v);
                mm_one_mma(to[1], mm_load16_shared(at + KERNEL::piece_below), v);
            }
        }
        mm_group_give<KERNEL>(a, full);
    }
}

// A slot of q8, of which the lane's 16 bytes begin at `from`: added to the sums of rows g and
// g + 8. scales: theirs; r: that of the operand's block.
template <class KERNEL>
__device__ __forceinline__ void mm_group_slot_q8(float sum[4], uint32_t from, uint32_t x, float r,
                                                 const uint32_t scales[2]) {
    const uint2 v[2] = {mm_load8_shared(x), mm_load8_shared(x + 64)};
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const uint32_t at = from + row * KERNEL::piece_below;
        int c[4] = {0, 0, 0, 0};
        mm_one_mma(c, mm_load16_shared(at), v[0]);
        mm_one_mma(c, mm_load16_shared(at + KERNEL::piece_next), v[1]);
        sum[2 * row] = fmaf(mm_half_of(scales[row]) * r, (float)(c[0] + c[3]), sum[2 * row]);
    }
}
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_group_q8(struct mm_one_sums<KERNEL> &sums, const ARGS &a,
                                            struct mm_queue<KERNEL> &queue, uint32_t x,
                                            uint32_t scales, int n) {
    const uint32_t thread = mm_thread_again(32 * mm_step_group), mine = mm_group_place(thread);
    const int g = thread % 32 / 4, t = thread % 4;
    uint32_t r = x + 128;
    x += t * 16 + g % 2 * 8, scales += g * KERNEL::scales_row;
#pragma unroll 1
    for (; n > 1; n -= 4) {
        uint32_t slot[4], full[4];
        queue.take_all(mine, slot, full);
        const uint2 of[2] = {mm_load8_shared(scales),
                             mm_load8_shared(scales + 8 * KERNEL::scales_row)};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = i * KERNEL::row_codes;
            uint32_t s[2];
#pragma unroll
            for (int row = 0; row < 2; row++)
                s[row] = ((i < 2 ? of[row].x : of[row].y) >> i % 2 * 16) & 0xffff;
            mm_group_slot_q8<KERNEL>(sums.s[i % 2], slot[i], x + at,
                                     __uint_as_float(mm_load4_shared(r + at)), s);
        }
        x += 4 * KERNEL::row_codes, r += 4 * KERNEL::row_codes, scales += 8;
        mm_group_give<KERNEL>(a, full);
    }
    if (n == 0) return;
    const uint32_t slot = queue.take();
    const uint32_t s[2] = {mm_load2_shared(scales),
                           mm_load2_shared(scales + 8 * KERNEL::scales_row)};
    mm_group_slot_q8<KERNEL>(sums.s[0], slot + mine, x, __uint_as_float(mm_load4_shared(r)), s);
    __syncwarp();
    if (threadIdx.x % 32 < a.givers) queue.give(slot);
}

// q4. lanes: (32) of mm_q4_lane, which would take too many registers.
template <class KERNEL, class ARGS>
__device__ __forceinline__ float mm_group_q4(const ARGS &a, struct mm_queue<KERNEL> &queue,
                                             uint32_t lanes, uint32_t x, uint32_t scales,
                                             uint32_t factors, int n) {
    const uint32_t thread = mm_thread_again(32 * mm_step_group), mine = mm_group_place(thread);
    const bool second = thread & 2, odd = thread & 1;
    const uint4 my = mm_load16_shared(lanes + thread % 32 * 16);
    uint32_t low = x + (my.x & 0xffff), high = x + (my.x >> 16);
    uint32_t eights = x + (my.y & 0xffff), r = x + (my.y >> 16);
    uint32_t turn = my.z & 0xff, mask = my.z >> 8 & 0xff;
    scales += my.z >> 16, factors += my.w;
    asm volatile("" : "+r"(turn), "+r"(mask));  // or they are made again for every slot
    const uint32_t m = 0x0f0f0f0fu;
    float own = 0.0f;
#pragma unroll 1
    for (; n > 1; n -= 4) {
        uint32_t slot[4], full[4];
        queue.take_all(mine, slot, full);
        const uint2 f[2] = {mm_load8_shared(factors),
                            mm_load8_shared(factors + 8 * KERNEL::scales_row)};
        int sum[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int sums[2][2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int at = (2 * k + i) * KERNEL::row_codes;
                const uint32_t from = slot[2 * k + i];
                const uint4 w[2] = {mm_load16_shared(from), mm_load16_shared(from + 512)};
                const uint2 xl = mm_load8_shared(low + at), xh = mm_load8_shared(high + at);
                const int e = (int)mm_load4_shared(eights + at);
#pragma unroll
                for (int row = 0; row < 2; row++) {
                    int c[4] = {0, 0, 0, 0};
                    mm_mma_u8(c, w[row].x & m, w[row].y & m, w[row].z & m, w[row].w & m, xl.x,
                              xl.y);
                    mm_mma_u8(c, w[row].x, w[row].y, w[row].z, w[row].w, xh.x, xh.y);
                    const uint32_t of = k ? f[row].y : f[row].x;
                    sums[i][row] =
                        (int)(__funnelshift_r(of, of, turn + 16 * i) & mask) * (c[0] + c[3] + e);
                }
            }
            int to[2];
#pragma unroll
            for (int e = 0; e < 2; e++)
                to[e] = (second ? sums[1][e] : sums[0][e]) +
                        __shfl_xor_sync(0xffffffffu, second ? sums[0][e] : sums[1][e], 2);
            sum[k] = (odd ? to[1] : to[0]) + __shfl_xor_sync(0xffffffffu, odd ? to[0] : to[1], 1);
        }
        const uint2 s = mm_load8_shared(scales);
        own = fmaf(
            mm_half_of((second ? s.x >> 16 : s.x) & 0xffff) * __uint_as_float(mm_load4_shared(r)),
            (float)(sum[0] >> 4), own);
        own = fmaf(mm_half_of((second ? s.y >> 16 : s.y) & 0xffff) *
                       __uint_as_float(mm_load4_shared(r + 2 * KERNEL::row_codes)),
                   (float)(sum[1] >> 4), own);
        low += 4 * KERNEL::row_codes, high += 4 * KERNEL::row_codes;
        eights += 4 * KERNEL::row_codes, r += 4 * KERNEL::row_codes, factors += 8, scales += 8;
        mm_group_give<KERNEL>(a, full);
    }
    if (n == 0) return own;
    const uint32_t slot = queue.take(), from = slot + mine;
    const uint4 w[2] = {mm_load16_shared(from), mm_load16_shared(from + 512)};
    const uint2 xl = mm_load8_shared(low), xh = mm_load8_shared(high);
    const int e = (int)mm_load4_shared(eights);
    int sums[2];
#pragma unroll
    for (int row = 0; row < 2; row++) {
        int c[4] = {0, 0, 0, 0};
        mm_mma_u8(c, w[row].x & m, w[row].y & m, w[row].z & m, w[row].w & m, xl.x, xl.y);
        mm_mma_u8(c, w[row].x, w[row].y, w[row].z, w[row].w, xh.x, xh.y);
        const uint32_t f = mm_load2_shared(factors + row * 8 * KERNEL::scales_row);
        sums[row] = (int)(__funnelshift_r(f, f, turn) & mask) * (c[0] + c[3] + e);
        sums[row] += __shfl_xor_sync(0xffffffffu, sums[row], 2);
    }
    const int sum =
        (odd ? sums[1] : sums[0]) + __shfl_xor_sync(0xffffffffu, odd ? sums[0] : sums[1], 1);
    if (!second)
        own = fmaf(mm_half_of(mm_load2_shared(scales)) * __uint_as_float(mm_load4_shared(r)),
                   (float)(sum >> 4), own);
    __syncwarp();
    if (threadIdx.x % 32 < a.givers) queue.give(slot);
    return own;
}

#endif
