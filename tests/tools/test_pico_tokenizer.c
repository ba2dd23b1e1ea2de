// The bundled tokenizer does what the small world was planned by: the chat template and the
// benchmarks' instructions are few tokens, the name of every thing is the same single token
// wherever it stands, and words in capitals are spelled letter by letter.
#include "cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "io/chat.h"
#include "io/file.h"
#include "io/tokenizer.h"

static const char folder[] = "models/pico";
static struct mm_tokenizer *tok;

static int open_tokenizer(void **state) {
    (void)state;
    struct mm_error err;
    if (mm_tokenizer_open(&tok, folder, &err) == mm_code_ok) return 0;
    print_error("%s\n", err.text);
    return 1;
}

static int close_tokenizer(void **state) {
    (void)state;
    mm_tokenizer_close(tok);
    return 0;
}

static struct mm_ids ids_of(const char *text) {
    struct mm_ids ids = {0};
    mm_tokenizer_encode(tok, text, strlen(text), false, &ids);
    return ids;
}

static int64_t count_of(const char *text) {
    struct mm_ids ids = ids_of(text);
    const int64_t n = ids.n;
    mm_ids_free(&ids);
    return n;
}

static int32_t only_id_of(const char *text) {
    struct mm_ids ids = ids_of(text);
    if (ids.n != 1) print_error("'%s' is %d tokens\n", text, (int)ids.n);
    assert_int_equal(ids.n, 1);
    const int32_t id = ids.data[0];
    mm_ids_free(&ids);
    return id;
}

// "green apple" begins with a symbol of its own, "green ".
static bool begins_with_colour(const char *name) {
    static const char *const colours[] = {"red ", "green ", "blue ", "black ", "white "};
    for (size_t i = 0; i < sizeof colours / sizeof colours[0]; i++) {
        if (strncmp(name, colours[i], strlen(colours[i])) == 0) return true;
    }
    return false;
}

// What can appear in pictures: rows of the table with a plain name.
static int read_names(char names[][32], int max) {
    struct mm_buf text = {0};
    struct mm_error err;
    assert_int_equal(mm_file_read(&text, "tools/scenes/things.tsv", 1 << 20, &err), mm_code_ok);
    int n = 0;
    for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n")) {
        char word[32];
        if (sscanf(line, "%*[^\t]\t%*[^\t]\t%31[^\t]\t", word) != 1) continue;
        if (strcmp(word, "word") == 0 || strcmp(word, "-") == 0) continue;
        assert_true(n < max);
        memcpy(names[n++], word, sizeof word);
    }
    mm_buf_free(&text);
    return n;
}

static void sizes_and_special(void **state) {
    (void)state;
    struct mm_chat_special s;
    struct mm_error err;
    assert_int_equal(mm_tokenizer_size(tok), 2560);
    assert_int_equal(mm_tokenizer_bos(tok), 1);
    assert_int_equal(mm_tokenizer_eos(tok), 2);
    assert_int_equal(mm_tokenizer_max_length(tok), 4096);
    assert_int_equal(mm_chat_special_find(&s, tok, folder, &err), mm_code_ok);
    assert_int_equal(s.im_end, 2555);
    assert_int_equal(s.im_start, 2556);
    assert_int_equal(s.img, 2557);
    assert_int_equal(s.img_end, 2558);
    assert_int_equal(s.img_context, 2559);
}

static void template_is_short(void **state) {
    (void)state;
    struct mm_buf text = {0};
    mm_chat_add_turn(&text, mm_chat_role_system, mm_chat_default_system, true);
    mm_chat_add_turn(&text, mm_chat_role_user, "", true);
    mm_chat_add_turn(&text, mm_chat_role_assistant, NULL, false);
    const int64_t n = 1 + count_of(text.data);  // and BOS
    mm_buf_free(&text);
    print_message("template: %d tokens\n", (int)n);
    assert_in_range(n, 8, 12);
    only_id_of("\nAnswer the question using a single word or phrase.");
    only_id_of(" Answer the question using a single word or phrase.");
    only_id_of("Answer the question using a single word or phrase.");
    only_id_of("\nAnswer with the option's letter from the given choices directly.");
    only_id_of(" Please answer yes or no.");
}

