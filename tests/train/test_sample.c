// One line of jsonl -> tokens, what is learned, tiles.
#include "data_fixture.h"

#include "train/sample.h"

// Calls check(sample, code, err) for one line.
struct reader {
    struct mm_sample_env env;
    struct mm_sample_source source;
    struct mm_sample sample;
    struct mm_error err;
};

static struct reader reader_open(struct mm_data_options o) {
    struct reader r = {0};
    assert_int_equal(mm_sample_env_init(&r.env, tokenizer, tokenizer_folder, &o, &r.err), 0);
    r.source = (struct mm_sample_source){.root = pictures, .max_tiles = o.max_tiles};
    return r;
}

static void reader_close(struct reader *r) {
    mm_sample_free(&r->sample);
    mm_sample_env_deinit(&r->env);
}

static enum mm_code read_line(struct reader *r, const char *line) {
    // A copy of the exact size, so that a read behind its end is seen by the sanitizer.
    const size_t n = strlen(line);
    char *copy = mm_xmalloc(n ? n : 1);
    memcpy(copy, line, n);
    memset(&r->err, 0, sizeof r->err);
    const enum mm_code code =
        mm_sample_read(&r->sample, &r->env, &r->source, mm_rng_make(1, 2), copy, n, &r->err);
    free(copy);
    return code;
}

static void read_good(struct reader *r, const char *line) {
    if (read_line(r, line) != mm_code_ok) fail_msg("%s: %s", line, r->err.text);
    assert_int_equal(r->sample.ids.n, r->sample.learn.len);
}

// `text` with "@N" for N times <IMG_CONTEXT>, encoded in one go, must give the sample's ids.
static void check_ids(const struct reader *r, const char *text) {
    struct mm_buf full = {0};
    for (const char *p = text; *p;) {
        if (*p == '@') {
            char *end;
            for (long n = strtol(p + 1, &end, 10); n > 0; n--)
                mm_buf_adds(&full, "<IMG_CONTEXT>");
            p = end;
        } else {
            mm_buf_add(&full, p++, 1);
        }
    }
    struct mm_ids ids = {0};
    mm_tokenizer_encode(tokenizer, full.data, full.len, true, &ids);
    assert_int_equal(r->sample.ids.n, ids.n);
    assert_memory_equal(r->sample.ids.data, ids.data, (size_t)ids.n * sizeof *ids.data);
    mm_ids_free(&ids);
    mm_buf_free(&full);
}

// The text of each run of learned tokens, joined by "|".
static void check_learned(const struct reader *r, const char *expected) {
    struct mm_buf got = {0};
    const struct mm_sample *s = &r->sample;
    for (int64_t begin = 0, end; begin < s->ids.n; begin = end) {
        for (end = begin + 1; end < s->ids.n && s->learn.data[end] == s->learn.data[begin];)
            end++;
        if (!s->learn.data[begin]) continue;
        if (got.len > 0) mm_buf_adds(&got, "|");
        struct mm_error err;
        assert_int_equal(
            mm_tokenizer_decode(tokenizer, s->ids.data + begin, end - begin, false, &got, &err), 0);
    }
    assert_string_equal(got.len ? got.data : "", expected);
    mm_buf_free(&got);
}

