// What the tests of asking share: a random model with the golden tokenizer, data sets made of the
// golden pictures, and their predictions.
#ifndef MM_TESTS_EVAL_FIXTURE_H
#define MM_TESTS_EVAL_FIXTURE_H

#include "infer/infer_fixture.h"

#include <sys/stat.h>
#include "base/log.h"
#include "eval/run.h"
#include "eval/score.h"

static struct mm_engine *engine;
static int64_t answer_tokens;  // 0: what the benchmark allows, which a random model uses up

static int begin(void **state) {
    mm_log_set_level(mm_log_level_error);
    if (fixture_begin(state) != 0) return -1;
    fixture_gain = 4.0f;
    char *folder = fixture_model("model", "pre_hybrid", "0,4", 11);
    engine = fixture_engine(folder);
    free(folder);
    return 0;
}

static int end(void **state) {
    mm_engine_close(engine);
    return fixture_end(state);
}

static void put(const char *name, const char *text, size_t n) {
    char *path = fixture_path(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static struct mm_buf get(const char *name) {
    char *path = fixture_path(name);
    struct mm_buf text = {0};
    OK(mm_file_read(&text, path, 1 << 24, &err));
    free(path);
    return text;
}

static void add_picture(struct mm_buf *out, const char *name) {
    char *path = mm_xasprintf("tests/golden/images/%s", name);
    struct mm_buf bytes = {0};
    OK(mm_file_read(&bytes, path, 1 << 24, &err));
    mm_base64_encode(out, bytes.data, bytes.len);
    mm_buf_free(&bytes);
    free(path);
}

static enum mm_code ask_part(const struct mm_bench *bench, const char *data, const char *out,
                             int64_t limit, struct mm_shard shard, int batch) {
    char *data_path = fixture_path(data), *out_path = fixture_path(out);
    const struct mm_eval_job job = {.bench = bench,
                                    .data = data_path,
                                    .out = out_path,
                                    .limit = limit,
                                    .shard = shard,
                                    .max_new_tokens = answer_tokens,
                                    .batch = batch};
    const enum mm_code code = mm_eval_run(&job, engine, &err);
    free(data_path);
    free(out_path);
    return code;
}

static enum mm_code ask(const struct mm_bench *bench, const char *data, const char *out,
                        int64_t limit) {
    return ask_part(bench, data, out, limit, (struct mm_shard){0, 0}, 1);
}

// The prediction of an index in a file of predictions; NULL when there is none. The caller frees.
static inline char *said(const char *name, const char *index) {
    struct mm_buf text = get(name);
    char *start = mm_xasprintf("{\"index\": %s, \"prediction\": \"", index);
    char *found = strstr(text.data, start);
    const char *run = found ? strstr(found, ", \"run\": \"") : NULL;  // differs between files
    char *out = found ? mm_xasprintf("%.*s}", (int)(run - found), found) : NULL;
    free(start);
    mm_buf_free(&text);
    return out;
}

#endif
