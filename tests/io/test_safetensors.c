// Safetensors: every way a header can lie is refused with a sentence; the golden files survive a
// round trip to the byte; folders with and without shards.
#include "cmocka_all.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "scratch.h"

static struct mm_error err;

// A file of the given header and so many bytes after it. length < 0: the true one.
static char *make_file(const char *header, size_t n_header, int64_t length, size_t data_bytes) {
    struct mm_buf b = {0};
    const uint64_t n = length < 0 ? n_header : (uint64_t)length;
    for (int i = 0; i < 8; i++) {
        const unsigned char byte = (unsigned char)(n >> (8 * i));
        mm_buf_add(&b, &byte, 1);
    }
    mm_buf_add(&b, header, n_header);
    for (size_t i = 0; i < data_bytes; i++)
        mm_buf_add(&b, &(char){(char)i}, 1);
    char *path = mm_path_join(folder, "made.safetensors");
    assert_int_equal(mm_file_write(path, b.data, b.len, &err), mm_code_ok);
    mm_buf_free(&b);
    return path;
}

static void assert_refused(const char *header, size_t n_header, int64_t length, size_t data_bytes,
                           const char *says) {
    char *path = make_file(header, n_header, length, data_bytes);
    struct mm_st *st = (struct mm_st *)folder;
    err.text[0] = '\0';
    const enum mm_code code = mm_st_open(&st, path, &err);
    if (code != mm_code_input || !strstr(err.text, says) || !strstr(err.text, path) ||
        strchr(err.text, '\n')) {
        fail_msg("header '%.200s': code %d, '%s', wanted '%s'", header, (int)code, err.text, says);
    }
    assert_null(st);
    free(path);
}

