// Products of a token step: operands as the lanes multiply them, the residual stream between blocks
// of the model, and sums. How a sum is made depends on the matrix alone: a warp sums its columns in
// order, the parts of warps that share a tile are added in order, those of crews as whole numbers;
// so a sequence gets the same bits whatever is beside it.
#ifndef MM_OPS_CUDA_STEP_PRODUCT_CUH
#define MM_OPS_CUDA_STEP_PRODUCT_CUH

#include "ops/cuda/codes.cuh"
#include "ops/cuda/step_slot_groups.cuh"
#include "ops/cuda/step_words.cuh"

__device__ __forceinline__ float mm_dot4(float4 a, float4 b) {
    // written out: the same bits wherever it is compiled into
    return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, a.w * b.w)));
}

// Operands, every sequence's columns 128 at a time (`block`), row `block n + seq`:
//   bf16    256 bytes, 16 of padding
//   codes   128 bytes, then their scale; for q4 sums of the codes of 32 columns each, or of one
//           sequence 16 zeros, sums times -8 or -128, and the negated codes of the last 64 columns
//   exact   what bf16 weights of quantized models meet, gates and dt: two rows of 64 columns each,
//           128 bytes of bf16, 128 of what that leaves over, 128 of what is left then (24 bits, as
//           f32 has), 16 of padding
// Their sizes are in step.cuh. Words of every 16 bytes are in the order 0, 2, 1, 3 (step_slot.cuh).

// Where word i is.
__device__ __forceinline__ int mm_word_place(int i) {
    return i / 4 * 16 + i % 2 * 8 + i / 2 % 2 * 4;
}
// Words 2 i and 2 i + 1.
__device__ __forceinline__ void mm_store_words(char *row, int i, uint2 v) {
    char *to = row + mm_word_place(2 * i);
    *(uint32_t *)to = v.x, *(uint32_t *)(to + 8) = v.y;
}
__device__ __forceinline__ uint2 mm_words_of(const char *row, int i) {
    const char *from = row + mm_word_place(2 * i);
    return make_uint2(*(const uint32_t *)from, *(const uint32_t *)(from + 8));
}

__device__ __forceinline__ uint32_t mm_two_bf16(float a, float b) {
    const __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *(const uint32_t *)&h;
}
__device__ __forceinline__ uint2 mm_four_bf16(float4 v) {
    return make_uint2(mm_two_bf16(v.x, v.y), mm_two_bf16(v.z, v.w));
}
__device__ __forceinline__ float4 mm_widened(uint2 r) {
    return make_float4(__uint_as_float(r.x << 16), __uint_as_float(r.x & 0xffff0000u),
                       __uint_as_float(r.y << 16), __uint_as_float(r.y & 0xffff0000u));
}
// What four numbers of bf16 leave over.
__device__ __forceinline__ float4 mm_left_over(float4 v, uint2 of) {
    const float4 r = mm_widened(of);
    return make_float4(v.x - r.x, v.y - r.y, v.z - r.z, v.w - r.w);
}

// What a block of 128 columns is as codes (base/quant.h), 4 columns a lane: their codes, for all
// lanes the scale, and what q4 wants: for all lanes the sums of 32 columns each, 16 bits of them;
// of one sequence each lane has the sum of the 32 that its columns are among, in sums[0].
struct mm_step_codes {
    uint32_t four, sums[2];
    float scale;
};

