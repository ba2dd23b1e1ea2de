// All that a run has to say: as JSON, as a table, as a picture.
#ifndef MM_BENCH_REPORT_H
#define MM_BENCH_REPORT_H

#include <jansson.h>

#include "base/buf.h"
#include "bench/ceilings.h"
#include "bench/run.h"

struct mm_bench_skipped {
    const char *mixers;
    int64_t prompt;
    char *why;
};
struct mm_bench_report {
    const struct mm_backend *be;
    struct mm_bench_ceilings ceilings;
    struct mm_bench_row *rows;
    int n_rows;
    struct mm_bench_skipped *skipped;
    int n_skipped;
    bool interrupted;
};
void mm_bench_report_add(struct mm_bench_report *r, const struct mm_bench_row *row);
void mm_bench_report_skip(struct mm_bench_report *r, const char *mixers, int64_t prompt,
                          const char *why);
void mm_bench_report_deinit(struct mm_bench_report *r);

// Tokens of the prompt a second; 0 when it was not read.
double mm_bench_prefill_tok_s(const struct mm_bench_row *row);
// Fractions of the run's best ceilings; of the reads also of those right before and after the row.
double mm_bench_prefill_fraction(const struct mm_bench_report *r, const struct mm_bench_row *row);
double mm_bench_decode_fraction(const struct mm_bench_report *r, const struct mm_bench_row *row);
double mm_bench_decode_fraction_near(const struct mm_bench_row *row);

json_t *mm_bench_report_json(const struct mm_bench_report *r);
void mm_bench_report_table(const struct mm_bench_report *r, struct mm_buf *out);
// Time of a step, time of a token of the prompt, and memory, against the length of the prompt.
enum mm_code mm_bench_report_plot(const struct mm_bench_report *r, const char *path,
                                  struct mm_error *err);

#endif
