// What colour a thing is, and the encoders of finished pictures.
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include "scenes/paint.h"

// The colour word of one pixel, by hue, saturation and brightness; mm_colour_none between two
// words: beige, amber-brown, steel, charcoal.
static int word_of(int r, int g, int b) {
    const int hi = r > g ? (r > b ? r : b) : (g > b ? g : b);
    const int lo = r < g ? (r < b ? r : b) : (g < b ? g : b);
    const int chroma = hi - lo;
    if (hi < 66) return mm_colour_black;
    const double strong = (double)chroma / hi;
    if (strong < 0.16) {
        return hi > 218   ? mm_colour_white
               : hi > 200 ? mm_colour_none
               : hi > 104 ? mm_colour_gray
                          : mm_colour_none;
    }
    double hue;  // degrees
    if (hi == r) {
        hue = 60.0 * (g - b) / chroma + (g < b ? 360.0 : 0.0);
    } else if (hi == g) {
        hue = 60.0 * (b - r) / chroma + 120.0;
    } else {
        hue = 60.0 * (r - g) / chroma + 240.0;
    }
    if (hue < 18 || hue >= 318) {
        if (hi > 190 && strong < 0.62 && (hue < 12 || hue >= 318)) return mm_colour_pink;
        if (hue >= 318 && hue < 340) return strong > 0.5 ? mm_colour_pink : mm_colour_none;
        if (strong < 0.62) return hi < 190 && strong > 0.3 ? mm_colour_brown : mm_colour_none;
        return hi < 120 ? mm_colour_brown : mm_colour_red;
    }
    if (hue < 42) {  // dark: brown; bright and strong: orange; the rest is tan
        if (hi < 190) return strong > 0.3 ? mm_colour_brown : mm_colour_none;
        return strong > 0.74 && hi > 225 ? mm_colour_orange : mm_colour_none;
    }
    if (hue < 68) return strong > 0.5 && hi > 190 ? mm_colour_yellow : mm_colour_none;
    if (strong < 0.3) return mm_colour_none;
    if (hue < 165) return mm_colour_green;
    if (hue < 250) return strong > 0.42 ? mm_colour_blue : mm_colour_none;
    return mm_colour_purple;
}

void mm_colours_measure(const struct mm_sprite *s, int *dominant, uint32_t *mask) {
    int64_t count[mm_colour_count] = {0}, total = 0;
    for (int64_t i = 0; i < (int64_t)s->width * s->height; i++) {
        const uint8_t *p = s->rgba + 4 * i;
        if (p[3] < 160) continue;
        const int a = p[3];
        const int word = word_of(p[0] * 255 / a, p[1] * 255 / a, p[2] * 255 / a);
        if (word >= 0) count[word]++;
        total++;
    }
    int first = 0, second = -1;
    *mask = 0;
    for (int c = 0; c < mm_colour_count; c++) {
        if (count[c] > count[first]) first = c;
        if (total && count[c] * 100 > 8 * total) *mask |= 1u << c;
    }
    for (int c = 0; c < mm_colour_count; c++) {
        if (c != first && (second < 0 || count[c] > count[second])) second = c;
    }
    const bool clear =
        total && count[first] * 100 >= 58 * total && count[second] * 100 <= 22 * total;
    *dominant = clear ? first : mm_colour_none;
}

static enum mm_code encode_png(struct mm_buf *out, const struct mm_canvas *c,
                               struct mm_error *err) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)c->width,
                       .height = (png_uint_32)c->height,
                       .format = PNG_FORMAT_RGB,
                       // Even grounds shrink as well without filters, and four times as fast.
                       .flags = PNG_IMAGE_FLAG_FAST};
    png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(image);
    uint8_t *png = mm_xmalloc(bytes);
    enum mm_code code = mm_code_ok;
    if (png_image_write_to_memory(&image, png, &bytes, 0, c->rgb, 0, NULL)) {
        mm_buf_add(out, png, bytes);
    } else {
        code = mm_fail(err, mm_code_memory, "a picture cannot be encoded: %s", image.message);
    }
    free(png);
    return code;
}

static enum mm_code encode_jpeg(struct mm_buf *out, const struct mm_canvas *c, int quality,
                                struct mm_error *err) {
    tjhandle tj = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long bytes = 0;
    enum mm_code code = mm_code_ok;
    if (!tj || tjCompress2(tj, c->rgb, c->width, 0, c->height, TJPF_RGB, &jpeg, &bytes, TJSAMP_444,
                           quality, TJFLAG_ACCURATEDCT)) {
        code = mm_fail(err, mm_code_memory, "a picture cannot be encoded: %s", tjGetErrorStr2(tj));
    } else {
        mm_buf_add(out, jpeg, bytes);
    }
    tjFree(jpeg);
    if (tj) tjDestroy(tj);
    return code;
}

enum mm_code mm_picture_encode(struct mm_buf *out, const struct mm_canvas *c, int quality,
                               struct mm_error *err) {
    return quality ? encode_jpeg(out, c, quality, err) : encode_png(out, c, err);
}
