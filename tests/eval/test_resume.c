// The file of predictions: killed, resumed, split over shards, out of order, of another run.
#include "eval/eval_fixture.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include "eval/plan.h"

enum { n_pictures = 3 };
static const char *const pictures[n_pictures] = {"rgb.png", "photo.jpg", "gray.png"};

// As MMBench has it: each picture's question, then their rotations, which name the first row; one
// picture is written out twice instead.
static void put_rotations(const char *name) {
    struct mm_buf text = {0};
    mm_buf_adds(&text, "index\timage\tquestion\tA\tB\tanswer\tcategory\tsplit\n");
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < n_pictures; i++) {
            mm_buf_addf(&text, "%d\t", k * 1000000 + i);
            if (k == 0 || (k == 1 && i == 2)) {
                add_picture(&text, pictures[i]);
            } else {
                mm_buf_addf(&text, "%d", i);
            }
            mm_buf_addf(&text, "\tWhich? %d\tcat\tdog\tA\tc\tdev\n", k);
        }
    }
    put(name, text.data, text.len);
    mm_buf_free(&text);
}

static enum mm_code rotations(const char *out, int64_t limit, int64_t part, int64_t parts) {
    return ask_part(&mm_bench_mmbench, "rotations.tsv", out, limit, (struct mm_shard){part, parts},
                    1);
}

// The indexes of a file of predictions, each followed by a space.
static char *indexes(const char *name) {
    struct mm_buf text = get(name), out = {0};
    for (const char *p = text.data; p && *p; p += strcspn(p, "\n") + 1) {
        mm_buf_addf(&out, "%lld ", strtoll(p + strlen("{\"index\": "), NULL, 10));
    }
    mm_buf_free(&text);
    return out.data ? out.data : mm_xstrdup("");
}

static void holds(const char *name, const char *wanted) {
    char *got = indexes(name);
    assert_string_equal(got, wanted);
    free(got);
}

static void same_bytes(const char *a, const char *b) {
    struct mm_buf x = get(a), y = get(b);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    mm_buf_free(&x);
    mm_buf_free(&y);
}

static void test_order(void **state) {
    (void)state;
    answer_tokens = 4;
    put_rotations("rotations.tsv");
    struct mm_questions questions;
    struct mm_pictures shown;
    struct mm_plan plan;
    char *path = fixture_path("rotations.tsv");
    OK(mm_questions_open(&questions, &mm_bench_mmbench, path, false, mm_tsv_form_table, 0, &err));
    OK(mm_pictures_open(&shown, &questions, NULL, &err));
    OK(mm_plan_make(&plan, &questions, &shown, 0, (struct mm_shard){0, 0}, &err));
    assert_int_equal(plan.n, 9);
    static const int64_t numbers[] = {0, 3, 6, 1, 4, 7, 2, 5, 8};
    for (int i = 0; i < 9; i++) {
        assert_int_equal(plan.item[i].place.number, numbers[i]);
        assert_int_equal(plan.item[i].picture, i / 3);
    }
    mm_plan_free(&plan);
    mm_pictures_close(&shown);
    mm_questions_close(&questions);
    free(path);
    OK(rotations("whole.jsonl", 0, 0, 0));
    holds("whole.jsonl", "0 1 2 1000000 1000001 1000002 2000000 2000001 2000002 ");
}

// Whatever part of the lines a kill leaves, in the order of asking, the end is the same file.
static void test_killed(void **state) {
    (void)state;
    struct mm_buf whole = get("whole.jsonl"), asked = {0};
    size_t begin[10] = {0};
    for (int i = 0; i < 9; i++) {
        begin[i + 1] = begin[i] + strcspn(whole.data + begin[i], "\n") + 1;
    }
    static const int numbers[] = {0, 3, 6, 1, 4, 7, 2, 5, 8};
    for (int i = 0; i < 9; i++) {
        const int k = numbers[i];
        mm_buf_add(&asked, whole.data + begin[k], begin[k + 1] - begin[k]);
    }
    for (size_t cut = 0; cut <= asked.len; cut += 1 + asked.len / 23) {
        put("killed.jsonl", asked.data, cut);
        OK(rotations("killed.jsonl", 0, 0, 0));
        same_bytes("killed.jsonl", "whole.jsonl");
    }
    put("killed.jsonl", asked.data, asked.len);
    OK(rotations("killed.jsonl", 0, 0, 0));
    same_bytes("killed.jsonl", "whole.jsonl");
    mm_buf_free(&asked);
    mm_buf_free(&whole);
}

