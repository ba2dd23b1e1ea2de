// The largest number of a row and the first that has it, looked for by several blocks: each finds
// that of a span of the columns, as one word that can be compared, and who needs it takes the
// largest of a row's words. One block would read a row of logits in 40 microseconds.
#ifndef MM_OPS_CUDA_LARGEST_CUH
#define MM_OPS_CUDA_LARGEST_CUH

#include <math.h>
#include <stdint.h>

enum { mm_largest_threads = 256, mm_largest_each = 8 };  // columns of a thread

static inline int mm_largest_spans(int64_t cols) {
    const int span = mm_largest_threads * mm_largest_each;
    return (int)((cols + span - 1) / span);
}

// Floats whose order is that of whole numbers; -0 is 0.
__device__ inline uint32_t mm_float_key(float x) {
    const uint32_t b = __float_as_uint(__fadd_rn(x, 0.0f));
    return b & 0x80000000u ? ~b : b | 0x80000000u;
}
__device__ inline float mm_key_float(uint32_t key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// 0 is less than any number's, and what a NaN gets.
__device__ inline uint64_t mm_largest_word(float x, int column) {
    return x == x ? (uint64_t)mm_float_key(x) << 32 | (uint32_t)~column : 0;
}
__device__ inline float mm_largest_value(uint64_t word) {
    return word ? mm_key_float((uint32_t)(word >> 32)) : -INFINITY;
}
__device__ inline int mm_largest_column(uint64_t word) {
    return (int)~(uint32_t)word;
}
__device__ inline uint64_t mm_largest_of_warp(uint64_t word) {
    for (int i = 16; i > 0; i >>= 1) {
        const uint64_t other = __shfl_xor_sync(0xffffffffu, word, i);
        if (other > word) word = other;
    }
    return word;
}

// The word of this block's span of a row, at(column) its numbers; blockIdx.x: which span. For
// thread 0.
template <class F>
__device__ inline uint64_t mm_largest_of_span(int cols, const F &at) {
    __shared__ uint64_t words[mm_largest_threads / 32];
    const int from = (int)(blockIdx.x * mm_largest_threads * mm_largest_each + threadIdx.x);
    float x[mm_largest_each];  // asked for together
#pragma unroll
    for (int i = 0; i < mm_largest_each; i++) {
        const int column = from + i * mm_largest_threads;
        x[i] = column < cols ? at(column) : -INFINITY;
    }
    uint64_t word = 0;
#pragma unroll
    for (int i = 0; i < mm_largest_each; i++) {
        const int column = from + i * mm_largest_threads;
        const uint64_t other = column < cols ? mm_largest_word(x[i], column) : 0;
        if (other > word) word = other;
    }
    word = mm_largest_of_warp(word);
    if (threadIdx.x % 32 == 0) words[threadIdx.x / 32] = word;
    __syncthreads();
    for (int i = 1; threadIdx.x == 0 && i < mm_largest_threads / 32; i++)
        if (words[i] > word) word = words[i];
    return word;
}

// The largest of a row's words, which other blocks may have just written, for every lane of a warp.
__device__ inline uint64_t mm_largest_of_spans(const uint64_t *words, int spans) {
    uint64_t word = 0;
    for (int i = threadIdx.x % 32; i < spans; i += 32) {
        const uint64_t other = __ldcg((const unsigned long long *)words + i);
        if (other > word) word = other;
    }
    return mm_largest_of_warp(word);
}

#endif
