// How blocks of a token step hand things on: words of 8 bytes, a number and the number of the
// meeting it is for. A reader asks until the words are of its meeting or a later one, so the data
// is the signal, and one trip to the L2 is all that anybody waits for.
//
// Every place is there twice, for even and odd meetings. A place is written again two meetings
// later, by a block that has meanwhile read what its readers made of it; a reader that has no part
// in that makes nothing of it either, and may read a later word.
#ifndef MM_OPS_CUDA_STEP_WORDS_CUH
#define MM_OPS_CUDA_STEP_WORDS_CUH

#include "ops/cuda/step_queue.cuh"

__device__ __forceinline__ uint64_t mm_word(uint32_t v, unsigned meeting) {
    return (uint64_t)meeting << 32 | v;
}
__device__ __forceinline__ void mm_say(uint64_t *to, uint32_t v, unsigned meeting) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(mm_word(v, meeting))
                 : "memory");
}
__device__ __forceinline__ void mm_say_float(uint64_t *to, float v, unsigned meeting) {
    mm_say(to, __float_as_uint(v), meeting);
}
// Two words; `to` is a multiple of 16 bytes.
__device__ __forceinline__ void mm_say2(uint64_t *to, uint2 v, unsigned meeting) {
    asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %2};" ::"l"(to),
                 "l"(mm_word(v.x, meeting)), "l"(mm_word(v.y, meeting))
                 : "memory");
}

__device__ __forceinline__ bool mm_fresh(uint64_t word, unsigned meeting) {
    return (int)((unsigned)(word >> 32) - meeting) >= 0;
}
__device__ __forceinline__ void mm_load_word(uint64_t &w, const uint64_t *from) {
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(w) : "l"(from) : "memory");
}
__device__ __forceinline__ void mm_load_words(uint64_t &w0, uint64_t &w1, const uint64_t *from) {
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(w0), "=l"(w1)
                 : "l"(from)
                 : "memory");
}

// One word's number, when it has come.
__device__ __forceinline__ uint32_t mm_hear(const uint64_t *from, unsigned meeting) {
    uint64_t w;
    do
        mm_load_word(w, from);
    while (!mm_fresh(w, meeting));
    return (uint32_t)w;
}
__device__ __forceinline__ uint2 mm_hear2(const uint64_t *from, unsigned meeting) {
    uint64_t w0, w1;
    do
        mm_load_words(w0, w1, from);
    while (!mm_fresh(w0, meeting) || !mm_fresh(w1, meeting));
    return make_uint2((uint32_t)w0, (uint32_t)w1);
}
__device__ __forceinline__ uint4 mm_hear4(const uint64_t *from, unsigned meeting) {
    uint64_t w0, w1, w2, w3;
    do {
        mm_load_words(w0, w1, from);
        mm_load_words(w2, w3, from + 2);
    } while (!mm_fresh(w0, meeting) || !mm_fresh(w1, meeting) || !mm_fresh(w2, meeting) ||
             !mm_fresh(w3, meeting));
    return make_uint4((uint32_t)w0, (uint32_t)w1, (uint32_t)w2, (uint32_t)w3);
}
__device__ __forceinline__ float4 mm_as_floats(uint4 u) {
    return make_float4(__uint_as_float(u.x), __uint_as_float(u.y), __uint_as_float(u.z),
                       __uint_as_float(u.w));
}
__device__ __forceinline__ float4 mm_add4(float4 x, float4 y) {
    return make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
}

// ---- between crews: parts of the residual stream ----

template <class ARGS>
__device__ __forceinline__ uint64_t *mm_stream_part(const ARGS &a, unsigned meeting, int crew,
                                                    int seq, int column) {
    const int64_t row = ((int64_t)(meeting & 1) * a.crews + crew) * mm_step_cols + seq;
    return a.parts + row * a.D_blocks * mm_step_block + column;
}

// The parts of crews `crew` and the next, 4 columns a lane, added, and of the two after them.
// Beyond the last there are zeros.
template <class ARGS>
__device__ __forceinline__ void mm_hear_parts(float4 v[2], const ARGS &a, unsigned meeting,
                                              int crew, int seq, int column) {
    v[0] = v[1] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (crew >= a.crews) return;
    const uint64_t *p = mm_stream_part(a, meeting, crew, seq, column);
    const int64_t step = (int64_t)mm_step_cols * a.D_blocks * mm_step_block;
    uint64_t u[4][4];
    bool come;
    do {
        come = true;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint64_t *q = p + (crew + i < a.crews ? i * step : 0);
            mm_load_words(u[i][0], u[i][1], q), mm_load_words(u[i][2], u[i][3], q + 2);
        }
#pragma unroll
        for (int i = 0; i < 16; i++)
            come = come && mm_fresh(u[i / 4][i % 4], meeting);
    } while (!come);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float4 x = mm_as_floats(
            make_uint4((uint32_t)u[i][0], (uint32_t)u[i][1], (uint32_t)u[i][2], (uint32_t)u[i][3]));
        if (crew + i < a.crews) v[i / 2] = i % 2 ? mm_add4(v[i / 2], x) : x;
    }
}

// ---- within a crew ----

// Of this meeting: a sequence's 128 columns of the stream as an operand; z and y of a round; the
// MLP's hidden numbers.
template <class ARGS>
__device__ __forceinline__ uint64_t *mm_words_x(const ARGS &a, int crew, unsigned meeting, int seq,
                                                int block) {
    const int row = ((int)(meeting & 1) * mm_step_cols + seq) * a.D_blocks + block;
    return a.exchange + (int64_t)crew * a.ex.words + a.ex.x + row * a.ex.x_block;
}
template <class ARGS>
__device__ __forceinline__ uint64_t *mm_words_z(const ARGS &a, int crew, unsigned meeting,
                                                int round, int seq) {
    const int row = ((int)(meeting & 1) * mm_step_rounds + round) * mm_step_cols + seq;
    return a.exchange + (int64_t)crew * a.ex.words + a.ex.z + row * a.z_ld;
}
template <class ARGS>
__device__ __forceinline__ uint64_t *mm_words_y(const ARGS &a, int crew, unsigned meeting,
                                                int round, int seq) {
    const int row = ((int)(meeting & 1) * mm_step_rounds + round) * mm_step_cols + seq;
    return a.exchange + (int64_t)crew * a.ex.words + a.ex.y + row * a.ex.y_ld;
}
template <class ARGS>
__device__ __forceinline__ uint64_t *mm_words_s(const ARGS &a, int crew, unsigned meeting,
                                                int seq) {
    const int row = (int)(meeting & 1) * mm_step_cols + seq;
    return a.exchange + (int64_t)crew * a.ex.words + a.ex.s + row * a.ex.s_ld;
}

#endif
