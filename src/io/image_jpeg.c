// JPEG by libjpeg-turbo. The markers are walked here first: size, number of components, bits, the
// number of scans and the end marker are known before anything is allocated. Like Pillow a file
// without its end marker is refused, damage inside the data is decoded as far as it goes.
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include "io/image_codec.h"

// A progressive picture has about ten scans; thousands of empty ones over a large picture are an
// old way to keep a decoder busy for minutes.
enum { jpeg_max_scans = 100 };

enum {
    marker_tem = 0x01,
    marker_sof0 = 0xc0,
    marker_dht = 0xc4,
    marker_jpg = 0xc8,
    marker_dac = 0xcc,
    marker_sof15 = 0xcf,
    marker_rst0 = 0xd0,
    marker_rst7 = 0xd7,
    marker_soi = 0xd8,
    marker_eoi = 0xd9,
    marker_sos = 0xda,
};

struct jpeg_outline {
    int sof;  // marker of the frame header, 0 before it was seen
    int bits, components;
    int32_t width, height;
    int n_scans;
    bool ended;  // EOI was seen
};

static int be16(const uint8_t *p) {
    return p[0] << 8 | p[1];
}

static bool is_frame(int marker) {
    return marker >= marker_sof0 && marker <= marker_sof15 && marker != marker_dht &&
           marker != marker_jpg && marker != marker_dac;
}

// Goes from marker to marker, over the entropy-coded data too (there 0xff is followed by 0 or a
// restart marker). Stops after the frame header when frame_only, else at EOI or the end of data.
static void walk(struct jpeg_outline *o, const struct mm_codec_input *in, bool frame_only) {
    *o = (struct jpeg_outline){0};
    size_t at = 2;  // after SOI
    for (;;) {
        const uint8_t *ff = at < in->n ? memchr(in->bytes + at, 0xff, in->n - at) : NULL;
        if (!ff) {
            return;
        }
        at = (size_t)(ff - in->bytes);
        while (at < in->n && in->bytes[at] == 0xff) {
            at++;
        }
        if (at == in->n) {
            return;
        }
        const int marker = in->bytes[at++];
        if (marker == 0 || marker == marker_tem || marker == marker_soi ||
            (marker >= marker_rst0 && marker <= marker_rst7)) {
            continue;
        }
        if (marker == marker_eoi) {
            o->ended = true;
            return;
        }
        if (in->n - at < 2) {
            return;
        }
        const size_t length = (size_t)be16(in->bytes + at);  // its own two bytes included
        if (length < 2 || in->n - at < length) {
            return;
        }
        if (is_frame(marker) && o->sof == 0 && length >= 8) {
            const uint8_t *p = in->bytes + at + 2;
            o->sof = marker;
            o->bits = p[0];
            o->height = be16(p + 1);
            o->width = be16(p + 3);
            o->components = p[5];
            if (frame_only) {
                return;
            }
        }
        o->n_scans += marker == marker_sos;
        at += length;
    }
}

static enum mm_code check_kind(const struct jpeg_outline *o, const struct mm_codec_input *in,
                               struct mm_error *err) {
    const int kind = o->sof - marker_sof0;
    if (o->bits != 8) {
        return mm_fail(err, mm_code_unsupported,
                       "%s: the JPEG picture has %d bits a sample, 8 are read", in->what, o->bits);
    }
    // 0, 1, 2: baseline, extended, progressive; 9, 10: the same, arithmetically coded.
    if (kind != 0 && kind != 1 && kind != 2 && kind != 9 && kind != 10) {
        return mm_fail(err, mm_code_unsupported,
                       "%s: the JPEG picture is of process SOF%d (lossless or hierarchical), "
                       "baseline and progressive are read",
                       in->what, kind);
    }
    if (o->components != 1 && o->components != 3 && o->components != 4) {
        return mm_fail(err, mm_code_unsupported,
                       "%s: the JPEG picture has %d components, wanted 1, 3 or 4", in->what,
                       o->components);
    }
    return mm_code_ok;
}

enum mm_code mm_jpeg_peek(int32_t *w, int32_t *h, const struct mm_codec_input *in,
                          struct mm_error *err) {
    struct jpeg_outline o;
    walk(&o, in, true);
    if (o.sof == 0) {
        return mm_codec_cut(in, "JPEG", err);
    }
    MM_TRY(check_kind(&o, in, err));
    *w = o.width;
    *h = o.height;
    return mm_code_ok;
}

