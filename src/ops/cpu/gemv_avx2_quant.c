// Matrix-vector products with quantized weights for AVX2, FMA and F16C (CMakeLists.txt says so to
// the compiler). maddubs takes one unsigned operand and adds two products in 16 bits, which must
// fit. q8: |x| and the weight with x's sign, at most 127 * 127 each. q4: c + 8, at most 15, and x;
// the factor of the group comes in where pairs become 32 bits.
#include <immintrin.h>
#include "ops/cpu/gemv.h"
#include "ops/cpu/vmath.h"

#define QUANT mm_gemv_quant_avx2
#define LANES 8
#define STREAMS(t) ((t) == 1 ? 2 : 1)
#define AMD_STREAMS(type, t, small) ((small) ? 1 : (type) == mm_dtype_q8 ? 4 : 3)
#define AMD_FAR(type, small) ((type) == mm_dtype_q8 && !(small))
#define QBYTES 32
#define SHIFT(type) ((type) == mm_dtype_q4 ? 8 : 0)
#define FACTORS 1
typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef __m256i qvec, ivec;
typedef struct {
    __m256i w, factor;  // factor: 16 bits each
} part;

MM_VINLINE float add_lanes(vec v) {
    const __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

MM_VINLINE __m256i load_codes(const char *codes) {
    return _mm256_loadu_si256((const __m256i *)codes);
}

MM_VINLINE part q8_part(const char *codes, int i) {
    return (part){load_codes(codes + i * QBYTES), _mm256_set1_epi16(1)};
}

MM_VINLINE part q4_part(const char *codes, const uint32_t *u, int i) {
    const __m256i both = load_codes(codes + i % 2 * QBYTES);
    const __m256i c = i < 2 ? both : _mm256_srli_epi16(both, 4);
    return (part){_mm256_and_si256(c, _mm256_set1_epi8(15)),
                  _mm256_set1_epi32((int)u[i * mm_gemv_super])};
}

MM_VINLINE __m256i dot_first(part w, __m256i x, enum mm_dtype type) {
    const __m256i pairs = type == mm_dtype_q4
                              ? _mm256_maddubs_epi16(w.w, x)
                              : _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w.w, x));
    return _mm256_madd_epi16(pairs, w.factor);
}

MM_VINLINE __m256i dot_part(__m256i sums, part w, __m256i x, enum mm_dtype type) {
    return _mm256_add_epi32(sums, dot_first(w, x, type));
}

MM_VINLINE vec sums_float(__m256i sums) {
    return _mm256_cvtepi32_ps(sums);
}

MM_VINLINE void halves(float *f, const uint16_t *h) {
    for (int i = 0; i < mm_gemv_super; i += 8)
        _mm256_storeu_ps(f + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(h + i))));
}

MM_VINLINE void code_some(int8_t *codes, const float *x, float by, int n) {
    float some[LANES] = {0};
    if (n < LANES) memcpy(some, x, (size_t)n * sizeof *x);
    const __m256 v = n == LANES ? _mm256_loadu_ps(x) : _mm256_loadu_ps(some);
    const __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(v, _mm256_set1_ps(by)));
    const __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
    const int64_t eight = _mm_cvtsi128_si64(_mm_packs_epi16(h, h));
    memcpy(codes, &eight, (size_t)n);
}

#include "ops/cpu/kernel_gemv_quant.h"