#define T(dtype, shape, offsets) \
    "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void refuses_headers_that_lie(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *says;
    } cases[] = {
        {"", 0, "is empty"},
        {"[]", 0, "no JSON object"},
        {"12", 0, "not valid JSON"},
        {"{\"a\":}", 0, "not valid JSON"},
        {"{} x", 0, "not valid JSON"},
        {"{\"a\":" T("\"F32\"", "[1]", "[0,4]") ",\"a\":" T("\"F32\"", "[1]", "[0,4]") "}", 4,
         "duplicate"},
        {"{\"a\":" T("\"F32\"", "[1]", "[0,4]") ",\"\\u0061\":" T("\"F32\"", "[1]", "[4,8]") "}", 8,
         "duplicate"},
        {"{\"\":" T("\"F32\"", "[1]", "[0,4]") "}", 4, "name has 0 bytes"},
        {"{\"a\\u0000b\":" T("\"F32\"", "[1]", "[0,4]") "}", 4, "not valid JSON"},
        {"{\"a\\nb\":" T("\"F32\"", "[1]", "[0,4]") "}", 4, "control characters"},
        {"{\"\xff\xfe\":" T("\"F32\"", "[1]", "[0,4]") "}", 4, "not valid JSON"},
        {"{\"a\":[1]}", 0, "an array of 1, wanted an object"},
        {"{\"a\":null}", 0, "null, wanted an object"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'dtype' is missing"},
        {"{\"a\":" T("\"F31\"", "[1]", "[0,4]") "}", 4, "'dtype' is \"F31\""},
        {"{\"a\":" T("\"f32\"", "[1]", "[0,4]") "}", 4, "'dtype' is \"f32\""},
        {"{\"a\":" T("7", "[1]", "[0,4]") "}", 4, "'dtype' is 7"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "'shape' is missing"},
        {"{\"a\":" T("\"F32\"", "4", "[0,4]") "}", 4, "'shape' is 4"},
        {"{\"a\":" T("\"F32\"", "[-1]", "[0,4]") "}", 4, "'shape' is -1"},
        {"{\"a\":" T("\"F32\"", "[1.0]", "[0,4]") "}", 4, "'shape' is 1"},
        {"{\"a\":" T("\"F32\"", "[\"1\"]", "[0,4]") "}", 4, "'shape' is \"1\""},
        {"{\"a\":" T("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "'shape' is an array of 9"},
        {"{\"a\":" T("\"F32\"", "[4611686018427387904,4]", "[0,4]") "}", 4,
         "larger than any memory"},
        {"{\"a\":" T("\"F32\"", "[4294967296,4294967296]", "[0,0]") "}", 0,
         "larger than any memory"},
        {"{\"a\":" T("\"F32\"", "[99999999999999999999]", "[0,4]") "}", 4, "not valid JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "'data_offsets' is missing"},
        {"{\"a\":" T("\"F32\"", "[1]", "[0]") "}", 4, "'data_offsets' is an array of 1"},
        {"{\"a\":" T("\"F32\"", "[1]", "[0,4,8]") "}", 4, "'data_offsets' is an array of 3"},
        {"{\"a\":" T("\"F32\"", "[1]", "[0,4.0]") "}", 4, "'data_offsets' is an array of 2"},
        {"{\"a\":" T("\"F32\"", "[1]", "{\"0\":0}") "}", 4, "'data_offsets' is an object"},
        {"{\"a\":" T("\"F32\"", "[1]", "[-4,0]") "}", 4, "[-4, 0]"},
        {"{\"a\":" T("\"F32\"", "[1]", "[4,0]") "}", 4, "[4, 0]"},
        {"{\"a\":" T("\"F32\"", "[1]", "[4,8]") "}", 4, "within the 4 bytes"},
        {"{\"a\":" T("\"F32\"", "[1]", "[9223372036854775803,9223372036854775807]") "}", 4,
         "within the 4 bytes"},
        {"{\"a\":" T("\"F32\"", "[1]", "[-9223372036854775808,9223372036854775807]") "}", 4,
         "within the 4 bytes"},
        {"{\"a\":" T("\"F32\"", "[2]", "[0,4]") "}", 4, "span 4 bytes, wanted the 8"},
        {"{\"a\":" T("\"BF16\"", "[]", "[0,4]") "}", 4, "span 4 bytes, wanted the 2"},
        {"{\"a\":" T("\"F32\"", "[1]", "[0,4]") ",\"b\":" T("\"F32\"", "[1]", "[0,4]") "}", 4,
         "tensors \"a\" and \"b\" overlap"},
        {"{\"b\":" T("\"F32\"", "[2]", "[0,8]") ",\"a\":" T("\"F32\"", "[1]", "[4,8]") "}", 8,
         "tensors \"b\" and \"a\" overlap"},
        {"{\"a\":" T("\"F32\"", "[1]", "[4,8]") "}", 8, "4 bytes before tensor \"a\""},
        {"{\"a\":" T("\"F32\"", "[1]", "[0,4]") "}", 5, "1 bytes at the end"},
        {"{}", 3, "3 bytes at the end"},
        {"{\"__metadata__\":7}", 0, "'__metadata__' is 7"},
        {"{\"__metadata__\":{\"a\":7}}", 0, "'__metadata__' is 7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(cases[i].header, strlen(cases[i].header), -1, cases[i].data, cases[i].says);
    }
}

static void refuses_absurd_lengths_and_depths(void **state) {
    (void)state;
    assert_refused("{}", 2, 3, 0, "length is given as 3 bytes");
    assert_refused("{}", 2, INT64_MAX, 0, "length is given as 9223372036854775807");
    assert_refused("{}", 2, 1, 0, "not valid JSON");
    struct mm_buf b = {0};
    for (int i = 0; i < 100000; i++)
        mm_buf_adds(&b, "[");
    assert_refused(b.data, b.len, -1, 0, "not valid JSON");
    mm_buf_reset(&b);
    for (int i = 0; i < 100000; i++)
        mm_buf_adds(&b, "{\"a\":");
    assert_refused(b.data, b.len, -1, 0, "not valid JSON");
    mm_buf_reset(&b);
    mm_buf_adds(&b, "{\"");
    for (int i = 0; i < 1025; i++)
        mm_buf_adds(&b, "n");
    mm_buf_adds(&b, "\":0}");
    assert_refused(b.data, b.len, -1, 0, "name has 1025 bytes");
    mm_buf_reset(&b);
    while (b.len <= 33u << 20)
        mm_buf_addf(&b, "%*s", 1 << 20, "");
    assert_refused(b.data, b.len, -1, 0, "wanted at most 33554432");
    mm_buf_free(&b);
    // Every truncation of a good file, the empty one included.
    static const char good[] = "{\"a\":" T("\"F32\"", "[1]", "[0,4]") "}";
    for (size_t cut = 1; cut <= 8 + sizeof good - 1 + 4; cut++) {
        char *path = make_file(good, sizeof good - 1, -1, 4);
        assert_int_equal(truncate(path, (off_t)(8 + sizeof good - 1 + 4 - cut)), 0);
        struct mm_st *st = NULL;
        assert_int_equal(mm_st_open(&st, path, &err), mm_code_input);
        assert_non_null(strstr(err.text, path));
        free(path);
    }
}

static void accepts_what_is_odd_but_right(void **state) {
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\",\"x\":\"\xc3\xa4\"},"
        "\"z\":" T("\"U8\"", "[3]", "[0,3]") ",\"empty\":" T("\"F32\"", "[4,0,9999999999]", "[3,3]")
        ",\"\xc3\xa9 \\\"q\\\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[3,7],\"more\":1},"
        "\"end\":" T("\"I64\"", "[0]", "[7,7]") "}   ";
    char *path = make_file(header, sizeof header - 1, -1, 7);
    struct mm_st *st = NULL;
    assert_int_equal(mm_st_open(&st, path, &err), mm_code_ok);
    assert_int_equal(mm_st_count(st), 4);
    assert_string_equal(mm_st_path(st), path);
    assert_string_equal(mm_st_at(st, 0)->name, "empty");
    assert_string_equal(mm_st_at(st, 3)->name, "\xc3\xa9 \"q\"");
    const struct mm_st_tensor *t = mm_st_find(st, "\xc3\xa9 \"q\"");
    assert_non_null(t);
    assert_int_equal(t->n_axes, 0);
    assert_int_equal(t->bytes, 4);
    assert_memory_equal(t->data, "\3\4\5\6", 4);
    t = mm_st_find(st, "empty");
    assert_int_equal(t->bytes, 0);
    assert_int_equal(t->shape[2], 9999999999);
    assert_null(mm_st_find(st, "none"));
    assert_string_equal(mm_st_metadata(st, "format"), "pt");
    assert_string_equal(mm_st_metadata(st, "x"), "\xc3\xa4");
    assert_null(mm_st_metadata(st, "y"));
    mm_st_close(st);
    free(path);
    path = make_file("{}", 2, -1, 0);
    assert_int_equal(mm_st_open(&st, path, &err), mm_code_ok);
    assert_int_equal(mm_st_count(st), 0);
    assert_null(mm_st_find(st, "a"));
    mm_st_close(st);
    free(path);
}

// Everything of a file, ready to be written again.
static struct mm_st_tensor *all_of(const struct mm_st *st) {
    struct mm_st_tensor *t = mm_xcalloc((size_t)mm_st_count(st), sizeof *t);
    for (int i = 0; i < mm_st_count(st); i++)
        t[i] = *mm_st_at(st, i);
    return t;
}

static void assert_same_bytes(const char *a, const char *b) {
    struct mm_buf x = {0}, y = {0};
    assert_int_equal(mm_file_read(&x, a, 1 << 28, &err), mm_code_ok);
    assert_int_equal(mm_file_read(&y, b, 1 << 28, &err), mm_code_ok);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    mm_buf_free(&x);
    mm_buf_free(&y);
}

static void assert_same_tensors(const struct mm_st *a, const struct mm_st *b) {
    assert_int_equal(mm_st_count(a), mm_st_count(b));
    for (int i = 0; i < mm_st_count(a); i++) {
        const struct mm_st_tensor *x = mm_st_at(a, i), *y = mm_st_at(b, i);
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->dtype, y->dtype);
        assert_int_equal(x->n_axes, y->n_axes);
        assert_memory_equal(x->shape, y->shape, sizeof x->shape);
        assert_int_equal(x->bytes, y->bytes);
        if (x->bytes) assert_memory_equal(x->data, y->data, x->bytes);
    }
}

// Every golden file: written again it has the same tensors, and written a third time the same
// bytes.
static void golden_files_round_trip(void **state) {
    (void)state;
    static const char *const folders[] = {"post_gqa", "pre_hybrid", "text_long"};
    static const char *const files[] = {"teacher",        "student",        "distill_stage1",
                                        "distill_stage2", "distill_stage3", "expected"};
    char *copy = mm_path_join(folder, "copy.safetensors");
    char *again = mm_path_join(folder, "again.safetensors");
    const struct mm_st_meta meta = {"format", "pt"};
    int tensors = 0;
    for (int i = 0; i < 3 * 6; i++) {
        char *path = mm_xasprintf("tests/golden/%s/%s.safetensors", folders[i / 6], files[i % 6]);
        struct mm_st *st = NULL, *back = NULL;
        if (mm_st_open(&st, path, &err) != mm_code_ok) fail_msg("%s", err.text);
        struct mm_st_tensor *t = all_of(st);
        const int n = mm_st_count(st);
        assert_int_equal(mm_st_write(copy, t, n, &meta, 1, &err), mm_code_ok);
        assert_int_equal(mm_st_open(&back, copy, &err), mm_code_ok);
        assert_same_tensors(st, back);
        free(t);
        t = all_of(back);
        assert_int_equal(mm_st_write(again, t, n, &meta, 1, &err), mm_code_ok);
        assert_same_bytes(copy, again);
        tensors += n;
        free(t);
        mm_st_close(back);
        mm_st_close(st);
        free(path);
    }
    assert_true(tensors > 500);
    struct mm_st *st = NULL;
    assert_int_equal(mm_st_open(&st, "tests/golden/post_gqa/expected.safetensors", &err),
                     mm_code_ok);
    const struct mm_st_tensor *ids = mm_st_find(st, "input_ids");
    assert_non_null(ids);
    assert_int_equal(ids->dtype, mm_dtype_i64);
    assert_int_equal(ids->n_axes, 2);
    mm_st_close(st);
    free(copy);
    free(again);
}

// The layout of the published writer, spelled out.
static void writes_the_published_layout(void **state) {
    (void)state;
    const struct mm_st_tensor t[] = {{"a", mm_dtype_bf16, 1, {1}, "xy", 2},
                                     {"b", mm_dtype_f32, 2, {1, 2}, "12345678", 8}};
    const struct mm_st_meta meta = {"format", "pt"};
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[8,10]}}";
    struct mm_buf want = {0}, got = {0};
    const size_t padded = (sizeof header - 1 + 7) / 8 * 8;
    mm_buf_add(&want, &(char){(char)padded}, 1);
    mm_buf_add(&want, "\0\0\0\0\0\0\0", 7);
    mm_buf_addf(&want, "%-*s12345678xy", (int)padded, header);
    char *path = mm_path_join(folder, "layout.safetensors");
    assert_int_equal(mm_st_write(path, t, 2, &meta, 1, &err), mm_code_ok);
    assert_int_equal(mm_file_read(&got, path, 1000, &err), mm_code_ok);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.data, want.data, want.len);
    mm_buf_free(&want);
    mm_buf_free(&got);
    free(path);
}

