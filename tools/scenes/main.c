// scenes: makes a small world of pictures and questions in the formats of the real data.
// docs/WORLD.md describes what comes out. Never needed to run mmamba itself.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/args.h"
#include "base/log.h"
#include "io/file.h"
#include "io/json.h"
#include "scenes/stamps.h"
#include "scenes/write.h"

// Raise when the same options give other bytes than before: old folders are then made anew.
enum { world_version = 2, min_cell = 36 };

static const struct mm_opt options[] = {
    {"--out,-o", mm_opt_kind_string, "FOLDER",
     "where the world goes: pictures, train.jsonl, "
     "test TSVs and, when complete, meta.json",
     NULL, 0, 0, false},
    {"--things", mm_opt_kind_int, "N",
     "how many emoji, everyday ones first; 0: all that have a "
     "plain name",
     "120", 0, 2000, false},
    {"--pictures", mm_opt_kind_int, "N", "training pictures, three questions each", "2000", 1, 1e7,
     false},
    {"--test", mm_opt_kind_int, "N", "rows of each test file; 0: no test files", "600", 0, 100000,
     false},
    {"--words", mm_opt_kind_string, "LIST",
     "words on labels: short:N (a fixed list of N) or "
     "random",
     "short:200", 0, 0, false},
    {"--seed", mm_opt_kind_int, "N", "another world of the same things", "1", 0, 1e15, false},
    {"--size", mm_opt_kind_int, "N", "pixels a side", "112", 48, 2048, false},
    {"--grid", mm_opt_kind_int, "N", "cells a side, at most one thing in each", "2", 2,
     mm_scene_max_grid, false},
    {"--shapes", mm_opt_kind_float, "SHARE", "of all things, the share of drawn shapes", "0.15", 0,
     1, false},
    {"--describe", mm_opt_kind_float, "SHARE", "of training pictures that are described as well",
     "0.5", 0, 1, false},
    {"--rotate", mm_opt_kind_float, "DEGREES", "things are turned by up to this much", "0", 0, 180,
     false},
    {"--clutter", mm_opt_kind_int, "N", "up to N faint strokes in the background", "0", 0, 1000,
     false},
    {"--stamps", mm_opt_kind_string, "FOLDER",
     "also photographs with captions, as in "
     "/usr/share/tuxpaint/stamps",
     NULL, 0, 0, false},
    {"--jpeg", mm_opt_kind_int, "QUALITY", "pictures as JPEG; 0: PNG", "0", 0, 100, false},
    {"--threads", mm_opt_kind_int, "N", "0: all this process may use; the files are the same", "0",
     0, 4096, false},
    {"--force", mm_opt_kind_flag, NULL, "make it anew even if it is there", NULL, 0, 0, false},
    {"--dump-scenes", mm_opt_kind_string, "FILE", "also what each picture shows, as JSON lines",
     NULL, 0, 0, false},
    {"--sheet", mm_opt_kind_string, "FILE",
     "only a PNG with the first 24 pictures and their "
     "questions",
     NULL, 0, 0, false},
    {"--names", mm_opt_kind_string, "FILE", "only a PNG with every thing and its name", NULL, 0, 0,
     false},
    {"--paint-table", mm_opt_kind_string, "FILE",
     "only print a table of things ('-': standard "
     "input) with the colours measured from the font",
     NULL, 0, 0, false},
    {"--table", mm_opt_kind_string, "FILE", "the table of things", MM_SCENES_TABLE, 0, 0, false},
    {"--emoji-font", mm_opt_kind_string, "FILE", "colour bitmaps of things",
     "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", 0, 0, false},
    {"--fonts", mm_opt_kind_string, "FOLDER", "where the DejaVu fonts are",
     "/usr/share/fonts/truetype/dejavu", 0, 0, false},
    {"--quiet,-q", mm_opt_kind_flag, NULL, "only warnings and errors on standard error", NULL, 0, 0,
     false},
    {"--help,-h", mm_opt_kind_flag, NULL, "this text", NULL, 0, 0, false},
    {NULL, mm_opt_kind_flag, NULL, NULL, NULL, 0, 0, false},
};

