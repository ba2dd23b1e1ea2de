// What `quantize --check` does: the quantized model against the one it was made from, on samples
// (divergence of their predictions) and on benchmarks (scores of both).
#ifndef MM_CLI_QUANTIZE_CHECK_H
#define MM_CLI_QUANTIZE_CHECK_H

#include <jansson.h>
#include "cli/cli.h"

struct mm_bench;

struct mm_check_item {
    const char *data;              // a meta.json, or a benchmark's data
    const struct mm_bench *bench;  // NULL: a meta.json
};
struct mm_check {
    struct mm_check_item *items;
    int n;
    int64_t samples, limit;
};

// From --check, --bench, --samples and --limit: a *.json is a meta.json, the others are data of the
// benchmarks in the order they are named. Refuses what is not there.
enum mm_code mm_check_parse(struct mm_check *c, const struct mm_args *args, struct mm_error *err);
void mm_check_free(struct mm_check *c);
// Folders of the two models. Adds "kl" and "scores" to out.
enum mm_code mm_check_run(const struct mm_check *c, struct mm_backend *be, const char *before,
                          const char *after, json_t *out, struct mm_error *err);
void mm_check_print(const json_t *out);

#endif