static void orders_by_width_and_aligns(void **state) {
    (void)state;
    static const float f[3] = {1, 2, 3};
    static const int64_t l[1] = {-7};
    const struct mm_st_tensor t[] = {
        {"bytes", mm_dtype_u8, 1, {3}, "abc", 3},   {"half", mm_dtype_bf16, 1, {1}, "xy", 2},
        {"floats", mm_dtype_f32, 2, {3, 1}, f, 12}, {"long", mm_dtype_i64, 0, {0}, l, 8},
        {"none", mm_dtype_f32, 2, {0, 5}, NULL, 0},
    };
    const struct mm_st_meta meta[] = {{"a \"key\"", "line\nbreak \xc3\xa4"}, {"b", ""}};
    char *path = mm_path_join(folder, "mixed.safetensors");
    assert_int_equal(mm_st_write(path, t, 5, meta, 2, &err), mm_code_ok);
    struct mm_st *st = NULL;
    if (mm_st_open(&st, path, &err) != mm_code_ok) fail_msg("%s", err.text);
    assert_int_equal(mm_st_count(st), 5);
    for (int i = 0; i < 5; i++) {
        const struct mm_st_tensor *r = mm_st_find(st, t[i].name);
        assert_non_null(r);
        assert_int_equal(r->dtype, t[i].dtype);
        assert_int_equal(r->n_axes, t[i].n_axes);
        assert_int_equal(r->bytes, t[i].bytes);
        if (r->bytes) {
            assert_memory_equal(r->data, t[i].data, r->bytes);
            assert_int_equal((uintptr_t)r->data % mm_dtype_bytes(r->dtype), 0);
        }
    }
    assert_string_equal(mm_st_metadata(st, "a \"key\""), "line\nbreak \xc3\xa4");
    assert_string_equal(mm_st_metadata(st, "b"), "");
    mm_st_close(st);
    free(path);
}

