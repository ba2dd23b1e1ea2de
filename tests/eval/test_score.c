// Scoring: each benchmark on a small file whose scores can be worked out by hand.
#include "cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "eval/score.h"
#include "io/file.h"
#include "io/json.h"

static char dir[] = "/tmp/mm_score_XXXXXX";
static struct mm_error err;
static struct mm_report report;

static int make(void **state) {
    (void)state;
    mm_log_set_level(mm_log_level_error);
    return mkdtemp(dir) == NULL;
}

static int clear(void **state) {
    (void)state;
    char *command = mm_xasprintf("rm -r '%s'", dir);
    const int status = system(command);
    free(command);
    return status;
}

static const char *put(const char *name, const char *text) {
    static char paths[64][128];
    static int next;
    char *path = paths[next++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return path;
}

// Predictions "index=text" one a line, as the file wants them.
static const char *said(const char *lines) {
    struct mm_buf out = {0};
    for (const char *p = lines; *p;) {
        const size_t key = strcspn(p, "="), all = strcspn(p, "\n");
        mm_buf_adds(&out, "{\"index\": ");
        mm_json_add_string(&out, p, key);
        mm_buf_adds(&out, ", \"prediction\": ");
        mm_json_add_string(&out, p + key + 1, all - key - 1);
        mm_buf_adds(&out, "}\n");
        p += all + (p[all] == '\n');
    }
    const char *path = put("predictions.jsonl", out.data ? out.data : "");
    mm_buf_free(&out);
    return path;
}

static const char *const *only(const char *path) {
    static const char *paths[2];
    paths[0] = path;
    return paths;
}

static enum mm_code score(const struct mm_bench *bench, const char *data, const char *predictions) {
    struct mm_score_job job = {.bench = bench, .data = data, .predictions = only(predictions)};
    mm_report_free(&report);
    return mm_score_run(&job, &report, &err);
}

static void good(const struct mm_bench *bench, const char *data, const char *predictions) {
    if (score(bench, data, predictions) != mm_code_ok) fail_msg("%s", err.text);
}

static void bad(const struct mm_bench *bench, const char *data, const char *predictions,
                const char *words) {
    assert_int_not_equal(score(bench, data, predictions), mm_code_ok);
    if (!strstr(err.text, words)) fail_msg("says '%s', must say '%s'", err.text, words);
}

static void is(const char *name, double wanted) {
    const double got = *name ? mm_report_get(&report, name) : report.headline;
    if (!(fabs(got - wanted) < 1e-9)) fail_msg("%s is %.12g, must be %.12g", name, got, wanted);
}

static void test_mme(void **state) {
    (void)state;
    const char *head = "index\timage\tquestion\tanswer\tcategory\timage_path\n";
    char text[1024];
    snprintf(text, sizeof text,
             "%s0\tx\tq\tYes\tcount\tc/1.jpg\n1\t0\tq\tNo\tcount\tc/1.jpg\n"
             "2\tx\tq\tYes\tcount\tc/2.jpg\n3\t2\tq\tNo\tcount\tc/2.jpg\n"
             "4\tx\tq\tYes\tcode_reasoning\tc/1.jpg\n5\t4\tq\tNo\tcode_reasoning\tc/1.jpg\n"
             "6\tx\tq\tYes\tmine\tm\n7\tx\tq\tNo\tmine\tm\n8\tx\tq\tNo\tmine\tm\n",
             head);
    const char *data = put("MME.tsv", text);
    good(&mm_bench_mme, data,
         said("0=Yes\n1=No.\n2=yes, it is\n3=Maybe\n4=no\n5=Yes\n6=YES\n7=no\n8=yes\n"));
    is("count", 75 + 50);
    is("code_reasoning", 0);
    is("mine", 100.0 * 2 / 3 + 100);  // only the first two questions make the pair
    is("perception", 125);
    is("reasoning", 0);
    is("", 125);
    assert_int_equal(report.questions, 9);
    assert_int_equal(report.unresolved, 1);
    // An answer that is exactly a missing value has been through the xlsx file: "nan".
    good(&mm_bench_mme, data, said("0=\n1=No\n2=Yes\n3=No\n4=Yes\n5=No\n6=Yes\n7=No\n8=No\n"));
    is("count", 75 + 50);
    is("code_reasoning", 200);
    snprintf(text, sizeof text, "%s0\tx\tq\tYes\tcount\tc/1.jpg\n", head);
    bad(&mm_bench_mme, put("one.tsv", text), said("0=Yes\n"), "has one question, two are wanted");
    bad(&mm_bench_mme, put("no.tsv", "index\tquestion\tanswer\tcategory\n0\tq\tYes\tcount\n"),
        said("0=Yes\n"), "no column 'image_path'");
}

static void test_pope_table(void **state) {
    (void)state;
    const char *data = put("POPE.tsv",
                           "index\timage\tquestion\tanswer\tcategory\n"
                           "0\tx\tq\tYes\trandom\n1\t0\tq\tNo\tpopular\n2\t0\tq\tNo\tadversarial\n"
                           "3\tx\tq\tNo\trandom\n4\t3\tq\tYes\tpopular\n5\t3\tq\tYes\tadversarial\n"
                           "6\tx\tq\tYes\trandom,popular\n");
    good(&mm_bench_pope, data, said("0=Yes\n1=No\n2=Yes\n3=No\n4=no\n5=yes\n6=dunno\n"));
    is("random/Accuracy", 100.0 * 2 / 3);
    is("random/Recall", 50);
    is("random/Precision", 100);
    is("random/F1 score", 100.0 * 2 / 3);
    is("random/Yes ratio", 100.0 / 3);
    is("popular/Accuracy", 100.0 / 3);
    is("popular/F1 score", 0);
    is("adversarial/F1 score", 100.0 * 2 / 3);
    // All rows, the last one twice: tp 2, fp 1, fn 3.
    is("Overall/Precision", 100.0 * 2 / 3);
    is("Overall/Recall", 40);
    is("", 50);
    assert_int_equal(report.unresolved, 1);
}

static void test_pope_kit(void **state) {
    (void)state;
    put("llava_pope_test.jsonl",
        "{\"question_id\": 7, \"image\": \"a.jpg\", \"text\": \"q\", \"category\": \"random\"}\n"
        "{\"question_id\": 8, \"image\": \"a.jpg\", \"text\": \"q\", \"category\": \"popular\"}\n"
        "{\"question_id\": 9, \"image\": \"a.jpg\", \"text\": \"q\", \"category\": \"random\"}\n"
        "{\"question_id\": 10, \"image\": \"a.jpg\", \"text\": \"q\", \"category\": "
        "\"adversarial\"}\n"
        "{\"question_id\": 11, \"image\": \"a.jpg\", \"text\": \"q\", \"category\": \"random\"}\n");
    // The ids of the labels are others: the order counts. One label of random is lacking.
    put("coco_pope_random.json", "{\"question_id\": 1, \"label\": \"yes\"}\n{\"label\": \"no\"}\n");
    put("coco_pope_popular.json", "{\"label\": \"no\"}\n");
    put("coco_pope_adversarial.json", "{\"label\": \"yes\"}\n");
    good(&mm_bench_pope, dir, said("7=Yes\n8=Yes, no\n9=No\n10=isn't\n11=Yes\n"));
    is("random/Accuracy", 100);
    is("random/F1 score", 100);
    is("random/Yes ratio", 100.0 * 2 / 3);
    is("popular/F1 score", 0);
    is("popular/Accuracy", 100);
    is("adversarial/F1 score", 100);
    is("", 100.0 * 2 / 3);
    is("Overall/Accuracy", 100);
    bad(&mm_bench_pope, dir, said("7=Yes\n8=no\n9=no\n10=no\n11=no\n12=x\n"),
        "index '12' is of no");
    put("coco_pope_random.json",
        "{\"label\": \"yes\"}\n{\"label\": \"no\"}\n{}\n");  // one is needed
    bad(&mm_bench_pope, dir, said("7=Yes\n8=no\n9=no\n10=no\n"),
        "coco_pope_random.json: line 3: 'label' is missing");
    put("coco_pope_popular.json", "{\"label\": 1}\n");
    bad(&mm_bench_pope, dir, said("7=Yes\n"), "coco_pope_popular.json: line 1: 'label' is 1");
    bad(&mm_bench_sqa, dir, said("7=Yes\n"), "is a folder");
}

static void test_choice(void **state) {
    (void)state;
    const char *data =
        put("ScienceQA_TEST.tsv",
            "index\timage\tquestion\thint\tA\tB\tC\tanswer\tcategory\tl2-category\tsplit\n"
            "3\tx\tq\t\tRed\tDark red\tNone\tA\tcolour\tnatural\ttest\n"
            "1\tx\tq\th\tcat\tdog\tbird\tC\tanimal\tnatural\ttest\n"
            "2\tx\tq\t\tcat\tdog\tnone\tC\tanimal\tnatural\ttest\n"
            "4\t\tq\t\tcat\tdog\tbird\tB\tanimal\tnatural\ttest\n");
    // red: in one option only, "None" being no option; 4 has no picture and was not asked.
    good(&mm_bench_sqa, data, said("3=red, or none\n1=bird and dog\n2=C.\n"));
    is("Overall", 100.0 * 2 / 3);
    is("colour", 100);
    is("animal", 50);
    is("natural", 100.0 * 2 / 3);
    is("", 100.0 * 2 / 3);
    assert_int_equal(report.unresolved, 1);
    assert_int_equal(report.questions, 3);
    assert_int_equal(report.missing_images, 1);
    // With pandas 1 "None" is an option's text, so that two of them are found.
    struct mm_score_job job = {.bench = &mm_bench_sqa,
                               .data = data,
                               .pandas1 = true,
                               .predictions = only(said("3=red, or none\n1=C\n2=C\n"))};
    mm_report_free(&report);
    assert_int_equal(mm_score_run(&job, &report, &err), mm_code_ok);
    is("colour", 0);
    // Several splits are told apart.
    data = put("splits.tsv",
               "index\tquestion\tA\tB\tanswer\tcategory\tsplit\n"
               "0\tq\tx\ty\tA\tk\tdev\n1\tq\tx\ty\tB\tk\tval\n2\tq\tx\ty\tB\tk\tval\n");
    good(&mm_bench_seed, data, said("2=B\n0=A\n1=A\n"));  // in another order
    is("dev/Overall", 100);
    is("val/Overall", 50);
    is("val/k", 50);
    is("", 100.0 * 2 / 3);
}

// What the kit's tables and its xlsx file do on the way.
static void test_kit_quirks(void **state) {
    (void)state;
    // A category named as an l2-category takes its place, in every split.
    const char *data = put("names.tsv",
                           "index\tquestion\tA\tB\tanswer\tcategory\tl2-category\tsplit\n"
                           "0\tq\tx\ty\tA\tk\tp\tdev\n1\tq\tx\ty\tB\tm\tk\tval\n");
    good(&mm_bench_seed, data, said("0=A\n1=B\n"));
    is("dev/k", 100);
    assert_true(isnan(mm_report_get(&report, "val/k")));
    // True in a column with holes reads back as 1.0; the row without picture makes no hole.
    data = put("holes.tsv",
               "index\timage\tquestion\tA\tB\tanswer\n"
               "0\tx\tq\tTrue\tTrue\tA\n1\tx\tq\tFalse\t\tA\n2\t\tq\t\tTrue\tA\n");
    good(&mm_bench_seed, data, said("0=it is true\n1=false\n"));
    is("Overall", 100);
    assert_int_equal(report.unresolved, 0);
    good(&mm_bench_seed, data, said("0=it is true or 1.0\n1=false\n"));
    is("Overall", 50);
}

static void test_mmbench(void **state) {
    (void)state;
    const char *data = put("MMBench.tsv",
                           "index\timage\tquestion\tA\tB\tanswer\tcategory\tl2-category\tsplit\n"
                           "1\tx\tq\tcat\tdog\tA\tc\tlogic_reasoning\tdev\n"
                           "2\tx\tq\tcat\tdog\tB\tc\tcoarse_perception\tdev\n"
                           "3\tx\tq\tcat\tdog\tA\td\tcoarse_perception\tdev\n"
                           "1000001\t1\tq\tdog\tcat\tB\tc\tlogic_reasoning\tdev\n"
                           "1000002\t2\tq\tdog\tcat\tA\tc\tcoarse_perception\tdev\n"
                           "1000003\t3\tq\tdog\tcat\tB\td\tcoarse_perception\tdev\n");
    // 1 is right twice; 2 wrong in one rotation; 3 unresolved in one.
    good(&mm_bench_mmbench, data,
         said("1=A\n2=B\n3=A\n1000001=cat\n1000002=B\n1000003=who knows\n"));
    is("Overall", 100.0 / 3);
    is("LR", 100);
    is("CP", 0);
    is("c", 50);
    is("d", 0);
    assert_int_equal(report.unresolved, 1);
    assert_int_equal(report.n_extras, 2);
    assert_string_equal(report.extras[0].name, "vanilla");
    assert_true(fabs(report.extras[0].value - 100) < 1e-9);
    bad(&mm_bench_mmbench, put("x.tsv", "index\tquestion\tA\tanswer\nx1\tq\ty\tA\n"),
        said("x1=A\n"), "line 2: column 'index': must be a whole number");
}

static void test_mmmu(void **state) {
    (void)state;
    const char *data = put("MMMU.tsv",
                           "index\tquestion\tA\tB\tC\tanswer\tcategory\tsplit\n"
                           "1\tq\t1\t2\t3\tB\tArt\tvalidation\n"
                           "2\tq\t\t\t\t3.5 kg\tArt\tvalidation\n"
                           "3\tq\t\t\t\t['24/7', '3.429']\tMath\tvalidation\n"
                           "4\tq\t\t7\t\tC\tMath\tdev\n"
                           "5\tq\t\t\t\t3.5 kg\tMath\tvalidation\n");
    good(&mm_bench_mmmu, data, said("1=B\n2=about 3.5 KG\n3=24/7\n4=it is C\n5=Other Answers\n"));
    is("validation/Overall", 50);
    is("validation/Art", 100);
    is("validation/Math", 0);
    is("dev/Overall", 0);  // its A is now the text "C", and its GT the letter C: never right
    is("", 50);
}

static void test_textvqa(void **state) {
    (void)state;
    struct mm_buf text = {0};
    mm_buf_adds(&text, "index\timage\tquestion\tanswer\n");
    for (int k = 0; k <= 5; k++) {  // k of ten say "Nike"
        mm_buf_addf(&text, "%d\tx\tq\t[", k);
        for (int i = 0; i < 10; i++) {
            if (i < k) mm_buf_addf(&text, "%s'Nike'", i ? ", " : "");
            if (i >= k) mm_buf_addf(&text, "%s\"it's %d\"", i ? ", " : "", i + 20);
        }
        mm_buf_adds(&text, "]\n");
    }
    mm_buf_adds(&text, "6\tx\tq\tnike\n7\tx\tq\t[]\n");
    const char *data = put("TextVQA.tsv", text.data);
    mm_buf_free(&text);
    static const double row[] = {0, 0.3, 0.6, 0.9, 1, 1, 0, 0};
    double sum = 0;
    char one[64];
    for (int k = 0; k < 8; k++) {
        char *file = mm_xasprintf("%d=the NIKE.\n", k);
        struct mm_score_job job = {
            .bench = &mm_bench_textvqa, .data = data, .predictions = only(said(file))};
        mm_report_free(&report);
        if (mm_score_run(&job, &report, &err) != mm_code_ok) fail_msg("%s", err.text);
        snprintf(one, sizeof one, "Overall");
        is(one, 100 * row[k]);
        assert_int_equal(report.unanswered, 7);
        sum += row[k];
        free(file);
    }
    good(&mm_bench_textvqa, data,
         said("0=nike\n1=nike\n2=nike\n3=nike\n4=nike\n5=nike\n6=nike\n7=nike\n"));
    is("", 100 * sum / 8);
    // "None" would be the number 0 if it had not gone through the xlsx file.
    data = put("none.tsv", "index\tquestion\tanswer\n0\tq\t['0','0','0','0','0']\n");
    good(&mm_bench_textvqa, data, said("0=None\n"));
    is("", 0);
    good(&mm_bench_textvqa, data, said("0=zero\n"));
    is("", 100);
}

static void test_gqa(void **state) {
    (void)state;
    const char *data = put("GQA.tsv",
                           "index\timage\tquestion\tanswer\tcategory\n"
                           "0\tx\tq\tdog\trelation\n1\tx\tq\tyes\tplace\n2\tx\tq\tred\tplace\n");
    good(&mm_bench_gqa, data, said("0=Dog..\n1=Yes.\n2=red car\n"));
    is("Accuracy", 100.0 * 2 / 3);
    is("category/place", 50);

    put("llava_gqa_testdev_balanced_qwen_format.jsonl",
        "{\"question_id\": \"1\", \"image\": \"a.jpg\", \"question\": \"q\", \"answer\": \"no\"}\n"
        "{\"question_id\": 2, \"image\": \"a.jpg\", \"question\": \"q\", \"answer\": \"no\"}\n"
        "{\"question_id\": \"3\", \"image\": \"b.jpg\", \"question\": \"q\", \"answer\": "
        "\"no\"}\n");
    good(&mm_bench_gqa, dir, said("1=No\n2=no.\n3=yes\n"));
    is("", 100.0 * 2 / 3);
    put("testdev_balanced_questions.json",
        "{\"1\": {\"answer\": \"yes\", \"isBalanced\": true, \"types\": {\"structural\": "
        "\"verify\", "
        "\"semantic\": \"rel\"}}, \"2\": {\"answer\": \"no\", \"isBalanced\": true, \"types\": "
        "{\"structural\": \"query\", \"semantic\": \"obj\"}}, \"3\": {\"answer\": \"no\", "
        "\"isBalanced\": false, \"types\": {}}}");
    good(&mm_bench_gqa, dir, said("1=No\n2=no.\n3=yes\n"));
    is("", 50);
    is("Binary", 0);
    is("Open", 100);
    is("structural/verify", 0);
    is("semantic/obj", 100);
    bad(&mm_bench_gqa, dir, said("1=No\n3=yes\n"), "question '2' has no prediction");
    good(&mm_bench_gqa, dir, said("3=yes\n2=no.\n1=No\n"));  // in another order
    is("", 50);
    put("testdev_balanced_questions.json",
        "{\"1\": {\"answer\": \"yes\", \"isBalanced\": true}, \"9\": {\"answer\": \"no\", "
        "\"isBalanced\": true}}");
    bad(&mm_bench_gqa, dir, said("1=No\n2=no.\n3=yes\n"), "question '9' has no prediction");
    put("testdev_balanced_questions.json",
        "{\"1\": {\"answer\": \"yes\", \"isBalanced\": true},\n\"2\": {\"isBalanced\": true}}");
    bad(&mm_bench_gqa, dir, said("1=No\n2=no.\n3=yes\n"), "question '2': 'answer' is missing");
    put("testdev_balanced_questions.json",
        "{\"1\": {\"answer\": \"yes\", \"isBalanced\": true},\n\"1\": {\"answer\": \"no\", "
        "\"isBalanced\": true}}");
    bad(&mm_bench_gqa, dir, said("1=No\n2=no.\n3=yes\n"),
        "question '1' is there twice, as number 1 and 2");
    put("testdev_balanced_questions.json",
        "{\"1\": {\"answer\": \"yes\",\n \"isBalanced\": truth}}");
    bad(&mm_bench_gqa, dir, said("1=No\n2=no.\n3=yes\n"), "line 2, column ");
    put("testdev_balanced_questions.json", "[1]");
    bad(&mm_bench_gqa, dir, said("1=No\n2=no.\n3=yes\n"), "must be an object of questions");
}

static void test_mmvet(void **state) {
    (void)state;
    const char *data = put("MMVet.tsv",
                           "index\timage\tquestion\tanswer\tcategory\n"
                           "0\tx\tq\ta\tocr,math\n1\tx\tq\ta\tocr\n2\tx\tq\ta\trec\n");
    good(&mm_bench_mmvet, data, said("0=x\n1=y\n2=z\n"));
    assert_false(report.has_headline);
    assert_int_equal(report.unresolved, 3);
    struct mm_score_job job = {
        .bench = &mm_bench_mmvet, .data = data, .predictions = only(said("0=x\n1=\"y\"\n2=z\n"))};
    static const char *const judges[] = {
        "{\"index\": 0, \"score\": 0.5}\n{\"index\": \"1\", \"score\": 1}\n{\"index\": 2, "
        "\"score\": 0}\n",
        "index\tscore\n0\t0.5\n1\t1\n2\t0.0\n"};
    for (int i = 0; i < 2; i++) {
        job.judge = put("judge", judges[i]);
        mm_report_free(&report);
        if (mm_score_run(&job, &report, &err) != mm_code_ok) fail_msg("%s", err.text);
        is("", 50);
        is("math", 50);
        is("ocr_math", 50);
        is("ocr", 100 * (0.5 + 1 + 1) / 3);  // a category of its own counts twice, as in the kit
        is("rec", 0);
        assert_int_equal(report.unresolved, 0);
    }
    job.judge = put("judge", "{\"index\": 0, \"score\": 1.5}\n");
    mm_report_free(&report);
    assert_int_equal(mm_score_run(&job, &report, &err), mm_code_input);
    assert_non_null(strstr(err.text, "line 1: score is 1.5"));
    const char *out = put("export.tsv", "");
    assert_int_equal(mm_score_export(&job, out, &err), mm_code_ok);
    struct mm_buf text = {0};
    assert_int_equal(mm_file_read(&text, out, 1 << 20, &err), mm_code_ok);
    assert_string_equal(text.data,
                        "index\tquestion\tanswer\tcategory\tprediction\n"
                        "0\tq\ta\tocr,math\tx\n1\tq\ta\tocr\t\"\"\"y\"\"\"\n2\tq\ta\trec\tz\n");
    mm_buf_reset(&text);
    out = put("export.json", "");
    assert_int_equal(mm_score_export(&job, out, &err), mm_code_ok);
    assert_int_equal(mm_file_read(&text, out, 1 << 20, &err), mm_code_ok);
    assert_string_equal(text.data,
                        "{\n\"v1_0\": \"x\",\n\"v1_1\": \"\\\"y\\\"\",\n\"v1_2\": \"z\"\n}\n");
    mm_buf_free(&text);
}

static void test_predictions(void **state) {
    (void)state;
    const char *data = put(
        "s.tsv", "index\tquestion\tA\tB\tanswer\n0\tq\tx\ty\tA\n1\tq\tx\ty\tB\n2\tq\tx\ty\tB\n");
    good(&mm_bench_seed, data,
         put("p",
             "{\"index\": 0, \"prediction\": \"A\"}\n\n"
             "{\"index\": \"1\", \"prediction\": \"\", \"missing_image\": "
             "true}\n{\"index\": 2, \"prediction\": \"B\"}"));
    is("", 100);
    assert_int_equal(report.missing_images, 1);
    assert_int_equal(report.questions, 2);
    good(
        &mm_bench_seed, data,  // a model without training says anything
        put("p",
            "{\"index\": 0, \"prediction\": \"\\u0000\\u0000\"}\n"
            "{\"index\": 1, \"prediction\": \"B\"}\n{\"index\": 2, \"prediction\": \"B\\u0000\"}"));
    assert_int_equal(report.questions, 3);
    bad(&mm_bench_seed, data, said("0=A\n1=A\n2=A\n3=A\n"), "line 4: index '3' is of no question");
    bad(&mm_bench_seed, data, said("1=A\n0=A\n7=A\n"), "index '7' is of no question");
    bad(&mm_bench_seed, data, said("1=A\n0=A\n1=B\n"),
        "line 3: index '1' has been answered before");
    bad(&mm_bench_seed, data, said("0=A\n0=A\n"), "'0' has been answered before");
    bad(&mm_bench_seed, data, put("p", ""), "has no prediction");
    bad(&mm_bench_seed, data, put("p", "{\"index\": 0}\n"), "line 1: 'prediction' is missing");
    bad(&mm_bench_seed, data, put("p", "{\"index\": 0, \"prediction\": \"A\"}\n{\"ind"), "line 2");
    bad(&mm_bench_seed, data, put("p", "{\"index\": 1.5, \"prediction\": \"A\"}\n"),
        "'index' is 1.5");
    bad(&mm_bench_seed, data, put("p", "[]\n"), "line 1: must be a JSON object");
    bad(&mm_bench_seed, put("t.tsv", "index\tquestion\n0\tq\n"), said("0=A\n"),
        "no column 'answer'");
    bad(&mm_bench_seed,
        put("t.tsv", "index\tquestion\tA\tanswer\n2\tq\tx\tA\n1\tq\tx\tA\n2\tq\tx\tA\n"),
        said("2=A\n1=A\n"), "line 4: column 'index': has been there before");
    struct mm_score_job job = {.bench = &mm_bench_seed,
                               .data = data,
                               .limit = 1,
                               .predictions = only(said("0=B\n1=B\n2=B\n"))};
    mm_report_free(&report);
    assert_int_equal(mm_score_run(&job, &report, &err), mm_code_ok);
    is("", 0);
}

// A judge's words about answers that no rule could read; about others they do not count.
static void test_judge(void **state) {
    (void)state;
    const char *data = put("s.tsv",
                           "index\tquestion\tA\tB\tanswer\n0\tq\tx\ty\tA\n1\tq\tx\ty\tB\n"
                           "2\tq\tx\ty\tB\n3\tq\tx\ty\tB\n");
    struct mm_score_job job = {.bench = &mm_bench_seed,
                               .data = data,
                               .predictions = only(said("0=hm\n1=hm\n2=A\n3=hm\n"))};
    static const char *const judges[] = {
        "{\"index\": 0, \"reply\": \"A\"}\n{\"index\": 1, \"reply\": \"It is Z.\"}\n"
        "{\"index\": \"2\", \"reply\": \"B\"}\n",
        "index\treply\n0\tA\n1\tIt is Z.\n2\tB\n"};
    for (int i = 0; i < 2; i++) {
        job.judge = put("judge", judges[i]);
        mm_report_free(&report);
        if (mm_score_run(&job, &report, &err) != mm_code_ok) fail_msg("%s", err.text);
        is("", 25);
        assert_int_equal(report.unresolved, 1);
    }
    job.judge = put("judge", "{\"index\": 0, \"reply\": 1}\n");
    mm_report_free(&report);
    assert_int_equal(mm_score_run(&job, &report, &err), mm_code_input);
    assert_non_null(strstr(err.text, "judge: line 1: 'reply' is 1"));
    job.judge = put("judge", "index\treply\n0\tA\n0\tB\n");
    assert_int_equal(mm_score_run(&job, &report, &err), mm_code_input);
    assert_non_null(strstr(err.text, "judge: line 3: index '0' has been judged before"));
    job = (struct mm_score_job){
        .bench = &mm_bench_pope,
        .data = put("p.tsv", "index\tquestion\tanswer\tcategory\n0\tq\tYes\trandom\n"),
        .predictions = only(said("0=surely\n")),
        .judge = put("judge", "{\"index\": 0, \"reply\": \"Yes\"}\n")};
    assert_int_equal(mm_score_run(&job, &report, &err), mm_code_ok);
    is("", 100);
    assert_int_equal(report.unresolved, 0);
}

static void test_unresolved_file(void **state) {
    (void)state;
    const char *data = put("s.tsv", "index\tquestion\tA\tB\tanswer\n0\t\"q \"\"1\"\"\"\tx\ty\tA\n");
    const char *out = put("unresolved", "");
    struct mm_score_job job = {.bench = &mm_bench_seed,
                               .data = data,
                               .unresolved = out,
                               .predictions = only(said("0=hm\n"))};
    mm_report_free(&report);
    assert_int_equal(mm_score_run(&job, &report, &err), mm_code_ok);
    struct mm_buf text = {0};
    assert_int_equal(mm_file_read(&text, out, 1 << 20, &err), mm_code_ok);
    assert_string_equal(text.data,
                        "{\"index\": \"0\", \"question\": \"q \\\"1\\\"\", \"options\": {\"A\": "
                        "\"x\", \"B\": \"y\"}, \"prediction\": \"hm\"}\n");
    mm_buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mme),         cmocka_unit_test(test_pope_table),
        cmocka_unit_test(test_pope_kit),    cmocka_unit_test(test_choice),
        cmocka_unit_test(test_kit_quirks),  cmocka_unit_test(test_mmbench),
        cmocka_unit_test(test_mmmu),        cmocka_unit_test(test_textvqa),
        cmocka_unit_test(test_gqa),         cmocka_unit_test(test_mmvet),
        cmocka_unit_test(test_predictions), cmocka_unit_test(test_unresolved_file),
        cmocka_unit_test(test_judge),
    };
    const int status = cmocka_run_group_tests(tests, make, clear);
    mm_report_free(&report);
    return status;
}