// squares: the warp's sum of a number each lane brings, if there is one (mm_warp_sum), meanwhile.
template <class KERNEL>
__device__ __forceinline__ struct mm_step_codes mm_codes(float4 v, float *squares = NULL) {
    constexpr bool q4 = KERNEL::weights == mm_dtype_q4;
    struct mm_step_codes c;
    float sq = squares ? *squares : 0.0f;
    if (squares) {
        sq += __shfl_xor_sync(0xffffffffu, sq, 16);
        sq += __shfl_xor_sync(0xffffffffu, sq, 8);
    }
    const struct mm_four_codes of = mm_codes_of(v);
    c.four = of.four, c.scale = of.scale;
    c.sums[0] = c.sums[1] = 0;
    int sum = q4 ? __dp4a((int)c.four, 0x01010101, 0) : 0;
#pragma unroll
    for (int i = 1; i < 8; i <<= 1) {
        const int other = q4 ? __shfl_xor_sync(0xffffffffu, sum, i) : 0;
        if (squares) sq += __shfl_xor_sync(0xffffffffu, sq, 4 / i);
        sum += other;
    }
    if (squares) *squares = sq;
    if constexpr (q4) {
        c.sums[0] = (uint32_t)sum;
#pragma unroll
        for (int i = 0; i < 2 && !KERNEL::one; i++)
            c.sums[i] = ((uint32_t)__shfl_sync(0xffffffffu, sum, 16 * i) & 0xffff) |
                        (uint32_t)__shfl_sync(0xffffffffu, sum, 16 * i + 8) << 16;
    }
    return c;
}

// Four codes, negated.
__device__ __forceinline__ uint32_t mm_negated(uint32_t codes) {
    const uint32_t high = 0x80808080u;
    return ((~codes & ~high) + 0x01010101u) ^ (~codes & high);
}
template <class KERNEL>
__device__ __forceinline__ void mm_store_codes(char *row, uint32_t four, uint32_t scale,
                                               uint2 sums) {
    const int lane = threadIdx.x % 32;
    *(uint32_t *)(row + mm_word_place(lane)) = four;
    if (lane == 0) *(uint32_t *)(row + 128) = scale;
    if (KERNEL::weights == mm_dtype_q8) return;  // q4 needs the others
    if (!KERNEL::one) {
        if (lane == 1) *(uint2 *)(row + 136) = sums;
        return;
    }
    if (lane >= 16)
        *(uint32_t *)(row + mm_step_negated + mm_word_place(lane - 16)) = mm_negated(four);
    if (lane % 8 == 0)
        *(int *)(row + mm_step_eights + lane / 2) = (lane < 16 ? -8 : -128) * (int)sums.x;
    if (lane == 2) *(uint4 *)(row + mm_step_zeros) = make_uint4(0, 0, 0, 0);
}
// Row of 64 columns of an exact operand: half a block.
__device__ __forceinline__ char *mm_exact_row(char *from, int n, int block, int seq) {
    const int lane = threadIdx.x % 32;
    return from + ((block * 2 + lane / 16) * n + seq) * (mm_step_row_exact / 2);
}
__device__ __forceinline__ void mm_store_exact(char *row, float4 v) {
#pragma unroll
    for (int i = 0; i < mm_exact_parts; i++) {
        const uint2 four = mm_four_bf16(v);
        mm_store_words(row + i * 128, threadIdx.x % 16, four);
        v = mm_left_over(v, four);
    }
}

// A block of 128 columns, 4 a lane, as a last projection's operand of this block.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_keep_operand(const ARGS &a, char *memory, int block, int seq,
                                                float4 v, bool codes) {
    char *local = memory + a.room.local;
    const int row = block * a.n + seq;
    if (KERNEL::weights == mm_dtype_bf16) {
        mm_store_words(local + row * mm_step_row_bf16, threadIdx.x % 32, mm_four_bf16(v));
    } else if (codes) {
        const struct mm_step_codes c = mm_codes<KERNEL>(v);
        mm_store_codes<KERNEL>(local + row * KERNEL::row_codes, c.four, __float_as_uint(c.scale),
                               make_uint2(c.sums[0], c.sums[1]));
    } else {
        mm_store_exact(mm_exact_row(local, a.n, block, seq), v);
    }
}

// The operand of first products, said to the crew with the sum of the squares of the stream's
// columns; and heard.
//   words of a block   bf16: 2 a lane; the sum (mm_words_bf16 in all; step.cuh)
//                      codes: 1 a lane; scale, sums (2), the sum. exact, behind: 4 a lane, f32

