// What all verbs share: reading the common options, and turning an error into an exit status.
#include "cli/cli.h"

#include <stdlib.h>

#include <string.h>

enum mm_code mm_cli_parse(struct mm_args **args, const struct mm_opt *opts, const char *usage,
                          const char *summary, int argc, char **argv, bool *done,
                          struct mm_error *err) {
    MM_TRY(mm_args_parse(args, opts, argc, argv, done, err));
    if (*done) {
        mm_args_print_help(opts, usage, summary);
        return mm_code_ok;
    }
    if (mm_args_flag(*args, "--quiet")) mm_log_set_level(mm_log_level_warn);
    return mm_code_ok;
}

enum mm_code mm_cli_backend(struct mm_backend **be, const struct mm_args *args,
                            struct mm_error *err) {
    return mm_backend_open(be, mm_args_string(args, "--backend"),
                           (int)mm_args_int(args, "--threads"), err);
}

enum mm_code mm_cli_backend_reference(struct mm_backend **be, const struct mm_args *args,
                                      struct mm_error *err) {
    setenv("MMAMBA_ISA", "plain", 0);
    return mm_cli_backend(be, args, err);
}

int mm_cli_exit(const struct mm_error *err) {
    if (err->code == mm_code_ok) return 0;
    mm_log(mm_log_level_error, "%s", err->text);
    return err->code == mm_code_usage ? 2 : err->code == mm_code_interrupted ? 130 : 1;
}