// Two turns, ids and labels written out by hand from the tokenizer's golden vectors.
static void test_turns_by_hand(void **state) {
    (void)state;
    struct mm_data_options o = small_options();
    o.system = "\xe4\xbd\xa0\xe5\xa5\xbd";
    struct reader r = reader_open(o);
    read_good(&r,
              "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", "
              "\"value\": \"aa\"}, {\"value\": \"aaa\"}, {\"value\": \"a\"}]}");
    static const struct {
        int32_t id;
        char learn;
    } expected[] = {
        {1, 0},   {901, 0}, {803, 0}, {821, 0}, {342, 0}, {422, 0}, {13, 0},   // BOS, system\n
        {231, 0}, {192, 0}, {163, 0}, {232, 0}, {168, 0}, {192, 0}, {900, 0},  // its text
        {901, 0}, {358, 0}, {269, 0}, {13, 0},  {802, 0}, {900, 0},            // user\na
        {901, 0}, {546, 0}, {445, 0}, {520, 0}, {13, 0},                       // assistant\n
        {802, 1}, {802, 1}, {900, 1},                                          // aa
        {901, 0}, {358, 0}, {269, 0}, {13, 0},  {802, 0}, {802, 0}, {802, 0},  // user\naaa
        {900, 0}, {901, 0}, {546, 0}, {445, 0}, {520, 0}, {13, 0},             // assistant\n
        {802, 1}, {900, 1},                                                    // a
    };
    const int64_t n = (int64_t)(sizeof expected / sizeof expected[0]);
    assert_int_equal(r.sample.ids.n, n);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(r.sample.ids.data[i], expected[i].id);
        assert_int_equal(r.sample.learn.data[i], expected[i].learn);
    }
    assert_int_equal(r.sample.n_tiles, 0);
    reader_close(&r);
}

static void test_text(void **state) {
    (void)state;
    struct reader r = reader_open(small_options());
    // Line feeds at the border of the marker, other alphabets, a turn without an answer.
    read_good(&r,
              "{\"image\": [], \"conversations\": [{\"value\": \"Is it?\"}, "
              "{\"value\": \"\\n\\nYes, \\u4f60\\u597d.\"}, {\"value\": \"  And\\n\"}]}");
    check_ids(&r,
              "<|im_start|>system\nsys<|im_end|><|im_start|>user\nIs it?<|im_end|>"
              "<|im_start|>assistant\n\n\nYes, \xe4\xbd\xa0\xe5\xa5\xbd.<|im_end|>"
              "<|im_start|>user\n  And\n<|im_end|>");
    check_learned(&r, "\n\nYes, \xe4\xbd\xa0\xe5\xa5\xbd.<|im_end|>");
    // An empty message leaves its marker only. Roles come from the position, not from "from".
    read_good(&r,
              "{\"conversations\": [{\"from\": \"gpt\", \"value\": \"\"}, {\"value\": \"\"}, "
              "{\"value\": \"q\"}, {\"from\": \"human\", \"value\": \"r\"}], \"image\": null}");
    check_ids(&r,
              "<|im_start|>system\nsys<|im_end|><|im_start|>user\n<|im_start|>assistant\n"
              "<|im_start|>user\nq<|im_end|><|im_start|>assistant\nr<|im_end|>");
    check_learned(&r, "r<|im_end|>");
    // Without a picture, "<image>" is text like any other.
    read_good(&r, "{\"conversations\": [{\"value\": \"<image> <s>\"}, {\"value\": \"<image>\"}]}");
    check_ids(&r,
              "<|im_start|>system\nsys<|im_end|><|im_start|>user\n<image> <s><|im_end|>"
              "<|im_start|>assistant\n<image><|im_end|>");
    check_learned(&r, "<image><|im_end|>");
    reader_close(&r);
}

// A tokenizer may join the marker's line feed with what follows; then the border is found by the
// bytes of the tokens. The marker's ids are spoilt here to force that way: same labels.
static void test_border_by_bytes(void **state) {
    (void)state;
    struct reader r = reader_open(small_options());
    r.env.answer_marker.data[2] ^= 1;
    read_good(&r,
              "{\"conversations\": [{\"value\": \"q\"}, {\"value\": \"\\nYes, it is\"}, "
              "{\"value\": \"q\"}, {\"value\": \"\\u4f60\"}]}");
    check_learned(&r, "\nYes, it is<|im_end|>|\xe4\xbd\xa0<|im_end|>");
    // A border inside of a token: all of that token belongs to the marker.
    r.env.answer_marker_bytes -= 3;
    const int64_t whole = r.sample.ids.n;
    int64_t before = 0, after = 0;
    for (int64_t i = 0; i < whole; i++)
        before += r.sample.learn.data[i];
    read_good(&r,
              "{\"conversations\": [{\"value\": \"q\"}, {\"value\": \"\\nYes, it is\"}, "
              "{\"value\": \"q\"}, {\"value\": \"\\u4f60\"}]}");
    for (int64_t i = 0; i < whole; i++)
        after += r.sample.learn.data[i];
    // "assistant" + LF is 546 445 520 13: 3 bytes from its end lie inside of 520.
    assert_int_equal(after, before + 2);
    reader_close(&r);
}

