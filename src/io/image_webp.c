// WebP by libwebp: lossy, lossless, with alpha (dropped), and of an animation the first frame on a
// black canvas, as Pillow shows it.
#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>
#include "io/image_codec.h"

static enum mm_code features_of(WebPBitstreamFeatures *f, const struct mm_codec_input *in,
                                struct mm_error *err) {
    // RIFF's own length: what follows the pixels (EXIF, say) must be there too, else it is cut.
    const uint8_t *p = in->bytes;
    if (in->n < 20) {
        return mm_codec_cut(in, "WebP", err);
    }
    const uint64_t riff =
        8 + ((uint64_t)p[4] | (uint64_t)p[5] << 8 | (uint64_t)p[6] << 16 | (uint64_t)p[7] << 24);
    if (riff > in->n) {
        return mm_codec_cut(in, "WebP", err);
    }
    const VP8StatusCode status = WebPGetFeatures(in->bytes, in->n, f);
    if (status == VP8_STATUS_NOT_ENOUGH_DATA) {
        return mm_codec_cut(in, "WebP", err);
    }
    if (status != VP8_STATUS_OK) {
        return mm_fail(err, mm_code_input, "%s: broken WebP picture (libwebp's status %d)",
                       in->what, (int)status);
    }
    return mm_code_ok;
}

enum mm_code mm_webp_peek(int32_t *w, int32_t *h, const struct mm_codec_input *in,
                          struct mm_error *err) {
    WebPBitstreamFeatures f;
    MM_TRY(features_of(&f, in, err));
    *w = f.width;
    *h = f.height;
    return mm_code_ok;
}

// One still bitstream of w x h into the canvas at (x, y).
static enum mm_code decode_into(struct mm_image *im, const uint8_t *bytes, size_t n, int x, int y,
                                int w, int h, const struct mm_codec_input *in,
                                struct mm_error *err) {
    const size_t stride = (size_t)im->width * 3;
    uint8_t *at = im->rgb + (size_t)y * stride + (size_t)x * 3;
    const size_t room = (size_t)(h - 1) * stride + (size_t)w * 3;
    if (!WebPDecodeRGBInto(bytes, n, at, room, (int)stride)) {
        return mm_fail(err, mm_code_input, "%s: broken WebP picture: its pixels cannot be decoded",
                       in->what);
    }
    return mm_code_ok;
}

static enum mm_code decode_first_frame(struct mm_image *im, const WebPIterator *frame,
                                       const struct mm_codec_input *in, struct mm_error *err) {
    const int64_t right = (int64_t)frame->x_offset + frame->width;
    const int64_t below = (int64_t)frame->y_offset + frame->height;
    if (frame->x_offset < 0 || frame->y_offset < 0 || frame->width < 1 || frame->height < 1 ||
        right > im->width || below > im->height) {
        return mm_fail(err, mm_code_input,
                       "%s: broken WebP animation: the first frame, %d x %d at (%d, %d), leaves "
                       "the canvas of %d x %d",
                       in->what, frame->width, frame->height, frame->x_offset, frame->y_offset,
                       im->width, im->height);
    }
    // The frame's header is held against the bitstream's own before it may write.
    int w = 0, h = 0;
    if (!WebPGetInfo(frame->fragment.bytes, frame->fragment.size, &w, &h) || w != frame->width ||
        h != frame->height) {
        return mm_fail(err, mm_code_input,
                       "%s: broken WebP animation: the first frame is %d x %d, its pixels %d x %d",
                       in->what, frame->width, frame->height, w, h);
    }
    MM_TRY(mm_codec_alloc(im, 3, in, err));
    memset(im->rgb, 0, (size_t)im->width * (size_t)im->height * 3);
    return decode_into(im, frame->fragment.bytes, frame->fragment.size, frame->x_offset,
                       frame->y_offset, frame->width, frame->height, in, err);
}

static enum mm_code decode_animation(struct mm_image *im, const struct mm_codec_input *in,
                                     struct mm_error *err) {
    const WebPData data = {in->bytes, in->n};
    WebPDemuxer *demux = WebPDemux(&data);
    if (!demux) {
        return mm_fail(err, mm_code_input, "%s: broken WebP animation: its parts do not add up",
                       in->what);
    }
    WebPIterator frame;
    enum mm_code code;
    if (WebPDemuxGetFrame(demux, 1, &frame)) {
        code = decode_first_frame(im, &frame, in, err);
        WebPDemuxReleaseIterator(&frame);
    } else {
        code = mm_fail(err, mm_code_input, "%s: broken WebP animation: it has no frame", in->what);
    }
    WebPDemuxDelete(demux);
    return code;
}

enum mm_code mm_webp_decode(struct mm_image *im, const struct mm_codec_input *in,
                            struct mm_error *err) {
    WebPBitstreamFeatures f;
    MM_TRY(features_of(&f, in, err));
    if (f.has_animation) {
        return decode_animation(im, in, err);
    }
    MM_TRY(mm_codec_alloc(im, 3, in, err));
    return decode_into(im, in->bytes, in->n, 0, 0, im->width, im->height, in, err);
}
