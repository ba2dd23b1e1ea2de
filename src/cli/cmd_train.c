// The verb `train`: supervised training on the answers, from random weights or from a model.
#include "cli/run_options.h"

static const struct mm_opt opts[] = {
    {"--config", mm_opt_kind_string, "CONFIG",
     "start from random weights of this config.json (its folder has the tokenizer)", NULL, 0, 0,
     false},
    {"--model", mm_opt_kind_string, "MODEL", "start from the weights of this model", NULL, 0, 0,
     false},
    {"--out", mm_opt_kind_string, "RUN", "run folder", NULL, 0, 0, false},
    {"--steps", mm_opt_kind_int, "N", "steps; the schedule follows in proportion", NULL, 1, 1e9,
     false},
    MM_CLI_RUN,
    MM_CLI_COMMON,
};

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    struct mm_run_options o = {
        .config = mm_args_string(args, "--config"),
        .model = mm_args_string(args, "--model"),
        .out = mm_args_string(args, "--out"),
    };
    MM_TRY(mm_cli_run_options(&o, args, err));
    if ((o.config == NULL) == (o.model == NULL)) {
        return mm_fail(err, mm_code_usage, "train: give either --config or --model");
    }
    if (o.out == NULL) return mm_fail(err, mm_code_usage, "train: --out RUN is missing");
    if (mm_args_given(args, "--steps")) {
        mm_recipe_set_steps(&o.recipe, 0, mm_args_int(args, "--steps"));
    }
    return mm_cli_run(&o, args, err);
}

int mm_cmd_train(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code = mm_cli_parse(
        &args, opts, "mmamba train --config CONFIG | --model MODEL --data META --out RUN",
        "Trains a model on the answers of conversations about pictures.", argc, argv, &done, &err);
    if (!code && !done) code = run(args, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
