// The tiling rule against the published code's answers, the tiles of the golden pictures, and
// normalisation.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cmocka_all.h"

#include "base/buf.h"
#include "io/image.h"
#include "io/json.h"
#include "io/safetensors.h"

static struct mm_error err;

static int32_t int_at(const json_t *array, size_t i) {
    const json_t *v = json_array_get(array, i);
    assert_true(json_is_integer(v));
    return (int32_t)json_integer_value(v);
}

static void grids_of_the_published_code(void **state) {
    (void)state;
    json_t *root;
    assert_int_equal(mm_json_load(&root, "tests/golden/eval/vec_tiling.json", &err), mm_code_ok);
    const json_t *cases = json_object_get(root, "cases");
    const size_t n = json_array_size(cases);
    assert_true(n > 100);
    for (size_t i = 0; i < n; i++) {
        const json_t *c = json_array_get(cases, i);  // width, height, max, [cols, rows]
        const json_t *grid = json_array_get(c, 3);
        int32_t cols, rows;
        mm_tiles_grid(int_at(c, 0), int_at(c, 1), 448, 1, int_at(c, 2), &cols, &rows);
        if (cols != int_at(grid, 0) || rows != int_at(grid, 1)) {
            fail_msg("%d x %d, at most %d tiles: %d x %d, wanted %d x %d", int_at(c, 0),
                     int_at(c, 1), int_at(c, 2), cols, rows, int_at(grid, 0), int_at(grid, 1));
        }
    }
    json_decref(root);
}

static void least_number_of_tiles(void **state) {
    (void)state;
    int32_t cols, rows;
    mm_tiles_grid(448, 448, 448, 2, 6, &cols, &rows);
    assert_int_equal(cols, 2);
    assert_int_equal(rows, 2);
    mm_tiles_grid(1000, 10, 448, 3, 3, &cols, &rows);
    assert_int_equal(cols, 3);
    assert_int_equal(rows, 1);
    mm_tiles_grid(1, 65535, 28, 1, 40, &cols, &rows);
    assert_int_equal(cols, 1);
    assert_int_equal(rows, 40);
}

// The first 4 x 4 pixels of the first tile, normalised: (3, 4, 4).
static void check_normalized(const char *name, const struct mm_tiles *t,
                             const struct mm_st_tensor *wanted, int levels) {
    const size_t plane = (size_t)t->size * (size_t)t->size;
    float *pixels = mm_xmalloc((size_t)t->n * 3 * plane * sizeof *pixels);
    mm_tiles_normalize(pixels, t->rgb, t->n, t->size);
    const float tolerance = 1e-6f + (float)levels / 255.0f / 0.224f;
    for (size_t c = 0; c < 3; c++) {
        for (size_t y = 0; y < 4; y++) {
            for (size_t x = 0; x < 4; x++) {
                const float got = pixels[c * plane + y * (size_t)t->size + x];
                float want;
                memcpy(&want, (const char *)wanted->data + ((c * 4 + y) * 4 + x) * sizeof want,
                       sizeof want);
                if (!(got - want <= tolerance && want - got <= tolerance)) {
                    fail_msg("%s: normalised (%zu, %zu, %zu) is %g, wanted %g", name, c, y, x,
                             (double)got, (double)want);
                }
            }
        }
    }
    free(pixels);
}

