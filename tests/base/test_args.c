// Command lines: what is understood, and what each wrong one is answered.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/args.h"
#include "cmocka_all.h"

static const struct mm_opt opts[] = {
    {"--image,-i", mm_opt_kind_string, "FILE", "a picture", NULL, 0, 0, true},
    {"--prompt,-p", mm_opt_kind_string, "TEXT", "what to ask", NULL, 0, 0, false},
    {"--new", mm_opt_kind_int, "N", "tokens", "64", 1, 4096, false},
    {"--any", mm_opt_kind_int, "N", "any number", NULL, 0, 0, false},
    {"--heat", mm_opt_kind_float, "X", "temperature", "0.5", 0, 2, false},
    {"--json", mm_opt_kind_flag, NULL, "JSON", NULL, 0, 0, false},
    {"--help,-h", mm_opt_kind_flag, NULL, "this text", NULL, 0, 0, false},
    {NULL, mm_opt_kind_flag, NULL, NULL, NULL, 0, 0, false},
};

enum { max_argv = 16 };
static struct mm_error err;

// Splits at '|' and parses.
static enum mm_code parse(struct mm_args **a, const char *line, bool *help) {
    static char copy[256];
    static char *argv[max_argv];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *s = copy; s && *line; argc++) {
        assert_true(argc < max_argv);
        argv[argc] = s;
        s = strchr(s, '|');
        if (s) *s++ = '\0';
    }
    memset(&err, 0, sizeof err);
    return mm_args_parse(a, opts, argc, argv, help, &err);
}

static void all_forms(void **state) {
    (void)state;
    struct mm_args *a;
    bool help;
    assert_int_equal(parse(&a,
                           "model|--image|a.png|-i|b.png|--image=c=d.png|-p=-x|--new|7|--heat=-0|--"
                           "json|-|--|--new",
                           &help),
                     mm_code_ok);
    assert_false(help);
    assert_int_equal(mm_args_count(a, "--image"), 3);
    assert_string_equal(mm_args_nth(a, "-i", 0), "a.png");
    assert_string_equal(mm_args_nth(a, "--image", 2), "c=d.png");
    assert_string_equal(mm_args_string(a, "--prompt"), "-x");
    assert_int_equal(mm_args_int(a, "--new"), 7);
    assert_true(mm_args_float(a, "--heat") == 0.0);
    assert_true(mm_args_flag(a, "--json"));
    assert_int_equal(mm_args_n_positional(a), 3);
    assert_string_equal(mm_args_positional(a, 0), "model");
    assert_string_equal(mm_args_positional(a, 1), "-");
    assert_string_equal(mm_args_positional(a, 2), "--new");
    assert_null(mm_args_positional(a, 3));
    mm_args_free(a);
}

static void defaults(void **state) {
    (void)state;
    struct mm_args *a;
    bool help;
    assert_int_equal(parse(&a, "", &help), mm_code_ok);
    assert_int_equal(mm_args_int(a, "--new"), 64);
    assert_true(mm_args_float(a, "--heat") == 0.5);
    assert_false(mm_args_given(a, "--new"));
    assert_false(mm_args_flag(a, "--json"));
    assert_null(mm_args_string(a, "--prompt"));
    assert_int_equal(mm_args_count(a, "--image"), 0);
    assert_int_equal(mm_args_n_positional(a), 0);
    mm_args_free(a);
    // A default is not "given twice" when it is given once, and any text may be a value.
    assert_int_equal(parse(&a, "--new|64|--prompt|--hi there", &help), mm_code_ok);
    assert_true(mm_args_given(a, "--new"));
    assert_string_equal(mm_args_string(a, "-p"), "--hi there");
    mm_args_free(a);
    assert_int_equal(parse(&a, "--any|-9223372036854775808|--prompt=", &help), mm_code_ok);
    assert_true(mm_args_int(a, "--any") == INT64_MIN);
    assert_string_equal(mm_args_string(a, "-p"), "");
    mm_args_free(a);
}

static void wrong_ones(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"--jsno", "unknown option --jsno; did you mean --json?"},
        {"--imgae=x", "unknown option --imgae; did you mean --image?"},
        {"--quantum-flux", "unknown option --quantum-flux; --help lists the options"},
        {"-x", "unknown option -x"},
        {"-5", "unknown option -5"},
        {"--new", "--new wants a value: N"},
        {"-p|--json", "--prompt wants a value: TEXT"},
        {"-p|-i|x", "--prompt wants a value: TEXT"},
        {"-p|--", "--prompt wants a value: TEXT"},
        {"--new|x", "--new is 'x', must be a whole number"},
        {"--new|1.5", "--new is '1.5', must be a whole number"},
        {"--new=", "--new is '', must be a whole number"},
        {"--new|7 ", "--new is '7 ', must be a whole number"},
        {"--new|99999999999999999999", "must be a whole number"},
        {"--new|0", "--new is 0, must be 1 to 4096"},
        {"--new|4097", "--new is 4097, must be 1 to 4096"},
        {"--heat|2.5", "--heat is 2.5, must be 0 to 2"},
        {"--heat|nan", "--heat is 'nan', must be a number"},
        {"--heat|inf", "--heat is 'inf', must be a number"},
        {"--heat|1,5", "--heat is '1,5', must be a number"},
        {"--json=yes", "--json takes no value"},
        {"--json|--json", "--json is given twice"},
        {"-p|a|--prompt|b", "--prompt is given twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mm_args *a;
        bool help;
        assert_int_equal(parse(&a, cases[i][0], &help), mm_code_usage);
        assert_null(a);
        if (!strstr(err.text, cases[i][1])) fail_msg("%s: %s", cases[i][0], err.text);
    }
}

static void refusing(void **state) {
    (void)state;
    struct mm_args *a;
    bool help;
    assert_int_equal(parse(&a, "--new|5", &help), mm_code_ok);
    assert_int_equal(mm_args_refuse(a, "--heat", "x", &err), mm_code_ok);
    assert_int_equal(mm_args_refuse(a, "--new", "nothing is generated", &err), mm_code_usage);
    assert_string_equal(err.text, "--new has no effect here: nothing is generated");
    mm_args_free(a);
}

static void help_wins(void **state) {
    (void)state;
    struct mm_args *a;
    bool help;
    assert_int_equal(parse(&a, "--rubbish|-h", &help), mm_code_ok);
    assert_true(help);
    assert_null(a);
    assert_int_equal(parse(&a, "--|--help", &help), mm_code_ok);
    assert_false(help);
    assert_string_equal(mm_args_positional(a, 0), "--help");
    mm_args_free(a);
    mm_args_free(NULL);
}

static void help_text(void **state) {
    (void)state;
    fflush(stdout);
    FILE *f = tmpfile();
    const int keep = dup(1);
    dup2(fileno(f), 1);
    mm_args_print_help(opts, "mmamba test [OPTION]...", "Tests.");
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    rewind(f);
    char text[4096];
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    assert_non_null(strstr(text, "usage: mmamba test [OPTION]...\n\nTests.\n\n"));
    assert_non_null(strstr(text, "\n  -i, --image FILE ...          a picture\n"));
    assert_non_null(strstr(text, "\n      --new N                   tokens [64]\n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms), cmocka_unit_test(defaults),  cmocka_unit_test(wrong_ones),
        cmocka_unit_test(refusing),  cmocka_unit_test(help_wins), cmocka_unit_test(help_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
