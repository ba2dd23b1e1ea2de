// How blocks of a token step hand things on: words of 8 bytes, a number and the number of the
// meeting it is for. A reader asks until the words are of its meeting or a later one, so the data
// is the signal, and one trip to the L2 is all that anybody waits for.
//
// Every place is there twice, for even and odd meetings. A place is written again two meetings
// later, by a block that has meanwhile read what its readers made of it; a reader that has no part
// in that makes nothing of it either, and may read a later word.
//
// The crews' parts of the residual stream are added up as whole numbers, whose order does not
// matter. Of one sequence that is done where they meet, in the L2: a word there has their sum, and
// above it how many have come, so that, again, the data is the signal (mm_sums).
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

// The lanes of a warp wait together: those that left a loop one by one would go on one by one, and
// all that follows would be executed for each few of them. Who has heard asks no more, since what
// is asked for stands in the way of what is said; who wants nothing does not ask.
__device__ __forceinline__ bool mm_all(bool come) {
    return __all_sync(0xffffffffu, come);
}
// One word's number, when it has come; 0 where `wanted` is false.
__device__ __forceinline__ uint32_t mm_hear(const uint64_t *from, unsigned meeting, bool wanted) {
    uint64_t w = 0;
    bool come = !wanted;
    do
        if (!come) mm_load_word(w, from), come = mm_fresh(w, meeting);
    while (!mm_all(come));
    return (uint32_t)w;
}
__device__ __forceinline__ uint2 mm_hear2(const uint64_t *from, unsigned meeting, bool wanted) {
    uint64_t w0 = 0, w1 = 0;
    bool come = !wanted;
    do
        if (!come) {
            mm_load_words(w0, w1, from);
            come = mm_fresh(w0, meeting) && mm_fresh(w1, meeting);
        }
    while (!mm_all(come));
    return make_uint2((uint32_t)w0, (uint32_t)w1);
}
// Four words of each of N places.
template <int N>
__device__ __forceinline__ void mm_hear4(uint4 (&to)[N], const uint64_t *const (&from)[N],
                                         unsigned meeting, bool wanted) {
    uint64_t w[N][4] = {};
    bool come = !wanted;
    do
        if (!come) {
            come = true;
#pragma unroll
            for (int i = 0; i < N; i++)
                mm_load_words(w[i][0], w[i][1], from[i]),
                    mm_load_words(w[i][2], w[i][3], from[i] + 2);
#pragma unroll
            for (int i = 0; i < 4 * N; i++)
                come = come && mm_fresh(w[i / 4][i % 4], meeting);
        }
    while (!mm_all(come));
#pragma unroll
    for (int i = 0; i < N; i++)
        to[i] =
            make_uint4((uint32_t)w[i][0], (uint32_t)w[i][1], (uint32_t)w[i][2], (uint32_t)w[i][3]);
}
__device__ __forceinline__ float4 mm_as_floats(uint4 u) {
    return make_float4(__uint_as_float(u.x), __uint_as_float(u.y), __uint_as_float(u.z),
                       __uint_as_float(u.w));
}
__device__ __forceinline__ float4 mm_add4(float4 x, float4 y) {
    return make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
}

// ---- between crews: parts of the residual stream ----

// A part as a whole number of 2^-28. What is not below 2^20, or no number, makes a sum that is
// none.
static constexpr int64_t mm_no_number = (int64_t)1 << 56;
__device__ __forceinline__ int64_t mm_whole(float v) {
    return fabsf(v) < 0x1p20f ? __float2ll_rn(v * 0x1p28f) : mm_no_number;
}
__device__ __forceinline__ float mm_of_whole(int64_t sum) {
    return sum >= mm_no_number / 2 ? __int_as_float(0x7fffffff) : __ll2float_rn(sum) * 0x1p-28f;
}

// One sequence's sums of four meetings, in turns: of a meeting's, one is being added to or heard,
// the next may be, and those two meetings on are zeros by then. Who sends its part to one has heard
// the one before, and so knows that all have heard the one before that: it is set to zero. A word
// has the sum in 53 bits, then how many parts have come in 5, then how many were no number.
enum { mm_sums_turns = 4, mm_sums_count = 53, mm_sums_bad = 58 };
static constexpr int64_t mm_sums_bias = (int64_t)1 << 48;  // what is added is not negative
static_assert(mm_step_crews <= 16, "as many parts have room");