static void check_case(const char *name, const json_t *c, const struct mm_st *st) {
    char path[256], key[256];
    const char *file = json_string_value(json_object_get(c, "file"));
    const int32_t size = (int32_t)json_integer_value(json_object_get(c, "image_size"));
    const int32_t most = (int32_t)json_integer_value(json_object_get(c, "max_tiles"));
    const json_t *grid = json_object_get(c, "grid");
    snprintf(path, sizeof path, "tests/golden/images/%s", file);
    struct mm_image im;
    struct mm_tiles t;
    assert_int_equal(mm_image_open(&im, path, &err), mm_code_ok);
    assert_int_equal(mm_tiles_make(&t, &im, size, 1, most, true, &err), mm_code_ok);
    assert_int_equal(t.cols, int_at(grid, 0));
    assert_int_equal(t.rows, int_at(grid, 1));
    assert_int_equal(t.n, json_integer_value(json_object_get(c, "tiles")));
    assert_int_equal(t.size, size);

    snprintf(key, sizeof key, "%s.u8", name);
    const struct mm_st_tensor *wanted = mm_st_find(st, key);
    assert_non_null(wanted);
    assert_int_equal(wanted->shape[0], t.n);
    assert_int_equal(wanted->shape[1], size);
    const int levels = strstr(file, ".jpg") ? 1 : 0;  // PNG and WebP exact, JPEG within one level
    const uint8_t *w = wanted->data;
    for (size_t i = 0; i < wanted->bytes; i++) {
        if (abs(t.rgb[i] - w[i]) > levels) {
            fail_msg("%s: byte %zu is %d, wanted %d", name, i, t.rgb[i], w[i]);
        }
    }
    snprintf(key, sizeof key, "%s.first_pixel_values", name);
    const struct mm_st_tensor *values = mm_st_find(st, key);
    assert_non_null(values);
    check_normalized(name, &t, values, levels);

    // Without the thumbnail: the same, one less.
    struct mm_tiles bare;
    assert_int_equal(mm_tiles_make(&bare, &im, size, 1, most, false, &err), mm_code_ok);
    assert_int_equal(bare.n, t.cols * t.rows);
    assert_memory_equal(bare.rgb, t.rgb, (size_t)bare.n * (size_t)size * (size_t)size * 3);
    mm_tiles_free(&bare);
    mm_tiles_free(&t);
    mm_image_free(&im);
}

static void golden_tiles(void **state) {
    (void)state;
    json_t *root;
    struct mm_st *st;
    assert_int_equal(mm_json_load(&root, "tests/golden/images/tiles.json", &err), mm_code_ok);
    assert_int_equal(mm_st_open(&st, "tests/golden/images/tiles.safetensors", &err), mm_code_ok);
    assert_int_equal(json_object_size(root), 11);
    const char *name;
    json_t *c;
    json_object_foreach(root, name, c) {
        check_case(name, c, st);
    }
    mm_st_close(st);
    json_decref(root);
}

static void one_tile_has_no_thumbnail(void **state) {
    (void)state;
    uint8_t rgb[5 * 4 * 3];
    memset(rgb, 9, sizeof rgb);
    const struct mm_image im = {.width = 5, .height = 4, .rgb = rgb};
    struct mm_tiles t;
    assert_int_equal(mm_tiles_make(&t, &im, 7, 1, 1, true, &err), mm_code_ok);
    assert_int_equal(t.n, 1);
    for (int i = 0; i < 7 * 7 * 3; i++) {
        assert_int_equal(t.rgb[i], 9);
    }
    mm_tiles_free(&t);
    assert_null(t.rgb);
}

static void refuses_absurd_tilings(void **state) {
    (void)state;
    uint8_t rgb[3] = {1, 2, 3};
    const struct mm_image im = {.width = 1, .height = 1, .rgb = rgb};
    const struct mm_image flat = {.width = 60000, .height = 1, .rgb = rgb};  // never read
    static const struct {
        int32_t size, min, max;
    } table[] = {{0, 1, 6},   {-5, 1, 6},     {65536, 1, 6},       {448, 0, 6},  {448, 7, 6},
                 {448, 1, 0}, {448, 1, 4097}, {448, 1, INT32_MAX}, {65535, 1, 6}};
    struct mm_tiles t;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        err.text[0] = '\0';
        const enum mm_code code =
            mm_tiles_make(&t, &im, table[i].size, table[i].min, table[i].max, true, &err);
        assert_int_equal(code, mm_code_input);
        assert_true(strlen(err.text) > 20);
        assert_null(t.rgb);
    }
    assert_int_equal(mm_tiles_make(&t, &flat, 448, 1, 4096, true, &err), mm_code_input);
    assert_non_null(strstr(err.text, "4096 x 1 tiles"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids_of_the_published_code),
        cmocka_unit_test(least_number_of_tiles),
        cmocka_unit_test(golden_tiles),
        cmocka_unit_test(one_tile_has_no_thumbnail),
        cmocka_unit_test(refuses_absurd_tilings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
