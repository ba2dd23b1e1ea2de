// Matrix-vector products with float weights for AVX2, FMA and F16C (CMakeLists.txt says so to the
// compiler).
#include <immintrin.h>
#include "ops/cpu/gemv.h"
#include "ops/cpu/vmath.h"

#define LANES 8
typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define FLOATS mm_gemv_floats_avx2
#define STREAMS(t) ((t) <= 3 ? 4 : (t) <= 6 ? 2 : 1)
#define AMD_STREAMS(type, t, small) 3
#define AMD_FAR(type, small) true

MM_VINLINE float add_lanes(vec v) {
    const __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

MM_VINLINE vec load_w(const char *w, int64_t at, enum mm_dtype type) {
    if (type == mm_dtype_f32) return _mm256_loadu_ps((const float *)w + at);
    const __m128i h = _mm_loadu_si128((const __m128i *)((const uint16_t *)w + at));
    if (type == mm_dtype_f16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

MM_VINLINE vec load_x(const float *x) {
    return _mm256_loadu_ps(x);
}

MM_VINLINE vec load_x_some(const float *x, int n) {
    float some[LANES] = {0};
    memcpy(some, x, (size_t)n * sizeof *x);
    return *(const vec *)some;
}

MM_VINLINE vec load_w_some(const char *w, int64_t at, enum mm_dtype type, int n) {
    const size_t size = type == mm_dtype_f32 ? 4 : 2;
    char some[LANES * 4] = {0};
    memcpy(some, w + (size_t)at * size, (size_t)n * size);
    return load_w(some, 0, type);
}

#include "ops/cpu/kernel_gemv_floats.h"
