// Pictures from bytes: tells formats apart by their first bytes, holds every size against the
// limits before a decoder sees the pixels, and names what it refuses.
#include "io/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "io/image_codec.h"

struct signature {
    const char *bytes;
    size_t at, n;
    const char *name;  // with its article
};

// Formats that people do hand in, so that the refusal can name them.
static const struct signature refused[] = {
    {"GIF8", 0, 4, "a GIF picture"},
    {"BM", 0, 2, "a BMP picture"},
    {"II*\0", 0, 4, "a TIFF picture"},
    {"MM\0*", 0, 4, "a TIFF picture"},
    {"ftypavif", 4, 8, "an AVIF picture"},
    {"ftypavis", 4, 8, "an AVIF picture"},
    {"ftypheic", 4, 8, "an HEIC picture"},
    {"ftypheix", 4, 8, "an HEIC picture"},
    {"ftypmif1", 4, 8, "an HEIF picture"},
    {"ftyp", 4, 4, "an ISO media file (a video, say)"},
    {"\0\0\0\x0cjP  ", 0, 8, "a JPEG 2000 picture"},
    {"\xff\x4f\xff\x51", 0, 4, "a JPEG 2000 picture"},
    {"\0\0\0\x0cJXL ", 0, 8, "a JPEG XL picture"},
    {"\xff\x0a", 0, 2, "a JPEG XL picture"},
    {"\0\0\1\0", 0, 4, "an icon (ICO)"},
    {"8BPS", 0, 4, "a Photoshop picture"},
    {"%PDF", 0, 4, "a PDF document"},
    {"<svg", 0, 4, "an SVG drawing"},
    {"<?xml", 0, 5, "an XML document"},
    {"<!DOCTYPE", 0, 9, "an HTML page"},
    {"<!doctype", 0, 9, "an HTML page"},
    {"<html", 0, 5, "an HTML page"},
};

static bool starts(const struct mm_codec_input *in, const char *bytes, size_t at, size_t n) {
    return in->n >= at + n && memcmp(in->bytes + at, bytes, n) == 0;
}

static enum mm_code sniff(enum mm_image_format *format, const struct mm_codec_input *in,
                          struct mm_error *err) {
    if (in->n == 0) {
        return mm_fail(err, mm_code_input, "%s: the file is empty, wanted a picture", in->what);
    }
    if (starts(in, "\xff\xd8\xff", 0, 3)) {
        *format = mm_image_format_jpeg;
        return mm_code_ok;
    }
    if (starts(in, "\x89PNG\r\n\x1a\n", 0, 8)) {
        *format = mm_image_format_png;
        return mm_code_ok;
    }
    if (starts(in, "RIFF", 0, 4) && starts(in, "WEBP", 8, 4)) {
        *format = mm_image_format_webp;
        return mm_code_ok;
    }
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const struct signature *s = &refused[i];
        if (starts(in, s->bytes, s->at, s->n)) {
            return mm_fail(err, mm_code_unsupported,
                           "%s: is %s; JPEG, PNG and WebP pictures are read", in->what, s->name);
        }
    }
    char seen[3 * 8 + 1] = "";
    for (size_t i = 0; i < 8 && i < in->n; i++) {
        static const char digits[] = "0123456789abcdef";
        seen[3 * i] = digits[in->bytes[i] >> 4];
        seen[3 * i + 1] = digits[in->bytes[i] & 15];
        seen[3 * i + 2] = i + 1 < 8 && i + 1 < in->n ? ' ' : '\0';
    }
    return mm_fail(err, mm_code_input,
                   "%s: is not a picture: it begins with the bytes %s, wanted JPEG, PNG or WebP",
                   in->what, seen);
}

enum mm_code mm_image_peek(struct mm_image_info *info, const void *bytes, size_t n,
                           const char *what, struct mm_error *err) {
    const struct mm_codec_input in = {.bytes = bytes, .n = n, .what = what};
    *info = (struct mm_image_info){0};
    MM_TRY(sniff(&info->format, &in, err));
    int32_t w = 0, h = 0;
    switch (info->format) {
        case mm_image_format_jpeg:
            MM_TRY(mm_jpeg_peek(&w, &h, &in, err));
            break;
        case mm_image_format_png:
            MM_TRY(mm_png_peek(&w, &h, &in, err));
            break;
        case mm_image_format_webp:
            MM_TRY(mm_webp_peek(&w, &h, &in, err));
            break;
    }
    if (w < 1 || h < 1 || w > mm_image_max_side || h > mm_image_max_side) {
        return mm_fail(err, mm_code_input,
                       "%s: the picture is %d x %d pixels, each side must be 1 to %d", what, w, h,
                       mm_image_max_side);
    }
    if ((int64_t)w * h > mm_image_max_pixels) {
        return mm_fail(err, mm_code_input,
                       "%s: the picture is %d x %d = %lld pixels, at most %d are read", what, w, h,
                       (long long)w * h, mm_image_max_pixels);
    }
    info->width = w;
    info->height = h;
    return mm_code_ok;
}

enum mm_code mm_image_decode(struct mm_image *im, const void *bytes, size_t n, const char *what,
                             struct mm_error *err) {
    *im = (struct mm_image){0};
    struct mm_image_info info;
    MM_TRY(mm_image_peek(&info, bytes, n, what, err));
    const struct mm_codec_input in = {.bytes = bytes, .n = n, .what = what};
    im->width = info.width;
    im->height = info.height;
    enum mm_code code = mm_code_ok;
    switch (info.format) {
        case mm_image_format_jpeg:
            code = mm_jpeg_decode(im, &in, err);
            break;
        case mm_image_format_png:
            code = mm_png_decode(im, &in, err);
            break;
        case mm_image_format_webp:
            code = mm_webp_decode(im, &in, err);
            break;
    }
    if (code != mm_code_ok) {
        mm_image_free(im);
    }
    return code;
}

enum mm_code mm_image_open(struct mm_image *im, const char *path, struct mm_error *err) {
    *im = (struct mm_image){0};
    struct mm_buf file = {0};
    MM_TRY(mm_file_read(&file, path, mm_image_max_file_bytes, err));
    const enum mm_code code = mm_image_decode(im, file.data, file.len, path, err);
    mm_buf_free(&file);
    return code;
}

void mm_image_free(struct mm_image *im) {
    free(im->rgb);
    *im = (struct mm_image){0};
}

enum mm_code mm_codec_alloc(struct mm_image *im, int channels, const struct mm_codec_input *in,
                            struct mm_error *err) {
    const size_t bytes = (size_t)im->width * (size_t)im->height * (size_t)channels;
    im->rgb = malloc(bytes);
    if (!im->rgb) {
        return mm_fail(err, mm_code_memory, "%s: no memory for %zu bytes of a %d x %d picture",
                       in->what, bytes, im->width, im->height);
    }
    return mm_code_ok;
}

enum mm_code mm_codec_cut(const struct mm_codec_input *in, const char *format,
                          struct mm_error *err) {
    return mm_fail(err, mm_code_input, "%s: the %s picture is cut off: %zu bytes are not all of it",
                   in->what, format, in->n);
}
