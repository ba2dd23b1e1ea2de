// Pictures that must be refused by what their headers say: not pictures, other formats, bombs, and
// kinds that are not read. Each with the sentence that names it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "cmocka_all.h"

#include "base/buf.h"
#include "io/file.h"
#include "io/image.h"

static struct mm_error err;

static void assert_refused(const char *what, const void *bytes, size_t n, enum mm_code wanted,
                           const char *says) {
    struct mm_image im;
    const enum mm_code code = mm_image_decode(&im, bytes, n, what, &err);
    if (code != wanted || im.rgb || strncmp(err.text, what, strlen(what)) != 0 ||
        !strstr(err.text, says)) {
        fail_msg("%s: code %d with '%s', wanted %d with '%s'", what, (int)code, err.text,
                 (int)wanted, says);
    }
}

static void names_what_it_does_not_read(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        enum mm_code code;
        const char *says;
    } table[] = {
        {"", 0, mm_code_input, "empty"},
        {"\xff", 1, mm_code_input, "begins with the bytes ff,"},
        {"hello, world", 12, mm_code_input, "68 65 6c 6c 6f 2c 20 77"},
        {"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, mm_code_input, "not a picture"},
        {"GIF89a\1\0\1\0", 10, mm_code_unsupported, "a GIF picture"},
        {"BM\x36\0\0\0\0\0\0\0", 10, mm_code_unsupported, "a BMP picture"},
        {"\0\0\0\x1c"
         "ftypavif\0\0\0\0",
         16, mm_code_unsupported, "an AVIF picture"},
        {"\0\0\0\x1c"
         "ftypheic\0\0\0\0",
         16, mm_code_unsupported, "an HEIC picture"},
        {"\0\0\0\x1c"
         "ftypisom\0\0\0\0",
         16, mm_code_unsupported, "video"},
        {"II*\0\x08\0\0\0", 8, mm_code_unsupported, "a TIFF picture"},
        {"MM\0*\0\0\0\x08", 8, mm_code_unsupported, "a TIFF picture"},
        {"\0\0\0\x0cJXL \r\n\x87\n", 12, mm_code_unsupported, "JPEG XL"},
        {"\0\0\0\x0cjP  \r\n\x87\n", 12, mm_code_unsupported, "JPEG 2000"},
        {"%PDF-1.4", 8, mm_code_unsupported, "a PDF document"},
        {"<!DOCTYPE html>", 15, mm_code_unsupported, "an HTML page"},
        {"<svg xmlns=", 11, mm_code_unsupported, "an SVG drawing"},
        {"\xff\xd8\xff", 3, mm_code_input, "cut off"},
        {"\x89PNG\r\n\x1a\n", 8, mm_code_input, "cut off"},
        {"RIFF\x04\0\0\0WEBP", 12, mm_code_input, "cut off"},
        {"RIFF\x04\0\0\0WAVEfmt ", 16, mm_code_input, "not a picture"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char *exact = malloc(table[i].n ? table[i].n : 1);
        memcpy(exact, table[i].bytes, table[i].n);
        assert_refused("thing.png", exact, table[i].n, table[i].code, table[i].says);
        free(exact);
    }
}

static uint32_t crc32_of(const uint8_t *p, size_t n) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) {
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

static void add_be32(struct mm_buf *b, uint32_t v) {
    const uint8_t bytes[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
                              (uint8_t)v};
    mm_buf_add(b, bytes, 4);
}

static void add_chunk(struct mm_buf *b, const char *type, const void *data, size_t n) {
    add_be32(b, (uint32_t)n);
    const size_t from = b->len;
    mm_buf_add(b, type, 4);
    mm_buf_add(b, data, n);
    add_be32(b, crc32_of((const uint8_t *)b->data + from, b->len - from));
}

// A PNG of that header and a body of almost nothing.
static struct mm_buf make_png(uint32_t w, uint32_t h, int bits, int type, int interlace) {
    struct mm_buf b = {0}, header = {0};
    mm_buf_add(&b, "\x89PNG\r\n\x1a\n", 8);
    add_be32(&header, w);
    add_be32(&header, h);
    const uint8_t rest[5] = {(uint8_t)bits, (uint8_t)type, 0, 0, (uint8_t)interlace};
    mm_buf_add(&header, rest, 5);
    add_chunk(&b, "IHDR", header.data, header.len);
    add_chunk(&b, "PLTE", "\1\2\3", 3);
    // Deflate of a few zeros, with its checksum.
    add_chunk(&b, "IDAT", "\x78\x9c\x63\x60\x60\x60\x00\x00\x00\x04\x00\x01", 12);
    add_chunk(&b, "IEND", "", 0);
    mm_buf_free(&header);
    return b;
}

static void refuses_png_headers(void **state) {
    (void)state;
    static const struct {
        uint32_t w, h;
        int bits, type, interlace;
        const char *says;
    } table[] = {
        {0, 1, 8, 2, 0, "0 x 1"},
        {1, 0, 8, 2, 0, "1 x 0"},
        {65536, 1, 8, 2, 0, "65536 x 1"},
        {0x7fffffff, 0x7fffffff, 8, 2, 0, "2147483647 x 2147483647"},
        {0xffffffff, 1, 8, 2, 0, "4294967295 x 1"},
        {0x80000000, 0x80000000, 1, 0, 0, "2147483648"},
        {60000, 60000, 8, 2, 0, "3600000000 pixels"},
        {13378, 13378, 1, 0, 0, "178970884 pixels, at most 178956970"},
        {13377, 13377, 8, 2, 0, "cannot hold"},
        {13377, 13377, 1, 0, 1, "cannot hold"},
        {13377, 13377, 16, 6, 1, "cannot hold"},
        {200, 20, 8, 2, 0, "broken PNG picture"},
        {20, 20, 3, 0, 0, "broken PNG picture"},
        {20, 20, 16, 3, 0, "broken PNG picture"},
        {20, 20, 8, 5, 0, "broken PNG picture"},
        {20, 20, 8, 2, 9, "broken PNG picture"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct mm_buf b =
            make_png(table[i].w, table[i].h, table[i].bits, table[i].type, table[i].interlace);
        assert_refused("bomb.png", b.data, b.len, mm_code_input, table[i].says);
        mm_buf_free(&b);
    }
    struct mm_buf b = make_png(20, 20, 8, 2, 0);
    b.data[12] = 'X';
    assert_refused("bomb.png", b.data, b.len, mm_code_input, "does not begin with IHDR");
    b.data[12] = 'I';
    b.data[29] = (char)(b.data[29] ^ 1);
    assert_refused("bomb.png", b.data, b.len, mm_code_input, "CRC");
    mm_buf_free(&b);
}

// SOI, a frame header, n_scans empty scans, EOI.
static struct mm_buf make_jpeg(int sof, int bits, int h, int w, int components, int n_scans) {
    struct mm_buf b = {0};
    const uint8_t head[] = {0xff,
                            0xd8,
                            0xff,
                            (uint8_t)sof,
                            0,
                            (uint8_t)(8 + 3 * components),
                            (uint8_t)bits,
                            (uint8_t)(h >> 8),
                            (uint8_t)h,
                            (uint8_t)(w >> 8),
                            (uint8_t)w,
                            (uint8_t)components};
    mm_buf_add(&b, head, sizeof head);
    for (int c = 0; c < components; c++) {
        const uint8_t component[3] = {(uint8_t)(c + 1), 0x11, 0};
        mm_buf_add(&b, component, 3);
    }
    for (int i = 0; i < n_scans; i++) {
        mm_buf_add(&b, "\xff\xda\0\x08\1\1\0\0\x3f\0", 10);
    }
    mm_buf_add(&b, "\xff\xd9", 2);
    return b;
}

static void refuses_jpeg_headers(void **state) {
    (void)state;
    static const struct {
        int sof, bits, h, w, components, n_scans;
        enum mm_code code;
        const char *says;
    } table[] = {
        {0xc0, 8, 0, 10, 3, 1, mm_code_input, "10 x 0"},
        {0xc0, 8, 10, 0, 3, 1, mm_code_input, "0 x 10"},
        {0xc0, 8, 65535, 65535, 3, 1, mm_code_input, "4294836225 pixels"},
        {0xc0, 8, 13000, 13000, 3, 1, mm_code_input, "cannot hold"},
        {0xc2, 8, 13000, 13000, 1, 1, mm_code_input, "cannot hold"},
        {0xc1, 12, 10, 10, 3, 1, mm_code_unsupported, "12 bits"},
        {0xc3, 8, 10, 10, 3, 1, mm_code_unsupported, "SOF3"},
        {0xc7, 8, 10, 10, 3, 1, mm_code_unsupported, "SOF7"},
        {0xc0, 8, 10, 10, 2, 1, mm_code_unsupported, "2 components"},
        {0xc0, 8, 10, 10, 5, 1, mm_code_unsupported, "5 components"},
        {0xc0, 8, 10, 10, 3, 0, mm_code_input, "cut off"},
        {0xc2, 8, 10, 10, 3, 5000, mm_code_input, "5000 scans"},
        {0xc0, 8, 10, 10, 3, 1, mm_code_input, "broken JPEG picture"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct mm_buf b = make_jpeg(table[i].sof, table[i].bits, table[i].h, table[i].w,
                                    table[i].components, table[i].n_scans);
        assert_refused("bomb.jpg", b.data, b.len, table[i].code, table[i].says);
        mm_buf_free(&b);
    }
}

static void refuses_webp_headers(void **state) {
    (void)state;
    // Extended: a canvas of 2^24 x 2^24, no pixels.
    uint8_t extended[30] = "RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0\xff\xff\xff\xff\xff\xff";
    assert_refused("bomb.webp", extended, 30, mm_code_input, "");
    // Lossless: 16384 x 16384, more pixels than are read.
    const uint8_t lossless[26] = "RIFF\x12\0\0\0WEBPVP8L\6\0\0\0\x2f\xff\xff\xff\x0f\0";
    assert_refused("bomb.webp", lossless, 26, mm_code_input, "16384 x 16384");
    uint8_t longer[26];
    memcpy(longer, lossless, sizeof longer);
    longer[7] = 0x7f;
    assert_refused("bomb.webp", longer, 26, mm_code_input, "cut off");
}

static void refuses_what_cannot_be_opened(void **state) {
    (void)state;
    struct mm_image im;
    assert_int_equal(mm_image_open(&im, "tests/golden/images/none.png", &err), mm_code_io);
    assert_non_null(strstr(err.text, "none.png"));
    assert_int_not_equal(mm_image_open(&im, "tests/golden/images", &err), mm_code_ok);
    assert_non_null(strstr(err.text, "tests/golden/images"));
    assert_int_equal(mm_image_open(&im, "tests/golden/images/tiles.json", &err), mm_code_input);
    assert_non_null(strstr(err.text, "not a picture"));
    assert_null(im.rgb);
}

// None of the bombs above may have cost memory: the peak of this process says so.
static void stayed_small(void **state) {
    (void)state;
    struct rusage use;
    assert_int_equal(getrusage(RUSAGE_SELF, &use), 0);
    assert_true(use.ru_maxrss < 200 * 1024);  // in KiB
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_what_it_does_not_read),   cmocka_unit_test(refuses_png_headers),
        cmocka_unit_test(refuses_jpeg_headers),          cmocka_unit_test(refuses_webp_headers),
        cmocka_unit_test(refuses_what_cannot_be_opened), cmocka_unit_test(stayed_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