static enum mm_code check_body(const struct jpeg_outline *o, const struct mm_codec_input *in,
                               struct mm_error *err) {
    if (!o->ended || o->n_scans == 0) {
        return mm_codec_cut(in, "JPEG", err);
    }
    if (o->n_scans > jpeg_max_scans) {
        return mm_fail(err, mm_code_input, "%s: the JPEG picture has %d scans, at most %d are read",
                       in->what, o->n_scans, jpeg_max_scans);
    }
    // By Huffman codes a block of the largest component costs at least one bit; that component has
    // at least a quarter of the picture's blocks, however they are sampled.
    const int64_t blocks = (int64_t)((o->width + 7) / 8) * ((o->height + 7) / 8);
    if (o->sof <= marker_sof0 + 2 && (int64_t)in->n < blocks / 32) {
        return mm_fail(err, mm_code_input,
                       "%s: the JPEG header promises %d x %d pixels and %zu bytes cannot hold them",
                       in->what, o->width, o->height, in->n);
    }
    return mm_code_ok;
}

// a * b / 255, rounded, as Pillow's MULDIV255.
static int muldiv255(int a, int b) {
    const int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

// Four components come as Adobe writes them, inverted (0 is full ink), whether marked so or not.
// Pillow: c = 255 - C, k = 255 - K, red = (255 - k) - c (255 - k) / 255. In place.
static void cmyk_to_rgb(uint8_t *p, int64_t n_pixels) {
    for (int64_t i = 0; i < n_pixels; i++) {
        const uint8_t *cmyk = p + 4 * i;
        const int k = cmyk[3];
        const int r = k - muldiv255(255 - cmyk[0], k);
        const int g = k - muldiv255(255 - cmyk[1], k);
        const int b = k - muldiv255(255 - cmyk[2], k);
        p[3 * i] = (uint8_t)r;
        p[3 * i + 1] = (uint8_t)g;
        p[3 * i + 2] = (uint8_t)b;
    }
}

static enum mm_code decode(struct mm_image *im, tjhandle tj, const struct jpeg_outline *o,
                           const struct mm_codec_input *in, struct mm_error *err) {
    int w = 0, h = 0, subsampling = 0, space = 0;
    // Its result is not asked for: it fails on rare samplings that the decoder itself can do. What
    // counts is that the library and the walk mean the same frame header.
    (void)tjDecompressHeader3(tj, in->bytes, (unsigned long)in->n, &w, &h, &subsampling, &space);
    if (w != o->width || h != o->height) {
        return mm_fail(err, mm_code_input, "%s: broken JPEG picture: %s", in->what,
                       tjGetErrorStr2(tj));
    }
    const bool cmyk = o->components == 4;
    const int channels = cmyk ? 4 : 3;
    MM_TRY(mm_codec_alloc(im, channels, in, err));
    if (tjDecompress2(tj, in->bytes, (unsigned long)in->n, im->rgb, w, w * channels, h,
                      cmyk ? TJPF_CMYK : TJPF_RGB, TJFLAG_ACCURATEDCT) != 0 &&
        tjGetErrorCode(tj) != TJERR_WARNING) {
        return mm_fail(err, mm_code_input, "%s: broken JPEG picture: %s", in->what,
                       tjGetErrorStr2(tj));
    }
    if (cmyk) {
        const int64_t n_pixels = (int64_t)w * h;
        cmyk_to_rgb(im->rgb, n_pixels);
        uint8_t *smaller = realloc(im->rgb, (size_t)n_pixels * 3);
        im->rgb = smaller ? smaller : im->rgb;
    }
    return mm_code_ok;
}

enum mm_code mm_jpeg_decode(struct mm_image *im, const struct mm_codec_input *in,
                            struct mm_error *err) {
    struct jpeg_outline o;
    walk(&o, in, false);
    MM_TRY(check_body(&o, in, err));
    tjhandle tj = tjInitDecompress();
    if (!tj) {
        return mm_fail(err, mm_code_memory, "%s: no JPEG decoder: %s", in->what,
                       tjGetErrorStr2(NULL));
    }
    const enum mm_code code = decode(im, tj, &o, in, err);
    tjDestroy(tj);
    return code;
}