static enum mm_code world_open(struct mm_world *w, const struct mm_args *a, struct mm_error *err) {
    *w = (struct mm_world){
        .size = (int)mm_args_int(a, "--size"),
        .grid = (int)mm_args_int(a, "--grid"),
        .describe_share = mm_args_float(a, "--describe"),
        .shape_share = mm_args_float(a, "--shapes"),
        .max_angle = mm_args_float(a, "--rotate") * 3.14159265358979 / 180,
        .marks = (int)mm_args_int(a, "--clutter"),
        .seed = (uint64_t)mm_args_int(a, "--seed"),
    };
    const int n = (int)mm_args_int(a, "--things");
    if (n > 0 && n < 8) {
        return mm_fail(err, mm_code_usage,
                       "--things is %d, must be 0 or at least 8: questions "
                       "need things that are not shown",
                       n);
    }
    if (w->size / w->grid < min_cell) {
        return mm_fail(err, mm_code_usage,
                       "--size %d with --grid %d gives cells of %d pixels; words need %d", w->size,
                       w->grid, w->size / w->grid, min_cell);
    }
    struct mm_table table;
    MM_TRY(mm_table_open(&table, mm_args_string(a, "--table"), true, err));
    enum mm_code code = mm_things_choose(&w->things, &table, n, w->shape_share > 0, err);
    mm_table_free(&table);
    MM_TRY(code);
    MM_TRY(mm_words_parse(&w->things.words, mm_args_string(a, "--words"), err));
    MM_TRY(mm_emoji_load(w->things.list, w->things.n, mm_args_string(a, "--emoji-font"), err));
    if (mm_args_given(a, "--stamps")) {
        MM_TRY(mm_stamps_add(&w->things, mm_args_string(a, "--stamps"), err));
    }
    mm_things_finish(&w->things);
    return mm_fonts_open(&w->fonts, mm_args_string(a, "--fonts"), err);
}

static void world_close(struct mm_world *w) {
    mm_things_free(&w->things);
    mm_fonts_close(w->fonts);
}

// The options that decide the bytes, in one line.
static char *made_by(const struct mm_args *a) {
    static const char *const ints[] = {"--things", "--pictures", "--test",    "--seed",
                                       "--size",   "--grid",     "--clutter", "--jpeg"};
    struct mm_buf b = {0};
    mm_buf_addf(&b, "scenes %d", world_version);
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
        mm_buf_addf(&b, " %s %lld", ints[i], (long long)mm_args_int(a, ints[i]));
    }
    mm_buf_addf(&b, " --words %s --shapes %g --rotate %g --describe %g",
                mm_args_string(a, "--words"), mm_args_float(a, "--shapes"),
                mm_args_float(a, "--rotate"), mm_args_float(a, "--describe"));
    if (mm_args_given(a, "--stamps")) {
        mm_buf_addf(&b, " --stamps %s", mm_args_string(a, "--stamps"));
    }
    return b.data;
}

// meta.json is written last, so it says what its folder holds.
static bool is_complete(const char *out, const char *wanted) {
    char *path = mm_path_join(out, "meta.json");
    json_t *meta = NULL;
    const bool there = mm_path_exists(path) && mm_json_load(&meta, path, NULL) == mm_code_ok;
    free(path);
    const char *made =
        there ? json_string_value(json_object_get(json_object_get(meta, "scenes"), "made_by"))
              : NULL;
    const bool same = made && !strcmp(made, wanted);
    json_decref(meta);
    return same;
}

static bool is_empty(const char *folder) {
    DIR *d = opendir(folder);
    int n = 0;
    while (d && readdir(d)) {
        n++;
    }
    if (d) closedir(d);
    return n <= 2;
}

// A folder that something else lies in is left alone. "scenes.txt" marks one as ours from the
// first moment; an old meta.json goes before anything else changes.
static enum mm_code claim(const char *out, const char *made, struct mm_error *err) {
    MM_TRY(mm_folder_make(out, err));
    char *mark = mm_path_join(out, "scenes.txt"), *meta = mm_path_join(out, "meta.json");
    enum mm_code code = mm_code_ok;
    if (!mm_path_exists(mark) && !is_empty(out)) {
        code = mm_fail(err, mm_code_input,
                       "%s holds other files; give --out an empty or new "
                       "folder",
                       out);
    } else if (mm_path_exists(meta) && unlink(meta) != 0) {
        code = mm_fail_errno(err, "cannot remove %s", meta);
    } else {
        char *line = mm_xasprintf("%s\n", made);
        code = mm_file_write(mark, line, strlen(line), err);
        free(line);
    }
    free(mark), free(meta);
    return code;
}

static enum mm_code write_all(struct mm_job *job, const struct mm_args *a, struct mm_error *err) {
    MM_TRY(claim(job->out, job->made_by, err));
    MM_TRY(mm_pool_new(&job->pool, (int)mm_args_int(a, "--threads"), err));
    const char *dump = mm_args_string(a, "--dump-scenes");
    enum mm_code code = mm_code_ok;
    if (dump && !(job->dump = fopen(dump, "w"))) code = mm_fail_errno(err, "cannot write %s", dump);
    if (code == mm_code_ok) code = mm_write_training(job, err);
    if (code == mm_code_ok && job->n_test) code = mm_write_tests(job, err);
    if (job->dump && fclose(job->dump) != 0 && code == mm_code_ok) {
        code = mm_fail_errno(err, "cannot write %s", dump);
    }
    if (code == mm_code_ok) code = mm_write_meta(job, err);
    mm_pool_free(job->pool);
    return code;
}

