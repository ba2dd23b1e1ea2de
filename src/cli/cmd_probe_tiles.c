// `probe tiles`: a picture as it enters normalisation, to be held against Pillow's resize and the
// published tiling rule.
#include <stdio.h>
#include "cli/cli.h"
#include "io/image.h"
#include "io/safetensors.h"

static const struct mm_opt opts[] = {
    {"--image", mm_opt_kind_string, "FILE", "the picture: JPEG, PNG or WebP", NULL, 0, 0, false},
    {"--image-size", mm_opt_kind_int, "S", "pixels of a tile's side", NULL, 1, 8192, false},
    {"--max-tiles", mm_opt_kind_int, "N", "most tiles of the grid, the thumbnail not counted", NULL,
     1, mm_tiles_max, false},
    {"--output", mm_opt_kind_string, "OUT", "safetensors file to write: tiles U8 (tiles, S, S, 3)",
     NULL, 0, 0, false},
    MM_CLI_COMMON};

static enum mm_code check(const struct mm_args *args, struct mm_error *err) {
    static const char *const wanted[] = {"--image", "--image-size", "--max-tiles", "--output"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (!mm_args_given(args, wanted[i])) {
            return mm_fail(err, mm_code_usage, "probe tiles: %s is missing", wanted[i]);
        }
    }
    if (mm_args_n_positional(args) > 0) {
        return mm_fail(err, mm_code_usage, "probe tiles: takes no argument '%s'",
                       mm_args_positional(args, 0));
    }
    MM_TRY(mm_args_refuse(args, "--backend", "tiles are always made on the host", err));
    return mm_args_refuse(args, "--threads", "one thread makes the tiles of one picture", err);
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    MM_TRY(check(args, err));
    struct mm_image im;
    MM_TRY(mm_image_open(&im, mm_args_string(args, "--image"), err));
    struct mm_tiles t;
    enum mm_code code = mm_tiles_make(&t, &im, (int32_t)mm_args_int(args, "--image-size"), 1,
                                      (int32_t)mm_args_int(args, "--max-tiles"), true, err);
    mm_image_free(&im);
    if (code != mm_code_ok) {
        return code;
    }
    const struct mm_st_tensor tensor = {
        .name = "tiles",
        .dtype = mm_dtype_u8,
        .n_axes = 4,
        .shape = {t.n, t.size, t.size, 3},
        .data = t.rgb,
        .bytes = (size_t)t.n * (size_t)t.size * (size_t)t.size * 3,
    };
    code = mm_st_write(mm_args_string(args, "--output"), &tensor, 1, NULL, 0, err);
    if (code == mm_code_ok && mm_args_flag(args, "--json")) {
        printf("{\"tiles\": %d, \"cols\": %d, \"rows\": %d, \"image_size\": %d}\n", t.n, t.cols,
               t.rows, t.size);
    } else if (code == mm_code_ok) {
        mm_info("%s: %d tiles of %d x %d, grid of %d columns and %d rows",
                mm_args_string(args, "--output"), t.n, t.size, t.size, t.cols, t.rows);
    }
    mm_tiles_free(&t);
    return code;
}

int mm_cmd_probe_tiles(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code = mm_cli_parse(
        &args, opts, "mmamba probe tiles --image FILE --image-size S --max-tiles N --output OUT",
        "Writes the tiles of a picture as they enter normalisation.", argc, argv, &done, &err);
    if (code == mm_code_ok && !done) {
        code = run(args, &err);
    }
    mm_args_free(args);
    return code == mm_code_ok ? 0 : mm_cli_exit(&err);
}