// Side by side the answers are the same, whatever order they end in.
static void test_batches(void **state) {
    (void)state;
    for (int batch = 2; batch <= 11; batch += 3) {
        char name[32];
        snprintf(name, sizeof name, "batch%d.jsonl", batch);
        OK(ask_part(&mm_bench_mmbench, "rotations.tsv", name, 0, (struct mm_shard){0, 0}, batch));
        same_bytes(name, "whole.jsonl");
    }
    OK(ask_part(&mm_bench_mmbench, "rotations.tsv", "mixed.jsonl", 5, (struct mm_shard){0, 0}, 2));
    OK(ask_part(&mm_bench_mmbench, "rotations.tsv", "mixed.jsonl", 0, (struct mm_shard){0, 0}, 4));
    same_bytes("mixed.jsonl", "whole.jsonl");
}

static void test_shards(void **state) {
    (void)state;
    OK(rotations("one.jsonl", 0, 1, 2));
    OK(rotations("two.jsonl", 0, 2, 2));
    holds("one.jsonl", "0 2 1000000 1000002 2000000 2000002 ");
    holds("two.jsonl", "1 1000001 2000001 ");
    OK(rotations("four.jsonl", 4, 1, 2));
    holds("four.jsonl", "0 2 1000000 ");
    OK(rotations("four.jsonl", 0, 1, 2));  // a limit that falls
    same_bytes("four.jsonl", "one.jsonl");
    OK(rotations("four.jsonl", 0, 2, 2));  // the other shard into the same file
    same_bytes("four.jsonl", "whole.jsonl");
    REFUSED(rotations("none.jsonl", 0, 7, 8), "has no question in this shard");
    // Scored together they are the whole.
    char *data = fixture_path("rotations.tsv"), *files[3];
    files[0] = fixture_path("whole.jsonl");
    files[1] = fixture_path("two.jsonl");
    files[2] = fixture_path("one.jsonl");
    const char *const all[] = {files[0], NULL}, *const parts[] = {files[1], files[2], NULL};
    const char *const twice[] = {files[0], files[1], NULL};
    struct mm_score_job job = {.bench = &mm_bench_mmbench, .data = data, .predictions = all};
    struct mm_report a, b;
    OK(mm_score_run(&job, &a, &err));
    job.predictions = parts;
    OK(mm_score_run(&job, &b, &err));
    assert_int_equal(a.questions, 9);
    assert_int_equal(b.questions, 9);
    assert_true(a.headline == b.headline);
    assert_int_equal(a.unresolved, b.unresolved);
    mm_report_free(&a);
    mm_report_free(&b);
    job.predictions = twice;
    REFUSED(mm_score_run(&job, &b, &err), "two.jsonl: line 1: index '1' ");
    for (int i = 0; i < 3; i++)
        free(files[i]);
    free(data);
}

static void test_shard_words(void **state) {
    (void)state;
    struct mm_shard s;
    OK(mm_shard_parse(&s, "3/8", &err));
    assert_int_equal(s.part, 3);
    assert_int_equal(s.parts, 8);
    static const char *const wrong[] = {"",
                                        "3",
                                        "0/4",
                                        "5/4",
                                        "1/0",
                                        "-1/4",
                                        "1/-4",
                                        "1/4x",
                                        "1//4",
                                        "a/b",
                                        "1/99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(mm_shard_parse(&s, wrong[i], &err), mm_code_usage);
        assert_non_null(strstr(err.text, "1 <= I <= N"));
    }
}