static enum mm_code make_world(const struct mm_args *a, struct mm_error *err) {
    const char *out = mm_args_string(a, "--out");
    if (!out) return mm_fail(err, mm_code_usage, "--out FOLDER is missing");
    char *made = made_by(a);
    struct mm_world w = {0};
    struct mm_job job = {
        .world = &w,
        .out = out,
        .made_by = made,
        .n_pictures = mm_args_int(a, "--pictures"),
        .n_test = mm_args_int(a, "--test"),
        .jpeg_quality = (int)mm_args_int(a, "--jpeg"),
    };
    enum mm_code code = mm_code_ok;
    if (!mm_args_flag(a, "--force") && !mm_args_given(a, "--dump-scenes") &&
        is_complete(out, made)) {
        mm_info("%s is there already, made with the same options", out);
    } else {
        const double start = mm_now();
        code = world_open(&w, a, err);
        if (code == mm_code_ok) code = write_all(&job, a, err);
        if (code == mm_code_ok) {
            mm_info("%s: %lld pictures of %d things in %.1f s", out, (long long)job.n_pictures,
                    w.things.n, mm_now() - start);
        }
        world_close(&w);
    }
    free(made);
    return code;
}

static enum mm_code paint_table(const struct mm_args *a, struct mm_error *err) {
    struct mm_table t;
    MM_TRY(mm_table_open(&t, mm_args_string(a, "--paint-table"), false, err));
    struct mm_thing *things = mm_xcalloc((size_t)t.n, sizeof *things);
    for (int i = 0; i < t.n; i++) {
        things[i] = (struct mm_thing){.code = t.rows[i].code, .name = t.rows[i].name};
    }
    const enum mm_code code = mm_emoji_load(things, t.n, mm_args_string(a, "--emoji-font"), err);
    if (code == mm_code_ok) {
        printf("code\tname\tword\trank\tgroup\tsubgroup\tkind\tcolour\tcolours\n");
    }
    for (int i = 0; i < t.n && code == mm_code_ok; i++) {
        const struct mm_table_row *r = &t.rows[i];
        int colour;
        uint32_t mask;
        mm_colours_measure(&things[i].sprite, &colour, &mask);
        printf("%04X\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t", (unsigned)r->code, r->name,
               r->word ? r->word : "-", r->rank, r->group, r->subgroup, r->kind ? r->kind : "-",
               colour >= 0 ? mm_colour_names[colour] : "-");
        for (int c = 0, n = 0; c < mm_colour_count; c++) {
            if (mask >> c & 1u) printf("%s%s", n++ ? "," : "", mm_colour_names[c]);
        }
        printf("%s\n", mask ? "" : "-");
    }
    for (int i = 0; i < t.n; i++) {
        free(things[i].sprite.rgba);
    }
    free(things);
    mm_table_free(&t);
    return code;
}

static enum mm_code run(const struct mm_args *a, struct mm_error *err) {
    if (mm_args_flag(a, "--quiet")) mm_log_set_level(mm_log_level_warn);
    if (mm_args_n_positional(a) > 0) {
        return mm_fail(err, mm_code_usage, "'%s' is not understood; see --help",
                       mm_args_positional(a, 0));
    }
    if (mm_args_given(a, "--paint-table")) return paint_table(a, err);
    const char *sheet = mm_args_string(a, "--sheet"), *names = mm_args_string(a, "--names");
    if (!sheet && !names) return make_world(a, err);
    struct mm_world w = {0};
    enum mm_code code = world_open(&w, a, err);
    if (code == mm_code_ok && sheet) code = mm_write_sheet(&w, sheet, err);
    if (code == mm_code_ok && names) code = mm_write_names(&w, names, err);
    world_close(&w);
    return code;
}

int main(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool help = false;
    mm_interrupt_catch();
    enum mm_code code = mm_args_parse(&args, options, argc - 1, argv + 1, &help, &err);
    if (code == mm_code_ok && help) {
        mm_args_print_help(options, "scenes --out FOLDER [OPTION]...",
                           "Makes a small world of pictures and questions.");
    } else if (code == mm_code_ok) {
        code = run(args, &err);
    }
    mm_args_free(args);
    if (code == mm_code_ok) return 0;
    mm_log(mm_log_level_error, "%s", err.text);
    return code == mm_code_usage ? 2 : code == mm_code_interrupted ? 130 : 1;
}