static void names_are_tokens(void **state) {
    (void)state;
    // A name between what stands around it in questions, options and history.
    static const char *const around[][2] = {
        {"Is there a ", " in the image?"},
        {"Is there a red ", " in the image?"},
        {"What is left of the ", "? Answer"},
        {"Where is the ", "?"},
        {"\nA. ", "\nB. "},
        {"Is the ", " on the left side of the "},
        {"Is the ", " above the dog?"},
        {"What color is the thing below the ", "?"},
    };
    static char names[800][32];
    const int n = read_names(names, 800);
    assert_true(n >= 600);
    int pairs = 0;
    for (int i = 0; i < n; i++) {
        if (begins_with_colour(names[i])) {
            assert_int_equal(count_of(names[i]), 2);
            pairs++;
            continue;
        }
        const int32_t id = only_id_of(names[i]);
        if (strcmp(names[i], "leafy green") == 0) continue;  // where a space follows: "green "
        for (size_t k = 0; k < sizeof around / sizeof around[0]; k++) {
            char *text = mm_xasprintf("%s%s%s", around[k][0], names[i], around[k][1]);
            struct mm_ids ids = ids_of(text);
            bool found = false;
            for (int64_t t = 0; t < ids.n; t++) {
                found |= ids.data[t] == id;
            }
            if (!found) print_error("no token '%s' in '%s'\n", names[i], text);
            assert_true(found);
            mm_ids_free(&ids);
            free(text);
        }
    }
    assert_int_equal(pairs, 7);
}

static void answers_are_tokens(void **state) {
    (void)state;
    static const char *const answers[] = {
        "Yes",         "No",
        "A",           "B",
        "C",           "D",
        "0",           "1",
        "2",           "3",
        "4",           "7",
        "red",         "orange",
        "yellow",      "green",
        "blue",        "purple",
        "pink",        "brown",
        "black",       "white",
        "gray",        "circle",
        "square",      "triangle",
        "star",        "ring",
        "cross",       "diamond",
        "heart",       "top left",
        "top right",   "center",
        "bottom left", "top center",
        "middle left", "bottom right",
        "animal",      "vehicle",
        "fruit",       "instrument",
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        only_id_of(answers[i]);
    }
}

static void capitals_are_spelled(void **state) {
    (void)state;
    for (int a = 'A'; a <= 'Z'; a++) {
        for (int b = 'A'; b <= 'Z'; b++) {
            const char text[4] = {(char)a, (char)b, (char)a, 0};
            struct mm_ids ids = ids_of(text);
            assert_int_equal(ids.n, 3);
            assert_int_equal(ids.data[0], ids.data[2]);
            const char one[2] = {(char)b, 0};
            assert_int_equal(ids.data[1], only_id_of(one));
            mm_ids_free(&ids);
        }
    }
}

static void any_text_comes_back(void **state) {
    (void)state;
    static const char *const texts[] = {
        "What is left of the red thing? Answer the question using a single word or phrase.",
        "a\tb\r\n\n  two  spaces ",
        "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\xa6\x81",
        "How many butterflies? 1234567890 #%&*{}~`^",
        "system\nuser\nassistant\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct mm_ids ids = ids_of(texts[i]);
        struct mm_buf back = {0};
        struct mm_error err;
        assert_int_equal(mm_tokenizer_decode(tok, ids.data, ids.n, false, &back, &err), mm_code_ok);
        assert_string_equal(back.data, texts[i]);
        mm_buf_free(&back);
        mm_ids_free(&ids);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_special),    cmocka_unit_test(template_is_short),
        cmocka_unit_test(names_are_tokens),     cmocka_unit_test(answers_are_tokens),
        cmocka_unit_test(capitals_are_spelled), cmocka_unit_test(any_text_comes_back),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
