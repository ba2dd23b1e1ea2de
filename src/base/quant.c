// Rounding weights to the two quantized formats, and back.
#include "base/quant.h"

#include <math.h>
#include <string.h>

// The scale that rounds one block best: candidates around the one that puts the largest weight on
// the largest code, each refined to the least-squares scale of the codes it leads to.
struct fit {
    float scale;
    double error;
};

static inline float weight_of(const float *importance, int64_t i) {
    return importance ? importance[i] : 1.0f;
}

static inline int round_code(float x, int low, int high) {
    const int c = (int)lrintf(x);
    return c < low ? low : c > high ? high : c;
}

// Rounds n weights with codes in low..high and scale f16(scale): the squared error, and in *best
// the scale that would have been best for these codes.
static double try_scale(const float *w, const float *importance, int64_t n, float scale, int low,
                        int high, float *best) {
    double error = 0, wc = 0, cc = 0;
    const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
    for (int64_t i = 0; i < n; i++) {
        const int c = round_code(w[i] * inverse, low, high);
        const double a = weight_of(importance, i), d = (double)w[i] - (double)scale * c;
        error += a * d * d;
        wc += a * (double)w[i] * c;
        cc += a * (double)c * c;
    }
    *best = cc > 0 ? (float)(wc / cc) : 0.0f;
    return error;
}

static float largest(const float *w, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabsf(w[i]) > fabsf(most)) most = w[i];
    return most;
}

static struct fit fit_scale(const float *w, const float *importance, int64_t n, int low, int high,
                            bool half) {
    const float most = largest(w, n);
    struct fit fit = {0.0f, INFINITY};
    // The largest weight lands on the far end of the codes; its sign goes into the scale.
    const int end = -low > high ? low : high;
    for (int step = -4; step <= 4; step++) {
        float scale = most / ((float)end * (1.0f + 0.05f * (float)step));
        for (int refine = 0; refine < 3; refine++) {
            if (half) scale = mm_f16_to_f32(mm_f32_to_f16(scale));
            float better;
            const double error = try_scale(w, importance, n, scale, low, high, &better);
            if (error < fit.error) fit = (struct fit){scale, error};
            scale = better;
        }
    }
    return fit;
}

static void quantize_q8(void *row, const float *w, const float *importance, int64_t k) {
    int8_t *codes = row;
    uint16_t *scales = (uint16_t *)mm_quant_scales(mm_dtype_q8, row, k);
    for (int64_t b = 0; b < mm_quant_blocks(k); b++) {
        const int64_t at = b * mm_quant_block;
        const int64_t n = k - at < mm_quant_block ? k - at : mm_quant_block;
        const struct fit fit =
            fit_scale(w + at, importance ? importance + at : NULL, n, -127, 127, true);
        scales[b] = mm_f32_to_f16(fit.scale);
        const float inverse = fit.scale != 0 ? 1.0f / fit.scale : 0.0f;
        for (int64_t i = 0; i < n; i++)
            codes[at + i] = (int8_t)round_code(w[at + i] * inverse, -127, 127);
    }
}

// One block of q4: scales of its groups first, then factors of a shared scale near them.
static void quantize_block_q4(uint8_t *codes, uint16_t *scale, uint16_t *factors, const float *w,
                              const float *importance, int64_t n) {
    enum { groups = mm_quant_block / mm_quant_group };
    int begin[groups + 1];
    struct fit fits[groups];
    float most = 0;
    for (int g = 0; g <= groups; g++)
        begin[g] = g * mm_quant_group < n ? g * mm_quant_group : (int)n;
    for (int g = 0; g < groups; g++) {
        fits[g] = fit_scale(w + begin[g], importance ? importance + begin[g] : NULL,
                            begin[g + 1] - begin[g], -8, 7, false);
        if (fabsf(fits[g].scale) > most) most = fabsf(fits[g].scale);
    }
    const float s = mm_f16_to_f32(mm_f32_to_f16(most / 15.0f));
    *scale = mm_f32_to_f16(s);
    memset(codes, 0x88, mm_quant_block / 2);
    *factors = 0;
    for (int g = 0; g < groups; g++) {
        int best_u = 1;
        double best = INFINITY;
        const int near = s != 0 ? (int)lrintf(fabsf(fits[g].scale) / s) : 1;
        for (int u = near - 2; u <= near + 2; u++) {
            if (u < 1 || u > 15) continue;
            float unused;
            const double error = try_scale(w + begin[g], importance ? importance + begin[g] : NULL,
                                           begin[g + 1] - begin[g], s * (float)u, -8, 7, &unused);
            if (error < best) best = error, best_u = u;
        }
        *factors |= (uint16_t)(best_u << (4 * g));
        const float inverse = s != 0 ? 1.0f / (s * (float)best_u) : 0.0f;
        for (int i = begin[g]; i < begin[g + 1]; i++) {
            const int c = round_code(w[i] * inverse, -8, 7) + 8;
            uint8_t *byte = &codes[i % 64];
            *byte = i < 64 ? (uint8_t)((*byte & 0xf0) | c) : (uint8_t)((*byte & 0x0f) | c << 4);
        }
    }
}

void mm_quantize_row(void *row, enum mm_dtype t, const float *w, const float *importance,
                     int64_t k) {
    memset(row, 0, (size_t)mm_quant_row_bytes(t, k));
    if (t == mm_dtype_q8) {
        quantize_q8(row, w, importance, k);
        return;
    }
    uint16_t *scales = (uint16_t *)mm_quant_scales(t, row, k);
    uint16_t *factors = (uint16_t *)mm_quant_factors(row, k);
    for (int64_t b = 0; b < mm_quant_blocks(k); b++) {
        const int64_t at = b * mm_quant_block;
        const int64_t n = k - at < mm_quant_block ? k - at : mm_quant_block;
        quantize_block_q4((uint8_t *)row + at / 2, &scales[b], &factors[b], w + at,
                          importance ? importance + at : NULL, n);
    }
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
        const float most = fabsf(largest(x + at, n));
        r[b] = most / 127.0f;
        const float inverse = most > 0 ? 127.0f / most : 0.0f;
        memset(a + at, 0, mm_quant_block);
        for (int64_t i = 0; i < n; i++)
            a[at + i] = (int8_t)lrintf(x[at + i] * inverse);
    }
}
