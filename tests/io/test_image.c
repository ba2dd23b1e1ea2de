// Decoding held to Pillow. tests/golden/images/decode.safetensors has for every kind of picture
// "<kind>.file", the bytes, and "<kind>.rgb", what Pillow 11.3 makes of them with convert("RGB").
// And damage: every file cut, every file with bits flipped.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cmocka_all.h"

#include "base/buf.h"
#include "base/rng.h"
#include "io/file.h"
#include "io/image.h"
#include "io/safetensors.h"

// Debian's libjpeg-turbo and Pillow's own agree to the bit today; a level is the golden rule.
enum { jpeg_tolerance = 1 };

// A PNG may lack what follows its pixels: deflate's end code and zlib's checksum, which may stand
// in an IDAT of their own, and IEND.
enum { png_tail_bytes = 2 + 4 + 12 + 4 + 12 };

struct sample {
    char name[96];
    const uint8_t *bytes;
    size_t n;
    const struct mm_st_tensor *rgb;  // (height, width, 3)
};

static struct mm_st *vectors;
static struct mm_error err;

static int setup(void **state) {
    (void)state;
    return mm_st_open(&vectors, "tests/golden/images/decode.safetensors", &err) != mm_code_ok;
}

static int teardown(void **state) {
    (void)state;
    mm_st_close(vectors);
    return 0;
}

static bool starts(const char *s, const char *with) {
    return strncmp(s, with, strlen(with)) == 0;
}

// Calls fn for every sample of the file; returns how many there are.
static int each_sample(void (*fn)(const struct sample *)) {
    int n = 0;
    for (int i = 0; i < mm_st_count(vectors); i++) {
        const struct mm_st_tensor *t = mm_st_at(vectors, i);
        const size_t length = strlen(t->name);
        if (length < 5 || strcmp(t->name + length - 5, ".file") != 0) {
            continue;
        }
        struct sample s = {.bytes = t->data, .n = t->bytes};
        snprintf(s.name, sizeof s.name, "%.*s.rgb", (int)length - 5, t->name);
        s.rgb = mm_st_find(vectors, s.name);
        assert_non_null(s.rgb);
        fn(&s);
        n++;
    }
    return n;
}

static void assert_pixels(const char *what, const struct mm_image *im, const uint8_t *wanted,
                          int tolerance) {
    const int64_t n = (int64_t)im->width * im->height * 3;
    for (int64_t i = 0; i < n; i++) {
        if (abs(im->rgb[i] - wanted[i]) > tolerance) {
            fail_msg("%s: pixel (%lld, %lld) channel %d is %d, wanted %d", what,
                     (long long)(i / 3 % im->width), (long long)(i / 3 / im->width), (int)(i % 3),
                     im->rgb[i], wanted[i]);
        }
    }
}

// The bytes end where the memory does, so that a sanitizer sees a decoder that reads on.
static uint8_t *exact_copy(const uint8_t *bytes, size_t n) {
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    return copy;
}

static void check_decodes(const struct sample *s) {
    struct mm_image im;
    struct mm_image_info info;
    uint8_t *copy = exact_copy(s->bytes, s->n);
    if (mm_image_peek(&info, copy, s->n, s->name, &err) != mm_code_ok ||
        mm_image_decode(&im, copy, s->n, s->name, &err) != mm_code_ok) {
        fail_msg("%s", err.text);
    }
    free(copy);
    assert_int_equal(im.height, s->rgb->shape[0]);
    assert_int_equal(im.width, s->rgb->shape[1]);
    assert_int_equal(im.height, info.height);
    assert_int_equal(im.width, info.width);
    const bool jpeg = starts(s->name, "jpeg");
    assert_int_equal(info.format, jpeg                     ? mm_image_format_jpeg
                                  : starts(s->name, "png") ? mm_image_format_png
                                                           : mm_image_format_webp);
    assert_pixels(s->name, &im, s->rgb->data, jpeg ? jpeg_tolerance : 0);
    mm_image_free(&im);
    assert_null(im.rgb);
}

static void decodes_every_kind_as_pillow(void **state) {
    (void)state;
    assert_int_equal(each_sample(check_decodes), 100);
}

static void assert_refused(enum mm_code code, const struct mm_image *im, const char *name) {
    if (code == mm_code_ok || im->rgb || im->width || im->height) {
        fail_msg("%s: accepted, or left something behind", name);
    }
    if (code != err.code || !starts(err.text, name) || strlen(err.text) < strlen(name) + 10 ||
        strchr(err.text, '\n')) {
        fail_msg("%s: code %d, not one good sentence: '%s'", name, (int)code, err.text);
    }
}

// Cut to n bytes: refused, unless it is a PNG that has all of its pixels.
static void check_cut(const struct sample *s, size_t n) {
    struct mm_image im;
    uint8_t *copy = exact_copy(s->bytes, n);
    const enum mm_code code = mm_image_decode(&im, copy, n, s->name, &err);
    free(copy);
    if (code == mm_code_ok) {
        if (!starts(s->name, "png") || s->n - n > png_tail_bytes) {
            fail_msg("%s: accepted when cut to %zu of %zu bytes", s->name, n, s->n);
        }
        assert_pixels(s->name, &im, s->rgb->data, 0);
        mm_image_free(&im);
        return;
    }
    assert_refused(code, &im, s->name);
    assert_int_equal(code, mm_code_input);
}

