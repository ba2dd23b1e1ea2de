// A product of a token step: the operand from what other tasks left (normed, gated, rounded), the
// queue's tiles, and what becomes of the sums. How a sum is made depends on the matrix alone: every
// warp sums its columns in order, then the 16 parts are added in one order; so a sequence gets the
// same bits whatever is beside it.
#ifndef MM_OPS_CUDA_STEP_PRODUCT_CUH
#define MM_OPS_CUDA_STEP_PRODUCT_CUH

#include "ops/cuda/step_queue.cuh"

__device__ inline float mm_dot4(float4 a, float4 b) {
    // written out: the same bits wherever it is compiled into
    return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, a.w * b.w)));
}
__device__ inline float4 mm_load4_far(const float *p) {
    return __ldcg((const float4 *)p);  // others wrote it in this launch: not by way of the L1
}

// The operand waits in shared memory, each warp's part in a place of its own: some units of its
// columns, every row as the lanes will multiply it.
//   bf16    a unit of 128 k: 256 bytes
//   split   a unit of 64 k: 128 bytes of halves, and 128 of what the halves leave over
//   q8, q4  a unit of 128 k: the codes, then their scale, then sums of the codes of 32 k each
// Norms over a whole row are not known yet when a warp has its part: their factor is applied to the
// sums at the end, which changes nothing but the place of a rounding.
enum { mm_row_bf16 = 272, mm_row_quant = 192, mm_rows_staged = 8 };

template <int TYPE, bool SPLIT>
struct mm_unit {
    static constexpr int k = SPLIT ? 64 : 128;
    static constexpr int slots = TYPE == mm_dtype_bf16 && !SPLIT ? 2 : 1;
    static constexpr int row = TYPE == mm_dtype_bf16 ? mm_row_bf16 : mm_row_quant;
};

// The factor of a gated norm for the heads that this warp's lanes have, P / 4 lanes each.
__device__ inline float mm_head_factor(const struct mm_step_task &t, float4 y) {
    float sum = mm_dot4(y, y);
#pragma unroll 1
    for (int i = t.P / 8; i > 0; i >>= 1)
        sum += __shfl_xor_sync(0xffffffffu, sum, i);
    return t.norm ? rsqrtf(sum / (float)t.P + t.eps) : 1.0f;
}

// 4 values of the operand from column k, zeros past the end; adds their squares to `squares`.
__device__ inline float4 mm_operand4(const struct mm_step_args &a, const struct mm_step_task &t,
                                     int seq, int k, bool there, float &squares) {
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f), w = v, s = v;
    const bool gated = t.from == mm_step_from_gated, norm = t.from == mm_step_from_norm;
    const float *from = norm                         ? a.x + seq * a.x_ld
                        : t.from == mm_step_from_ffn ? a.ffn + seq * a.ffn_ld
                                                     : a.y + seq * a.y_ld;
    if (there) v = mm_load4_far(from + k);
    if (there && t.norm) w = __ldg((const float4 *)(t.norm + (gated ? k & (t.P - 1) : k)));
    if (there && gated) s = mm_load4_far(a.gate + seq * a.y_ld + k);
    if (norm) squares += mm_dot4(v, v);
    if (gated) {
        const float r = mm_head_factor(t, v);
        v.x *= r * s.x, v.y *= r * s.y, v.z *= r * s.z, v.w *= r * s.w;
    }
    if (t.norm) v.x *= w.x, v.y *= w.y, v.z *= w.z, v.w *= w.w;
    return v;
}

__device__ inline uint32_t mm_two_bf16(float a, float b) {
    const __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *(const uint32_t *)&h;
}
__device__ inline uint2 mm_four_bf16(float4 v) {
    return make_uint2(mm_two_bf16(v.x, v.y), mm_two_bf16(v.z, v.w));
}
__device__ inline float4 mm_left_over(float4 v) {
    return make_float4(v.x - __bfloat162float(__float2bfloat16(v.x)),
                       v.y - __bfloat162float(__float2bfloat16(v.y)),
                       v.z - __bfloat162float(__float2bfloat16(v.z)),
                       v.w - __bfloat162float(__float2bfloat16(v.w)));
}
__device__ inline uint32_t mm_code(float x) {
    return (uint32_t)__float2int_rn(x) & 255;
}

