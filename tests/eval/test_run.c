// Asking: a random model with the golden tokenizer answers small data sets made of the golden
// pictures. What it says means nothing; that it says the same whichever way it is asked does.
#include "eval/eval_fixture.h"

static const char header[] = "index\timage\tquestion\tanswer\tcategory\n";

// Two pictures with three and two questions, together and taking turns.
static void test_shared_pictures(void **state) {
    (void)state;
    struct mm_buf a = {0}, b = {0};
    mm_buf_adds(&a, header);
    mm_buf_adds(&a, "0\t");
    add_picture(&a, "rgb.png");
    mm_buf_adds(&a, "\tWhat is this?\tdog\tx\n1\t0\tAnd that?\tdog\tx\n2\t0\tWhere?\tdog\tx\n3\t");
    add_picture(&a, "photo.jpg");
    mm_buf_adds(&a, "\tWhat is this?\tdog\ty\n4\t3\tAnd that?\tdog\ty\n");
    put("together.tsv", a.data, a.len);
    mm_buf_adds(&b, header);
    mm_buf_adds(&b, "1\t0\tAnd that?\tdog\tx\n4\t3\tAnd that?\tdog\ty\n0\t");
    add_picture(&b, "rgb.png");
    mm_buf_adds(&b, "\tWhat is this?\tdog\tx\n3\t");
    add_picture(&b, "photo.jpg");
    mm_buf_adds(&b, "\tWhat is this?\tdog\ty\n2\t0\tWhere?\tdog\tx\n");
    put("turns.tsv", b.data, b.len);
    mm_buf_free(&a);
    mm_buf_free(&b);
    OK(ask(&mm_bench_gqa, "together.tsv", "together.jsonl", 0));
    OK(ask(&mm_bench_gqa, "turns.tsv", "turns.jsonl", 0));
    int n_different = 0;
    char *first = said("together.jsonl", "0");
    for (int i = 0; i < 5; i++) {
        char index[16];
        snprintf(index, sizeof index, "%d", i);
        char *one = said("together.jsonl", index), *other = said("turns.jsonl", index);
        assert_non_null(one);
        assert_non_null(other);
        assert_string_equal(one, other);
        n_different += strcmp(strstr(one, "prediction"), strstr(first, "prediction")) != 0;
        free(one);
        free(other);
    }
    free(first);
    assert_true(n_different > 3);  // the questions and pictures reach the model
}

// The same as one prompt read at once.
static void test_whole_prompt(void **state) {
    (void)state;
    struct mm_session_options options = MM_SESSION_OPTIONS;
    options.max_tiles = 6;
    struct mm_session *s;
    OK(mm_session_new(&s, engine, &options, &err));
    const struct mm_picture picture = {.path = "tests/golden/images/rgb.png"};
    OK(mm_session_add_turn(s,
                           "<image>\nAnd that? Answer the question using a single word or phrase.",
                           &picture, 1, &err));
    const struct mm_generation how = {.max_new_tokens = 10, .min_new_tokens = 1};
    const struct mm_sampling greedy = MM_SAMPLING_GREEDY;
    OK(mm_session_set_sampling(s, &greedy, &err));
    struct mm_answer a;
    OK(mm_session_generate(s, &how, NULL, &a, &err));
    struct mm_buf line = {0};
    mm_buf_adds(&line, "{\"index\": 1, \"prediction\": ");
    mm_json_add_string(&line, a.text, a.n_bytes);
    mm_buf_adds(&line, "}");
    char *got = said("together.jsonl", "1");
    assert_string_equal(got, line.data);
    free(got);
    mm_buf_free(&line);
    mm_session_free(s);
}

