// The verb `eval`: runs a benchmark on a model and scores it; `eval score` scores a file of
// predictions.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cmd_eval.h"
#include "eval/questions.h"
#include "eval/run.h"
#include "eval/score.h"
#include "infer/batch.h"
#include "io/file.h"
#include "train/run.h"

#define EVAL_SHARED                                                                            \
    {"--bench", mm_opt_kind_string,                                                            \
     "NAME",    "mme, mmbench, pope, seed, mmmu, mmvet, textvqa, sqa or gqa",                  \
     NULL,      0,                                                                             \
     0,         false},                                                                        \
        {"--data", mm_opt_kind_string,                                                         \
         "PATH",   "the TSV; for pope and gqa also a folder with the kit's files",             \
         NULL,     0,                                                                          \
         0,        false},                                                                     \
        {"--limit", mm_opt_kind_int, "N", "only the first N questions (0: all)", "0", 0, 1e15, \
         false},                                                                               \
        {"--pandas1", mm_opt_kind_flag,                                                        \
         NULL,        "the cell None is a text, as before pandas 2, and not missing",          \
         NULL,        0,                                                                       \
         0,           false},                                                                  \
        {"--unresolved",                                                                       \
         mm_opt_kind_string,                                                                   \
         "FILE",                                                                               \
         "write the answers that no rule can read there, for a judge",                         \
         NULL,                                                                                 \
         0,                                                                                    \
         0,                                                                                    \
         false},                                                                               \
        {"--judge",                                                                            \
         mm_opt_kind_string,                                                                   \
         "FILE",                                                                               \
         "what a judge said, JSON lines or a TSV: index and score for mmvet, index and reply " \
         "about answers that no rule can read",                                                \
         NULL,                                                                                 \
         0,                                                                                    \
         0,                                                                                    \
         false},                                                                               \
    {                                                                                          \
        "--export", mm_opt_kind_string, "FILE",                                                \
            "mmvet: write the answers there for a judge: a TSV, or .json for the public "      \
            "evaluator",                                                                       \
            NULL, 0, 0, false                                                                  \
    }

static const struct mm_opt score_opts[] = {
    EVAL_SHARED,
    {"--predictions", mm_opt_kind_string, "FILE",
     "JSON lines {\"index\", \"prediction\"}; several files (shards of a run) are taken together",
     NULL, 0, 0, true},
    MM_CLI_COMMON};

static const struct mm_opt run_opts[] = {
    EVAL_SHARED,
    {"--out", mm_opt_kind_string, "FILE",
     "keep the predictions there; what it holds already is not asked again", NULL, 0, 0, false},
    {"--kit-jpeg", mm_opt_kind_flag, NULL,
     "pictures pass through JPEG of quality 75, as VLMEvalKit stores them", NULL, 0, 0, false},
    {"--batch", mm_opt_kind_int, "N", "questions answered side by side", "1", 1, mm_batch_max,
     false},
    {"--shard", mm_opt_kind_string, "I/N",
     "only part I of N: questions of one picture stay together", NULL, 0, 0, false},
    {"--max-new-tokens", mm_opt_kind_int, "N",
     "most tokens of an answer (default: what the benchmark allows)", NULL, 1, 1e9, false},
    {"--images", mm_opt_kind_string, "DIR", "where the picture files are, when not beside the data",
     NULL, 0, 0, false},
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
    if (job->bench == &mm_bench_gqa || job->bench == &mm_bench_textvqa) {
        MM_TRY(mm_args_refuse(args, "--judge", "every answer can be read", err));
        MM_TRY(mm_args_refuse(args, "--unresolved", "every answer can be read", err));
    }
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
    const int n = mm_args_count(args, "--predictions");
    const char **files = mm_xcalloc((size_t)n + 1, sizeof *files);
    for (int i = 0; i < n; i++) {
        files[i] = mm_args_nth(args, "--predictions", i);
    }
    struct mm_score_job job = {.predictions = files};
    enum mm_code code = shared_options(&job, args, err);
    if (code == mm_code_ok) code = score_and_print(&job, args, 0, err);
    free(files);
    return code;
}