static char *new_folder(const char *name) {
    char *f = mm_path_join(folder, name);
    assert_int_equal(mm_folder_make(f, &err), mm_code_ok);
    return f;
}

static int count_in(const char *where, const char *pattern) {
    char *command = mm_xasprintf("ls -A '%s' | grep -c -e '%s'", where, pattern);
    FILE *p = popen(command, "r");
    int n = -1;
    assert_int_equal(fscanf(p, "%d", &n), 1);
    pclose(p);
    free(command);
    return n;
}

static void assert_folder_equals(const char *where, const struct mm_st *want) {
    struct mm_st *st = NULL;
    if (mm_st_open_folder(&st, where, &err) != mm_code_ok) fail_msg("%s", err.text);
    assert_same_tensors(st, want);
    assert_string_equal(mm_st_metadata(st, "format"), "pt");
    mm_st_close(st);
}

// Tensor i of the file in *arg, three bytes at a time.
static enum mm_code by_threes(void *arg, int i, struct mm_st_sink *to, struct mm_error *e) {
    const struct mm_st_tensor *t = mm_st_at(arg, i);
    for (size_t at = 0; at < t->bytes; at += 3) {
        const size_t n = t->bytes - at < 3 ? t->bytes - at : 3;
        MM_TRY(mm_st_put(to, (const char *)t->data + at, n, e));
    }
    return mm_code_ok;
}

