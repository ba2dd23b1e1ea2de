// The tokenizer, the pictures, a temporary folder and what the tests of the training data do there.
#ifndef MM_TESTS_TRAIN_DATA_FIXTURE_H
#define MM_TESTS_TRAIN_DATA_FIXTURE_H

#include "cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "scratch.h"
#include "train/data.h"

static const char tokenizer_folder[] = "tests/golden/tokenizer";
static struct mm_tokenizer *tokenizer;
static char pictures[512];  // tests/golden/images, absolute

static int fixture_setup(void **state) {
    struct mm_error err;
    char here[256];
    if (scratch_make(state) || !getcwd(here, sizeof here)) return -1;
    snprintf(pictures, sizeof pictures, "%s/tests/golden/images", here);
    if (mm_tokenizer_open(&tokenizer, tokenizer_folder, &err) != mm_code_ok) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int fixture_teardown(void **state) {
    mm_tokenizer_close(tokenizer);
    return scratch_remove(state);
}

// N = 16 tokens a tile of 56 pixels.
static inline struct mm_data_options small_options(void) {
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

static inline const char *in_folder(const char *name) {
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static inline void write_text(const char *name, const char *text) {
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

// meta.json with one data set; `more` is put behind the annotation: ", \"repeat_time\": 2".
static inline const char *write_meta(const char *jsonl, const char *more) {
    static char path[256];
    char text[1024];
    snprintf(text, sizeof text, "{\"set\": {\"root\": \"%s\", \"annotation\": \"%s\"%s}}", pictures,
             jsonl, more);
    write_text("meta.json", text);
    return strcpy(path, in_folder("meta.json"));
}

static inline struct mm_data *open_data(const char *meta, const struct mm_data_options *o) {
    struct mm_data *d = NULL;
    struct mm_error err = {0};
    if (mm_data_open(&d, meta, tokenizer, tokenizer_folder, o, &err) != mm_code_ok) {
        fail_msg("%s", err.text);
    }
    return d;
}

static inline const struct mm_batch *next_batch(struct mm_data *d) {
    const struct mm_batch *b = NULL;
    struct mm_error err = {0};
    if (mm_data_next(d, &b, &err) != mm_code_ok) fail_msg("%s", err.text);
    assert_non_null(b);
    return b;
}

// Sample k's answer is the number k, so that a batch tells which samples it holds.
static inline void write_numbers(const char *name, int from, int n) {
    struct mm_buf text = {0};
    for (int i = from; i < from + n; i++) {
        mm_buf_addf(&text, "{\"conversations\": [{\"value\": \"n\"}, {\"value\": \"%d\"}]}\n", i);
    }
    write_text(name, text.data);
    mm_buf_free(&text);
}

// The number that sequence i of a batch answers with.
static inline int number_of(const struct mm_batch *b, int32_t i) {
    struct mm_buf text = {0};
    struct mm_error err;
    for (int32_t t = b->start[i]; t < b->start[i + 1]; t++) {
        if (b->targets[t] >= 0) {
            assert_int_equal(mm_tokenizer_decode(tokenizer, &b->targets[t], 1, true, &text, &err),
                             0);
        }
    }
    const int number = atoi(text.data);
    mm_buf_free(&text);
    return number;
}

static inline void take_numbers(struct mm_data *d, int *out, int n_batches) {
    for (int k = 0; k < n_batches; k++) {
        const struct mm_batch *b = next_batch(d);
        for (int32_t i = 0; i < b->n_seqs; i++)
            *out++ = number_of(b, i);
    }
}

static inline int compare_int(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

// Runs with standard error going to a file, whose content is returned.
static int saved_stderr;
static inline void capture_begin(void) {
    fflush(stderr);
    saved_stderr = dup(2);
    const int fd = open(in_folder("stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && dup2(fd, 2) == 2);
    close(fd);
}
static inline const char *capture_end(void) {
    static char text[1 << 16];
    fflush(stderr);
    dup2(saved_stderr, 2);
    close(saved_stderr);
    FILE *f = fopen(in_folder("stderr"), "r");
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static inline int occurrences(const char *text, const char *word) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, word)); p++)
        n++;
    return n;
}

#endif
