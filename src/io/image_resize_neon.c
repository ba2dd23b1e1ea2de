// The inner loops of the resize for AArch64: 32-bit multiply-adds of one pixel (along x) or of 16
// bytes (along y), as the plain version has them.
#include <arm_neon.h>
#include <string.h>
#include "io/image_resize_rows.h"

static void along_x(uint8_t *dst, const uint8_t *src, const struct mm_taps *t) {
    enum { none = 0xff, group = 4 };
    // Pixel p of the 16 bytes read, as 32-bit words r g b 0.
    static const uint8_t spread[group][16] = {
        {0, none, none, none, 1, none, none, none, 2, none, none, none, none, none, none, none},
        {3, none, none, none, 4, none, none, none, 5, none, none, none, none, none, none, none},
        {6, none, none, none, 7, none, none, none, 8, none, none, none, none, none, none, none},
        {9, none, none, none, 10, none, none, none, 11, none, none, none, none, none, none, none}};
    uint8x16_t at[group];
    for (int p = 0; p < group; p++)
        at[p] = vld1q_u8(spread[p]);
    for (int32_t i = 0; i < t->n_out; i++) {
        int32x4_t even = vdupq_n_s32(mm_resize_half), odd = vdupq_n_s32(0);
        const uint8_t *s = src + 3 * (size_t)t->first[i];
        const int32_t *k = t->k + t->offset[i];
        int32_t x = 0;
        for (; x + group <= t->count[i]; x += group, s += 3 * group) {
            const uint8x16_t bytes = vld1q_u8(s);
            const int32x4_t w = vld1q_s32(k + x);
            even = vmlaq_laneq_s32(even, vreinterpretq_s32_u8(vqtbl1q_u8(bytes, at[0])), w, 0);
            odd = vmlaq_laneq_s32(odd, vreinterpretq_s32_u8(vqtbl1q_u8(bytes, at[1])), w, 1);
            even = vmlaq_laneq_s32(even, vreinterpretq_s32_u8(vqtbl1q_u8(bytes, at[2])), w, 2);
            odd = vmlaq_laneq_s32(odd, vreinterpretq_s32_u8(vqtbl1q_u8(bytes, at[3])), w, 3);
        }
        for (; x < t->count[i]; x++, s += 3) {
            const uint8x16_t pixel = vqtbl1q_u8(vld1q_u8(s), at[0]);
            even = vmlaq_n_s32(even, vreinterpretq_s32_u8(pixel), k[x]);
        }
        const int32x4_t sum = vshrq_n_s32(vaddq_s32(even, odd), mm_resize_bits);
        const uint16x4_t half = vqmovun_s32(sum);
        const uint8x8_t rgb = vqmovn_u16(vcombine_u16(half, half));  // saturated to 0 .. 255
        const uint32_t word = vget_lane_u32(vreinterpret_u32_u8(rgb), 0);
        memcpy(dst + 3 * (size_t)i, &word, 3);
    }
}

static void along_y(uint8_t *dst, const uint8_t *src, size_t stride, size_t n_bytes,
                    const int32_t *k, int32_t count) {
    size_t i = 0;
    for (; i + 16 <= n_bytes; i += 16) {
        int32x4_t sum[4];
        for (int j = 0; j < 4; j++)
            sum[j] = vdupq_n_s32(mm_resize_half);
        const uint8_t *s = src + i;
        for (int32_t t = 0; t < count; t++, s += stride) {
            const uint8x16_t p = vld1q_u8(s);
            const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(p)));
            const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(p));
            sum[0] = vmlaq_n_s32(sum[0], vmovl_s16(vget_low_s16(low)), k[t]);
            sum[1] = vmlaq_n_s32(sum[1], vmovl_high_s16(low), k[t]);
            sum[2] = vmlaq_n_s32(sum[2], vmovl_s16(vget_low_s16(high)), k[t]);
            sum[3] = vmlaq_n_s32(sum[3], vmovl_high_s16(high), k[t]);
        }
        uint16x4_t half[4];
        for (int j = 0; j < 4; j++)
            half[j] = vqmovun_s32(vshrq_n_s32(sum[j], mm_resize_bits));
        vst1q_u8(dst + i, vcombine_u8(vqmovn_u16(vcombine_u16(half[0], half[1])),
                                      vqmovn_u16(vcombine_u16(half[2], half[3]))));
    }
    if (i < n_bytes) {
        mm_resize_rows_plain.along_y(dst + i, src + i, stride, n_bytes - i, k, count);
    }
}

const struct mm_resize_rows *mm_resize_rows_fast(void) {
    static const struct mm_resize_rows rows = {.along_x = along_x, .along_y = along_y};
    return &rows;
}
