// Included by kernels_avx512.c and mixer_avx512.c: sigmoid(x) and silu(x) of a strip. A vector
// division takes as long as everything else; a reciprocal good to 2^-14 and what is left of the
// division by it are within 1 ulp of it. 0 below -87.3, NaN stays NaN.
#include <immintrin.h>

// numerator / (1 + exp(-x)): the silu where the numerator is x.
MM_VINLINE __m512 over_one_plus(__m512 numerator, __m512 x) {
    const __m512 least = _mm512_set1_ps(-87.3f), one = _mm512_set1_ps(1.0f);
    // The second of two when there is a NaN.
    const __m512 y = _mm512_max_ps(least, _mm512_min_ps(_mm512_set1_ps(88.0f), x));
    const __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(y, _mm512_set1_ps(-1.44269504f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmsub_ps(k, _mm512_set1_ps(0.693359375f), y);
    r = _mm512_fnmadd_ps(k, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), one);
    const __m512 d = _mm512_add_ps(one, _mm512_scalef_ps(p, k));
    const __m512 by = _mm512_rcp14_ps(d), first = _mm512_mul_ps(numerator, by);
    const __mmask16 counts = _mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ);
    return _mm512_maskz_fmadd_ps(counts, _mm512_fnmadd_ps(d, first, numerator), by, first);
}

MM_VINLINE void sigmoids(float *restrict s, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 some = (__mmask16)(n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1u);
        const __m512 v = _mm512_maskz_loadu_ps(some, x + i);
        _mm512_mask_storeu_ps(s + i, some, over_one_plus(_mm512_set1_ps(1.0f), v));
    }
}

MM_VINLINE void silus(float *restrict s, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 some = (__mmask16)(n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1u);
        const __m512 v = _mm512_maskz_loadu_ps(some, x + i);
        _mm512_mask_storeu_ps(s + i, some, over_one_plus(v, v));
    }
}
