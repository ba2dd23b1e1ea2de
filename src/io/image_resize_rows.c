// The plain inner loops of the resize. Written so that the compiler turns along_y into vectors.
#include "io/image_resize_rows.h"

static void along_x(uint8_t *dst, const uint8_t *src, const struct mm_taps *t) {
    for (int32_t i = 0; i < t->n_out; i++) {
        int32_t r = mm_resize_half, g = mm_resize_half, b = mm_resize_half;
        const uint8_t *s = src + 3 * (size_t)t->first[i];
        const int32_t *k = t->k + t->offset[i];
        for (int32_t x = 0; x < t->count[i]; x++, s += 3) {
            r += s[0] * k[x];
            g += s[1] * k[x];
            b += s[2] * k[x];
        }
        dst[3 * i] = mm_resize_clip8(r);
        dst[3 * i + 1] = mm_resize_clip8(g);
        dst[3 * i + 2] = mm_resize_clip8(b);
    }
}

static void along_y(uint8_t *dst, const uint8_t *src, size_t stride, size_t n_bytes,
                    const int32_t *k, int32_t count) {
    enum { block = 64 };  // sums that stay in registers or the nearest cache
    for (size_t at = 0; at < n_bytes; at += block) {
        const size_t n = n_bytes - at < block ? n_bytes - at : block;
        int32_t sum[block];
        for (size_t i = 0; i < block; i++) {
            sum[i] = mm_resize_half;
        }
        for (int32_t t = 0; t < count; t++) {
            const uint8_t *s = src + at + (size_t)t * stride;
            const int32_t w = k[t];
            for (size_t i = 0; i < n; i++) {
                sum[i] += s[i] * w;
            }
        }
        for (size_t i = 0; i < n; i++) {
            dst[at + i] = mm_resize_clip8(sum[i]);
        }
    }
}

const struct mm_resize_rows mm_resize_rows_plain = {
    .along_x = along_x,
    .along_y = along_y,
};