template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_say_operand(const ARGS &a, const struct mm_step_who &me,
                                               unsigned meeting, int block, int seq, float4 v,
                                               float squares, bool codes, bool exact) {
    const int lane = threadIdx.x % 32;
    uint64_t *to = mm_words_x(a, me.crew, meeting, seq, block);
    if (KERNEL::weights == mm_dtype_bf16) {
        mm_say2(to + lane * 2, mm_four_bf16(v), meeting);
        if (lane == 0) mm_say_float(to + 64, squares, meeting);
        return;
    }
    if (codes) {
        const struct mm_step_codes c = mm_codes<KERNEL>(v);
        mm_say(to + lane, c.four, meeting);
        const uint32_t end = lane == 0   ? __float_as_uint(c.scale)
                             : lane == 1 ? c.sums[0]
                                         : c.sums[1];
        if (lane < 3) mm_say(to + 32 + lane, end, meeting);
    }
    if (lane == 3) mm_say_float(to + 35, squares, meeting);
    if (exact) {
        to += a.ex.x_exact + lane * 4;
        mm_say2(to, make_uint2(__float_as_uint(v.x), __float_as_uint(v.y)), meeting);
        mm_say2(to + 2, make_uint2(__float_as_uint(v.z), __float_as_uint(v.w)), meeting);
    }
}

// Two blocks at a time, so that neither waits for the other's way to the L2; `two` false: one.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_hear_blocks(const ARGS &a, char *memory,
                                               const struct mm_step_who &me, unsigned meeting,
                                               int i, bool two, bool codes, bool exact) {
    const int lane = threadIdx.x % 32;
    int seq[2], block[2];
    const uint64_t *from[2];
    uint64_t w[2][2] = {}, end[2] = {}, x[2][4] = {};
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int j = e && two ? i + mm_step_warps : i;
        block[e] = j / a.n, seq[e] = j - block[e] * a.n;
        from[e] = mm_words_x(a, me.crew, meeting, seq[e], block[e]);
    }
    const bool ends = lane < 4, bf16 = KERNEL::weights == mm_dtype_bf16;
    bool come;
    do {
        come = true;
#pragma unroll
        for (int e = 0; e < 2; e++) {
            if (bf16) {
                mm_load_words(w[e][0], w[e][1], from[e] + lane * 2);
                if (lane == 3) mm_load_word(end[e], from[e] + 64);
                continue;
            }
            if (codes) mm_load_word(w[e][0], from[e] + lane);
            if (lane == 3 || (ends && codes)) mm_load_word(end[e], from[e] + 32 + lane);
            if (exact) {
                const uint64_t *p = from[e] + a.ex.x_exact + lane * 4;
#pragma unroll
                for (int j = 0; j < 4; j += 2)
                    mm_load_words(x[e][j], x[e][j + 1], p + j);
            }
        }
#pragma unroll
        for (int e = 0; e < 2; e++) {
            if (bf16) {
                come = come && mm_fresh(w[e][0], meeting) && mm_fresh(w[e][1], meeting) &&
                       (lane != 3 || mm_fresh(end[e], meeting));
                continue;
            }
            come = come && (!codes || mm_fresh(w[e][0], meeting)) &&
                   (!(lane == 3 || (ends && codes)) || mm_fresh(end[e], meeting));
#pragma unroll
            for (int j = 0; j < 4; j++)
                come = come && (!exact || mm_fresh(x[e][j], meeting));
        }
    } while (!mm_all(come));
#pragma unroll
    for (int e = 0; e < 2; e++) {
        if (e && !two) break;
        const int row = block[e] * a.n + seq[e];
        const uint32_t last = (uint32_t)end[e];
        if (lane == 3)
            ((float *)(memory + a.room.squares))[seq[e] * mm_squares_of(a.D_blocks) + block[e]] =
                __uint_as_float(last);
        if (bf16) {
            mm_store_words(memory + a.room.operand + row * mm_step_row_bf16, lane,
                           make_uint2((uint32_t)w[e][0], (uint32_t)w[e][1]));
            continue;
        }
        if (exact) {
            mm_store_exact(mm_exact_row(memory + a.room.exact, a.n, block[e], seq[e]),
                           mm_as_floats(make_uint4((uint32_t)x[e][0], (uint32_t)x[e][1],
                                                   (uint32_t)x[e][2], (uint32_t)x[e][3])));
        }
        if (codes) {
            const uint32_t then = __shfl_down_sync(0xffffffffu, last, 1);
            mm_store_codes<KERNEL>(memory + a.room.operand + row * KERNEL::row_codes,
                                   (uint32_t)w[e][0], last, make_uint2(last, then));
        }
    }
}