static enum mm_code fails_soon(void *arg, int i, struct mm_st_sink *to, struct mm_error *e) {
    MM_TRY(mm_st_put(to, arg, 1, e));
    return mm_fail(e, mm_code_device, "tensor %d cannot be had", i);
}

static void folders_with_shards_and_back(void **state) {
    (void)state;
    struct mm_st *st = NULL;
    assert_int_equal(mm_st_open(&st, "tests/golden/post_gqa/teacher.safetensors", &err),
                     mm_code_ok);
    struct mm_st_tensor *t = all_of(st);
    const int n = mm_st_count(st);
    char *where = new_folder("model");
    // Many shards, fewer, one file, many again, one tensor a shard: each replaces the one before.
    static const size_t shard_bytes[] = {20000, 100000, 0, 20000, 1, 1u << 30};
    const struct mm_st_source made = {by_threes, st, false}, broken = {fails_soon, st, false};
    for (size_t i = 0; i < sizeof shard_bytes / sizeof shard_bytes[0]; i++) {
        const struct mm_st_source *from = i % 2 ? &made : NULL;
        for (int k = 0; k < n; k += 3)  // data of some is made while it is written
            t[k].data = from ? NULL : mm_st_at(st, k)->data;
        if (mm_st_write_folder(where, t, n, from, shard_bytes[i], &err) != mm_code_ok) {
            fail_msg("%s", err.text);
        }
        assert_folder_equals(where, st);
        const bool single = shard_bytes[i] == 0 || shard_bytes[i] == 1u << 30;
        assert_int_equal(count_in(where, "^model.safetensors$"), single ? 1 : 0);
        assert_int_equal(count_in(where, "index"), single ? 0 : 1);
        if (single) assert_int_equal(count_in(where, "-of-"), 0);
        if (shard_bytes[i] == 1) assert_int_equal(count_in(where, "-of-"), n);
        assert_int_equal(count_in(where, "tmp"), 0);
    }
    // Data that is not to be had: what was there stays.
    t[n - 1].data = NULL;
    assert_int_equal(mm_st_write_folder(where, t, n, &broken, 30000, &err), mm_code_device);
    assert_non_null(strstr(err.text, "cannot be had"));
    assert_folder_equals(where, st);
    assert_int_equal(count_in(where, "tmp"), 0);
    free(where);
    free(t);
    mm_st_close(st);
}

static void assert_folder_refused(const char *where, const char *says) {
    struct mm_st *st = NULL;
    err.text[0] = '\0';
    const enum mm_code code = mm_st_open_folder(&st, where, &err);
    if (code == mm_code_ok || !strstr(err.text, says)) {
        fail_msg("code %d, '%s', wanted '%s'", (int)code, err.text, says);
    }
    assert_null(st);
}

