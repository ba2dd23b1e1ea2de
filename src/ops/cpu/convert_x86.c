// Conversions between float types, by instruction set of x86-64.
#include "ops/cpu/convert.h"
#include <immintrin.h>
#include "ops/cpu/convert_bits.h"

#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define AVX512BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

AVX2 static void to_bf16_avx2(uint16_t *restrict dst, const float *restrict src, int64_t n) {
    mm_round_to_bf16(dst, src, n);
}

AVX512 static void to_bf16_avx512(uint16_t *restrict dst, const float *restrict src, int64_t n) {
    mm_round_to_bf16(dst, src, n);
}

AVX512BF16 static void to_bf16_native(uint16_t *restrict dst, const float *restrict src,
                                      int64_t n) {
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m512bh h =
            _mm512_cvtne2ps_pbh(_mm512_loadu_ps(src + i + 16), _mm512_loadu_ps(src + i));
        _mm512_storeu_si512(dst + i, (__m512i)h);
    }
    for (; i < n; i += 16) {
        const int64_t left = n - i < 16 ? n - i : 16;
        const __mmask16 some = (__mmask16)((1u << left) - 1u);
        const __m256bh h = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, src + i));
        _mm256_mask_storeu_epi16(dst + i, some, (__m256i)h);
    }
}

void mm_convert_to_bf16(enum mm_isa isa, uint16_t *dst, const float *src, int64_t n) {
    if (isa >= mm_isa_avx512bf16) {
        to_bf16_native(dst, src, n);
    } else if (isa >= mm_isa_avx512) {
        to_bf16_avx512(dst, src, n);
    } else {
        to_bf16_avx2(dst, src, n);
    }
}

void mm_convert_keep_bf16(enum mm_isa isa, uint16_t *dst, const float *src, int64_t n) {
    if (isa >= mm_isa_avx512) {
        to_bf16_avx512(dst, src, n);
    } else {
        to_bf16_avx2(dst, src, n);
    }
}

AVX2 void mm_convert_round_bf16(float *dst, const float *src, int64_t n) {
    mm_round_by_bf16(dst, src, n);
}

AVX2 static void f16_to_f32(float *restrict dst, const uint16_t *restrict src, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
    }
    for (; i < n; i++)
        dst[i] = _cvtsh_ss(src[i]);
}

AVX2 static void bf16_to_f32_avx2(float *restrict dst, const uint16_t *restrict src, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        dst[i] = mm_bf16_to_f32(src[i]);
}

AVX512 static void bf16_to_f32_avx512(float *restrict dst, const uint16_t *restrict src,
                                      int64_t n) {
    for (int64_t i = 0; i < n; i++)
        dst[i] = mm_bf16_to_f32(src[i]);
}

void mm_convert_to_f32(enum mm_isa isa, float *dst, const void *src, enum mm_dtype dtype,
                       int64_t n) {
    if (dtype == mm_dtype_f32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
    } else if (dtype == mm_dtype_f16) {
        f16_to_f32(dst, src, n);
    } else if (isa >= mm_isa_avx512) {
        bf16_to_f32_avx512(dst, src, n);
    } else {
        bf16_to_f32_avx2(dst, src, n);
    }
}