template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_hear_operand(const ARGS &a, char *memory,
                                                const struct mm_step_who &me, unsigned meeting,
                                                bool codes, bool exact) {
    const int count = a.D_blocks * a.n;
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < count; i += 2 * mm_step_warps)
        mm_hear_blocks<KERNEL>(a, memory, me, meeting, i, i + mm_step_warps < count, codes, exact);
}

// ---- the residual stream ----

// Several sequences. This block's columns of the stream: the parts of the last meeting are added to
// them (`begins`: they begin as the rows of x); times `norm` they are said to the crew as the
// operand of its next products, whose sums the row's own factor multiplies later (mm_norm_factor).
// `red` is free.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_stream(const ARGS &a, const struct mm_step_who &me, char *memory,
                                          unsigned meeting, bool begins, const float *norm,
                                          bool codes, bool exact) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int begin = me.rank * a.slice, own = max(0, min(a.slice, a.D - begin));
    const int blocks = (own + mm_step_block - 1) / mm_step_block, items = blocks * a.n;
    if (items == 0) return;  // the same for all warps
    // where there are few items, several warps hear their parts
    const int ways = items > 4 ? 1 : items > 2 ? 2 : 4, crews = mm_step_crews / ways;
    const int way = warp % ways;
    int64_t *red = (int64_t *)(memory + a.room.red) + warp * 4 * 32 + lane;
#pragma unroll 1
    for (int item0 = 0; item0 < items; item0 += mm_step_warps / ways) {
        const int item = item0 + warp / ways, block = item / a.n;
        const int seq = item - block * a.n, at = block * mm_step_block + lane * 4;
        const int column = begin + at;
        const bool there = item < items && column < a.D;
        float4 w = make_float4(0.0f, 0.0f, 0.0f, 0.0f), v = w;
        int64_t sum[4] = {};
        if (there && way == 0) w = __ldg((const float4 *)(norm + column));
#pragma unroll 1
        for (int i = way * crews; i < (way + 1) * crews && item < items && !begins; i += 4)
            mm_hear_parts(sum, a, meeting - 1, i, seq, column, there);
        if (ways > 1) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                red[e * 32] = sum[e];
            mm_meet(a);
#pragma unroll 1
            for (int i = 1; i < ways && way == 0; i++) {
#pragma unroll
                for (int e = 0; e < 4; e++)
                    sum[e] += red[(4 * i + e) * 32];
            }
        }
        if (way != 0 || item >= items) continue;
        float4 *mine = (float4 *)((float *)(memory + a.room.stream) + seq * a.slice + at);
        if (!begins) {
            v = mm_add4(mm_of_wholes(sum), *mine);
        } else if (there) {
            v = *(const float4 *)(a.x + seq * a.x_ld + column);
        }
        if (!there) v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        *mine = v;
        const float squares = mm_warp_sum(mm_dot4(v, v));
        v.x *= w.x, v.y *= w.y, v.z *= w.z, v.w *= w.w;
        mm_say_operand<KERNEL>(a, me, meeting, begin / mm_step_block + block, seq, v, squares,
                               codes, exact);
    }
}

