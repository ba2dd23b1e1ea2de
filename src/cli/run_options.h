// What `train` and `distill` share on the command line.
#ifndef MM_CLI_RUN_OPTIONS_H
#define MM_CLI_RUN_OPTIONS_H

#include "cli/cli.h"
#include "train/run.h"

#define MM_CLI_RUN                                                                                 \
    {"--data",                                                                                     \
     mm_opt_kind_string,                                                                           \
     "META",                                                                                       \
     "training data: JSON that names picture folders and "                                         \
     "jsonl files",                                                                                \
     NULL,                                                                                         \
     0,                                                                                            \
     0,                                                                                            \
     false},                                                                                       \
        {"--recipe", mm_opt_kind_string,                                                           \
         "FILE",     "JSON that changes the published recipe",                                     \
         NULL,       0,                                                                            \
         0,          false},                                                                       \
        {"--seed",                                                                                 \
         mm_opt_kind_int,                                                                          \
         "N",                                                                                      \
         "of new weights and of the data's order (default: the "                                   \
         "recipe's)",                                                                              \
         NULL,                                                                                     \
         0,                                                                                        \
         9e15,                                                                                     \
         false},                                                                                   \
    {                                                                                              \
        "--resume", mm_opt_kind_flag, NULL, "go on with the run in this folder", NULL, 0, 0, false \
    }

enum mm_code mm_cli_run_options(struct mm_run_options *o, const struct mm_args *args,
                                struct mm_error *err);  // the shared part
// Runs, prints the summary (JSON when asked), closes the backend.
enum mm_code mm_cli_run(const struct mm_run_options *o, const struct mm_args *args,
                        struct mm_error *err);

#endif
