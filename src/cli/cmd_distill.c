// The verb `distill`: the three stages, or any of them, into one run folder.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/run_options.h"

static const struct mm_opt opts[] = {
    {"--stages", mm_opt_kind_string, "1,2,3", "which stages to run", "1,2,3", 0, 0, false},
    {"--keep", mm_opt_kind_string, "KEEP", "blocks that stay attention in stage 3", "none", 0, 0,
     false},
    {"--init", mm_opt_kind_string, "scratch|inherit|mimic", "how the mixers start", "mimic", 0, 0,
     false},
    {"--steps", mm_opt_kind_string, "N,N,N",
     "steps of the stages that run, in order; the schedules follow in proportion", NULL, 0, 0,
     false},
    MM_CLI_RUN,
    MM_CLI_COMMON,
};

// "a,b,c" to numbers in [min, max]; *n of at most 3.
static enum mm_code numbers(int64_t out[3], int *n, const char *text, int64_t min, int64_t max,
                            const char *option, struct mm_error *err) {
    *n = 0;
    for (const char *at = text;; at++) {
        char *end;
        const long long v = strtoll(at, &end, 10);
        if (end == at || v < min || v > max || *n == 3 || (*end != 0 && *end != ',')) {
            return mm_fail(err, mm_code_usage,
                           "distill: %s is '%s', wanted up to three numbers from %lld to %lld with "
                           "commas between",
                           option, text, (long long)min, (long long)max);
        }
        out[(*n)++] = v;
        at = end;
        if (*at == 0) return mm_code_ok;
    }
}

static enum mm_code stage_options(struct mm_run_options *o, const struct mm_args *args,
                                  struct mm_error *err) {
    int64_t stages[3], steps[3];
    int n_stages, n_steps;
    const char *stages_text = mm_args_string(args, "--stages");
    MM_TRY(numbers(stages, &n_stages, stages_text, 1, 3, "--stages", err));
    for (int i = 0; i < n_stages; i++) {
        if (i > 0 && stages[i] <= stages[i - 1]) {
            return mm_fail(err, mm_code_usage, "distill: --stages '%s' must rise", stages_text);
        }
        o->stages[stages[i]] = true;
    }
    if (!mm_args_given(args, "--steps")) return mm_code_ok;
    MM_TRY(
        numbers(steps, &n_steps, mm_args_string(args, "--steps"), 1, 1000000000, "--steps", err));
    if (n_steps != n_stages) {
        return mm_fail(err, mm_code_usage,
                       "distill: --steps has %d numbers for %d stages (--stages %s)", n_steps,
                       n_stages, stages_text);
    }
    for (int i = 0; i < n_steps; i++)
        mm_recipe_set_steps(&o->recipe, (int)stages[i], steps[i]);
    return mm_code_ok;
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    struct mm_run_options o = {
        .distill = true,
        .model = mm_args_positional(args, 0),
        .out = mm_args_positional(args, 1),
    };
    if (mm_args_n_positional(args) != 2) {
        return mm_fail(err, mm_code_usage, "distill: wanted TEACHER and RUN, got %d arguments",
                       mm_args_n_positional(args));
    }
    MM_TRY(mm_cli_run_options(&o, args, err));
    o.keep = mm_args_string(args, "--keep");
    const int init = mm_init_parse(mm_args_string(args, "--init"));
    if (init < 0) {
        return mm_fail(err, mm_code_usage,
                       "distill: --init is '%s', wanted scratch, inherit or mimic",
                       mm_args_string(args, "--init"));
    }
    o.init = (enum mm_init)init;
    MM_TRY(stage_options(&o, args, err));
    if (!o.stages[3]) {
        MM_TRY(mm_args_refuse(args, "--keep",
                              "attention is put back in stage 3, and --stages leaves it out", err));
    }
    return mm_cli_run(&o, args, err);
}

int mm_cmd_distill(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code =
        mm_cli_parse(&args, opts, "mmamba distill TEACHER RUN --data META [OPTION]...",
                     "Carves a Mamba-2 student out of a teacher and distils it in three stages.",
                     argc, argv, &done, &err);
    if (!code && !done) code = run(args, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