// Where those of a column are, and `block` 128 on: a lane hears four neighbours, two and two, and
// what all lanes ask for at once, 16 bytes each, is whole lines. Of groups, which are at it more
// often, every 32 bytes are in a line of their own: a line that much is added to, and all ask for,
// takes long.
template <class ARGS>
inline constexpr int mm_sums_apart = ARGS::groups ? 16 : 4;
template <class ARGS>
inline constexpr int mm_sums_block = mm_step_block / 4 * mm_sums_apart<ARGS>;
template <class ARGS>
__device__ __forceinline__ uint64_t *mm_sums(const ARGS &a, unsigned turn, int block) {
    return a.sums + ((turn % mm_sums_turns) * (unsigned)a.D_blocks + block) * mm_sums_block<ARGS>;
}
template <class ARGS>
__device__ __forceinline__ int mm_sums_place(const ARGS &, int column) {
    const int at = (column & 2) * 32 + (column & (mm_step_block - 4)) / 2 + (column & 1);
    return at / 4 * mm_sums_apart<ARGS> + at % 4;
}
// Where the turn of a token's first sums is, from one token to the next.
template <class ARGS>
__device__ __forceinline__ uint64_t *mm_turn(const ARGS &a) {
    return a.sums + mm_sums_turns * a.D_blocks * mm_sums_block<ARGS>;
}
// Of the parts that are sent at a meeting.
template <class ARGS>
__device__ __forceinline__ unsigned mm_turn_of(const ARGS &a, const char *memory,
                                               unsigned meeting) {
    return meeting - a.meeting + ((const unsigned *)(memory + a.room.numbers))[1];
}
__device__ __forceinline__ void mm_add_word(uint64_t *to, uint64_t v) {
    asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(to), "l"(v) : "memory");
}
// What this thread has written before is there before what it, or who it meets then, says next. One
// that acquires as well would empty the L1, where registers are spilled to.
__device__ __forceinline__ void mm_fence() {
    asm volatile("fence.release.gpu;" ::: "memory");
}
__device__ __forceinline__ void mm_zero_words(uint64_t *to) {
    asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %1};" ::"l"(to), "l"((uint64_t)0)
                 : "memory");
}
__device__ __forceinline__ void mm_add_part(uint64_t *to, float v) {
    const int64_t part = mm_whole(v);
    const uint64_t here = (uint64_t)1 << mm_sums_count;
    mm_add_word(to, part == mm_no_number ? here + ((uint64_t)1 << mm_sums_bad)
                                         : here + (uint64_t)(part + mm_sums_bias));
}
// Whether all crews have come.
__device__ __forceinline__ bool mm_summed(uint64_t word, int crews) {
    return (int)(word >> mm_sums_count & 31) == crews;
}
// Of a word that all have come to, of which `all` is what they brought beside their parts: a sum of
// numbers is below 2^24, and what is none is far above.
__device__ __forceinline__ float mm_sum_of(uint64_t word, uint64_t all) {
    const float sum = __ll2float_rn((int64_t)(word - all)) * 0x1p-28f;
    return fabsf(sum) < 0x1p25f ? sum : __int_as_float(0x7fffffff);
}
// A lane's 4 columns from `column` on, which are asked for, and heard.
struct mm_sums_asked {
    uint64_t u[4];

    template <class ARGS>
    __device__ __forceinline__ static const uint64_t *at(const ARGS &a, unsigned turn, int column) {
        return mm_sums(a, turn, column / mm_step_block) + mm_sums_place(a, column);
    }
    template <class ARGS>
    __device__ __forceinline__ void ask(const ARGS &a, unsigned turn, int column) {
        const uint64_t *from = at(a, turn, column);
        mm_load_words(u[0], u[1], from), mm_load_words(u[2], u[3], from + mm_sums_block<ARGS> / 2);
    }
    // Nothing of use where `wanted` is false.
    template <class ARGS>
    __device__ __forceinline__ float4 hear(const ARGS &a, unsigned turn, int column, bool wanted) {
        const uint64_t *from = at(a, turn, column);
        while (true) {
            const bool low = !wanted || (mm_summed(u[0], a.crews) && mm_summed(u[1], a.crews));
            const bool high = !wanted || (mm_summed(u[2], a.crews) && mm_summed(u[3], a.crews));
            if (mm_all(low && high)) break;
            if (!low) mm_load_words(u[0], u[1], from);
            if (!high) mm_load_words(u[2], u[3], from + mm_sums_block<ARGS> / 2);
        }
        const uint64_t all = a.crews * (((uint64_t)1 << mm_sums_count) + mm_sums_bias);
        return make_float4(mm_sum_of(u[0], all), mm_sum_of(u[1], all), mm_sum_of(u[2], all),
                           mm_sum_of(u[3], all));
    }
};
__device__ __forceinline__ float4 mm_of_wholes(const int64_t sum[4]) {
    return make_float4(mm_of_whole(sum[0]), mm_of_whole(sum[1]), mm_of_whole(sum[2]),
                       mm_of_whole(sum[3]));
}