// Wherever a kill cuts the file, the same call makes the same file of it.
static void test_resume(void **state) {
    (void)state;
    struct mm_buf whole = get("together.jsonl");
    size_t end_of_two = 0;
    for (int i = 0; i < 2; i++) {
        end_of_two += strcspn(whole.data + end_of_two, "\n") + 1;
    }
    const size_t cuts[] = {0,        1, end_of_two - 1, end_of_two, end_of_two + 5, whole.len - 1,
                           whole.len};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        put("cut.jsonl", whole.data, cuts[i]);
        OK(ask(&mm_bench_gqa, "together.tsv", "cut.jsonl", 0));
        struct mm_buf got = get("cut.jsonl");
        assert_int_equal(got.len, whole.len);
        assert_memory_equal(got.data, whole.data, whole.len);
        mm_buf_free(&got);
    }
    char *limited = fixture_path("limited.jsonl");
    OK(ask(&mm_bench_gqa, "together.tsv", "limited.jsonl", 2));
    struct stat st;
    assert_int_equal(stat(limited, &st), 0);
    assert_int_equal(st.st_size, end_of_two);
    OK(ask(&mm_bench_gqa, "together.tsv", "limited.jsonl", 0));  // and on to the end
    assert_int_equal(stat(limited, &st), 0);
    assert_int_equal(st.st_size, whole.len);
    OK(ask(&mm_bench_gqa, "together.tsv", "limited.jsonl", 2));  // nothing left to ask, nothing cut
    assert_int_equal(stat(limited, &st), 0);
    assert_int_equal(st.st_size, whole.len);
    free(limited);
    mm_buf_free(&whole);
    // A file of another run is left as it is.
    static const char other[] = "{\"index\": 7, \"prediction\": \"x\"}\n";
    put("other.jsonl", other, sizeof other - 1);
    REFUSED(ask(&mm_bench_gqa, "together.tsv", "other.jsonl", 0), "belongs to another run");
    struct mm_buf kept = get("other.jsonl");
    assert_string_equal(kept.data, other);
    mm_buf_free(&kept);
    static const char broken[] = "{\"index\": 0, \"prediction\": 1\n{\"index\": 1}\n";
    put("broken.jsonl", broken, sizeof broken - 1);
    REFUSED(ask(&mm_bench_gqa, "together.tsv", "broken.jsonl", 0),
            "line 1, column 28: not valid JSON");
}

// A picture that is not one stops its question only.
static void test_missing_pictures(void **state) {
    (void)state;
    struct mm_buf a = {0};
    mm_buf_adds(&a, header);
    mm_buf_adds(&a, "a\t");
    add_picture(&a, "tiny.png");
    mm_buf_adds(&a, "\tq\tdog\tx\nb\t");
    for (int i = 0; i < 100; i++) {
        mm_buf_adds(&a, "AAAA");
    }
    mm_buf_adds(&a, "\tq\tdog\tx\nc\tb\tq\tdog\tx\nd\t\tq\tdog\tx\ne\ta\tq\tdog\tx\n");
    put("missing.tsv", a.data, a.len);
    mm_buf_free(&a);
    OK(ask(&mm_bench_gqa, "missing.tsv", "missing.jsonl", 0));
    struct mm_buf got = get("missing.jsonl");
    int lines = 0, missing = 0;
    for (const char *p = got.data; *p; p += strcspn(p, "\n") + 1) {
        const size_t n = strcspn(p, "\n");
        lines++;
        missing += memmem(p, n, "\"missing_image\": true", 21) != NULL;
    }
    assert_int_equal(lines, 4);  // d has no picture at all and is no question
    assert_int_equal(missing, 2);
    mm_buf_free(&got);
    char *data = fixture_path("missing.tsv"), *out = fixture_path("missing.jsonl");
    const struct mm_score_job job = {
        .bench = &mm_bench_gqa, .data = data, .predictions = (const char *const[]){out, NULL}};
    struct mm_report report;
    OK(mm_score_run(&job, &report, &err));
    assert_int_equal(report.questions, 2);
    assert_int_equal(report.missing_images, 3);
    mm_report_free(&report);
    free(data);
    free(out);
    static const char dangling[] = "index\timage\tquestion\tanswer\n0\tAAAA\tq\ta\n";
    put("dangling.tsv", dangling, sizeof dangling - 1);
    REFUSED(ask(&mm_bench_gqa, "dangling.tsv", "d.jsonl", 0),
            "line 2: column 'image': 'AAAA' must be a picture or the index");
    static const char circle[] = "index\timage\tquestion\tanswer\n0\t1\tq\ta\n1\t0\tq\ta\n";
    put("circle.tsv", circle, sizeof circle - 1);
    REFUSED(ask(&mm_bench_gqa, "circle.tsv", "d.jsonl", 0), "holds no picture either");
    static const char twice[] = "index\timage\tquestion\tanswer\n0\tx\tq\ta\n0\tx\tq\ta\n";
    put("twice.tsv", twice, sizeof twice - 1);
    REFUSED(ask(&mm_bench_gqa, "twice.tsv", "d.jsonl", 0), "line 3: column 'index': '0' is there");
}

