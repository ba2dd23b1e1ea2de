// Any bytes as a data set and its predictions: refused with a sentence, or scored within the
// benchmark's bounds, the same whatever the order of the files and the memory for sorting.
//   byte 0: which benchmark; then the table, 0xff, predictions, 0xff, more, 0xff, a judge
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "eval/score.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(int holds) {
    if (!holds) abort();
}

enum { n_files = 4 };
static char paths[n_files][64];
static int fds[n_files] = {-1, -1, -1, -1};

static void put(int i, const uint8_t *data, size_t n) {
    if (fds[i] < 0) {
        fds[i] = memfd_create("score", 0);
        check(fds[i] >= 0);
        snprintf(paths[i], sizeof paths[i], "/proc/self/fd/%d", fds[i]);
    }
    check(ftruncate(fds[i], 0) == 0 && pwrite(fds[i], data, n, 0) == (ssize_t)n);
}

// The report of what could be scored, else nothing.
static enum mm_code score(struct mm_score_job *job, struct mm_buf *out) {
    struct mm_outcomes outcomes = {0};
    struct mm_report r;
    struct mm_error err = {0};
    job->outcomes = &outcomes;
    const enum mm_code code = mm_score_run(job, &r, &err);
    mm_outcomes_free(&outcomes);
    if (code != mm_code_ok) {
        check(err.text[0] && !strchr(err.text, '\n'));
        return code;
    }
    check(r.questions > 0 && r.unresolved <= r.questions);
    check(!r.has_headline || (r.headline >= 0 && r.headline <= 2800));
    r.seconds = 0;
    mm_report_print_json(&r, out);
    mm_report_print_table(&r, out);
    mm_report_free(&r);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct mm_bench *const benches[] = {
        &mm_bench_mme,     &mm_bench_mmbench, &mm_bench_pope,  &mm_bench_seed, &mm_bench_mmmu,
        &mm_bench_textvqa, &mm_bench_sqa,     &mm_bench_mmvet, &mm_bench_gqa};
    mm_log_set_level(mm_log_level_error);
    if (n < 3) return 0;
    const struct mm_bench *bench = benches[data[0] % 9];
    const uint8_t *end = data + n, *at = data + 1;
    const char *files[3] = {NULL, NULL, NULL}, *judge = NULL;
    for (int i = 0; i < n_files; i++) {
        const uint8_t *mark = memchr(at, 0xff, (size_t)(end - at));
        const uint8_t *stop = mark ? mark : end;
        put(i, at, (size_t)(stop - at));
        if (i == 1 || i == 2) files[i - 1] = paths[i];
        if (i == 3) judge = paths[i];
        at = mark ? mark + 1 : end;
        if (!mark) break;
    }
    if (!files[0]) return 0;
    struct mm_score_job job = {.bench = bench,
                               .data = paths[0],
                               .predictions = files,
                               .judge = judge,
                               .pandas1 = data[0] & 0x80,
                               .limit = data[0] & 0x40 ? 3 : 0};
    struct mm_buf once = {0}, again = {0};
    const enum mm_code code = score(&job, &once);
    // Through files instead of memory, and with the files in the other order. With a limit not all
    // of them is read, and how much goes by the order.
    const char *turned[3] = {files[1] ? files[1] : files[0], files[1] ? files[0] : NULL, NULL};
    job.predictions = turned;
    job.sort_room = 1;
    const enum mm_code other = score(&job, &again);
    check(job.limit || (code == mm_code_ok) == (other == mm_code_ok));
    const bool same =
        once.len == again.len && (!once.len || !memcmp(once.data, again.data, once.len));
    check(job.limit || same);
    mm_buf_free(&once);
    mm_buf_free(&again);
    return 0;
}