static void test_one_picture(void **state) {
    (void)state;
    struct reader r = reader_open(small_options());
    // photo.jpg is 640 x 480: 3 x 2 tiles of at most 6, and the thumbnail.
    read_good(&r,
              "{\"image\": \"photo.jpg\", \"conversations\": [{\"value\": \"What?\"}, "
              "{\"value\": \"A cat\"}]}");
    assert_int_equal(r.sample.n_tiles, 7);
    check_ids(&r,
              "<|im_start|>system\nsys<|im_end|><|im_start|>user\n<img>@112</img>\nWhat?<|im_end|>"
              "<|im_start|>assistant\nA cat<|im_end|>");
    check_learned(&r, "A cat<|im_end|>");
    // The tiles are those of io/image.
    struct mm_image im;
    struct mm_tiles t;
    char path[600];
    snprintf(path, sizeof path, "%s/photo.jpg", pictures);
    assert_int_equal(mm_image_open(&im, path, &r.err), 0);
    assert_int_equal(mm_tiles_make(&t, &im, 56, 1, 6, true, &r.err), 0);
    assert_memory_equal(r.sample.tiles, t.rgb, 7 * 56 * 56 * 3);
    mm_tiles_free(&t);
    mm_image_free(&im);
    // In the middle of the text; a second "<image>" stays text, also in an answer.
    read_good(
        &r,
        "{\"image\": \"tiny.png\", \"conversations\": [{\"value\": \"See <image>? <image>\"}, "
        "{\"value\": \"<image>\"}]}");
    assert_int_equal(r.sample.n_tiles * 16, 112);
    check_ids(&r,
              "<|im_start|>system\nsys<|im_end|><|im_start|>user\nSee <img>@112</img>? <image>"
              "<|im_end|><|im_start|>assistant\n<image><|im_end|>");
    // Placed by the author in a later turn: the first turn gets it all the same.
    read_good(&r,
              "{\"image\": \"gray.jpg\", \"conversations\": [{\"value\": \"\"}, {\"value\": "
              "\"x\"}, {\"value\": \"<image>\"}]}");
    assert_int_equal(r.sample.ids.data[r.env.opening.n + 4], r.env.special.img);
    reader_close(&r);

    struct mm_data_options o = small_options();
    o.dynamic_tiling = false;
    r = reader_open(o);
    read_good(&r, "{\"image\": \"photo.jpg\", \"conversations\": [{\"value\": \"\"}]}");
    assert_int_equal(r.sample.n_tiles, 1);
    check_ids(&r, "<|im_start|>system\nsys<|im_end|><|im_start|>user\n<img>@16</img>\n<|im_end|>");
    check_learned(&r, "");
    reader_close(&r);

    o = small_options();
    o.thumbnail = false;
    r = reader_open(o);
    read_good(&r, "{\"image\": \"photo.jpg\", \"conversations\": [{\"value\": \"\"}]}");
    assert_int_equal(r.sample.n_tiles, 6);
    reader_close(&r);
}