// Lists of pictures, and a list of one, which is a picture like any other.
static void test_lists(void **state) {
    (void)state;
    struct mm_buf a = {0};
    mm_buf_adds(&a, header);
    mm_buf_adds(&a, "0\t['");
    add_picture(&a, "tiny.png");
    mm_buf_adds(&a, "', '");
    add_picture(&a, "rgb.png");
    mm_buf_adds(&a, "']\tq\tdog\tx\n1\t['");
    add_picture(&a, "rgb.png");
    mm_buf_adds(&a, "']\tAnd that?\tdog\tx\n2\t['x', ");
    for (int i = 0; i < 100; i++) {
        mm_buf_adds(&a, "    ");
    }
    mm_buf_adds(&a, "5]\tq\tdog\tx\n");
    put("lists.tsv", a.data, a.len);
    mm_buf_free(&a);
    OK(ask(&mm_bench_gqa, "lists.tsv", "lists.jsonl", 0));
    char *one = said("lists.jsonl", "1"), *other = said("together.jsonl", "1");
    assert_string_equal(one, other);
    free(one);
    free(other);
    one = said("lists.jsonl", "2");
    assert_non_null(strstr(one, "missing_image"));
    free(one);
}

// The answer to a message with these golden pictures, of which the first may be doubled; JSON.
static char *answer_to(const char *message, const char *const *names, int n, bool doubled) {
    struct mm_session_options options = MM_SESSION_OPTIONS;
    options.max_tiles = 12;
    struct mm_session *s;
    struct mm_tiles tiles[2];
    struct mm_picture pictures[2];
    OK(mm_session_new(&s, engine, &options, &err));
    for (int i = 0; i < n; i++) {
        char *path = mm_xasprintf("tests/golden/images/%s", names[i]);
        struct mm_image image, large;
        OK(mm_image_open(&image, path, &err));
        if (i == 0 && doubled) {
            OK(mm_image_resize(&large, &image, 2 * image.width, 2 * image.height,
                               mm_filter_bilinear, &err));
            mm_image_free(&image);
            image = large;
        }
        OK(mm_tiles_make(&tiles[i], &image, s->tiles.size, 1, 12, s->tiles.thumbnail, &err));
        pictures[i] = (struct mm_picture){.tiles = &tiles[i]};
        mm_image_free(&image);
        free(path);
    }
    OK(mm_session_add_turn(s, message, pictures, n, &err));
    const struct mm_generation how = {.max_new_tokens = answer_tokens};
    const struct mm_sampling greedy = MM_SAMPLING_GREEDY;
    OK(mm_session_set_sampling(s, &greedy, &err));
    struct mm_answer a;
    OK(mm_session_generate(s, &how, NULL, &a, &err));
    struct mm_buf line = {0};
    mm_buf_adds(&line, "\"prediction\": ");
    mm_json_add_string(&line, a.text, a.n_bytes);
    mm_buf_adds(&line, "}");
    mm_session_free(s);
    return line.data;
}

