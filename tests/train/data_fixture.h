// The tokenizer, the pictures and a temporary folder, for the tests of the training data.
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

#endif
