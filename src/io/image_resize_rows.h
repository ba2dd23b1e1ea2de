// The inner loops of the resize: one output row along x, and one along y. A plain version that is
// the judge, and one for AVX2 or NEON; all sums are integers, so all give the same bits.
#ifndef MM_IO_IMAGE_RESIZE_ROWS_H
#define MM_IO_IMAGE_RESIZE_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    mm_resize_bits = 32 - 8 - 2,  // of the fixed-point coefficients, as in Pillow
    mm_resize_half = 1 << (mm_resize_bits - 1),
    mm_resize_over_read = 16,  // along_x may read so many bytes behind the row
};

// Which input pixels make an output pixel, and how much of each: the coefficients of one dimension.
struct mm_taps {
    int32_t n_out, max_count;
    int32_t *first, *count;  // (n_out): input pixels first .. first + count - 1
    int32_t *offset;         // (n_out): of its coefficients in k
    int32_t *k;              // (sum of count)
    int16_t *split;          // along x, for AVX2 only: see image_resize_avx2.c
};

static inline uint8_t mm_resize_clip8(int32_t sum) {
    const int32_t v = sum >> mm_resize_bits;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

struct mm_resize_rows {
    // t->split is made by this version and freed with free(); false when memory runs out. NULL:
    // along_x wants only k.
    bool (*prepare_x)(struct mm_taps *t);
    // dst (n_out, 3) from src (.., 3)
    void (*along_x)(uint8_t *dst, const uint8_t *src, const struct mm_taps *t);
    // dst (n_bytes) = sum_t k[t] * src[t * stride ..]
    void (*along_y)(uint8_t *dst, const uint8_t *src, size_t stride, size_t n_bytes,
                    const int32_t *k, int32_t count);
};

extern const struct mm_resize_rows mm_resize_rows_plain;
// The faster version of this architecture; NULL where this machine has none.
const struct mm_resize_rows *mm_resize_rows_fast(void);

#endif
