// Scoring a file four times as long takes no more memory, whatever the benchmark, with predictions
// in the data set's order or in another. Each scoring is a process of its own, whose peak counts.
#include "cmocka_all.h"
#include "scratch.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/log.h"
#include "eval/score.h"
#include "io/file.h"

enum {
    few = 8000,
    many = 4 * few,
    allowed_kb = 32 * (many - few) / 1024,  // less than an index and its place in a list
};

// Lines are long, so that the window that is kept of every file is full with the few already.
static const char filler[] =
    "0123456789012345678901234567890123456789012345678901234567890123456789"
    "0123456789012345678901234567890123456789012345678901234567890123456789"
    "0123456789012345678901234567890123456789012345678901234567890123456789"
    "0123456789012345678901234567890123456789012345678901234567890123456789"
    "0123456789012345678901234567890123456789012345678901234567890123456789";

static FILE *create(const char *name) {
    char *path = mm_path_join(folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    free(path);
    return f;
}

static void put_table(const struct mm_bench *bench, int n) {
    FILE *f = create("data.tsv");
    const bool mme = bench == &mm_bench_mme, text = bench == &mm_bench_textvqa;
    fprintf(f, "index\timage\tquestion\tanswer\tcategory%s\n", mme ? "\timage_path" : "\tA\tB");
    for (int i = 0; i < n; i++) {
        const int index = bench == &mm_bench_mmbench ? i % (n / 4) + i / (n / 4) * 1000000 : i;
        fprintf(f, "%d\t%s\tWhat is in picture %d?\t%s\tcount\t", index, filler, i,
                text  ? "['cat', 'cat', 'dog', 'cat']"
                : mme ? "Yes"
                      : "A");
        fprintf(f, mme ? "images/%06d.jpg\n" : "cat\tdog%06d\n", mme ? i / 2 : i);
    }
    assert_int_equal(fclose(f), 0);
}

static void put_pope(int n) {
    static const char *const kinds[] = {"adversarial", "popular", "random"};
    FILE *f = create("llava_pope_test.jsonl"), *label[3];
    for (int k = 0; k < 3; k++) {
        char *name = mm_xasprintf("coco_pope_%s.json", kinds[k]);
        label[k] = create(name);
        free(name);
    }
    for (int i = 0; i < n; i++) {
        fprintf(f,
                "{\"question_id\": \"%d\", \"image\": \"%s\", \"text\": \"Is it?\", "
                "\"category\": \"%s\"}\n",
                (i * 7) % n, filler, kinds[i % 3]);
        fprintf(label[i % 3], "{\"label\": \"%s\", \"text\": \"%s%s%s\"}\n", i % 2 ? "no" : "yes",
                filler, filler, filler);
    }
    for (int k = 0; k < 3; k++) {
        assert_int_equal(fclose(label[k]), 0);
    }
    assert_int_equal(fclose(f), 0);
}

static void put_gqa(int n) {
    FILE *f = create("llava_gqa_testdev_balanced_qwen_format.jsonl");
    FILE *gold = create("testdev_balanced_questions.json");
    for (int i = 0; i < n; i++) {
        fprintf(f, "{\"question_id\": \"%d\", \"image\": \"%s\", \"question\": \"What?\"}\n",
                (i * 7) % n, filler);
        fprintf(gold,
                "%s\"%d\": {\"answer\": \"cat\", \"isBalanced\": true, \"question\": \"%s\", "
                "\"types\": {\"structural\": \"query\", \"semantic\": \"obj\"}}",
                i ? ",\n" : "{", i, filler);
    }
    fputs("}\n", gold);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(fclose(gold), 0);
}

// Answers to the questions from `first` on in strides of `step`, which has no divisor with n.
static void put_answers(const struct mm_bench *bench, int n, int step) {
    FILE *f = create("said.jsonl");
    const bool kit = bench == &mm_bench_pope || bench == &mm_bench_gqa;
    for (int k = 0; k < n; k++) {
        const int i = (int)((int64_t)k * step % n);
        const int index = bench == &mm_bench_mmbench ? i % (n / 4) + i / (n / 4) * 1000000 : i;
        fprintf(f, "{\"index\": \"%d\", \"prediction\": \"%s\", \"of\": \"%s\"}\n",
                kit ? (i * 7) % n : index, bench == &mm_bench_seed ? "A" : "Yes", filler);
    }
    assert_int_equal(fclose(f), 0);
}

// The peak of a process that scores, in KiB.
static long peak(const struct mm_bench *bench, int n, int step) {
    const bool kit = bench == &mm_bench_pope || bench == &mm_bench_gqa;
    if (bench == &mm_bench_pope) put_pope(n);
    if (bench == &mm_bench_gqa) put_gqa(n);
    if (!kit) put_table(bench, n);
    put_answers(bench, n, step);
    char *data = kit ? mm_xstrdup(folder) : mm_path_join(folder, "data.tsv");
    char *said = mm_path_join(folder, "said.jsonl");
    const pid_t pid = fork();
    if (pid == 0) {
        const char *const files[] = {said, NULL};
        const struct mm_score_job job = {
            .bench = bench, .data = data, .predictions = files, .sort_room = 32 << 10};
        struct mm_report r;
        struct mm_error err;
        const enum mm_code code = mm_score_run(&job, &r, &err);
        if (code != mm_code_ok) fprintf(stderr, "%s\n", err.text);
        _exit(code == mm_code_ok && r.questions == n ? 0 : 1);
    }
    int status;
    struct rusage used;
    assert_int_equal(wait4(pid, &status, 0, &used), pid);
    assert_int_equal(status, 0);
    free(data);
    free(said);
    return used.ru_maxrss;
}

static void check(const struct mm_bench *bench) {
    for (int step = 1; step <= 4999; step += 4998) {
        const long small = peak(bench, few, step), large = peak(bench, many, step);
        if (large - small > allowed_kb) {
            fail_msg("%s: %ld KiB for %d questions, %ld for %d: %ld more, %d are allowed",
                     bench->title, small, few, large, many, large - small, (int)allowed_kb);
        }
    }
}

static void test_memory(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();  // they take memory of their own
#endif
    mm_log_set_level(mm_log_level_error);
    static const struct mm_bench *const benches[] = {&mm_bench_seed,    &mm_bench_mme,
                                                     &mm_bench_mmbench, &mm_bench_textvqa,
                                                     &mm_bench_pope,    &mm_bench_gqa};
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++) {
        check(benches[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