// A row of codes (base/quant.h), 4 a lane.
__device__ inline void mm_put_codes(char *row, float4 v) {
    const int lane = threadIdx.x % 32;
    const float top =
        mm_warp_max(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
    const float inverse = top > 1e-36f ? 127.0f / top : 0.0f;
    const uint32_t four = mm_code(v.x * inverse) | mm_code(v.y * inverse) << 8 |
                          mm_code(v.z * inverse) << 16 | mm_code(v.w * inverse) << 24;
    int sum = __dp4a((int)four, 0x01010101, 0);
    for (int i = 1; i < 8; i <<= 1)
        sum += __shfl_xor_sync(0xffffffffu, sum, i);
    *(uint32_t *)(row + lane * 4) = four;
    if (lane == 0) *(float *)(row + 128) = top / 127.0f;
    if (lane % 8 == 0) *(int16_t *)(row + 136 + lane / 4) = (int16_t)sum;
}

// Units [first, first + count) of the row, of every sequence; unit u of sequence s becomes row
// u n + s. whole: that is all that the warp has, and its sums of squares are the row's.
template <int TYPE, bool SPLIT>
__device__ inline void mm_stage(char *room, const struct mm_step_args &a,
                                const struct mm_step_task &t, struct mm_step_shared &sh, int first,
                                int count, bool whole) {
    using unit = mm_unit<TYPE, SPLIT>;
    const int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll 1
    for (int seq = 0; seq < a.n; seq++) {
        float squares = 0.0f;
#pragma unroll 2
        for (int u = 0; u < count; u++) {
            const int k = (first + u) * unit::k + lane * 4;
            const float4 v = mm_operand4(a, t, seq, k, k < t.m.k && lane * 4 < unit::k, squares);
            char *row = room + (u * a.n + seq) * unit::row;
            if constexpr (TYPE != mm_dtype_bf16) {
                mm_put_codes(row, v);
            } else if (lane * 4 < unit::k) {
                *(uint2 *)(row + lane * 8) = mm_four_bf16(v);
                if (SPLIT) *(uint2 *)(row + 128 + lane * 8) = mm_four_bf16(mm_left_over(v));
            }
        }
        if (t.from != mm_step_from_norm || !whole) continue;
        squares = mm_warp_sum(squares);
        if (lane == 0) sh.sums[threadIdx.x / 32][seq] = squares;
    }
    __syncwarp();
}

// The sums of squares alone, added as mm_stage adds them.
template <int TYPE, bool SPLIT>
__device__ inline void mm_row_squares(const struct mm_step_args &a, const struct mm_step_task &t,
                                      struct mm_step_shared &sh, int first, int count) {
    using unit = mm_unit<TYPE, SPLIT>;
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int seq = 0; seq < a.n; seq++) {
        float squares = 0.0f;
        for (int u = 0; u < count; u++) {
            const int k = (first + u) * unit::k + lane * 4;
            if (k >= t.m.k || lane * 4 >= unit::k) continue;
            const float4 v = mm_load4_far(a.x + seq * a.x_ld + k);
            squares += mm_dot4(v, v);
        }
        squares = mm_warp_sum(squares);
        if (lane == 0) sh.sums[threadIdx.x / 32][seq] = squares;
    }
}

// What meets slot `slot` of unit `u`.
template <int TYPE, bool SPLIT>
__device__ inline void mm_staged(struct mm_step_x &x, const char *room, int n, int u, int slot) {
    using unit = mm_unit<TYPE, SPLIT>;
    const int lane = threadIdx.x % 32, g = lane / 4, tt = lane % 4;
    uint4 low = make_uint4(0, 0, 0, 0), high = low;
    const char *row = room + (u * n + g) * unit::row + slot * 128 + tt * 16;
    if (g < n) low = *(const uint4 *)row, high = *(const uint4 *)(row + 64);
    x.b[0] = low.x, x.b[1] = low.y, x.b[2] = low.z, x.b[3] = low.w;
    x.b[4] = high.x, x.b[5] = high.y, x.b[6] = high.z, x.b[7] = high.w;
    if constexpr (TYPE != mm_dtype_bf16) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const char *other = room + (u * n + 2 * tt + e) * unit::row;
            const bool there = 2 * tt + e < n;
            x.r[e] = there ? *(const float *)(other + 128) : 0.0f;
            const uint2 sums = there ? *(const uint2 *)(other + 136) : make_uint2(0, 0);
            x.sums[e][0] = (int)sums.x, x.sums[e][1] = (int)sums.y;
        }
    }
}

// ---- what becomes of the sums ----

// Row r of a Mamba-2 block's projection: v, k, q go through the convolution, gates are ready for
// the product with them, dt is softplus'ed.
__device__ inline void mm_to_mixer(const struct mm_step_args &a, const struct mm_step_task &t,
                                   int seq, int r, float z) {
    const int channels = (2 * t.G + t.H) * t.P, gates = t.H * t.P;
    if (r >= channels + gates) {
        const int h = r - channels - gates;
        const float u = z + t.dt_bias[h];
        a.dt[seq * a.dt_ld + h] = u > 20.0f ? u : log1pf(expf(u));
        return;
    }
    if (r >= channels) {
        a.gate[seq * a.y_ld + r - channels] = z * mm_sigmoid(z);
        return;
    }
    const int before = t.conv_k - 1;
    float *st = a.states[t.block * mm_step_cols + seq].conv + r;
    const float *w = t.conv_w + r * t.conv_k;
    float sum = t.conv_b[r];
#pragma unroll 1
    for (int j = 0; j < before; j++) {
        const float old = st[(int64_t)j * channels];
        sum += w[j] * old;
        if (j > 0) st[(int64_t)(j - 1) * channels] = old;
    }
    if (before > 0) st[(int64_t)(before - 1) * channels] = z;
    sum += w[before] * z;
    a.z[seq * a.z_ld + r] = sum * mm_sigmoid(sum);
}

