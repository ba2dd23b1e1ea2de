// JPEG degradation of tiles, as Pillow's save(quality=q) and open do it.
#include "train/degrade.h"

#include <stdlib.h>
#include <turbojpeg.h>

enum { quality_min = 75, quality_max = 100 };

enum mm_code mm_degrade_tiles(uint8_t *tiles, int32_t n, int32_t size, struct mm_rng *rng,
                              struct mm_error *err) {
    // TJFLAG_ACCURATEDCT is the transform Pillow uses; the default one depends on the machine.
    const int flags = TJFLAG_ACCURATEDCT | TJFLAG_NOREALLOC;
    unsigned long bytes = tjBufSize(size, size, TJSAMP_420);
    unsigned char *jpeg = bytes == (unsigned long)-1 ? NULL : malloc(bytes);
    tjhandle packer = tjInitCompress(), reader = tjInitDecompress();
    enum mm_code code = mm_code_ok;
    if (!jpeg || !packer || !reader) {
        code = mm_fail(err, mm_code_memory, "data_augment: no memory for a JPEG of %d x %d", size,
                       size);
    }
    for (int32_t i = 0; code == mm_code_ok && i < n; i++) {
        uint8_t *tile = tiles + (size_t)i * (size_t)size * (size_t)size * 3;
        const int quality =
            quality_min + (int)mm_rng_below(rng, (uint32_t)(quality_max - quality_min + 1));
        unsigned long used = bytes;
        if (tjCompress2(packer, tile, size, 0, size, TJPF_RGB, &jpeg, &used, TJSAMP_420, quality,
                        flags) != 0) {
            code = mm_fail(err, mm_code_input, "data_augment: %s", tjGetErrorStr2(packer));
        } else if (tjDecompress2(reader, jpeg, used, tile, size, 0, size, TJPF_RGB,
                                 TJFLAG_ACCURATEDCT) != 0) {
            code = mm_fail(err, mm_code_input, "data_augment: %s", tjGetErrorStr2(reader));
        }
    }
    if (packer) tjDestroy(packer);
    if (reader) tjDestroy(reader);
    free(jpeg);
    return code;
}