// A run folder stands for the model it ended with. The caller frees *folder.
static enum mm_code model_folder(char **folder, const char *path, struct mm_error *err) {
    *folder = NULL;
    if (!mm_run_is_folder(path)) {
        *folder = mm_xstrdup(path);
        return mm_code_ok;
    }
    char *inside = mm_path_join(path, "model");
    if (!mm_path_is_folder(inside)) {
        free(inside);
        return mm_fail(
            err, mm_code_input,
            "%s: is a run that has not ended; `mmamba export %s FOLDER` writes the model "
            "of its last checkpoint, to be given here",
            path, path);
    }
    *folder = inside;
    return mm_code_ok;
}

static enum mm_code ask(const struct mm_args *args, const struct mm_eval_job *job,
                        struct mm_error *err) {
    char *folder;
    struct mm_backend *be = NULL;
    struct mm_engine *engine = NULL;
    MM_TRY(model_folder(&folder, mm_args_positional(args, 0), err));
    enum mm_code code = mm_cli_backend(&be, args, err);
    if (code == mm_code_ok) code = mm_engine_open(&engine, be, folder, -1, err);
    if (code == mm_code_ok) {
        mm_interrupt_catch();
        code = mm_eval_run(job, engine, err);
    }
    mm_engine_close(engine);
    if (be) mm_backend_close(be);
    free(folder);
    return code;
}

// Where the predictions go when nobody wants to keep them.
static enum mm_code temporary(char *path, size_t room, struct mm_error *err) {
    const char *folder = getenv("TMPDIR");
    snprintf(path, room, "%s/mmamba-eval-XXXXXX", folder && *folder ? folder : "/tmp");
    const int fd = mkstemp(path);
    if (fd < 0) return mm_fail_errno(err, "%s: cannot be written", path);
    close(fd);
    return mm_code_ok;
}

static enum mm_code evaluate(const struct mm_args *args, struct mm_error *err) {
    static const char *const needs[] = {"--bench", "--data", NULL};
    if (mm_args_n_positional(args) != 1) {
        return mm_fail(err, mm_code_usage, "eval: wanted one MODEL (or `score`), got %d arguments",
                       mm_args_n_positional(args));
    }
    MM_TRY(wanted(args, "eval", needs, err));
    struct mm_score_job score_job = {0};
    MM_TRY(shared_options(&score_job, args, err));
    struct mm_eval_job job = {.bench = score_job.bench,
                              .data = score_job.data,
                              .images = mm_args_string(args, "--images"),
                              .out = mm_args_string(args, "--out"),
                              .pandas1 = score_job.pandas1,
                              .limit = score_job.limit,
                              .kit_jpeg = mm_args_flag(args, "--kit-jpeg"),
                              .batch = (int)mm_args_int(args, "--batch")};
    if (mm_args_given(args, "--shard")) {
        MM_TRY(mm_shard_parse(&job.shard, mm_args_string(args, "--shard"), err));
        score_job.partial = true;
    }
    if (mm_args_given(args, "--max-new-tokens")) {
        job.max_new_tokens = mm_args_int(args, "--max-new-tokens");
    }
    char room[4096] = "";
    if (!job.out) {
        MM_TRY(temporary(room, sizeof room, err));
        job.out = room;
    }
    const char *const predictions[] = {job.out, NULL};
    score_job.predictions = predictions;
    const double start = mm_now();
    enum mm_code code = ask(args, &job, err);
    if (code == mm_code_ok) code = score_and_print(&score_job, args, mm_now() - start, err);
    if (*room) unlink(room);
    if (*room && code == mm_code_interrupted) {
        code = mm_fail(err, code, "interrupted; nothing was kept, with --out it could go on");
    }
    return code;
}

int mm_cmd_eval(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code;
    if (argc > 0 && !strcmp(argv[0], "report")) return mm_cmd_eval_report(argc - 1, argv + 1);
    if (argc > 0 && !strcmp(argv[0], "score")) {
        code = mm_cli_parse(&args, score_opts,
                            "mmamba eval score --bench NAME --data PATH --predictions FILE",
                            "Scores what a model said by the rules of a benchmark.", argc - 1,
                            argv + 1, &done, &err);
        if (!code && !done) code = score(args, &err);
    } else {
        code = mm_cli_parse(&args, run_opts,
                            "mmamba eval MODEL --bench NAME --data PATH [OPTION]...\n"
                            "       mmamba eval score --bench NAME --data PATH --predictions FILE\n"
                            "       mmamba eval report --data BENCH=PATH... --predictions "
                            "MODEL/BENCH=FILE...",
                            "Puts a benchmark's questions to a model and scores the answers.", argc,
                            argv, &done, &err);
        if (!code && !done) code = evaluate(args, &err);
    }
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