// Lines of another model or setting are not mixed in; lines without a mark are anybody's.
static void test_other_runs(void **state) {
    (void)state;
    struct mm_buf whole = get("whole.jsonl");
    char *mark = strstr(whole.data, "\"run\": \"");
    mark[strlen("\"run\": \"")] ^= 1;
    put("foreign.jsonl", whole.data, whole.len);
    REFUSED(rotations("foreign.jsonl", 0, 0, 0), "line 1: it was made with another model");
    struct mm_buf kept = get("foreign.jsonl");
    assert_int_equal(kept.len, whole.len);
    assert_memory_equal(kept.data, whole.data, whole.len);
    mm_buf_free(&kept);
    mm_buf_free(&whole);
    static const char lines[] =
        "{\"prediction\": \"B\", \"index\": \"1000002\"}\n\n{\"index\": 1, \"prediction\": "
        "\"A\"}\n";
    put("hand.jsonl", lines, sizeof lines - 1);
    OK(rotations("hand.jsonl", 0, 0, 0));
    holds("two.jsonl", "1 1000001 2000001 ");
    struct mm_buf text = get("hand.jsonl");
    int n = 0;
    for (const char *p = text.data; *p; p += strcspn(p, "\n") + 1)
        n++;
    assert_int_equal(n, 9);
    assert_non_null(strstr(text.data, "{\"prediction\": \"B\", \"index\": \"1000002\"}\n"));
    mm_buf_free(&text);
    static const char twice[] =
        "{\"index\": 1, \"prediction\": \"A\"}\n{\"index\": 1, \"prediction\": \"A\"}\n";
    put("twice.jsonl", twice, sizeof twice - 1);
    REFUSED(rotations("twice.jsonl", 0, 0, 0), "line 2: index '1' is there twice");
}

static void test_two_writers(void **state) {
    (void)state;
    put("busy.jsonl", "", 0);
    char *path = fixture_path("busy.jsonl");
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    REFUSED(rotations("busy.jsonl", 0, 0, 0), "another process is writing it");
    close(fd);
    OK(rotations("busy.jsonl", 0, 0, 0));
    same_bytes("busy.jsonl", "whole.jsonl");
    free(path);
}

// A picture that was not there is looked for again when the run goes on.
static void test_picture_comes_back(void **state) {
    (void)state;
    static const char lines[] =
        "{\"question_id\": 5, \"image\": \"p.png\", \"question\": \"Is it?\"}\n"
        "{\"question_id\": 6, \"image\": \"late.png\", \"question\": \"Is it?\"}\n"
        "{\"question_id\": 7, \"image\": \"p.png\", \"question\": \"<image> <|im_end|> or "
        "<image>?\"}\n";
    char *folder = fixture_path("gqa");
    OK(mm_folder_make(folder, &err));
    free(folder);
    put("gqa/llava_gqa_testdev_balanced_qwen_format.jsonl", lines, sizeof lines - 1);
    char *path = fixture_path("gqa/p.png"), *late = fixture_path("gqa/late.png");
    OK(mm_file_copy("tests/golden/images/rgb.png", path, &err));
    OK(ask(&mm_bench_gqa, "gqa", "gqa.jsonl", 0));
    holds("gqa.jsonl", "5 6 7 ");
    struct mm_buf text = get("gqa.jsonl");
    assert_non_null(strstr(text.data, "late.png"));
    mm_buf_free(&text);
    OK(mm_file_copy("tests/golden/images/photo.jpg", late, &err));
    OK(ask(&mm_bench_gqa, "gqa", "gqa.jsonl", 0));
    holds("gqa.jsonl", "5 6 7 ");
    text = get("gqa.jsonl");
    assert_null(strstr(text.data, "missing_image"));
    mm_buf_free(&text);
    free(path);
    free(late);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),       cmocka_unit_test(test_killed),
        cmocka_unit_test(test_batches),     cmocka_unit_test(test_shards),
        cmocka_unit_test(test_shard_words), cmocka_unit_test(test_other_runs),
        cmocka_unit_test(test_two_writers), cmocka_unit_test(test_picture_comes_back),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
