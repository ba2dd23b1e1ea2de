// One file a verb. main.c has the table of verbs; each is called with the arguments after its
// name and returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
#ifndef MM_CLI_CLI_H
#define MM_CLI_CLI_H

#include "base/args.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/status.h"
#include "ops/ops.h"

int mm_cmd_chat(int argc, char **argv);
int mm_cmd_inspect(int argc, char **argv);
int mm_cmd_train(int argc, char **argv);
int mm_cmd_carve(int argc, char **argv);
int mm_cmd_distill(int argc, char **argv);
int mm_cmd_export(int argc, char **argv);
int mm_cmd_quantize(int argc, char **argv);
int mm_cmd_eval(int argc, char **argv);
int mm_cmd_bench(int argc, char **argv);
int mm_cmd_probe(int argc, char **argv);  // forward, grad, tiles, tokens
int mm_cmd_probe_forward(int argc, char **argv);
int mm_cmd_probe_grad(int argc, char **argv);
int mm_cmd_probe_tiles(int argc, char **argv);
int mm_cmd_probe_tokens(int argc, char **argv);

// Options every verb has; put MM_CLI_COMMON last in a verb's table (it ends the table).
// clang-format off
#define MM_CLI_COMMON                                                                              \
    {"--backend", mm_opt_kind_string, "auto|cpu|cuda|cuda:N", "where to compute", "auto", 0, 0, false},   \
        {"--threads", mm_opt_kind_int, "N", "host threads (0: all this process may use)", "0", 0,  \
         4096, false},                                                                             \
        {"--json", mm_opt_kind_flag, NULL, "one JSON object on standard output", NULL, 0, 0,       \
         false},                                                                                   \
        {"--quiet,-q", mm_opt_kind_flag, NULL, "only warnings and errors on standard error", NULL, \
         0, 0, false},                                                                             \
        {"--help,-h", mm_opt_kind_flag, NULL, "this text", NULL, 0, 0, false},                     \
    {                                                                                              \
        NULL, mm_opt_kind_flag, NULL, NULL, NULL, 0, 0, false                                      \
    }
// clang-format on

// Parses, handles --help (prints it and sets *done), applies --quiet. A verb that opens no backend
// refuses --backend and --threads by itself (mm_args_refuse).
enum mm_code mm_cli_parse(struct mm_args **args, const struct mm_opt *opts, const char *usage,
                          const char *summary, int argc, char **argv, bool *done,
                          struct mm_error *err);
enum mm_code mm_cli_backend(struct mm_backend **be, const struct mm_args *args,
                            struct mm_error *err);
// As mm_cli_backend, but on the CPU with the plain reference operations (sums in double) unless
// MMAMBA_ISA names another path: probes compare with other programs at tolerances where the order
// of f32 sums is visible.
enum mm_code mm_cli_backend_reference(struct mm_backend **be, const struct mm_args *args,
                                      struct mm_error *err);
// Prints the sentence on standard error and gives the exit status.
int mm_cli_exit(const struct mm_error *err);

#endif
