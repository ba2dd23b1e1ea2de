// The verb `eval`: runs a benchmark on a model and scores it; `eval score` scores a file of
// predictions.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "eval/score.h"

#define EVAL_SHARED                                                                             \
    {"--bench", mm_opt_kind_string,                                                             \
     "NAME",    "mme, mmbench, pope, seed, mmmu, mmvet, textvqa, sqa or gqa",                   \
     NULL,      0,                                                                              \
     0,         false},                                                                         \
        {"--data", mm_opt_kind_string,                                                          \
         "PATH",   "the TSV; for pope and gqa also a folder with the kit's files",              \
         NULL,     0,                                                                           \
         0,        false},                                                                      \
        {"--limit", mm_opt_kind_int, "N", "only the first N questions (0: all)", "0", 0, 1e15,  \
         false},                                                                                \
        {"--pandas1", mm_opt_kind_flag,                                                         \
         NULL,        "the cell None is a text, as before pandas 2, and not missing",           \
         NULL,        0,                                                                        \
         0,           false},                                                                   \
        {"--unresolved",                                                                        \
         mm_opt_kind_string,                                                                    \
         "FILE",                                                                                \
         "write the answers that no rule can read there, for a judge",                          \
         NULL,                                                                                  \
         0,                                                                                     \
         0,                                                                                     \
         false},                                                                                \
        {"--judge", mm_opt_kind_string,                                                         \
         "FILE",    "mmvet: the judge's grades, JSON lines or a TSV of index and score",        \
         NULL,      0,                                                                          \
         0,         false},                                                                     \
    {                                                                                           \
        "--export", mm_opt_kind_string, "FILE",                                                 \
            "mmvet: write the answers there as a TSV for VLMEvalKit's judge", NULL, 0, 0, false \
    }

static const struct mm_opt score_opts[] = {
    EVAL_SHARED,
    {"--predictions", mm_opt_kind_string, "FILE", "JSON lines {\"index\", \"prediction\"}", NULL, 0,
     0, false},
    MM_CLI_COMMON};

static enum mm_code wanted(const struct mm_args *args, const char *verb, const char *const *names,
                           struct mm_error *err) {
    for (; *names; names++) {
        if (!mm_args_given(args, *names)) {
            return mm_fail(err, mm_code_usage, "%s: %s is missing", verb, *names);
        }
    }
    return mm_code_ok;
}

static enum mm_code shared_options(struct mm_score_job *job, const struct mm_args *args,
                                   struct mm_error *err) {
    MM_TRY(mm_bench_find(&job->bench, mm_args_string(args, "--bench"), err));
    job->data = mm_args_string(args, "--data");
    job->limit = mm_args_int(args, "--limit");
    job->pandas1 = mm_args_flag(args, "--pandas1");
    job->unresolved = mm_args_string(args, "--unresolved");
    job->judge = mm_args_string(args, "--judge");
    if (job->bench == &mm_bench_mmvet) return mm_code_ok;
    MM_TRY(mm_args_refuse(args, "--judge", "only mmvet is graded by a judge", err));
    return mm_args_refuse(args, "--export", "only mmvet is graded by a judge", err);
}

static enum mm_code score_and_print(const struct mm_score_job *job, const struct mm_args *args,
                                    double seconds, struct mm_error *err) {
    struct mm_report report;
    if (mm_args_given(args, "--export")) {
        MM_TRY(mm_score_export(job, mm_args_string(args, "--export"), err));
    }
    MM_TRY(mm_score_run(job, &report, err));
    report.seconds += seconds;
    struct mm_buf out = {0};
    if (mm_args_flag(args, "--json")) {
        mm_report_print_json(&report, &out);
    } else {
        mm_report_print_table(&report, &out);
    }
    fputs(out.data, stdout);
    mm_buf_free(&out);
    mm_report_free(&report);
    return mm_code_ok;
}

static enum mm_code score(const struct mm_args *args, struct mm_error *err) {
    static const char *const needs[] = {"--bench", "--data", "--predictions", NULL};
    MM_TRY(wanted(args, "eval score", needs, err));
    if (mm_args_n_positional(args) > 0) {
        return mm_fail(err, mm_code_usage, "eval score: takes no argument '%s'",
                       mm_args_positional(args, 0));
    }
    MM_TRY(mm_args_refuse(args, "--backend", "scoring needs no model", err));
    MM_TRY(mm_args_refuse(args, "--threads", "one thread scores", err));
    struct mm_score_job job = {.predictions = mm_args_string(args, "--predictions")};
    MM_TRY(shared_options(&job, args, err));
    return score_and_print(&job, args, 0, err);
}

int mm_cmd_eval(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code;
    if (argc > 0 && !strcmp(argv[0], "score")) {
        code = mm_cli_parse(&args, score_opts,
                            "mmamba eval score --bench NAME --data PATH --predictions FILE",
                            "Scores what a model said by the rules of a benchmark.", argc - 1,
                            argv + 1, &done, &err);
        if (!code && !done) code = score(args, &err);
    } else {
        code = mm_fail(&err, mm_code_unsupported, "eval: only `eval score` is built yet");
    }
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
