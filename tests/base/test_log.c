// Messages reach standard error whole, levels hold, progress stays off terminals' tricks when there
// is none, signals set the flag.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/log.h"
#include "cmocka_all.h"

static char text[8192];

// Runs what() with standard error in a file, and keeps what it wrote in `text`.
static void capture(void (*what)(void)) {
    FILE *f = tmpfile();
    assert_non_null(f);
    fflush(stderr);
    const int keep = dup(2);
    dup2(fileno(f), 2);
    what();
    fflush(stderr);
    dup2(keep, 2);
    close(keep);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
}

static void say_all(void) {
    mm_log(mm_log_level_error, "%s", "an error");
    mm_warn("a warning %d", 1);
    mm_info("news");
    mm_log(mm_log_level_debug, "detail");
}

static void levels(void **state) {
    (void)state;
    capture(say_all);
    assert_string_equal(text, "mmamba: an error\nmmamba: warning: a warning 1\nnews\n");
    mm_log_set_level(mm_log_level_warn);
    assert_int_equal(mm_log_get_level(), mm_log_level_warn);
    capture(say_all);
    assert_string_equal(text, "mmamba: an error\nmmamba: warning: a warning 1\n");
    mm_log_set_level(mm_log_level_info);
}

static void say_much(void) {
    char much[6000];
    memset(much, 'm', sizeof much - 1);
    much[sizeof much - 1] = '\0';
    mm_info("%s", much);
    mm_info("next");
}

static void long_lines_end(void **state) {
    (void)state;
    capture(say_much);
    const char *end = strchr(text, '\n');
    assert_int_equal(end - text, 4094);
    assert_string_equal(end, "\nnext\n");
}

static void progress(void) {
    struct mm_progress p;
    mm_progress_begin(&p, "train", "steps", 300, 100);
    mm_progress_update(&p, 150, "too soon to be drawn");
    p.drawn -= 11;  // as if eleven seconds had passed
    p.started -= 40;
    mm_progress_update(&p, 200, "loss 1.5");
    mm_progress_update(&p, 300, NULL);
    mm_progress_end(&p);
}

static void unknown_total(void) {
    struct mm_progress p;
    mm_progress_begin(&p, "read", "lines", 0, 0);
    p.drawn -= 11;
    p.started -= 10;
    mm_progress_update(&p, 5000, NULL);
}

static void progress_in_a_file(void **state) {
    (void)state;
    capture(progress);
    // 100 fresh steps in 40 s are 2.5 a second; the other 100 take 40 s more.
    assert_string_equal(text,
                        "train  200/300 steps  2.50/s  0:40 left  loss 1.5\n"
                        "train  300/300 steps  5.00/s  in 0:40\n");
    capture(unknown_total);
    assert_string_equal(text, "read  5000 lines  500/s\n");
    mm_log_set_level(mm_log_level_warn);
    capture(progress);
    assert_string_equal(text, "");
    mm_log_set_level(mm_log_level_info);
}

static void signals(void **state) {
    (void)state;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mm_interrupt_catch();
        if (mm_interrupted()) _exit(1);
        raise(SIGTERM);
        if (!mm_interrupted()) _exit(2);
        raise(SIGTERM);  // asks again; only SIGINT insists
        raise(SIGINT);
        _exit(3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    assert_false(mm_interrupted());
    const double a = mm_now();
    usleep(20000);
    assert_true(mm_now() - a >= 0.02);
}

static volatile intptr_t handled_at;

static void note_place(int number) {
    (void)number;
    char here;
    handled_at = (intptr_t)&here;
}

// A handler's frame must not be where the stack is: that may be a buffer of the heap just then.
static void signals_have_a_stack(void **state) {
    (void)state;
    char here;
    mm_signal_catch(note_place, 0);
    raise(SIGINT);
    const intptr_t first = handled_at, from = (intptr_t)&here;
    raise(SIGTERM);
    assert_true(handled_at != 0);
    assert_true(first < from - (1 << 20) || first > from + (1 << 20));
    assert_true(handled_at == first);
    signal(SIGINT, SIG_DFL), signal(SIGTERM, SIG_DFL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels),
        cmocka_unit_test(long_lines_end),
        cmocka_unit_test(progress_in_a_file),
        cmocka_unit_test(signals),
        cmocka_unit_test(signals_have_a_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