// A block's share of the sums of a turn becomes zeros when nobody needs them any more. They are
// there before the block's parts of the next meeting are, which is before anybody adds to them: who
// sets some to zero waits for those of the last time, which have long arrived, and nobody waits for
// these. The copy engine, where there is one, takes them from zeros in shared memory. Without, a
// fence waits for all that the block says just then, too: on an H100 two thousand cycles.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define MM_ZEROS_COPIED 1
#else
#define MM_ZEROS_COPIED 0
#endif

#if MM_ZEROS_COPIED
__device__ __forceinline__ void mm_zeros_copy(uint64_t *to, uint32_t zeros) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to),
                 "r"(zeros), "n"((int)mm_sums_piece)
                 : "memory");
}
__device__ __forceinline__ void mm_zeros_close() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Until what this thread has had copied is there.
__device__ __forceinline__ void mm_zeros_wait() {
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
// What this thread has written is what the copy engine reads.
__device__ __forceinline__ void mm_zeros_written() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
#endif

// When a token begins: by threads that all others meet then.
template <class ARGS>
__device__ __forceinline__ void mm_zeros_make(const ARGS &a, char *memory) {
#if MM_ZEROS_COPIED
    if (threadIdx.x >= mm_sums_piece / 16) return;
    ((uint4 *)(memory + a.room.zeros))[threadIdx.x] = make_uint4(0, 0, 0, 0);
    mm_zeros_written();
#endif
}
// By a warp that has the least to do.
template <class ARGS>
__device__ __forceinline__ void mm_clear_sums(const ARGS &a, const char *memory, unsigned turn) {
    const int lane = (int)threadIdx.x - (mm_step_threads<ARGS> - 64);
#if MM_ZEROS_COPIED
    constexpr int words = mm_sums_piece / 8;
    const int pieces = a.D_blocks * (mm_sums_block<ARGS> / words);
    if (lane != 0) return;
    mm_zeros_wait();
    for (int i = (int)blockIdx.x; i < pieces; i += (int)gridDim.x)
        mm_zeros_copy(mm_sums(a, turn, 0) + i * words, mm_shared_at(memory + a.room.zeros));
    mm_zeros_close();
#else
    const int pairs = a.D_blocks * mm_step_block / 2;
    if (lane < 0 || lane >= 32) return;
    mm_fence();
    for (int i = (int)blockIdx.x + lane * (int)gridDim.x; i < pairs; i += 32 * (int)gridDim.x)
        mm_zero_words(mm_sums(a, turn, 0) + i / 2 * mm_sums_apart<ARGS> + i % 2 * 2);
#endif
}
// When a token ends: until then shared memory is read.
template <class ARGS>
__device__ __forceinline__ void mm_sums_cleared(const ARGS &) {
#if MM_ZEROS_COPIED
    if (threadIdx.x == mm_step_threads<ARGS> - 64) mm_zeros_wait();
#endif
}

template <class ARGS>
__device__ __forceinline__ uint64_t *mm_stream_part(const ARGS &a, unsigned meeting, int crew,
                                                    int seq, int column) {
    const int64_t row = ((int64_t)(meeting & 1) * a.crews + crew) * mm_step_cols + seq;
    return a.parts + row * a.D_blocks * mm_step_block + column;
}

// The parts of four crews from `crew` on, 4 columns a lane, are added to v where they are `wanted`.
// Beyond the last there are none.
template <class ARGS>
__device__ __forceinline__ void mm_hear_parts(int64_t v[4], const ARGS &a, unsigned meeting,
                                              int crew, int seq, int column, bool wanted) {
    if (crew >= a.crews) return;
    const uint64_t *p = mm_stream_part(a, meeting, crew, seq, column);
    const int64_t step = (int64_t)mm_step_cols * a.D_blocks * mm_step_block;
    uint64_t u[4][4] = {};
    bool come;
    do {
        come = true;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (!wanted) break;
            const uint64_t *q = p + (crew + i < a.crews ? i * step : 0);
            mm_load_words(u[i][0], u[i][1], q), mm_load_words(u[i][2], u[i][3], q + 2);
        }
#pragma unroll
        for (int i = 0; i < 16; i++)
            come = come && (!wanted || mm_fresh(u[i / 4][i % 4], meeting));
    } while (!mm_all(come));
#pragma unroll
    for (int i = 0; i < 16; i++) {
        if (crew + i / 4 < a.crews && wanted)
            v[i % 4] += mm_whole(__uint_as_float((uint32_t)u[i / 4][i % 4]));
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
