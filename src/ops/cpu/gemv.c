// Matrix-vector products of decoding. Each thread takes a range of weight rows; a step of the
// inner loop widens one vector of each of four weight rows and multiplies it with T rows of x.
// Every element is summed by one thread in one order: results do not depend on the threads.
#include "ops/cpu/gemv.h"
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline))

enum { rows_at_once = 4 };

struct gemv_job {
    struct mm_view y, x, w;
    const float *bias;
    enum mm_isa isa;
};

// ---- vectors of weights as f32; `some` is how many of them are wanted at the end of a row ----

AVX512 INLINE __m512 load16(const void *w, int64_t at, enum mm_dtype type, __mmask16 some) {
    if (type == mm_dtype_f32) return _mm512_maskz_loadu_ps(some, (const float *)w + at);
    const __m256i h = _mm256_maskz_loadu_epi16(some, (const uint16_t *)w + at);
    if (type == mm_dtype_f16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

AVX2 INLINE __m256 load8(const void *w, int64_t at, enum mm_dtype type) {
    if (type == mm_dtype_f32) return _mm256_loadu_ps((const float *)w + at);
    const __m128i h = _mm_loadu_si128((const __m128i *)((const uint16_t *)w + at));
    if (type == mm_dtype_f16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

AVX2 INLINE float load1(const void *w, int64_t at, enum mm_dtype type) {
    if (type == mm_dtype_f32) return ((const float *)w)[at];
    const uint16_t h = ((const uint16_t *)w)[at];
    return type == mm_dtype_f16 ? _cvtsh_ss(h) : mm_bf16_to_f32(h);
}

AVX2 INLINE float sum8(__m256 v) {
    const __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

// ---- n_rows weight rows from `row`, times t_dim rows of x; both are constants when inlined ----

AVX512 INLINE void block_avx512(const struct gemv_job *j, int64_t row, int n_rows, int t_dim,
                                enum mm_dtype type) {
    __m512 sum[rows_at_once][4];
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < t_dim; t++)
            sum[r][t] = _mm512_setzero_ps();
    }
    const int64_t k_dim = mm_view_cols(j->x);
    const float *x = j->x.data;
    for (int64_t k = 0; k < k_dim; k += 16) {
        const int64_t left = k_dim - k;
        const __mmask16 some = (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1u);
        __m512 xv[4];
        for (int t = 0; t < t_dim; t++)
            xv[t] = _mm512_maskz_loadu_ps(some, x + t * j->x.ld + k);
        for (int r = 0; r < n_rows; r++) {
            const __m512 wv = load16(j->w.data, (row + r) * j->w.ld + k, type, some);
            for (int t = 0; t < t_dim; t++)
                sum[r][t] = _mm512_fmadd_ps(wv, xv[t], sum[r][t]);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < t_dim; t++) {
            const float b = j->bias ? j->bias[row + r] : 0.0f;
            ((float *)j->y.data)[t * j->y.ld + row + r] = _mm512_reduce_add_ps(sum[r][t]) + b;
        }
    }
}

AVX2 INLINE void block_avx2(const struct gemv_job *j, int64_t row, int n_rows, int t_dim,
                            enum mm_dtype type) {
    __m256 sum[rows_at_once][4];
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < t_dim; t++)
            sum[r][t] = _mm256_setzero_ps();
    }
    const int64_t k_dim = mm_view_cols(j->x), whole = k_dim / 8 * 8;
    const float *x = j->x.data;
    for (int64_t k = 0; k < whole; k += 8) {
        __m256 xv[4];
        for (int t = 0; t < t_dim; t++)
            xv[t] = _mm256_loadu_ps(x + t * j->x.ld + k);
        for (int r = 0; r < n_rows; r++) {
            const __m256 wv = load8(j->w.data, (row + r) * j->w.ld + k, type);
            for (int t = 0; t < t_dim; t++)
                sum[r][t] = _mm256_fmadd_ps(wv, xv[t], sum[r][t]);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < t_dim; t++) {
            float s = sum8(sum[r][t]);
            for (int64_t k = whole; k < k_dim; k++) {
                s += load1(j->w.data, (row + r) * j->w.ld + k, type) * x[t * j->x.ld + k];
            }
            ((float *)j->y.data)[t * j->y.ld + row + r] = s + (j->bias ? j->bias[row + r] : 0.0f);
        }
    }
}

// ---- one function for each (instruction set, type, T), so that the loops above unroll ----

#define ROWS(isa, target, type, t_dim)                                                        \
    target static void rows_##isa##_##type##_##t_dim(const struct gemv_job *j, int64_t begin, \
                                                     int64_t end) {                           \
        int64_t row = begin;                                                                  \
        for (; row + rows_at_once <= end; row += rows_at_once) {                              \
            block_##isa(j, row, rows_at_once, t_dim, mm_dtype_##type);                        \
        }                                                                                     \
        for (; row < end; row++)                                                              \
            block_##isa(j, row, 1, t_dim, mm_dtype_##type);                                   \
    }
#define ROWS_OF_TYPE(isa, target, type) \
    ROWS(isa, target, type, 1)          \
    ROWS(isa, target, type, 2)          \
    ROWS(isa, target, type, 3)          \
    ROWS(isa, target, type, 4)
#define ROWS_OF_ISA(isa, target)    \
    ROWS_OF_TYPE(isa, target, f32)  \
    ROWS_OF_TYPE(isa, target, bf16) \
    ROWS_OF_TYPE(isa, target, f16)
ROWS_OF_ISA(avx2, AVX2)
ROWS_OF_ISA(avx512, AVX512)

typedef void rows_fn(const struct gemv_job *, int64_t, int64_t);
#define NAMES(isa, type)                                                           \
    {                                                                              \
        rows_##isa##_##type##_1, rows_##isa##_##type##_2, rows_##isa##_##type##_3, \
            rows_##isa##_##type##_4                                                \
    }
static rows_fn *const rows_avx2[3][4] = {NAMES(avx2, f32), NAMES(avx2, bf16), NAMES(avx2, f16)};
static rows_fn *const rows_avx512[3][4] = {NAMES(avx512, f32), NAMES(avx512, bf16),
                                           NAMES(avx512, f16)};

static void gemv_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct gemv_job *j = arg;
    (void)thread;
    const int64_t t_dim = j->x.shape[0], n_dim = j->w.shape[0];
    begin *= rows_at_once;
    end = end * rows_at_once < n_dim ? end * rows_at_once : n_dim;
    (j->isa >= mm_isa_avx512 ? rows_avx512 : rows_avx2)[j->w.dtype][t_dim - 1](j, begin, end);
}

void mm_gemv(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
             const float *bias) {
    if (x.shape[0] == 0) return;
    struct gemv_job j = {y, x, w, bias, mm_cpu_isa(be)};
    // Below some 60,000 weights waking a second thread costs more than it saves.
    const int64_t blocks = (w.shape[0] + rows_at_once - 1) / rows_at_once;
    mm_parallel_for(be->pool, blocks, 1 + 8192 / mm_view_cols(x), gemv_rows, &j);
}
