// Owns: KEEP of the command line, which blocks stay attention. docs/MODEL.md section 2.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

// A whole decimal number without sign or space at *text; the end is left in *text. -1: none.
static int64_t number(const char **text) {
    if (**text < '0' || **text > '9') return -1;
    char *end = NULL;
    errno = 0;
    const long long v = strtoll(*text, &end, 10);
    if (errno != 0) return INT64_MAX;  // beyond any number of blocks
    *text = end;
    return v;
}

static enum mm_code parse_list(const char *text, int64_t n_blocks, bool *keep,
                               struct mm_error *err) {
    for (const char *at = text;; at++) {
        const int64_t b = number(&at);
        if (b < 0 || (*at != ',' && *at != '\0' && b < n_blocks)) {
            return mm_fail(err, mm_code_usage,
                           "KEEP is '%s', wanted none, all, a list such as 0,4,8, or "
                           "head-interleaved, tail-interleaved, head-stacked or tail-stacked "
                           "with :N",
                           text);
        }
        if (b >= n_blocks) {
            return mm_fail(err, mm_code_usage,
                           "KEEP is '%s', but the model has %" PRId64
                           " blocks, wanted numbers from 0 to %" PRId64,
                           text, n_blocks, n_blocks - 1);
        }
        if (keep[b]) {
            return mm_fail(err, mm_code_usage, "KEEP is '%s', which names block %" PRId64 " twice",
                           text, b);
        }
        keep[b] = true;
        if (*at == '\0') return mm_code_ok;
    }
}

enum mm_code mm_keep_parse(const char *text, int64_t n_blocks, bool *keep, struct mm_error *err) {
    static const char *const shapes[] = {
        "head-interleaved:", "tail-interleaved:", "head-stacked:", "tail-stacked:"};
    const bool all = strcmp(text, "all") == 0;
    for (int64_t b = 0; b < n_blocks; b++)
        keep[b] = all;
    if (all || strcmp(text, "none") == 0) return mm_code_ok;
    for (int shape = 0; shape < 4; shape++) {
        const size_t length = strlen(shapes[shape]);
        if (strncmp(text, shapes[shape], length) != 0) continue;
        const char *at = text + length;
        const int64_t n = number(&at);
        if (n < 0 || n > n_blocks || *at != '\0') {
            return mm_fail(err, mm_code_usage,
                           "KEEP is '%s', wanted a number from 0 to %" PRId64 " after the colon",
                           text, n_blocks);
        }
        // With n not a divisor of L the runs differ by one block in length.
        for (int64_t i = 0; i < n; i++) {
            const int64_t head = i * n_blocks / n, tail = (i + 1) * n_blocks / n - 1;
            const int64_t b[4] = {head, tail, i, n_blocks - n + i};
            keep[b[shape]] = true;
        }
        return mm_code_ok;
    }
    return parse_list(text, n_blocks, keep, err);
}