// One sequence. Every block has the whole stream, and makes the operand of it by itself: it hears
// the sums of the crews' parts, and says nothing. Codes take a warp longer than waiting does, so it
// makes those of two blocks of 128 columns at a time; of bf16 it asks for the next block's sums
// while one becomes an operand.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_stream_whole(const ARGS &a, char *memory, unsigned turn,
                                                bool begins, const float *norm, bool codes,
                                                bool exact) {
    constexpr bool twice = ARGS::warps > mm_step_warps;
    constexpr int some = KERNEL::weights == mm_dtype_bf16 || twice ? 1 : 2;
    constexpr int step = ARGS::warps * mm_step_block;  // to the warp's next block
    const int lane = threadIdx.x % 32, columns = a.D_blocks * mm_step_block;
    char *operand = memory + a.room.operand;
    float *stream = (float *)(memory + a.room.stream);
    struct mm_sums_asked sums[some];
    const auto ask = [&](int column0) {
#pragma unroll
        for (int e = 0; e < some; e++) {
            if (!begins && column0 + e * step < a.D) sums[e].ask(a, turn, column0 + e * step);
        }
    };
    if (some == 1) ask(threadIdx.x * 4);
#pragma unroll 1
    for (int column0 = threadIdx.x * 4; column0 < columns; column0 += some * step) {
        float4 v[some], w[some];
        if (some > 1) ask(column0);
#pragma unroll
        for (int e = 0; e < some; e++) {
            const int column = column0 + e * step;
            const bool there = column < a.D;
            float4 *mine = (float4 *)(stream + column);
            v[e] = w[e] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (there) w[e] = __ldg((const float4 *)(norm + column));
            if (begins) {
                if (there) v[e] = *(const float4 *)(a.x + column);
            } else {
                const float4 sum = sums[e].hear(a, turn, column, there);
                if (there) v[e] = mm_add4(sum, *mine);
            }
            if (there) *mine = v[e];
        }
        if (some == 1) ask(column0 + step);
        float squares[some];
#pragma unroll
        for (int e = 0; e < some; e++) {
            squares[e] = mm_dot4(v[e], v[e]);
            v[e].x *= w[e].x, v[e].y *= w[e].y, v[e].z *= w[e].z, v[e].w *= w[e].w;
        }
        struct mm_step_codes c[some];
        if (KERNEL::weights != mm_dtype_bf16 && codes) {
#pragma unroll
            for (int e = 0; e < some; e++)
                c[e] = mm_codes<KERNEL>(v[e], &squares[e]);
        } else {
#pragma unroll
            for (int e = 0; e < some; e++)
                squares[e] = mm_warp_sum(squares[e]);
        }
#pragma unroll
        for (int e = 0; e < some; e++) {
            const int block = (column0 + e * step) / mm_step_block;
            if (block >= a.D_blocks) break;
            if (lane == 0) ((float *)(memory + a.room.squares))[block] = squares[e];
            if (KERNEL::weights == mm_dtype_bf16) {
                mm_store_words(operand + block * mm_step_row_bf16, lane, mm_four_bf16(v[e]));
                continue;
            }
            if (exact) mm_store_exact(mm_exact_row(memory + a.room.exact, 1, block, 0), v[e]);
            if (codes)
                mm_store_codes<KERNEL>(operand + block * KERNEL::row_codes, c[e].four,
                                       __float_as_uint(c[e].scale),
                                       make_uint2(c[e].sums[0], c[e].sums[1]));
        }
    }
}

// What sequence seq's norm multiplies with. l2norm: the stream is divided by its length first;
// `length` is then the factor of that, else 1.
template <class ARGS>
__device__ __forceinline__ float mm_norm_factor(const ARGS &a, const char *memory, int seq,
                                                float eps, bool l2norm, float *length) {
    const float *squares =
        (const float *)(memory + a.room.squares) + seq * mm_squares_of(a.D_blocks);
    float sum = 0.0f;
#pragma unroll 1
    for (int b = 0; b < a.D_blocks; b += 16) {
        float4 v[4];  // asked for together
#pragma unroll
        for (int i = 0; i < 4; i++)
            v[i] = ((const float4 *)(squares + b))[i];
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
    }
    *length = 1.0f;
    if (l2norm) {
        *length = rsqrtf(sum);
        sum = sum * *length * *length;
    }
    return *length * rsqrtf(sum * a.share + eps);
}

