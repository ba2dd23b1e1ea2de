// Rounding weights to the two quantized formats, and back.
#include "base/quant.h"

#include <math.h>
#include <string.h>

// A block is rounded for many scales, and the one with the least squared error is taken. To be fast
// without instructions of one processor, all loops run over whole groups (the end of a row is
// padded with weights of no importance) and sum in lanes.
enum { groups = mm_quant_block / mm_quant_group, lanes = 16, tries = 16 };

struct block {
    float w[mm_quant_block], importance[mm_quant_block];
    float most;  // |w|
};

// False when a weight is not finite, or so large that no f16 scale reaches it.
static bool fill_block(struct block *b, const float *w, const float *importance, int64_t n) {
    memset(b, 0, sizeof *b);
    for (int64_t i = 0; i < n; i++) {
        if (!(fabsf(w[i]) <= (float)mm_quant_largest)) return false;
        b->w[i] = w[i];
        b->importance[i] = importance ? importance[i] : 1.0f;
        if (fabsf(w[i]) > b->most) b->most = fabsf(w[i]);
    }
    return true;
}

// Nearest even whole number, |x| < 2^22.
static inline float nearest(float x) {
    const float shift = 12582912.0f;  // 1.5 * 2^23
    return x + shift - shift;
}

static inline float code_of(float w, float inverse, float low, float high) {
    float x = w * inverse;
    x = x < low ? low : x;
    x = x > high ? high : x;
    return nearest(x);
}

static float inverse_of(float scale) {
    // a scale so small that its inverse is no number rounds everything to zero
    const float inverse = 1.0f / scale;
    return isfinite(inverse) ? inverse : 0.0f;
}

static float f16(float x) {
    return mm_f16_to_f32(mm_f32_to_f16(x));
}

// Weighted squared error of n weights (a multiple of 16) rounded with this scale.
static inline __attribute__((always_inline)) float error_in_lanes(const float *w,
                                                                  const float *importance, int n,
                                                                  float scale, float low,
                                                                  float high) {
    const float inverse = inverse_of(scale);
    float sum[lanes] = {0};
    for (int i = 0; i < n; i += lanes) {
        for (int l = 0; l < lanes; l++) {
            const float d = w[i + l] - scale * code_of(w[i + l], inverse, low, high);
            sum[l] += importance[i + l] * d * d;
        }
    }
    for (int half = lanes / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++)
            sum[l] += sum[l + half];
    }
    return sum[0];
}

#if defined(__x86_64__)
// Wider vectors and no fused products: the same bits, sooner.
__attribute__((target("avx2"))) static float error_avx2(const float *w, const float *importance,
                                                        int n, float scale, float low, float high) {
    return error_in_lanes(w, importance, n, scale, low, high);
}
#endif

static float error_of(const float *w, const float *importance, int n, float scale, float low,
                      float high) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return error_avx2(w, importance, n, scale, low, high);
#endif
    return error_in_lanes(w, importance, n, scale, low, high);
}

// ---- q8 ----

static float best_scale_q8(const struct block *b) {
    float best = f16(b->most / 127.0f), least = INFINITY;
    for (int i = 0; i < tries; i++) {  // a little clipping may pay
        const float scale = f16(b->most / 127.0f * (0.94f + 0.005f * (float)i));
        const float error = error_of(b->w, b->importance, mm_quant_block, scale, -127.0f, 127.0f);
        if (error < least) least = error, best = scale;
    }
    return best;
}

// ---- q4 ----

struct fit_q4 {
    float scale, error;
    int u[groups];
};

// Factors of all groups for one scale; gives up once the error reaches `limit`.
static struct fit_q4 fit_groups(const struct block *b, const float *most, float scale,
                                float limit) {
    struct fit_q4 fit = {.scale = scale};
    for (int g = 0; g < groups && fit.error < limit; g++) {
        const float *w = b->w + g * mm_quant_group, *a = b->importance + g * mm_quant_group;
        // the factor that puts the largest weight on code -8; smaller ones clip it
        const float full = scale != 0.0f ? most[g] / (8.0f * fabsf(scale)) : 1.0f;
        int first = (int)(0.75f * full), last = (int)(1.15f * full) + 1;
        first = first < 1 ? 1 : first > 15 ? 15 : first;
        last = last > 15 ? 15 : last;
        float least = INFINITY;
        for (int u = first; u <= last; u++) {
            const float error = error_of(w, a, mm_quant_group, scale * (float)u, -8.0f, 7.0f);
            if (error < least) least = error, fit.u[g] = u;
        }
        fit.error += least;
    }
    return fit;
}

