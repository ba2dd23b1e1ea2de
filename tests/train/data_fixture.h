// A temporary folder with a meta JSON and jsonl files, for the tests of the training data.
#ifndef MM_TESTS_TRAIN_DATA_FIXTURE_H
#define MM_TESTS_TRAIN_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "train/data.h"

static const char tokenizer_folder[] = "tests/golden/tokenizer";
static struct mm_tokenizer *tokenizer;
static char folder[64];     // temporary, removed at the end
static char pictures[512];  // tests/golden/images, absolute

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int fixture_setup(void **state) {
    (void)state;
    struct mm_error err;
    strcpy(folder, "/tmp/mmamba-data-XXXXXX");
    char here[256];
    if (!mkdtemp(folder) || !getcwd(here, sizeof here)) return -1;
    snprintf(pictures, sizeof pictures, "%s/tests/golden/images", here);
    if (mm_tokenizer_open(&tokenizer, tokenizer_folder, &err) != mm_code_ok) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int fixture_teardown(void **state) {
    (void)state;
    mm_tokenizer_close(tokenizer);
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *in_folder(const char *name) {
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void write_text(const char *name, const char *text) {
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

// meta.json with one data set; `more` is put behind the annotation: ", \"repeat_time\": 2".
static const char *write_meta(const char *jsonl, const char *more) {
    char text[1024];
    snprintf(text, sizeof text, "{\"set\": {\"root\": \"%s\", \"annotation\": \"%s\"%s}}", pictures,
             jsonl, more);
    write_text("meta.json", text);
    return in_folder("meta.json");
}

// N = 16 tokens a tile of 56 pixels.
static struct mm_data_options small_options(void) {
    return (struct mm_data_options){.image_size = 56,
                                    .tokens_per_tile = 16,
                                    .min_tiles = 1,
                                    .max_tiles = 6,
                                    .dynamic_tiling = true,
                                    .thumbnail = true,
                                    .max_length = 512,
                                    .micro_batch = 1,
                                    .seed = 7,
                                    .system = "sys"};
}

static struct mm_data *open_data(const char *meta, const struct mm_data_options *o) {
    struct mm_data *d = NULL;
    struct mm_error err = {0};
    if (mm_data_open(&d, meta, tokenizer, tokenizer_folder, o, &err) != mm_code_ok) {
        fail_msg("%s", err.text);
    }
    return d;
}

static const struct mm_batch *next_batch(struct mm_data *d) {
    const struct mm_batch *b = NULL;
    struct mm_error err = {0};
    if (mm_data_next(d, &b, &err) != mm_code_ok) fail_msg("%s", err.text);
    assert_non_null(b);
    return b;
}

#endif