// Row `row` of 16 of a tile's sums of one sequence, all warps' parts in one order.
__device__ inline float mm_row_sum(const float (*red)[128], int at) {
    float sum = 0.0f;
#pragma unroll
    for (int q = 0; q < mm_step_warps; q += 4) {
        const float part = ((red[q][at] + red[q + 1][at]) + red[q + 2][at]) + red[q + 3][at];
        sum = q ? sum + part : part;
    }
    return sum;
}

__device__ inline void mm_finish_tile(const struct mm_step_args &a, const struct mm_step_task &t,
                                      const float (*red)[128], int tile, float factor) {
    const int row = threadIdx.x / 8, seq = threadIdx.x % 8;
    if (seq >= a.n) return;
    const bool pair = t.to == mm_step_to_ffn;
    const int r = tile * (pair ? 8 : 16) + row;
    if (r >= t.m.rows || (pair && row >= 8)) return;
    const float sum = factor * mm_row_sum(red, row * 8 + seq);
    if (pair) {
        const float v = factor * mm_row_sum(red, (row + 8) * 8 + seq);
        a.ffn[seq * a.ffn_ld + r] = sum * mm_sigmoid(sum) * v;
    } else if (t.to == mm_step_to_mixer) {
        mm_to_mixer(a, t, seq, t.row0 + r, sum);
    } else if (t.to == mm_step_to_z) {
        a.z[seq * a.z_ld + t.row0 + r] = sum;
    } else if (t.to == mm_step_to_x) {
        float *x = a.x + seq * a.x_ld + r;
        *x = __ldcg(x) + sum;
    } else {
        a.logits[seq * a.logits_ld + r] = sum;
    }
}

// What the row's norm multiplies the sums with.
__device__ inline float mm_row_factor(const struct mm_step_args &a, const struct mm_step_task &t,
                                      const struct mm_step_shared &sh) {
    const int seq = threadIdx.x % 8;
    if (t.from != mm_step_from_norm || seq >= a.n) return 1.0f;
    float sum = 0.0f;
#pragma unroll 1
    for (int w = 0; w < mm_step_warps; w++)
        sum += sh.sums[w][seq];
    return rsqrtf(sum / (float)t.m.k + t.eps);
}

template <int TYPE, bool SPLIT>
__device__ inline void mm_slot(float c[4], struct mm_queue &queue, const char *room, int n, int u,
                               int h, int block, int n_blocks) {
    struct mm_step_x x;
    mm_staged<TYPE, SPLIT>(x, room, n, u, h);
    const uint32_t slot = queue.wait();
    mm_slot_product<TYPE>(c, slot, queue.scales_at(queue.slot), block, n_blocks, x);
    if constexpr (SPLIT) {
        mm_staged<TYPE, SPLIT>(x, room, n, u, 1);
        mm_slot_product<TYPE>(c, slot, 0, 0, 0, x);
    }
    queue.free();
}

template <int TYPE, bool SPLIT>
__device__ inline void mm_product(const struct mm_step_args &a, const struct mm_step_task &t,
                                  struct mm_step_shared &sh, struct mm_queue &queue) {
    using unit = mm_unit<TYPE, SPLIT>;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int begin = warp * t.m.per_warp, n = max(0, min(t.m.per_warp, t.m.n_slots - begin));
    const int first = begin / unit::slots, units = (n + unit::slots - 1) / unit::slots;
    const int most = max(1, mm_rows_staged / a.n);  // units at once
    char *room = sh.staged[warp];
    int tile = (int)blockIdx.x - t.m.first;
    if (tile < 0) tile += gridDim.x;
    if (tile >= t.m.tiles) return;
    if (units <= most) {
        mm_stage<TYPE, SPLIT>(room, a, t, sh, first, units, true);
    } else if (t.from == mm_step_from_norm) {
        mm_row_squares<TYPE, SPLIT>(a, t, sh, first, units);
    }
    float factor = 0.0f;
#pragma unroll 1
    for (int i = 0; tile < t.m.tiles; tile += gridDim.x, i++) {
        float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
        for (int s = 0; s < n; s++) {
            const int u = s / unit::slots;
            if (units > most && s % (most * unit::slots) == 0) {
                mm_stage<TYPE, SPLIT>(room, a, t, sh, first + u, min(most, units - u), false);
            }
            mm_slot<TYPE, SPLIT>(c, queue, room, a.n, u % most, s % unit::slots, begin + s,
                                 t.m.blocks);
        }
        float *to = &sh.red[i & 1][warp][lane / 4 * 8 + lane % 4 * 2];
        *(float2 *)to = make_float2(c[0], c[1]);
        *(float2 *)(to + 64) = make_float2(c[2], c[3]);
        __syncthreads();
        if (threadIdx.x < 128) {
            if (i == 0) factor = mm_row_factor(a, t, sh);
            mm_finish_tile(a, t, sh.red[i & 1], tile, factor);
        }
    }
}

#endif
