// Writing JPEG by libjpeg-turbo, with the settings of Pillow's save(quality=q): 4:2:0, the accurate
// transform, standard tables.
#include <stdlib.h>
#include <turbojpeg.h>
#include "io/image.h"

enum mm_code mm_image_encode_jpeg(struct mm_buf *out, const struct mm_image *im, int quality,
                                  struct mm_error *err) {
    unsigned char *jpeg = NULL;
    unsigned long bytes = 0;
    tjhandle packer = tjInitCompress();
    if (!packer) return mm_fail(err, mm_code_memory, "no memory to write a JPEG");
    enum mm_code code = mm_code_ok;
    if (tjCompress2(packer, im->rgb, im->width, 0, im->height, TJPF_RGB, &jpeg, &bytes, TJSAMP_420,
                    quality, TJFLAG_ACCURATEDCT) != 0) {
        code = mm_fail(err, mm_code_input, "a picture of %d x %d cannot be written as JPEG: %s",
                       im->width, im->height, tjGetErrorStr2(packer));
    } else {
        mm_buf_add(out, jpeg, bytes);
    }
    tjFree(jpeg);
    tjDestroy(packer);
    return code;
}