// What this block has of the stream, divided by the length of the whole.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_shorten(const ARGS &a, char *memory) {
    float *stream = (float *)(memory + a.room.stream);
    const int columns = KERNEL::one ? a.D_blocks * mm_step_block : a.slice;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n * columns; i += mm_step_threads<ARGS>) {
        float length;
        mm_norm_factor(a, memory, i / columns, 0.0f, true, &length);
        stream[i] *= length;
    }
}

// ---- products ----

template <class KERNEL>
using mm_sums_of =
    typename std::conditional<KERNEL::one, mm_one_sums<KERNEL>, mm_step_sums<KERNEL>>::type;

// The sums of one tile over the first n of this warp's slots of it, taken from the queue two at a
// time, or four. `local`: the operand is of a last projection and begins at the first slot.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_tile_sums(float c[4], const ARGS &a, char *memory,
                                             struct mm_queue<KERNEL> &queue,
                                             const struct mm_part &part, int n, bool local) {
    const int type = part.type, begin = part.begin, zero = local ? begin : 0;
    const bool exact = KERNEL::weights != mm_dtype_bf16 && type == mm_dtype_bf16;
    struct mm_step_pair p;
    int from = local ? a.room.local : exact ? a.room.exact : a.room.operand;
    asm volatile("" : "+r"(from));  // or it would be looked up for every slot
    p.from = memory + from;
    p.n = a.n, p.scales = 0, p.of.blocks = part.blocks;
    mm_sums_of<KERNEL> sums = {};
    float first[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const bool fours = KERNEL::one && KERNEL::weights == mm_dtype_q4 && type == mm_dtype_q4;
    const bool scaled = KERNEL::weights != mm_dtype_bf16 && type != mm_dtype_bf16;
    const bool half = KERNEL::small && type == mm_dtype_q8;
    // slots of codes for one of scales
    const int one = scaled ? mm_scaled_slots(half, begin, part.blocks) : n;
    int left = 0;  // slots that they are for
#pragma unroll 1
    for (int i = 0, count; i < n; i += count, left -= count) {
        if (i == part.half && i > 0) sums.end(first, type), sums = {};
        if (scaled && left <= 0) {
            p.scales = queue.take_scales(a), p.of.first = half ? (begin + i) / 2 : begin + i;
            left = min(one, n - i);
        }
        p.at = begin + i, p.s = p.at - zero, p.two = i + 1 < n;
        const bool four = fours && left >= 4;
        count = four ? 4 : 2;
        const uint32_t lane = mm_thread_again(32);
        queue.template take_some<KERNEL::one && KERNEL::weights == mm_dtype_q4 ? 4 : 2>(
            p.slot, four    ? 4
                    : p.two ? 2
                            : 1);
        if (!p.two) p.slot[1] = p.slot[0];
        if constexpr (KERNEL::one) {
            mm_one<KERNEL>(sums, p, type, four, lane);
        } else {
            mm_pair<KERNEL>(sums, p, type);
        }
        __syncwarp();
        if (threadIdx.x % 32 < a.givers) {
            queue.give(p.slot[0]);
            if (p.two) queue.give(p.slot[1]);
            if (four) queue.give(p.slot[2]), queue.give(p.slot[3]);
        }
    }
    sums.end(c, type);
#pragma unroll
    for (int e = 0; e < 4; e++)
        c[e] = first[e] + c[e];
}

// The same of a warp of a group. Its half of a shared part has sums of its own.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_group_sums(float c[4], const ARGS &a, char *memory,
                                              struct mm_queue<KERNEL> &queue,
                                              const struct mm_part &part, int n, bool local) {
    const bool exact = KERNEL::weights != mm_dtype_bf16 && part.type == mm_dtype_bf16;
    const int from = local ? a.room.local : exact ? a.room.exact : a.room.operand;
    const uint32_t shared = mm_shared_at(memory), begin = local ? 0 : part.begin;
    mm_one_sums<KERNEL> sums = {};
    if (n == 0) return;
    if (KERNEL::weights == mm_dtype_bf16 || exact) {
        mm_group_bf16(sums, a, queue, shared + from, begin, n);
    } else {
        const uint32_t scales = queue.take_scales(a), x = shared + from + begin * KERNEL::row_codes;
        if constexpr (KERNEL::weights == mm_dtype_q4) {
            sums.own = mm_group_q4(a, queue, shared + a.room.lanes, x, scales + part.scales,
                                   scales + part.factors, n);
        } else if constexpr (KERNEL::weights == mm_dtype_q8) {
            mm_group_q8(sums, a, queue, x, scales + part.scales, n);
        }
        if (threadIdx.x % 32 < a.givers) queue.give_scales();
    }
    sums.end(c, part.type);
}

