// PNG by libpng: every colour type, 1 to 16 bits, interlaced or not, brought to 8-bit RGB as
// Pillow's convert("RGB") does: alpha and tRNS dropped, gamma and profiles not read, 16 bits cut
// to the upper 8; only 16-bit grey without alpha is clipped, min(value, 255), for that is what
// Pillow makes of its mode I;16. Also the writer.
//
// Damage is refused (libpng checks the CRCs). A file that lacks only what follows the last row of
// pixels is accepted, again as Pillow does.
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "io/file.h"
#include "io/image_codec.h"

enum { png_header_bytes = 8 + 8 + 13, deflate_max_ratio = 1032 };

struct png_job {
    jmp_buf jump;  // where errors of libpng land
    png_structp png;
    png_infop info;
    const uint8_t *at, *end;  // what is left to read
    bool ran_out;             // libpng asked for more than there is
    char message[160];        // libpng's
    struct mm_image *im;
    uint8_t *grey16;     // (height, width) big endian, for 16-bit grey only
    int64_t rows_left;   // rows of pixels still to come, over all passes
    struct mm_buf *out;  // of the writer
};

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void on_error(png_structp png, png_const_charp message) {
    struct png_job *j = png_get_error_ptr(png);
    snprintf(j->message, sizeof j->message, "%s", message);
    longjmp(j->jump, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static void on_read(png_structp png, png_bytep to, size_t n) {
    struct png_job *j = png_get_io_ptr(png);
    if ((size_t)(j->end - j->at) < n) {
        j->ran_out = true;
        png_error(png, "the data ends too early");
    }
    memcpy(to, j->at, n);
    j->at += n;
}

// libpng calls this once for every row it has unfiltered: the way to know, when the data runs out
// while it looks for what follows the pixels, that the pixels were all there.
static void on_row(png_structp png, png_row_infop row, png_bytep data) {
    (void)row;
    (void)data;
    struct png_job *j = png_get_user_transform_ptr(png);
    j->rows_left--;
}

// Runs a step with libpng's errors caught. A function of its own, so that no local variable lives
// across the jump.
static bool guarded(struct png_job *j, void (*step)(struct png_job *)) {
    if (setjmp(j->jump)) {
        return false;
    }
    step(j);
    return true;
}

enum mm_code mm_png_peek(int32_t *w, int32_t *h, const struct mm_codec_input *in,
                         struct mm_error *err) {
    if (in->n < png_header_bytes) {
        return mm_codec_cut(in, "PNG", err);
    }
    if (be32(in->bytes + 8) != 13 || memcmp(in->bytes + 12, "IHDR", 4) != 0) {
        return mm_fail(err, mm_code_input, "%s: broken PNG picture: it does not begin with IHDR",
                       in->what);
    }
    const uint32_t width = be32(in->bytes + 16), height = be32(in->bytes + 20);
    if (width > INT32_MAX || height > INT32_MAX) {
        return mm_fail(err, mm_code_input,
                       "%s: the picture is %u x %u pixels, each side must be 1 to %d", in->what,
                       width, height, mm_image_max_side);
    }
    *w = (int32_t)width;
    *h = (int32_t)height;
    return mm_code_ok;
}

static void read_header(struct png_job *j) {
    j->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, j, on_error, on_warning);
    if (!j->png) {
        return;
    }
    j->info = png_create_info_struct(j->png);
    if (!j->info) {
        png_error(j->png, "out of memory");
    }
    png_set_read_fn(j->png, j, on_read);
    png_set_user_limits(j->png, mm_image_max_side, mm_image_max_side);
    // Text, profiles and the like are skipped unread: they do not touch the pixels, and they may
    // be compressed bombs of their own.
    png_set_keep_unknown_chunks(j->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(j->png, j->info);
}

// Rows that the passes of an interlaced picture have in all.
static int64_t count_rows(const struct mm_image *im, bool interlaced) {
    if (!interlaced) {
        return im->height;
    }
    static const struct {
        int x, y, dx, dy;  // Adam7: where a pass begins, and its steps
    } passes[7] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                   {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    int64_t n = 0;
    for (int p = 0; p < 7; p++) {
        if (im->width > passes[p].x && im->height > passes[p].y) {
            n += (im->height - passes[p].y + passes[p].dy - 1) / passes[p].dy;
        }
    }
    return n;
}

static void set_transforms(struct png_job *j) {
    const int type = png_get_color_type(j->png, j->info);
    if (j->grey16 == NULL) {
        png_set_strip_16(j->png);
        png_set_strip_alpha(j->png);
        if (type == PNG_COLOR_TYPE_PALETTE) {
            png_set_palette_to_rgb(j->png);
        }
        if (type == PNG_COLOR_TYPE_GRAY || type == PNG_COLOR_TYPE_GRAY_ALPHA) {
            if (png_get_bit_depth(j->png, j->info) < 8) {
                png_set_expand_gray_1_2_4_to_8(j->png);
            }
            png_set_gray_to_rgb(j->png);
        }
    }
    png_set_read_user_transform_fn(j->png, on_row);
    png_set_user_transform_info(j->png, j, 0, 0);
}

static void read_pixels(struct png_job *j) {
    set_transforms(j);
    const int passes = png_set_interlace_handling(j->png);
    png_read_update_info(j->png, j->info);
    uint8_t *base = j->grey16 ? j->grey16 : j->im->rgb;
    const size_t stride = (size_t)j->im->width * (j->grey16 ? 2 : 3);
    if (png_get_rowbytes(j->png, j->info) != stride) {
        png_error(j->png, "its rows are not as long as its header says");
    }
    for (int pass = 0; pass < passes; pass++) {
        for (int32_t y = 0; y < j->im->height; y++) {
            png_read_row(j->png, base + (size_t)y * stride, NULL);
        }
    }
    png_read_end(j->png, NULL);  // checks the last CRC
}

static enum mm_code broken(const struct png_job *j, const struct mm_codec_input *in,
                           struct mm_error *err) {
    if (j->ran_out) {
        return mm_codec_cut(in, "PNG", err);
    }
    return mm_fail(err, mm_code_input, "%s: broken PNG picture: %s", in->what, j->message);
}

static enum mm_code check_header(struct png_job *j, const struct mm_codec_input *in,
                                 struct mm_error *err) {
    const struct mm_image *im = j->im;
    if (png_get_image_width(j->png, j->info) != (png_uint_32)im->width ||
        png_get_image_height(j->png, j->info) != (png_uint_32)im->height) {
        return mm_fail(err, mm_code_input, "%s: broken PNG picture: it has two sizes", in->what);
    }
    // Deflate shrinks at most 1032 times, so a small file with a huge header is known for what it
    // is before memory is given to it.
    const int64_t bits =
        (int64_t)png_get_bit_depth(j->png, j->info) * png_get_channels(j->png, j->info);
    const int64_t raw = (int64_t)im->width * im->height * bits / 8;
    if (raw / deflate_max_ratio > (int64_t)in->n) {
        return mm_fail(err, mm_code_input,
                       "%s: the PNG header promises %d x %d pixels and %zu bytes cannot hold them",
                       in->what, im->width, im->height, in->n);
    }
    return mm_code_ok;
}

static void grey16_to_rgb(struct mm_image *im, const uint8_t *grey16) {
    const int64_t n = (int64_t)im->width * im->height;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t v = grey16[2 * i] == 0 ? grey16[2 * i + 1] : 255;
        im->rgb[3 * i] = im->rgb[3 * i + 1] = im->rgb[3 * i + 2] = v;
    }
}

static enum mm_code decode(struct png_job *j, const struct mm_codec_input *in,
                           struct mm_error *err) {
    if (!guarded(j, read_header)) {
        return broken(j, in, err);
    }
    if (!j->png) {
        return mm_fail(err, mm_code_memory, "%s: no memory for the PNG decoder", in->what);
    }
    MM_TRY(check_header(j, in, err));
    MM_TRY(mm_codec_alloc(j->im, 3, in, err));
    if (png_get_color_type(j->png, j->info) == PNG_COLOR_TYPE_GRAY &&
        png_get_bit_depth(j->png, j->info) == 16) {
        j->grey16 = malloc((size_t)j->im->width * (size_t)j->im->height * 2);
        if (!j->grey16) {
            return mm_fail(err, mm_code_memory, "%s: no memory for a %d x %d picture of 16 bits",
                           in->what, j->im->width, j->im->height);
        }
    }
    j->rows_left = count_rows(j->im, png_get_interlace_type(j->png, j->info) != PNG_INTERLACE_NONE);
    if (!guarded(j, read_pixels) && !(j->ran_out && j->rows_left == 0)) {
        return broken(j, in, err);
    }
    if (j->grey16) {
        grey16_to_rgb(j->im, j->grey16);
    }
    return mm_code_ok;
}

enum mm_code mm_png_decode(struct mm_image *im, const struct mm_codec_input *in,
                           struct mm_error *err) {
    struct png_job j = {.at = in->bytes, .end = in->bytes + in->n, .im = im};
    const enum mm_code code = decode(&j, in, err);
    png_destroy_read_struct(&j.png, &j.info, NULL);
    free(j.grey16);
    return code;
}

static void on_write(png_structp png, png_bytep from, size_t n) {
    struct png_job *j = png_get_io_ptr(png);
    mm_buf_add(j->out, from, n);
}

static void on_flush(png_structp png) {
    (void)png;
}

static void write_all(struct png_job *j) {
    j->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, j, on_error, on_warning);
    if (!j->png) {
        snprintf(j->message, sizeof j->message, "out of memory");
        longjmp(j->jump, 1);
    }
    j->info = png_create_info_struct(j->png);
    if (!j->info) {
        png_error(j->png, "out of memory");
    }
    png_set_write_fn(j->png, j, on_write, on_flush);
    png_set_IHDR(j->png, j->info, (png_uint_32)j->im->width, (png_uint_32)j->im->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(j->png, j->info);
    for (int32_t y = 0; y < j->im->height; y++) {
        png_write_row(j->png, j->im->rgb + (size_t)y * (size_t)j->im->width * 3);
    }
    png_write_end(j->png, j->info);
}

enum mm_code mm_image_write_png(const char *path, const uint8_t *rgb, int32_t width, int32_t height,
                                struct mm_error *err) {
    if (width < 1 || height < 1 || width > mm_image_max_side || height > mm_image_max_side) {
        return mm_fail(err, mm_code_input, "%s: a picture of %d x %d pixels cannot be written",
                       path, width, height);
    }
    struct mm_buf file = {0};
    struct mm_image im = {.width = width, .height = height, .rgb = (uint8_t *)(uintptr_t)rgb};
    struct png_job j = {.im = &im, .out = &file};
    enum mm_code code;
    if (guarded(&j, write_all)) {
        code = mm_file_write(path, file.data, file.len, err);
    } else {
        code = mm_fail(err, mm_code_io, "%s: cannot write the PNG picture: %s", path, j.message);
    }
    png_destroy_write_struct(&j.png, &j.info);
    mm_buf_free(&file);
    return code;
}
