// `eval report`: several models on several benchmarks, side by side.
#include <stdio.h>
#include "cli/cmd_eval.h"
#include "eval/compare.h"

static const struct mm_opt opts[] = {
    {"--data", mm_opt_kind_string, "BENCH=PATH", "a benchmark's data; once for each", NULL, 0, 0,
     true},
    {"--predictions", mm_opt_kind_string, "MODEL/BENCH=FILE",
     "what a model said; again for each shard. Or MODEL=FOLDER with <bench>.jsonl and "
     "<bench>-*.jsonl in it",
     NULL, 0, 0, true},
    {"--teacher", mm_opt_kind_string, "MODEL",
     "show the others in percent of this one, and the differences to it (else to the first)", NULL,
     0, 0, false},
    {"--published", mm_opt_kind_flag, NULL, "show the figures of the paper beside, marked so", NULL,
     0, 0, false},
    {"--markdown", mm_opt_kind_flag, NULL, "print markdown", NULL, 0, 0, false},
    {"--html", mm_opt_kind_string, "FILE",
     "also write a page with pictures, questions, answers and verdicts", NULL, 0, 0, false},
    {"--html-questions", mm_opt_kind_int, "N",
     "most questions of a benchmark on the page, failures first (0: all)", "300", 0, 1e9, false},
    {"--images", mm_opt_kind_string, "BENCH=FOLDER",
     "where a benchmark's picture files are, for the page", NULL, 0, 0, true},
    {"--judge", mm_opt_kind_string, "MODEL/BENCH=FILE", "the judge's grades or readings", NULL, 0,
     0, true},
    {"--limit", mm_opt_kind_int, "N", "only the first N questions of each (0: all)", "0", 0, 1e15,
     false},
    {"--pandas1", mm_opt_kind_flag, NULL,
     "the cell None is a text, as before pandas 2, and not missing", NULL, 0, 0, false},
    {"--draws", mm_opt_kind_int, "N", "draws for the intervals of differences", "2000", 100, 1e6,
     false},
    {"--seed", mm_opt_kind_int, "N", "of the draws", "0", 0, 1e15, false},
    MM_CLI_COMMON};

static enum mm_code add_each(struct mm_compare *c, const struct mm_args *args, const char *option,
                             enum mm_code (*add)(struct mm_compare *, const char *,
                                                 struct mm_error *),
                             struct mm_error *err) {
    for (int i = 0; i < mm_args_count(args, option); i++) {
        MM_TRY(add(c, mm_args_nth(args, option, i), err));
    }
    return mm_code_ok;
}

static enum mm_code fill(struct mm_compare *c, const struct mm_args *args, struct mm_error *err) {
    c->pandas1 = mm_args_flag(args, "--pandas1");
    c->limit = mm_args_int(args, "--limit");
    c->n_draws = (int)mm_args_int(args, "--draws");
    c->seed = (uint64_t)mm_args_int(args, "--seed");
    MM_TRY(add_each(c, args, "--data", mm_compare_add_data, err));
    MM_TRY(add_each(c, args, "--images", mm_compare_add_images, err));
    MM_TRY(add_each(c, args, "--predictions", mm_compare_add_predictions, err));
    MM_TRY(add_each(c, args, "--judge", mm_compare_add_judge, err));
    if (!mm_args_given(args, "--teacher")) return mm_code_ok;
    return mm_compare_set_teacher(c, mm_args_string(args, "--teacher"), err);
}

static enum mm_code check(const struct mm_args *args, struct mm_error *err) {
    if (mm_args_n_positional(args) > 0) {
        return mm_fail(err, mm_code_usage, "eval report: takes no argument '%s'",
                       mm_args_positional(args, 0));
    }
    MM_TRY(mm_args_refuse(args, "--backend", "scoring needs no model", err));
    MM_TRY(mm_args_refuse(args, "--threads", "one thread scores", err));
    if (!mm_args_given(args, "--html")) {
        MM_TRY(mm_args_refuse(args, "--html-questions", "there is no --html", err));
        MM_TRY(mm_args_refuse(args, "--images", "there is no --html", err));
    }
    if (mm_args_flag(args, "--json")) {
        MM_TRY(mm_args_refuse(args, "--markdown", "there is --json", err));
    }
    static const char *const needs[] = {"--data", "--predictions"};
    for (int i = 0; i < 2; i++) {
        if (mm_args_given(args, needs[i])) continue;
        return mm_fail(err, mm_code_usage, "eval report: %s is missing", needs[i]);
    }
    return mm_code_ok;
}

static enum mm_code report(const struct mm_args *args, struct mm_compare *c, struct mm_error *err) {
    const bool published = mm_args_flag(args, "--published");
    MM_TRY(check(args, err));
    MM_TRY(fill(c, args, err));
    MM_TRY(mm_compare_run(c, err));
    if (mm_args_given(args, "--html")) {
        MM_TRY(mm_compare_write_page(c, mm_args_string(args, "--html"), published,
                                     mm_args_int(args, "--html-questions"), err));
    }
    struct mm_buf out = {0};
    if (mm_args_flag(args, "--json")) {
        mm_compare_print_json(c, published, &out);
    } else {
        mm_compare_print(c, mm_args_flag(args, "--markdown"), published, &out);
    }
    fputs(out.data, stdout);
    mm_buf_free(&out);
    return mm_code_ok;
}

int mm_cmd_eval_report(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code = mm_cli_parse(
        &args, opts,
        "mmamba eval report --data BENCH=PATH... --predictions MODEL/BENCH=FILE... [OPTION]...",
        "Shows what several models reached on several benchmarks.", argc, argv, &done, &err);
    if (!code && !done) {
        struct mm_compare c;
        mm_compare_init(&c);
        code = report(args, &c, &err);
        mm_compare_free(&c);
    }
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
