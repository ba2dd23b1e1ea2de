// Pictures: decoding to 8-bit RGB, Pillow's resize to the bit, the dynamic tiling rule.
#ifndef MM_IO_IMAGE_H
#define MM_IO_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

struct mm_image {
    int32_t width, height;
    uint8_t *rgb;  // (height, width, 3), malloc'ed
};

enum {
    mm_image_max_side = 65535,
    mm_image_max_pixels = 178956970,   // Pillow's bomb limit
    mm_image_max_file_bytes = 1 << 29  // of a picture file
};

enum mm_image_format {
    mm_image_format_jpeg,
    mm_image_format_png,
    mm_image_format_webp,
};

// What the header says; the pixels may still turn out to be damaged.
struct mm_image_info {
    enum mm_image_format format;
    int32_t width, height;
};

// Reads JPEG (baseline, progressive, grey, CMYK), PNG (all kinds) or WebP by content, not by name.
// RGBA and palette: alpha is dropped without compositing, as PIL's convert("RGB"); of an animation
// the first frame. EXIF orientation is not applied. Sizes are checked before pixels are decoded.
// `what` names the bytes in messages. On failure *im holds no memory.
enum mm_code mm_image_open(struct mm_image *im, const char *path, struct mm_error *err);
enum mm_code mm_image_decode(struct mm_image *im, const void *bytes, size_t n, const char *what,
                             struct mm_error *err);
void mm_image_free(struct mm_image *im);
// Format and checked size from the header alone, for those who plan before they decode.
enum mm_code mm_image_peek(struct mm_image_info *info, const void *bytes, size_t n,
                           const char *what, struct mm_error *err);
enum mm_code mm_image_write_png(const char *path, const uint8_t *rgb, int32_t width, int32_t height,
                                struct mm_error *err);

// Appends a JPEG file as Pillow's save(quality=q) makes it; quality is 1 to 100.
enum mm_code mm_image_encode_jpeg(struct mm_buf *out, const struct mm_image *im, int quality,
                                  struct mm_error *err);

enum mm_filter { mm_filter_bilinear, mm_filter_bicubic };
// Pillow's Image.resize((width, height), filter) on RGB, to the bit. dst is overwritten without
// being freed and is not src.
enum mm_code mm_image_resize(struct mm_image *dst, const struct mm_image *src, int32_t width,
                             int32_t height, enum mm_filter filter, struct mm_error *err);

enum { mm_tiles_max = 4096 };  // of one picture

// A picture as the model takes it.
struct mm_tiles {
    int32_t n, size;     // tiles of size x size
    int32_t cols, rows;  // the grid; n = cols * rows + (thumbnail ? 1 : 0)
    uint8_t *rgb;        // (n, size, size, 3), malloc'ed
};
// Grid for a w x h picture. All arguments are positive and min_tiles <= max_tiles.
void mm_tiles_grid(int32_t w, int32_t h, int32_t size, int32_t min_tiles, int32_t max_tiles,
                   int32_t *cols, int32_t *rows);
// The picture stretched over its grid and cut row by row; the whole picture once more as the last
// tile when `thumbnail` is set and the grid has more than one.
enum mm_code mm_tiles_make(struct mm_tiles *t, const struct mm_image *im, int32_t size,
                           int32_t min_tiles, int32_t max_tiles, bool thumbnail,
                           struct mm_error *err);
void mm_tiles_free(struct mm_tiles *t);
// (n, size, size, 3) u8 -> (n, 3, size, size) f32, (x/255 - mean) / std with ImageNet's numbers.
// The same for tiles on a device (mm_normalize): what each value of a channel becomes.
void mm_tiles_table(float table[3][256]);
void mm_tiles_normalize(float *pixels, const uint8_t *rgb, int64_t n, int64_t size);

#endif
