// The chat template and the expansion of pictures.
#include <stdio.h>
#include <string.h>
#include "cmocka_all.h"
#include "io/chat.h"

static struct mm_error err;

static void test_conversation(void **state) {
    (void)state;
    struct mm_buf b = {NULL, 0, 0};
    mm_chat_add_turn(&b, mm_chat_role_system, mm_chat_default_system, true);
    mm_chat_add_turn(&b, mm_chat_role_user, "<image>\nWhat is this?", true);
    mm_chat_add_turn(&b, mm_chat_role_assistant, "A bus.", true);
    mm_chat_add_turn(&b, mm_chat_role_user, "Which colour?", true);
    mm_chat_add_turn(&b, mm_chat_role_assistant, NULL, false);
    assert_string_equal(
        b.data,
        "<|im_start|>system\n"
        "\xE4\xBD\xA0\xE6\x98\xAF\xE7\x94\xB1\xE4\xB8\x8A\xE6\xB5\xB7\xE4\xBA\xBA\xE5\xB7\xA5"
        "\xE6\x99\xBA\xE8\x83\xBD\xE5\xAE\x9E\xE9\xAA\x8C\xE5\xAE\xA4\xE8\x81\x94\xE5\x90\x88"
        "\xE5\x95\x86\xE6\xB1\xA4\xE7\xA7\x91\xE6\x8A\x80\xE5\xBC\x80\xE5\x8F\x91\xE7\x9A\x84"
        "\xE4\xB9\xA6\xE7\x94\x9F\xE5\xA4\x9A\xE6\xA8\xA1\xE6\x80\x81\xE5\xA4\xA7\xE6\xA8\xA1"
        "\xE5\x9E\x8B\xEF\xBC\x8C\xE8\x8B\xB1\xE6\x96\x87\xE5\x90\x8D\xE5\x8F\xABInternVL, "
        "\xE6\x98\xAF\xE4\xB8\x80\xE4\xB8\xAA\xE6\x9C\x89\xE7\x94\xA8\xE6\x97\xA0\xE5\xAE\xB3"
        "\xE7\x9A\x84\xE4\xBA\xBA\xE5\xB7\xA5\xE6\x99\xBA\xE8\x83\xBD\xE5\x8A\xA9\xE6\x89\x8B"
        "\xE3\x80\x82<|im_end|><|im_start|>user\n<image>\nWhat is this?<|im_end|>"
        "<|im_start|>assistant\nA bus.<|im_end|><|im_start|>user\nWhich colour?<|im_end|>"
        "<|im_start|>assistant\n");
    mm_buf_free(&b);
}

// The template closes an empty system message, and leaves another role's open.
static void test_empty_turns(void **state) {
    (void)state;
    struct mm_buf b = {NULL, 0, 0};
    mm_chat_add_turn(&b, mm_chat_role_system, "", true);
    mm_chat_add_turn(&b, mm_chat_role_user, "", true);
    mm_chat_add_turn(&b, mm_chat_role_assistant, "x", false);
    assert_string_equal(b.data,
                        "<|im_start|>system\n<|im_end|><|im_start|>user\n<|im_start|>assistant\nx");
    mm_buf_free(&b);
}

static void test_expand(void **state) {
    (void)state;
    struct mm_buf b = {NULL, 0, 0};
    const int32_t tiles[] = {1, 2};
    assert_int_equal(mm_chat_expand_images(&b, "<image><image>\n<imag", tiles, 2, 2, "s", &err),
                     mm_code_ok);
    assert_string_equal(b.data,
                        "<img><IMG_CONTEXT><IMG_CONTEXT></img>"
                        "<img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>\n<imag");
    mm_buf_reset(&b);
    assert_int_equal(mm_chat_expand_images(&b, "none", NULL, 0, 2, "s", &err), mm_code_ok);
    assert_string_equal(b.data, "none");
    mm_buf_free(&b);
}

static void test_expand_refuses(void **state) {
    (void)state;
    struct mm_buf b = {NULL, 0, 0};
    const int32_t tiles[] = {1, 1};
    assert_int_equal(mm_chat_expand_images(&b, "a <image>", tiles, 2, 4, "d.jsonl:7", &err),
                     mm_code_input);
    assert_string_equal(err.text, "d.jsonl:7: the text has 1 <image>, with 2 pictures given");
    assert_int_equal(mm_chat_expand_images(&b, "<image> <image>", tiles, 1, 4, "x", &err),
                     mm_code_input);
    assert_int_equal(b.len, 0);
    mm_buf_free(&b);
}

static void test_special(void **state) {
    (void)state;
    struct mm_tokenizer *t;
    struct mm_chat_special s;
    assert_int_equal(mm_tokenizer_open(&t, "tests/golden/tokenizer", &err), mm_code_ok);
    assert_int_equal(mm_chat_special_find(&s, t, "golden", &err), mm_code_ok);
    assert_int_equal(s.im_end, 900);
    assert_int_equal(s.im_start, 901);
    assert_int_equal(s.img, 902);
    assert_int_equal(s.img_end, 903);
    assert_int_equal(s.img_context, 904);
    mm_tokenizer_close(t);
    struct mm_buf model = {NULL, 0, 0};
    FILE *f = fopen("tests/golden/tokenizer/tokenizer.model", "rb");
    char chunk[4096];
    for (size_t got; (got = fread(chunk, 1, sizeof chunk, f)) > 0;) {
        mm_buf_add(&model, chunk, got);
    }
    fclose(f);
    assert_int_equal(mm_tokenizer_open_memory(&t, model.data, model.len, NULL, 0, "bare", &err),
                     mm_code_ok);
    assert_int_equal(mm_chat_special_find(&s, t, "bare", &err), mm_code_input);
    assert_non_null(strstr(err.text, "bare: the tokenizer has no special token '<|im_start|>'"));
    mm_tokenizer_close(t);
    mm_buf_free(&model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversation), cmocka_unit_test(test_empty_turns),
        cmocka_unit_test(test_expand),       cmocka_unit_test(test_expand_refuses),
        cmocka_unit_test(test_special),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