// The scale that is best for the codes a fit leads to.
static float refit(const struct block *b, const struct fit_q4 *fit) {
    double wc = 0.0, cc = 0.0;
    for (int i = 0; i < mm_quant_block; i++) {
        const float u = (float)fit->u[i / mm_quant_group];
        const float c = u * code_of(b->w[i], inverse_of(fit->scale * u), -8.0f, 7.0f);
        wc += (double)(b->importance[i] * b->w[i] * c);
        cc += (double)(b->importance[i] * c * c);
    }
    return cc > 0.0 ? f16((float)(wc / cc)) : fit->scale;
}

// The codes reach one further down than up, so the scale's sign matters as its size does.
static struct fit_q4 best_fit_q4(const struct block *b) {
    float most[groups] = {0};
    for (int i = 0; i < mm_quant_block; i++) {
        float *m = &most[i / mm_quant_group];
        if (fabsf(b->w[i]) > *m) *m = fabsf(b->w[i]);
    }
    struct fit_q4 best = {.error = INFINITY};
    for (int i = 0; i < 2 * tries; i++) {
        const float size = b->most / (8.0f * 15.0f) * (0.8f + 0.03f * (float)(i / 2));
        const struct fit_q4 fit = fit_groups(b, most, f16(i % 2 ? size : -size), best.error);
        if (fit.error < best.error) best = fit;
    }
    for (int i = 0; i < 3; i++) {
        const struct fit_q4 fit = fit_groups(b, most, refit(b, &best), best.error);
        if (!(fit.error < best.error)) break;
        best = fit;
    }
    return best;
}

// ---- blocks and rows ----

// What a column of the block is rounded with: its scale, and the codes there are.
struct rounding {
    float scale[groups];  // of each group
    float low, high;
};

// Chooses the scales of a block and writes them down.
static struct rounding choose_scales(void *row, enum mm_dtype t, int64_t k, int64_t b,
                                     const struct block *block) {
    uint16_t *scales = (uint16_t *)mm_quant_scales(t, row, k);
    struct rounding r = {.low = -127.0f, .high = 127.0f};
    if (t == mm_dtype_q8) {
        const float scale = best_scale_q8(block);
        scales[b] = mm_f32_to_f16(scale);
        for (int g = 0; g < groups; g++)
            r.scale[g] = scale;
        return r;
    }
    const struct fit_q4 fit = best_fit_q4(block);
    uint16_t *factors = (uint16_t *)mm_quant_factors(row, k);
    scales[b] = mm_f32_to_f16(fit.scale);
    r.low = -8.0f, r.high = 7.0f;
    for (int g = 0; g < groups; g++) {
        factors[b] |= (uint16_t)(fit.u[g] << (4 * g));
        r.scale[g] = fit.scale * (float)fit.u[g];
    }
    return r;
}

static void put_code(void *row, enum mm_dtype t, int64_t b, int i, int c) {
    if (t == mm_dtype_q8) {
        ((int8_t *)row)[b * mm_quant_block + i] = (int8_t)c;
        return;
    }
    uint8_t *byte = (uint8_t *)row + b * (mm_quant_block / 2) + i % 64;
    *byte |= (uint8_t)(i < 64 ? c + 8 : (c + 8) << 4);
}