static void check_cuts(const struct sample *s) {
    if (strstr(s->name, "trailing") || strstr(s->name, "png.animation")) {
        return;  // what follows their pixels may well be missing
    }
    for (size_t n = 0; n < s->n; n += 37) {
        check_cut(s, n);
    }
    for (size_t left_out = 1; left_out < 45 && left_out < s->n; left_out++) {
        check_cut(s, s->n - left_out);
    }
}

static void refuses_every_cut(void **state) {
    (void)state;
    assert_int_equal(each_sample(check_cuts), 100);
}

static void cuts_of_whole_files(void **state) {
    (void)state;
    static const char *const names[] = {"rgb.png",  "rgba.png", "palette.png",  "gray.png",
                                        "tiny.png", "wide.png", "photo.jpg",    "prog.jpg",
                                        "gray.jpg", "tall.jpg", "lossless.webp"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/golden/images/%s", names[i]);
        struct mm_buf file = {0};
        assert_int_equal(mm_file_read(&file, path, 1 << 24, &err), mm_code_ok);
        // A step of 37 through the small ones; the large ones decode for too long at every cut.
        const size_t step = file.len < 10000 ? 37 : 37 * 41;
        for (size_t n = 0; n + png_tail_bytes < file.len; n += step) {
            struct mm_image im;
            const enum mm_code code = mm_image_decode(&im, file.data, n, path, &err);
            assert_refused(code, &im, path);
        }
        mm_buf_free(&file);
    }
}

// Pillow accepts a PNG that ends after its last row, and no JPEG without its end marker.
static void the_very_end(void **state) {
    (void)state;
    struct mm_image im;
    const struct mm_st_tensor *png = mm_st_find(vectors, "png.type2.bits8.file");
    const struct mm_st_tensor *rgb = mm_st_find(vectors, "png.type2.bits8.rgb");
    assert_int_equal(mm_image_decode(&im, png->data, png->bytes - 12, "x", &err), mm_code_ok);
    assert_pixels("without IEND", &im, rgb->data, 0);
    mm_image_free(&im);
    const struct mm_st_tensor *jpeg = mm_st_find(vectors, "jpeg.sampling2.file");
    assert_int_equal(mm_image_decode(&im, jpeg->data, jpeg->bytes - 2, "x", &err), mm_code_input);
    assert_non_null(strstr(err.text, "cut off"));
}

static int n_flips_accepted, n_flips_refused;

static void check_flips(const struct sample *s) {
    for (uint64_t round = 0; round < 60; round++) {
        struct mm_rng rng = mm_rng_make(round, mm_rng_stream(s->name));
        uint8_t *copy = exact_copy(s->bytes, s->n);
        for (uint64_t k = 0; k <= round % 4; k++) {
            copy[mm_rng_below(&rng, (uint32_t)s->n)] ^= (uint8_t)(1u << mm_rng_below(&rng, 8));
        }
        struct mm_image im;
        struct mm_image_info info;
        const enum mm_code peek = mm_image_peek(&info, copy, s->n, s->name, &err);
        if (peek == mm_code_ok && (int64_t)info.width * info.height > 1 << 22) {
            free(copy);  // a flip made it a large picture: allowed, and slow
            continue;
        }
        const enum mm_code code = mm_image_decode(&im, copy, s->n, s->name, &err);
        free(copy);
        if (code == mm_code_ok) {
            assert_int_equal(peek, mm_code_ok);
            assert_int_equal(im.width, info.width);
            assert_int_equal(im.height, info.height);
            uint64_t sum = 0;  // every pixel is there to be read
            for (int64_t i = 0; i < (int64_t)im.width * im.height * 3; i++) {
                sum += im.rgb[i];
            }
            assert_true(sum <= (uint64_t)im.width * (uint64_t)im.height * 3 * 255);
            mm_image_free(&im);
            n_flips_accepted++;
        } else {
            assert_refused(code, &im, s->name);
            n_flips_refused++;
        }
    }
}

static void survives_flipped_bits(void **state) {
    (void)state;
    each_sample(check_flips);
    // Both must happen, else the test tests nothing.
    assert_true(n_flips_accepted > 100);
    assert_true(n_flips_refused > 100);
}

static void writes_png(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "/tmp/mm_test_image_%ld.png", (long)getpid());
    static const int sizes[][2] = {{1, 1}, {3, 2}, {64, 5}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const int w = sizes[i][0], h = sizes[i][1];
        uint8_t rgb[64 * 5 * 3];
        for (int k = 0; k < w * h * 3; k++) {
            rgb[k] = (uint8_t)(k * 77 + 3);
        }
        assert_int_equal(mm_image_write_png(path, rgb, w, h, &err), mm_code_ok);
        struct mm_image im;
        assert_int_equal(mm_image_open(&im, path, &err), mm_code_ok);
        assert_int_equal(im.width, w);
        assert_int_equal(im.height, h);
        assert_pixels(path, &im, rgb, 0);
        mm_image_free(&im);
    }
    unlink(path);
    const uint8_t pixel[3] = {1, 2, 3};
    assert_int_equal(mm_image_write_png("/nonexistent/a.png", pixel, 1, 1, &err), mm_code_io);
    assert_non_null(strstr(err.text, "/nonexistent/a.png"));
    assert_int_equal(mm_image_write_png(path, pixel, 0, 1, &err), mm_code_input);
    assert_int_not_equal(access(path, F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_every_kind_as_pillow), cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(cuts_of_whole_files),          cmocka_unit_test(the_very_end),
        cmocka_unit_test(survives_flipped_bits),        cmocka_unit_test(writes_png),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
