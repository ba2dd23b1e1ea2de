// Command line of one verb: a table of options, parsed once, and every option that was given must
// have been asked for by the verb, else the run is refused: no option is silently ignored.
#ifndef MM_BASE_ARGS_H
#define MM_BASE_ARGS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"

enum mm_opt_kind { mm_opt_kind_flag, mm_opt_kind_string, mm_opt_kind_int, mm_opt_kind_float };

struct mm_opt {
    const char *name;  // "--max-new-tokens"; a short form after a comma: "--image,-i"
    enum mm_opt_kind kind;
    const char *value_name;  // shown by --help: "N"
    const char *help;        // one sentence
    const char *fallback;    // default value as text, shown by --help; NULL: none
    double min, max;         // numbers must lie in [min, max]; both 0: any
    bool repeat;             // may be given several times (strings only)
};

struct mm_args;

// argv after the verb. Understands --name value, --name=value, short forms, and "--" before
// positional arguments. --help is recognised here: *help is set and nothing else is checked.
// Errors are mm_code_usage. `opts` ends with a NULL name and must outlive *args.
enum mm_code mm_args_parse(struct mm_args **args, const struct mm_opt *opts, int argc, char **argv,
                           bool *help, struct mm_error *err);
void mm_args_free(struct mm_args *args);
void mm_args_print_help(const struct mm_opt *opts, const char *usage, const char *summary);

bool mm_args_given(const struct mm_args *a, const char *name);  // on the command line
bool mm_args_flag(const struct mm_args *a, const char *name);
const char *mm_args_string(const struct mm_args *a, const char *name);  // or its default or NULL
int64_t mm_args_int(const struct mm_args *a, const char *name);  // has a default or was given
double mm_args_float(const struct mm_args *a, const char *name);
int mm_args_count(const struct mm_args *a, const char *name);  // of a repeated string
const char *mm_args_nth(const struct mm_args *a, const char *name, int i);
int mm_args_n_positional(const struct mm_args *a);
const char *mm_args_positional(const struct mm_args *a, int i);  // NULL past the end

// mm_code_usage naming `name` and `why` when it was given: for options with no effect on this run.
enum mm_code mm_args_refuse(const struct mm_args *a, const char *name, const char *why,
                            struct mm_error *err);

#endif
