// The inner loops of the resize for AVX2.
//
// Along x four input pixels are taken at a time. The 16-bit multiply-add of pairs wants 16-bit
// coefficients, and ours have 23 bits, so each is split without loss: k = high 2^11 + low with
// 0 <= low < 2^11. The two sums are put together at the end, modulo 2^32 as everywhere.
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include "io/image_resize_rows.h"

enum { low_bits = 11, group = 4, words = 16 };

// t->split: for every group of four taps 16 words of high parts, then 16 of low parts. The words
// are ordered as the pixels are spread below: taps 0 and 1 side by side for each of four bytes,
// then taps 2 and 3. A last group is filled up with coefficients of 0.
static bool prepare_x(struct mm_taps *t) {
    size_t n_groups = 0;
    for (int32_t i = 0; i < t->n_out; i++) {
        n_groups += (size_t)(t->count[i] + group - 1) / group;
    }
    t->split = calloc(n_groups, 2 * words * sizeof *t->split);
    if (!t->split) {
        return false;
    }
    int16_t *to = t->split;
    for (int32_t i = 0; i < t->n_out; i++) {
        for (int32_t x = 0; x < t->count[i]; x++) {
            const int32_t k = t->k[t->offset[i] + x];
            const int32_t low = k & ((1 << low_bits) - 1);
            int16_t *pair = to + x / group * 2 * words + x % group / 2 * 8 + x % 2;
            for (int c = 0; c < 4; c++) {
                pair[2 * c] = (int16_t)((k - low) / (1 << low_bits));
                pair[2 * c + words] = (int16_t)low;
            }
        }
        to += (t->count[i] + group - 1) / group * 2 * words;
    }
    return true;
}

__attribute__((target("avx2"))) static void along_x(uint8_t *dst, const uint8_t *src,
                                                    const struct mm_taps *t) {
    // Bytes r0 g0 b0 r1 g1 b1 r2 .. b3 to words r0 r1 g0 g1 b0 b1 0 0 | r2 r3 g2 g3 b2 b3 0 0.
    const __m256i spread =
        _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                         6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m128i half = _mm_set1_epi32(mm_resize_half);
    const int16_t *k = t->split;
    for (int32_t i = 0; i < t->n_out; i++) {
        __m256i high = _mm256_setzero_si256(), low = _mm256_setzero_si256();
        const uint8_t *s = src + 3 * (size_t)t->first[i];
        for (int32_t x = 0; x < t->count[i]; x += group, s += 3 * group, k += 2 * words) {
            const __m256i p = _mm256_shuffle_epi8(
                _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)s)), spread);
            const __m256i kh = _mm256_loadu_si256((const void *)k);
            const __m256i kl = _mm256_loadu_si256((const void *)(k + words));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(p, kh));
            low = _mm256_add_epi32(low, _mm256_madd_epi16(p, kl));
        }
        const __m256i both = _mm256_add_epi32(_mm256_slli_epi32(high, low_bits), low);
        __m128i v = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        v = _mm_srai_epi32(_mm_add_epi32(v, half), mm_resize_bits);
        v = _mm_packus_epi16(_mm_packs_epi32(v, v), v);  // saturates to 0 .. 255
        const uint32_t rgb = (uint32_t)_mm_cvtsi128_si32(v);
        memcpy(dst + 3 * (size_t)i, &rgb, 3);
    }
}

__attribute__((target("avx2"))) static void along_y(uint8_t *dst, const uint8_t *src, size_t stride,
                                                    size_t n_bytes, const int32_t *k,
                                                    int32_t count) {
    size_t i = 0;
    for (; i + 32 <= n_bytes; i += 32) {
        __m256i sum[4];
        for (int j = 0; j < 4; j++) {
            sum[j] = _mm256_set1_epi32(mm_resize_half);
        }
        const uint8_t *s = src + i;
        for (int32_t t = 0; t < count; t++, s += stride) {
            const __m256i w = _mm256_set1_epi32(k[t]);
            for (int j = 0; j < 4; j++) {
                const __m256i p = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(s + 8 * j)));
                sum[j] = _mm256_add_epi32(sum[j], _mm256_mullo_epi32(p, w));
            }
        }
        for (int j = 0; j < 4; j++) {
            sum[j] = _mm256_srai_epi32(sum[j], mm_resize_bits);
        }
        // The packs work in halves of 128 bits; the last step puts the pieces in order.
        const __m256i a = _mm256_packs_epi32(sum[0], sum[1]);
        const __m256i b = _mm256_packs_epi32(sum[2], sum[3]);
        const __m256i v = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b),
                                                      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((void *)(dst + i), v);
    }
    if (i < n_bytes) {
        mm_resize_rows_plain.along_y(dst + i, src + i, stride, n_bytes - i, k, count);
    }
}

const struct mm_resize_rows *mm_resize_rows_fast(void) {
    static const struct mm_resize_rows rows = {prepare_x, along_x, along_y};
    return __builtin_cpu_supports("avx2") ? &rows : NULL;
}