bool mm_quantize_block(void *row, enum mm_dtype t, int64_t k, int64_t b, float *w,
                       const float *importance, const float *u, int64_t ld, float *e) {
    const int64_t left = k - b * mm_quant_block;
    const int n = (int)(left < mm_quant_block ? left : mm_quant_block);
    struct block block;
    if (!fill_block(&block, w, importance, n)) return false;
    const struct rounding r = choose_scales(row, t, k, b, &block);
    for (int i = 0; i < n; i++) {
        const float scale = r.scale[i / mm_quant_group];
        const float c = code_of(w[i], inverse_of(scale), r.low, r.high);
        put_code(row, t, b, i, (int)c);
        if (!u) continue;
        const float *from = u + i * ld;
        e[i] = (w[i] - scale * c) / from[i];
        for (int j = i + 1; j < n; j++)
            w[j] -= e[i] * from[j];
    }
    for (int i = n; i < mm_quant_block; i++)
        put_code(row, t, b, i, 0);
    return true;
}

bool mm_quantize_row(void *row, enum mm_dtype t, const float *w, const float *importance,
                     int64_t k) {
    memset(row, 0, (size_t)mm_quant_row_bytes(t, k));
    for (int64_t b = 0; b < mm_quant_blocks(k); b++) {
        const int64_t at = b * mm_quant_block;
        // without u nothing is written to w
        if (!mm_quantize_block(row, t, k, b, (float *)(uintptr_t)(w + at),
                               importance ? importance + at : NULL, NULL, 0, NULL)) {
            return false;
        }
    }
    return true;
}

void mm_quant_expand_row(int8_t *w8, enum mm_dtype t, const void *row, int64_t k) {
    const int64_t blocks = mm_quant_blocks(k);
    if (t == mm_dtype_q8) {
        memcpy(w8, row, (size_t)(blocks * mm_quant_block));
        return;
    }
    const uint16_t *factors = mm_quant_factors(row, k);
    for (int64_t b = 0; b < blocks; b++) {
        const uint8_t *codes = (const uint8_t *)row + b * (mm_quant_block / 2);
        for (int i = 0; i < mm_quant_block; i++) {
            const int c = i < 64 ? codes[i] & 15 : codes[i - 64] >> 4;
            const int u = factors[b] >> (4 * (i / mm_quant_group)) & 15;
            w8[b * mm_quant_block + i] = (int8_t)((c - 8) * u);
        }
    }
}

void mm_dequantize_row(float *w, enum mm_dtype t, const void *row, int64_t k) {
    const uint16_t *scales = mm_quant_scales(t, row, k);
    int8_t block[mm_quant_block];
    for (int64_t b = 0; b < mm_quant_blocks(k); b++) {
        const int64_t at = b * mm_quant_block;
        const int64_t n = k - at < mm_quant_block ? k - at : mm_quant_block;
        const float s = mm_f16_to_f32(scales[b]);
        if (t == mm_dtype_q8) {
            memcpy(block, (const int8_t *)row + at, sizeof block);
        } else {
            const uint8_t *codes = (const uint8_t *)row + at / 2;
            const uint16_t factors = mm_quant_factors(row, k)[b];
            for (int i = 0; i < mm_quant_block; i++) {
                const int c = i < 64 ? codes[i] & 15 : codes[i - 64] >> 4;
                block[i] = (int8_t)((c - 8) * (factors >> (4 * (i / mm_quant_group)) & 15));
            }
        }
        for (int64_t i = 0; i < n; i++)
            w[at + i] = s * (float)block[i];
    }
}

void mm_quantize_x(int8_t *a, float *r, const float *x, int64_t k) {
    for (int64_t b = 0; b < mm_quant_blocks(k); b++) {
        const int64_t at = b * mm_quant_block;
        const int64_t n = k - at < mm_quant_block ? k - at : mm_quant_block;
        float most = 0.0f;
        for (int64_t i = 0; i < n; i++) {
            if (fabsf(x[at + i]) > most) most = fabsf(x[at + i]);
        }
        r[b] = most / 127.0f;
        // below that 127 / most is no number: such a block is zero
        const float inverse = most > 1e-36f ? 127.0f / most : 0.0f;
        memset(a + at, 0, mm_quant_block);
        for (int64_t i = 0; i < n; i++)
            a[at + i] = (int8_t)nearest(x[at + i] * inverse);
    }
}
