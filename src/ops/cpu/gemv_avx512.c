// Matrix-vector products with float weights for AVX-512 (CMakeLists.txt says so to the compiler).
#include <immintrin.h>
#include "ops/cpu/gemv.h"
#include "ops/cpu/vmath.h"

#define FLOATS mm_gemv_floats_avx512
#define LANES 16
#define STREAMS(t) ((t) <= 6 ? 4 : 3)
#define AMD_STREAMS(type, t, small) ((small) && (t) == 1 ? 1 : 3)
#define AMD_FAR(type, small) true
typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

MM_VINLINE float add_lanes(vec v) {
    return _mm512_reduce_add_ps(v);
}

MM_VINLINE __mmask16 first(int n) {
    return (__mmask16)((1u << n) - 1u);
}

MM_VINLINE vec load_x(const float *x) {
    return _mm512_loadu_ps(x);
}

MM_VINLINE vec load_x_some(const float *x, int n) {
    return _mm512_maskz_loadu_ps(first(n), x);
}

MM_VINLINE vec widened(__m256i h, enum mm_dtype type) {
    if (type == mm_dtype_f16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

MM_VINLINE vec load_w(const char *w, int64_t at, enum mm_dtype type) {
    if (type == mm_dtype_f32) return _mm512_loadu_ps((const float *)w + at);
    return widened(_mm256_loadu_si256((const __m256i *)((const uint16_t *)w + at)), type);
}

MM_VINLINE vec load_w_some(const char *w, int64_t at, enum mm_dtype type, int n) {
    if (type == mm_dtype_f32) return load_x_some((const float *)w + at, n);
    return widened(_mm256_maskz_loadu_epi16(first(n), (const uint16_t *)w + at), type);
}

#include "ops/cpu/kernel_gemv_floats.h"
