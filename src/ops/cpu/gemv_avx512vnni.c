// Matrix-vector products with quantized weights for AVX-512 VNNI and VBMI (CMakeLists.txt says so
// to the compiler). dpbusd takes one unsigned operand: the weight, shifted to be positive. What the
// shift adds is a multiple of the sums of x's codes, and is taken off a block at a time.
#include <immintrin.h>
#include "ops/cpu/gemv.h"
#include "ops/cpu/vmath.h"

#define QUANT mm_gemv_quant_avx512vnni
#define LANES 16
#define STREAMS(t) 2
#define AMD_STREAMS(type, t, small) \
    ((type) == mm_dtype_q8 ? ((t) == 1 ? 1 : 2) : (small) || (t) > 4 ? 2 : 4)
#define AMD_FAR(type, small) ((type) == mm_dtype_q8 && !(small))
#define QBYTES 64
#define SHIFT(type) 128
#define FACTORS 0
typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef __m512i qvec, ivec, part;

MM_VINLINE float add_lanes(vec v) {
    return _mm512_reduce_add_ps(v);
}

MM_VINLINE __m512i load_codes(const char *codes) {
    return _mm512_loadu_si512(codes);
}

MM_VINLINE __m512i q8_part(const char *codes, int i) {
    return _mm512_xor_si512(_mm512_loadu_si512(codes + i * QBYTES), _mm512_set1_epi8(-128));
}

// 128 + u c for the sixteen c, of two groups whose factors are the halves of a byte.
#define SIXTEEN(u)                                                                             \
    128 - 8 * (u), 128 - 7 * (u), 128 - 6 * (u), 128 - 5 * (u), 128 - 4 * (u), 128 - 3 * (u),  \
        128 - 2 * (u), 128 - (u), 128, 128 + (u), 128 + 2 * (u), 128 + 3 * (u), 128 + 4 * (u), \
        128 + 5 * (u), 128 + 6 * (u), 128 + 7 * (u)
#define PAIR(low, high) \
    { SIXTEEN(low), SIXTEEN(high) }
#define PAIRS(high)                                                                           \
    PAIR(0, high), PAIR(1, high), PAIR(2, high), PAIR(3, high), PAIR(4, high), PAIR(5, high), \
        PAIR(6, high), PAIR(7, high), PAIR(8, high), PAIR(9, high), PAIR(10, high),           \
        PAIR(11, high), PAIR(12, high), PAIR(13, high), PAIR(14, high), PAIR(15, high)
static const _Alignas(64) uint8_t pairs[256][32] = {
    PAIRS(0), PAIRS(1), PAIRS(2),  PAIRS(3),  PAIRS(4),  PAIRS(5),  PAIRS(6),  PAIRS(7),
    PAIRS(8), PAIRS(9), PAIRS(10), PAIRS(11), PAIRS(12), PAIRS(13), PAIRS(14), PAIRS(15)};

// The weights of a block are looked up among 64: 16 of each group. vpermb takes six bits: a code,
// and the number of its group.
MM_VINLINE __m512i q4_part(const char *codes, const uint8_t *u, int i) {
    const __m512i both = _mm512_loadu_si512(codes);
    const __m512i c = i == 0 ? both : _mm512_srli_epi16(both, 4);
    const __m512i group = _mm512_inserti64x4(_mm512_set1_epi8((char)(32 * i)),
                                             _mm256_set1_epi8((char)(32 * i + 16)), 1);
    const int c_and_15_or_group = 0xea;
    const __m512i which =
        _mm512_ternarylogic_epi32(c, _mm512_set1_epi8(15), group, c_and_15_or_group);
    const __m512i table =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_load_si256((const __m256i *)pairs[u[0]])),
                           _mm256_load_si256((const __m256i *)pairs[u[1]]), 1);
    return _mm512_permutexvar_epi8(which, table);
}

MM_VINLINE __m512i dot_first(__m512i w, __m512i x, enum mm_dtype type) {
    (void)type;
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, x);
}

MM_VINLINE __m512i dot_part(__m512i sums, __m512i w, __m512i x, enum mm_dtype type) {
    (void)type;
    return _mm512_dpbusd_epi32(sums, w, x);
}

MM_VINLINE vec sums_float(__m512i sums) {
    return _mm512_cvtepi32_ps(sums);
}

MM_VINLINE void halves(float *f, const uint16_t *h) {
    _mm512_storeu_ps(f, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)h)));
}

MM_VINLINE void code_some(int8_t *codes, const float *x, float by, int n) {
    const __mmask16 some = (__mmask16)((1u << n) - 1u);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, x), _mm512_set1_ps(by));
    _mm_mask_storeu_epi8(codes, some, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}

#include "ops/cpu/kernel_gemv_quant.h"