// Of the two halves of a part, which warps i and i + 8 have, one sequence's sums become those of
// the first; `red` is free. They have used the same place two turns ago at the latest.
__device__ __forceinline__ void mm_add_halves(float *red, float c[4], int turn) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % mm_step_warps;
    const bool second = threadIdx.x / 32 >= mm_step_warps, has = lane % 4 == 0;
    float *at = red + (turn % 2 * mm_step_warps + warp) * mm_step_tile + lane / 4;
    if (second && has) at[0] = c[0], at[8] = c[2];
    mm_meet_half();
    if (!second && has) c[0] += at[0], c[2] += at[8];
}

// Sums of warps that share a tile: (warps, 8 sequences or one, 16 rows).
template <class ARGS>
__device__ __forceinline__ void mm_put_sums(const ARGS &a, float *red, const float c[4]) {
    const int lane = threadIdx.x % 32, seq = lane % 4 * 2;
    float *to = red + threadIdx.x / 32 * ARGS::tile_sums + seq * mm_step_tile + lane / 4;
    if (seq < a.n) to[0] = c[0], to[8] = c[2];
    if (seq + 1 < a.n) to[16] = c[1], to[24] = c[3];
}
// Those of a row, of `parts` parts one after the other, added; a part is a warp's, or neighbours'.
template <class ARGS>
inline constexpr int mm_row_part = ARGS::tile_sums *ARGS::warps / mm_step_warps;
template <class ARGS>
__device__ __forceinline__ float mm_row_sum(const ARGS &, const float *p, int parts) {
    float sum = 0.0f;
#pragma unroll 4
    for (int i = 0; i < parts; i++, p += mm_row_part<ARGS>)
        sum += ARGS::warps > mm_step_warps ? p[0] + p[ARGS::tile_sums] : p[0];
    return sum;
}

// The sums of a tile of a last projection go to the other crews; of heads of several rounds, after
// all were added up.
template <class KERNEL, class ARGS>
__device__ __forceinline__ void mm_send(const ARGS &a, const struct mm_step_who &me, char *memory,
                                        const float c[4], int tile, unsigned meeting, int round,
                                        bool more) {
    const int seq0 = threadIdx.x % 4 * 2, column0 = tile * mm_step_tile + threadIdx.x % 32 / 4;
    if (seq0 >= a.n) return;
    float *sums = (float *)(memory + a.room.sum) + seq0 * a.slice + column0 - me.rank * a.slice;
    uint64_t *to = mm_stream_part(a, meeting, me.crew, seq0, column0);
    const int next = a.D_blocks * mm_step_block;  // sequence
    uint64_t *word = NULL;  // of one sequence; eight columns on is the next four words
    if (KERNEL::one)
        word = mm_sums(a, mm_turn_of(a, memory, meeting), column0 / mm_step_block) +
               mm_sums_place(a, column0);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        if (seq0 + e % 2 >= a.n || column0 + e / 2 * 8 >= a.D) continue;
        float *sum = sums + e % 2 * a.slice + e / 2 * 8;
        const float v = round > 0 ? *sum + c[e] : c[e];
        if (more) {
            *sum = v;
        } else if (KERNEL::one) {
            mm_add_part(word + e / 2 * mm_sums_apart<ARGS>, v);
        } else {
            mm_say_float(to + e % 2 * next + e / 2 * 8, v, meeting);
        }
    }
}

#endif
