// Between image.c and the decoders, one file a format. A peek reads the size from the header and
// allocates nothing; a decode is called only after image.c has accepted that size, and fills
// im->rgb, which image.c has not allocated. Both trust neither the header nor the rest.
#ifndef MM_IO_IMAGE_CODEC_H
#define MM_IO_IMAGE_CODEC_H

#include "io/image.h"

struct mm_codec_input {
    const uint8_t *bytes;
    size_t n;
    const char *what;  // for messages
};

enum mm_code mm_jpeg_peek(int32_t *w, int32_t *h, const struct mm_codec_input *in,
                          struct mm_error *err);
enum mm_code mm_jpeg_decode(struct mm_image *im, const struct mm_codec_input *in,
                            struct mm_error *err);
enum mm_code mm_png_peek(int32_t *w, int32_t *h, const struct mm_codec_input *in,
                         struct mm_error *err);
enum mm_code mm_png_decode(struct mm_image *im, const struct mm_codec_input *in,
                           struct mm_error *err);
enum mm_code mm_webp_peek(int32_t *w, int32_t *h, const struct mm_codec_input *in,
                          struct mm_error *err);
enum mm_code mm_webp_decode(struct mm_image *im, const struct mm_codec_input *in,
                            struct mm_error *err);

// im->rgb for the size in im; `channels` is what the decoder writes before it is brought to 3.
enum mm_code mm_codec_alloc(struct mm_image *im, int channels, const struct mm_codec_input *in,
                            struct mm_error *err);
// The sentence for a file that ends too early.
enum mm_code mm_codec_cut(const struct mm_codec_input *in, const char *format,
                          struct mm_error *err);

#endif