static void refuses_broken_folders(void **state) {
    (void)state;
    static const float f[2] = {1, 2};
    const struct mm_st_tensor t[] = {{"a", mm_dtype_f32, 1, {2}, f, 8},
                                     {"b", mm_dtype_f32, 1, {2}, f, 8}};
    char *where = new_folder("broken");
    assert_folder_refused(where, "holds neither");
    char *missing = mm_path_join(folder, "nowhere");
    assert_folder_refused(missing, "does not exist");
    free(missing);
    assert_int_equal(mm_st_write_folder(where, t, 2, NULL, 8, &err), mm_code_ok);
    char *index = mm_path_join(where, "model.safetensors.index.json");
    static const char *const indexes[][2] = {
        {"{", "not valid JSON"},
        {"{}", "'weight_map' is missing"},
        {"{\"weight_map\":[]}", "'weight_map' is an array"},
        {"{\"weight_map\":{\"a\":7}}", "'weight_map' is 7"},
        {"{\"weight_map\":{\"a\":\"../x\"}}", "'weight_map' is \"../x\""},
        {"{\"weight_map\":{\"a\":\"..\"}}", "'weight_map' is \"..\""},
        {"{\"weight_map\":{\"a\":\"gone.safetensors\"}}", "gone.safetensors"},
        {"{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\",\"c\":"
         "\"model-00001-of-00002.safetensors\"}}",
         "says that tensor \"c\" is in model-00001-of-00002.safetensors, which lacks it"},
        {"{\"weight_map\":{\"a\":\"model-00002-of-00002.safetensors\",\"b\":"
         "\"model-00001-of-00002.safetensors\"}}",
         "but"},
        {"{\"weight_map\":{\"b\":\"model-00001-of-00002.safetensors\"}}", "does not name"},
    };
    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        assert_int_equal(mm_file_write(index, indexes[i][0], strlen(indexes[i][0]), &err),
                         mm_code_ok);
        assert_folder_refused(where, indexes[i][1]);
    }
    free(index);
    free(where);
}

// A limit on the size of files stands for the disk that fills while the second shard is written.
static void a_full_disk_leaves_the_old_folder(void **state) {
    (void)state;
    static char bytes[300000];
    const struct mm_st_tensor t[] = {{"a", mm_dtype_u8, 1, {50000}, bytes, 50000},
                                     {"b", mm_dtype_u8, 1, {300000}, bytes, 300000}};
    struct mm_st *want = NULL;
    assert_int_equal(mm_st_open(&want, "tests/golden/text_long/teacher.safetensors", &err),
                     mm_code_ok);
    struct mm_st_tensor *old = all_of(want);
    char *where = new_folder("full");
    assert_int_equal(mm_st_write_folder(where, old, mm_st_count(want), NULL, 20000, &err),
                     mm_code_ok);
    const int files = count_in(where, ".");
    for (int sharded = 0; sharded < 2; sharded++) {
        const pid_t child = fork();
        if (child == 0) {
            const struct rlimit limit = {100000, 100000};
            signal(SIGXFSZ, SIG_IGN);
            if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(9);
            const enum mm_code code =
                mm_st_write_folder(where, t, 2, NULL, sharded ? 60000 : 0, &err);
            _exit(code == mm_code_io && strstr(err.text, "too large") ? 0 : 1);
        }
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_folder_equals(where, want);
        assert_int_equal(count_in(where, "."), files);
    }
    free(old);
    free(where);
    mm_st_close(want);
}

// Opening must not depend badly on the number of tensors: HoVLE has hundreds, shards of large
// models thousands.
static void ten_thousand_tensors_open_at_once(void **state) {
    (void)state;
    enum { n = 10000 };
    static char names[n][48];
    static struct mm_st_tensor t[n];
    static const uint16_t half = 7;
    for (int i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "language_model.model.layers.%d.weight", i);
        t[i] = (struct mm_st_tensor){names[i], mm_dtype_bf16, 2, {1, 1}, &half, 2};
    }
    char *path = mm_path_join(folder, "many.safetensors");
    assert_int_equal(mm_st_write(path, t, n, NULL, 0, &err), mm_code_ok);
    const double begin = mm_now();
    struct mm_st *st = NULL;
    assert_int_equal(mm_st_open(&st, path, &err), mm_code_ok);
    const double seconds = mm_now() - begin;
    print_message("           10000 tensors in %.1f ms\n", 1e3 * seconds);
    assert_true(seconds < 5.0);
    assert_int_equal(mm_st_count(st), n);
    for (int i = 0; i < n; i++)
        assert_non_null(mm_st_find(st, names[i]));
    mm_st_close(st);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_headers_that_lie),
        cmocka_unit_test(refuses_absurd_lengths_and_depths),
        cmocka_unit_test(accepts_what_is_odd_but_right),
        cmocka_unit_test(golden_files_round_trip),
        cmocka_unit_test(writes_the_published_layout),
        cmocka_unit_test(orders_by_width_and_aligns),
        cmocka_unit_test(folders_with_shards_and_back),
        cmocka_unit_test(refuses_broken_folders),
        cmocka_unit_test(a_full_disk_leaves_the_old_folder),
        cmocka_unit_test(ten_thousand_tensors_open_at_once),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
