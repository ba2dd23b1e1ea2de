// Command lines from bytes: arguments are split at zero bytes.
#include <stdlib.h>
#include <string.h>
#include "base/args.h"
#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct mm_opt opts[] = {
    {"--image,-i", mm_opt_kind_string, "FILE", "", NULL, 0, 0, true},
    {"--prompt,-p", mm_opt_kind_string, "TEXT", "", NULL, 0, 0, false},
    {"--new", mm_opt_kind_int, "N", "", "64", 1, 4096, false},
    {"--any", mm_opt_kind_int, "N", "", "0", 0, 0, false},
    {"--heat", mm_opt_kind_float, "X", "", "0.5", 0, 2, false},
    {"--json", mm_opt_kind_flag, NULL, "", NULL, 0, 0, false},
    {NULL, mm_opt_kind_flag, NULL, NULL, NULL, 0, 0, false},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    enum { max_argv = 64 };
    char *argv[max_argv + 1], *copy = mm_xmalloc(n + 1);
    if (n) memcpy(copy, data, n);
    copy[n] = '\0';
    int argc = 0;
    for (size_t at = 0; at < n && argc < max_argv; at += strlen(copy + at) + 1) {
        argv[argc++] = copy + at;
    }
    argv[argc] = NULL;
    struct mm_args *args;
    struct mm_error err;
    bool help;
    if (mm_args_parse(&args, opts, argc, argv, &help, &err) == mm_code_ok && !help) {
        const int64_t count = mm_args_int(args, "--new");
        const double heat = mm_args_float(args, "--heat");
        if (count < 1 || count > 4096 || !(heat >= 0 && heat <= 2)) abort();
        for (int i = 0; i < mm_args_count(args, "-i"); i++) {
            if (!mm_args_nth(args, "-i", i)) abort();
        }
        mm_args_free(args);
    } else if (!help && (err.code != mm_code_usage || strlen(err.text) == 0)) {
        abort();
    }
    free(copy);
    return 0;
}