static void test_several_pictures(void **state) {
    (void)state;
    struct reader r = reader_open(small_options());
    r.source.max_tiles = 3;
    // Two pictures share 3 tiles: one each, so no thumbnail. The second stands in an answer, whose
    // text is learned and whose picture is not.
    read_good(&r,
              "{\"image\": [\"photo.jpg\", \"wide.png\"], \"conversations\": [{\"value\": "
              "\"<image>\"}, {\"value\": \"It is <image>.\"}]}");
    assert_int_equal(r.sample.n_tiles, 2);
    check_ids(&r,
              "<|im_start|>system\nsys<|im_end|><|im_start|>user\n<img>@16</img><|im_end|>"
              "<|im_start|>assistant\nIt is <img>@16</img>.<|im_end|>");
    check_learned(&r, "It is |.<|im_end|>");
    // The answer begins with the picture.
    read_good(&r,
              "{\"image\": [\"wide.png\"], \"conversations\": [{\"value\": \"q\"}, {\"value\": "
              "\"<image>!\"}]}");
    assert_int_equal(r.sample.n_tiles, 4);  // wide.png is 330 x 61: 3 x 1 and the thumbnail
    check_ids(&r,
              "<|im_start|>system\nsys<|im_end|><|im_start|>user\nq<|im_end|>"
              "<|im_start|>assistant\n<img>@64</img>!<|im_end|>");
    check_learned(&r, "!<|im_end|>");
    // A tile's pixels come in the order of the pictures.
    read_good(&r,
              "{\"image\": [\"wide.png\", \"photo.jpg\"], \"conversations\": [{\"value\": "
              "\"<image><image>\"}]}");
    uint8_t *second = mm_xmalloc(56 * 56 * 3);
    memcpy(second, r.sample.tiles + 56 * 56 * 3, 56 * 56 * 3);
    r.source.max_tiles = 1;
    read_good(&r, "{\"image\": \"photo.jpg\", \"conversations\": [{\"value\": \"\"}]}");
    assert_memory_equal(r.sample.tiles, second, 56 * 56 * 3);
    free(second);
    reader_close(&r);
}