// MMMU: up to twelve tiles, the (first) picture doubled, several with numbers.
static void test_mmmu(void **state) {
    (void)state;
    static const char *const names[] = {"tiny.png",
                                        "rgb.png"};  // small: doubled, they have more tiles
    struct mm_buf a = {0};
    mm_buf_adds(&a, "index\timage\tquestion\tA\tB\tanswer\n0\t");
    add_picture(&a, names[0]);
    mm_buf_adds(&a, "\tWhich?\tcat\tdog\tA\n1\t['");
    add_picture(&a, names[0]);
    mm_buf_adds(&a, "', '");
    add_picture(&a, names[1]);
    mm_buf_adds(&a, "']\tIn <image 2>?\t\t\tA\n");
    put("mmmu.tsv", a.data, a.len);
    mm_buf_free(&a);
    answer_tokens = 12;
    OK(ask(&mm_bench_mmmu, "mmmu.tsv", "mmmu.jsonl", 0));
    static const char *const messages[] = {
        "<image>\nWhich?\nA. cat\nB. dog\nAnswer with the option's letter from the given choices "
        "directly.",
        "Image-1: <image>\nImage-2: <image>\nIn <image 2>?\nAnswer the question "
        "directly.<Image-1><Image-2>"};
    bool matters = false;
    for (int i = 0; i < 2; i++) {
        char *got = said("mmmu.jsonl", i ? "1" : "0");
        char *wanted = answer_to(messages[i], names, i + 1, true);
        char *plain = answer_to(messages[i], names, i + 1, false);
        assert_string_equal(strstr(got, "\"prediction"), wanted);
        matters = matters || strcmp(plain, wanted) != 0;
        free(got);
        free(wanted);
        free(plain);
    }
    assert_true(matters);
    answer_tokens = 0;
}

// The kit's files: pictures by path, the same picture under several lines.
#define WORD "Answer the question using a single word or phrase."
static void test_kit(void **state) {
    (void)state;
    static const char lines[] =
        "{\"question_id\": 5, \"image\": \"rgb.png\", \"text\": \"Is it?\\n" WORD
        " \\n\", \"category\": "
        "\"random\"}\n"
        "{\"question_id\": 6, \"image\": \"rgb.png\", \"text\": \"Is it?\\n" WORD
        "\", \"category\": "
        "\"popular\"}\n"
        "{\"question_id\": \"x\", \"image\": \"none.png\", \"text\": \"Is it?\\n" WORD
        "\", \"category\": "
        "\"popular\"}\n";
    char *folder = fixture_path("kit"), *out = fixture_path("kit.jsonl");
    OK(mm_folder_make(folder, &err));
    put("kit/llava_pope_test.jsonl", lines, sizeof lines - 1);
    struct mm_eval_job job = {
        .bench = &mm_bench_pope, .data = folder, .out = out, .images = "tests/golden/images"};
    OK(mm_eval_run(&job, engine, &err));
    char *one = said("kit.jsonl", "5"), *other = said("kit.jsonl", "6");
    // Stripped, the two texts are one.
    assert_string_equal(strstr(one, "prediction"), strstr(other, "prediction"));
    assert_null(strstr(one, "\"prediction\": \"\""));  // min_new_tokens 1 and not white space
    free(one);
    free(other);
    one = said("kit.jsonl", "\"x\"");
    assert_non_null(strstr(one, "missing_image"));
    free(one);
    static const char bare[] =
        "{\"question_id\": 5, \"image\": \"rgb.png\", \"text\": \"Is it?\", \"category\": "
        "\"random\"}\n";
    put("kit/llava_pope_test.jsonl", bare, sizeof bare - 1);
    REFUSED(mm_eval_run(&job, engine, &err),
            "llava_pope_test.jsonl: line 1: 'text': must contain '" WORD "'");
    char *table = fixture_path("together.tsv");
    job = (struct mm_eval_job){.bench = &mm_bench_gqa, .data = table, .out = out, .images = "/tmp"};
    REFUSED(mm_eval_run(&job, engine, &err), "--images has no effect here");
    free(table);
    free(folder);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_pictures),
        cmocka_unit_test(test_whole_prompt),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_missing_pictures),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_mmmu),
        cmocka_unit_test(test_kit),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
