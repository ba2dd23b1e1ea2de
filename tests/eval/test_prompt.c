// Prompts, letter by letter.
#include "cmocka_all.h"

#include <stdlib.h>
#include "eval/prompt.h"
#include "io/chat.h"
#include "io/json.h"

static void is(const struct mm_bench *bench, const struct mm_question *q, bool kit, int n,
               const char *wanted) {
    struct mm_buf out = {0};
    mm_prompt_message(bench, q, kit, n, &out);
    assert_string_equal(out.data, wanted);
    mm_buf_free(&out);
}

#define WORD "Answer the question using a single word or phrase."

static void test_words(void **state) {
    (void)state;
    const struct mm_question q = {.text = mm_str_of("Is it? Please answer yes or no.")};
    is(&mm_bench_mme, &q, false, 1, "<image>\nIs it? Please answer yes or no." WORD);
    is(&mm_bench_pope, &q, false, 1, "<image>\nIs it?\n" WORD);
    is(&mm_bench_gqa, &q, false, 1, "<image>\nIs it? Please answer yes or no. " WORD);
    is(&mm_bench_textvqa, &q, false, 1, "<image>\nIs it? Please answer yes or no.\n" WORD);
    is(&mm_bench_mmvet, &q, false, 1, "<image>\nIs it? Please answer yes or no.");
    const struct mm_question kit = {.text = mm_str_of(" Is it?\n" WORD "\n")};
    is(&mm_bench_pope, &kit, true, 1, "<image>\nIs it?\n" WORD);
    const struct mm_question twice = {
        .text = mm_str_of("A Please answer yes or no. Please answer yes or no.B")};
    is(&mm_bench_pope, &twice, false, 1, "<image>\nAB\n" WORD);
}

// What the kits would not ask, or ask oddly.
static void test_odd(void **state) {
    (void)state;
    const struct mm_question bare = {.text = mm_str_of("Is it?")};
    const struct mm_question whole = {.text = mm_str_of("Is it?\n" WORD)};
    assert_non_null(mm_prompt_wrong(&mm_bench_pope, &bare, true));
    assert_null(mm_prompt_wrong(&mm_bench_pope, &bare, false));
    assert_null(mm_prompt_wrong(&mm_bench_pope, &whole, true));
    assert_null(mm_prompt_wrong(&mm_bench_gqa, &bare, true));
    assert_true(mm_prompt_is_doubled(&mm_bench_gqa, &whole));
    assert_false(mm_prompt_is_doubled(&mm_bench_gqa, &bare));
    assert_false(mm_prompt_is_doubled(&mm_bench_pope, &whole));
}

static void test_choice(void **state) {
    (void)state;
    struct mm_question q = {.text = mm_str_of(" Which? ")};
    is(&mm_bench_mmmu, &q, false, 1, "<image>\n Which? \nAnswer the question directly.");
    q.options.text[0] = mm_str_of("cat");
    q.options.text[2] = mm_str_of(" 5.0");
    is(&mm_bench_sqa, &q, false, 1,
       "<image>\n Which? \nA. cat\nC.  5.0\nAnswer with the option's letter from the given choices "
       "directly.");
    q.hint = mm_str_of("Look.");
    is(&mm_bench_seed, &q, false, 1,
       "<image>\nLook.\n Which? \nA. cat\nC.  5.0\nAnswer with the option's letter from the given "
       "choices directly.");
    q.options.text[2] = mm_str_of("猫");
    is(&mm_bench_mmbench, &q, false, 1,
       "<image>\nLook.\n Which? \nA. cat\nC. 猫\n请直接回答选项字母。");
    const struct mm_question open = {.text = mm_str_of("猫?")};
    is(&mm_bench_mmmu, &open, false, 1, "<image>\n猫?\n请直接回答问题。");
    const struct mm_question kana = {.text = mm_str_of("ねこ?")};
    is(&mm_bench_mmmu, &kana, false, 1, "<image>\nねこ?\nAnswer the question directly.");
}

static void test_pictures(void **state) {
    (void)state;
    const struct mm_question q = {.text = mm_str_of("In <image 1>?")};
    is(&mm_bench_mmvet, &q, false, 0, "\nIn <image 1>?");
    is(&mm_bench_mmvet, &q, false, 1, "<image>\nIn <image 1>?");
    is(&mm_bench_mmvet, &q, false, 3,
       "Image-1: <image>\nImage-2: <image>\nImage-3: <image>\nIn <image 1>?"
       "<Image-1><Image-2><Image-3>");
}

// The whole prompt as the published chat() makes it, by its own template.
static void test_template(void **state) {
    (void)state;
    struct mm_error err;
    json_t *t = NULL;
    assert_int_equal(mm_json_load(&t, "tests/golden/eval/chat_template.json", &err), mm_code_ok);
    const char *part[5];
    static const char *const names[] = {"system_prefix", "system_message", "sep", "user",
                                        "assistant"};
    for (int i = 0; i < 5; i++) {
        part[i] = json_string_value(json_object_get(t, names[i]));
        assert_non_null(part[i]);
    }
    char *wanted = mm_xasprintf("%s%s%s%s%s%s%s", part[0], part[1], part[2], part[3],
                                "<image>\nIs it?", part[2], part[4]);
    struct mm_buf out = {0};
    mm_chat_add_turn(&out, mm_chat_role_system, mm_chat_default_system, true);
    mm_chat_add_turn(&out, mm_chat_role_user, "<image>\nIs it?", true);
    mm_chat_add_turn(&out, mm_chat_role_assistant, NULL, false);
    assert_string_equal(out.data, wanted);
    mm_buf_free(&out);
    free(wanted);
    json_decref(t);
}

static void test_settings(void **state) {
    (void)state;
    static const char *const names[] = {"mme",     "mmbench", "seed", "mmmu", "mmvet",
                                        "textvqa", "sqa",     "pope", "gqa"};
    for (int i = 0; i < 9; i++) {
        const struct mm_bench *b;
        assert_int_equal(mm_bench_find(&b, names[i], NULL), mm_code_ok);
        assert_int_equal(b->max_tiles, i == 3 ? 12 : 6);
        assert_int_equal(b->twice_as_large, i == 3);
        assert_int_equal(b->max_new_tokens[0], i == 8 ? 10 : 1024);
        assert_int_equal(b->has_kit, i >= 7);
    }
    assert_int_equal(mm_bench_pope.max_new_tokens[1], 100);
    assert_int_equal(mm_bench_gqa.max_new_tokens[1], 10);
    assert_true(mm_bench_pope.never_empty[1] && mm_bench_gqa.never_empty[1]);
    const struct mm_bench *none;
    assert_int_equal(mm_bench_find(&none, "vqav2", NULL), mm_code_usage);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),    cmocka_unit_test(test_odd),
        cmocka_unit_test(test_choice),   cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_template), cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
