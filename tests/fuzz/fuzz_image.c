// Pictures from bytes: decoding, and what follows it on the way to the model.
#include <stdlib.h>
#include <string.h>
#include "io/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct mm_error *err, enum mm_code code) {
    if (code != err->code || strlen(err->text) == 0 || strchr(err->text, '\n')) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct mm_error err;
    struct mm_image_info info;
    enum mm_code code = mm_image_peek(&info, data, n, "input", &err);
    // Larger ones are decoded by nobody faster, and a fuzzer wants many runs a second.
    if (code == mm_code_ok && (int64_t)info.width * info.height > 1 << 20) {
        return 0;
    }
    struct mm_image im;
    code = mm_image_decode(&im, data, n, "input", &err);
    if (code != mm_code_ok) {
        check(&err, code);
        if (im.rgb) {
            abort();
        }
        return 0;
    }
    if (im.width != info.width || im.height != info.height) {
        abort();
    }
    struct mm_tiles t;
    code = mm_tiles_make(&t, &im, 1 + data[n - 1] % 32, 1, 1 + data[n / 2] % 12, data[n / 3] & 1,
                         &err);
    if (code == mm_code_ok) {
        float pixels[3 * 32 * 32];
        for (int32_t i = 0; i < t.n; i++) {
            const size_t tile_bytes = (size_t)t.size * (size_t)t.size * 3;
            mm_tiles_normalize(pixels, t.rgb + (size_t)i * tile_bytes, 1, t.size);
        }
        mm_tiles_free(&t);
    } else {
        check(&err, code);
    }
    mm_image_free(&im);
    return 0;
}
