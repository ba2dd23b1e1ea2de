// Convolution and gated norm for mixers whose results are rounded to bf16 before they are
// multiplied (scan_rounds): silu within 2^-13 of itself, in a third of the instructions.
#include "ops/cpu/mixer.h"
#include "ops/cpu/pack_amx.h"

// x / (1 + exp(-x)): exp as 2^floor(t) 2^(t - floor(t)), the latter by a polynomial through the
// Chebyshev points (3.5e-6), and a reciprocal good to 2^-14. What is too large for an exponent
// becomes infinite, and the result 0.
MM_PACKS __m512 silu(__m512 x) {
    const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
    const __m512 f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(0.0136703095f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.0517449978f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.241604357f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.692972922f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.00000349f));
    const __m512 e = _mm512_scalef_ps(p, t);
    return _mm512_mul_ps(x, _mm512_rcp14_ps(_mm512_add_ps(e, _mm512_set1_ps(1.0f))));
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) void mm_conv_fwd_rounded(
    float *y, const float *const *x, const float *w, int64_t ldw, const float *bias, int64_t width,
    int64_t n) {
    for (int64_t c = 0; c < n; c += 16) {
        const __mmask16 some = mm_pack_first(n - c);
        __m512 z = _mm512_maskz_loadu_ps(some, bias + c);
        for (int64_t j = 0; j < width; j++) {
            z = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(some, w + j * ldw + c),
                                _mm512_maskz_loadu_ps(some, x[j] + c), z);
        }
        _mm512_mask_storeu_ps(y + c, some, silu(z));
    }
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) void mm_gated_norm_fwd_rounded(
    float *o, float *rinv, const float *y, const float *g, const float *w, float eps,
    int64_t n_heads, int64_t dim) {
    for (int64_t h = 0; h < n_heads; h++, o += dim, y += dim, g += dim) {
        float r = 1.0f;
        if (w) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t p = 0; p < dim; p += 16) {
                const __m512 v = _mm512_maskz_loadu_ps(mm_pack_first(dim - p), y + p);
                sum = _mm512_fmadd_ps(v, v, sum);
            }
            r = 1.0f / __builtin_sqrtf(_mm512_reduce_add_ps(sum) / (float)dim + eps);
            if (rinv) rinv[h] = r;
        }
        const __m512 by = _mm512_set1_ps(r);
        for (int64_t p = 0; p < dim; p += 16) {
            const __mmask16 some = mm_pack_first(dim - p);
            __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, y + p), by);
            if (w) v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(some, w + p));
            v = _mm512_mul_ps(v, silu(_mm512_maskz_loadu_ps(some, g + p)));
            _mm512_mask_storeu_ps(o + p, some, v);
        }
    }
}