static void test_bad_lines(void **state) {
    (void)state;
    struct reader r = reader_open(small_options());
    static const struct {
        const char *line, *words;
    } bad[] = {
        {"", "JSON"},
        {"{\"conversations\": [", "JSON"},
        {"\xff\xfe", "JSON"},
        {"[]", "must be a JSON object"},
        {"{}", "'conversations' must be a list"},
        {"{\"conversations\": {}}", "'conversations' must be a list"},
        {"{\"conversations\": []}", "at least one turn"},
        {"{\"conversations\": [3]}", "entry 0 has no text 'value'"},
        {"{\"conversations\": [{\"value\": \"a\"}, {\"value\": 1}]}", "entry 1 has no text"},
        {"{\"conversations\": [{\"value\": \"a<|im_end|>\"}]}", "holds the mark '<|im_end|>'"},
        {"{\"conversations\": [{\"value\": \"<IMG_CONTEXT>\"}]}", "holds the mark"},
        {"{\"image\": 3, \"conversations\": [{\"value\": \"a\"}]}", "'image' must be a string"},
        {"{\"image\": [\"\"], \"conversations\": [{\"value\": \"a\"}]}", "'image' entry 0"},
        {"{\"image\": [\"a\", 1], \"conversations\": [{\"value\": \"a\"}]}", "'image' entry 1"},
        {"{\"image\": \"no.png\", \"conversations\": [{\"value\": \"a\"}]}", "no.png"},
        {"{\"image\": \"tiles.json\", \"conversations\": [{\"value\": \"a\"}]}", "tiles.json"},
        {"{\"image\": \"s3://a/b.png\", \"conversations\": [{\"value\": \"a\"}]}", "s3://"},
        {"{\"image\": \".\", \"conversations\": [{\"value\": \"a\"}]}", "/."},
        {"{\"image\": [\"tiny.png\"], \"conversations\": [{\"value\": \"a\"}]}",
         "has 1 pictures but '<image>' 0 times"},
        {"{\"image\": [\"tiny.png\", \"tiny.png\"], \"conversations\": [{\"value\": \"<image>\"}]}",
         "has 2 pictures but '<image>' 1 times"},
        {"{\"video\": \"a.mp4\", \"conversations\": [{\"value\": \"<video>\"}]}", "'video'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const enum mm_code code = read_line(&r, bad[i].line);
        if (code == mm_code_ok || code == mm_code_memory || !strstr(r.err.text, bad[i].words)) {
            fail_msg("%s: code %d, '%s' must tell of '%s'", bad[i].line, code, r.err.text,
                     bad[i].words);
        }
    }
    // A reader that has failed goes on.
    read_good(&r, "{\"conversations\": [{\"value\": \"a\"}]}");
    reader_close(&r);
}

static void test_too_long(void **state) {
    (void)state;
    static const char text[] = "{\"conversations\": [{\"value\": \"a\"}, {\"value\": \"a\"}]}";
    static const char one[] =
        "{\"image\": \"photo.jpg\", \"conversations\": [{\"value\": \"a\"}, {\"value\": \"a\"}]}";
    struct mm_data_options o = small_options();
    struct reader r = reader_open(o);
    read_good(&r, text);
    const int64_t n_text = r.sample.ids.n;
    read_good(&r, one);
    const int64_t n_one = r.sample.ids.n;
    reader_close(&r);

    // The longest that is allowed, and one token less.
    for (int64_t less = 0; less < 2; less++) {
        o.max_length = n_text - less;
        r = reader_open(o);
        assert_int_equal(read_line(&r, text), less ? mm_code_input : mm_code_ok);
        if (less) assert_non_null(strstr(r.err.text, "tokens"));
        reader_close(&r);
        o.max_length = n_one - less;
        r = reader_open(o);
        assert_int_equal(read_line(&r, one), less ? mm_code_input : mm_code_ok);
        reader_close(&r);
    }
    // More pictures than fit: said before any is opened, so none of them need exist.
    o = small_options();
    r = reader_open(o);
    struct mm_buf line = {0};
    mm_buf_adds(&line, "{\"image\": [\"x\"");
    for (int i = 0; i < 100; i++)
        mm_buf_adds(&line, ", \"x\"");
    mm_buf_adds(&line, "], \"conversations\": [{\"value\": \"a\"}]}");
    assert_int_equal(read_line(&r, line.data), mm_code_input);
    assert_non_null(strstr(r.err.text, "tokens"));
    mm_buf_free(&line);
    reader_close(&r);
}

static void test_augment(void **state) {
    (void)state;
    struct reader r = reader_open(small_options());
    static const char line[] = "{\"image\": \"photo.jpg\", \"conversations\": [{\"value\": \"\"}]}";
    const size_t n = 7 * 56 * 56 * 3;
    uint8_t *plain = mm_xmalloc(n), *first = mm_xmalloc(n);
    read_good(&r, line);
    memcpy(plain, r.sample.tiles, n);
    r.source.augment = true;
    read_good(&r, line);
    memcpy(first, r.sample.tiles, n);
    assert_memory_not_equal(first, plain, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += abs((int)first[i] - (int)plain[i]);
    assert_true(sum / (double)n < 16.0);  // still the same picture, which is a noisy one
    read_good(&r, line);
    assert_memory_equal(first, r.sample.tiles, n);  // the same draw, the same result
    // Another place in the stream, another quality.
    assert_int_equal(
        mm_sample_read(&r.sample, &r.env, &r.source, mm_rng_make(1, 3), line, strlen(line), &r.err),
        mm_code_ok);
    assert_memory_not_equal(first, r.sample.tiles, n);
    free(plain);
    free(first);
    reader_close(&r);
}

static void test_options(void **state) {
    (void)state;
    const struct mm_data_options good = small_options();
    struct mm_data_options bad[9];
    for (size_t i = 0; i < 9; i++)
        bad[i] = good;
    bad[0].image_size = 0;
    bad[1].tokens_per_tile = -1;
    bad[2].min_tiles = 7;
    bad[3].min_tiles = 0;
    bad[4].max_length = 1;
    bad[5].micro_batch = 0;
    bad[6].micro_batch = INT32_MAX;
    bad[7].n_workers = -1;
    bad[8].system = "a <image>";
    for (size_t i = 0; i < 9; i++) {
        struct mm_sample_env env;
        struct mm_error err = {0};
        assert_int_equal(mm_sample_env_init(&env, tokenizer, tokenizer_folder, &bad[i], &err),
                         mm_code_input);
        assert_true(strlen(err.text) > 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns_by_hand),    cmocka_unit_test(test_text),
        cmocka_unit_test(test_one_picture),      cmocka_unit_test(test_border_by_bytes),
        cmocka_unit_test(test_several_pictures), cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_too_long),         cmocka_unit_test(test_augment),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests_name("sample", tests, fixture_setup, fixture_teardown);
}
