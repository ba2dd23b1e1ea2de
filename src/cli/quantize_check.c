#include "cli/quantize_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/run.h"
#include "eval/score.h"
#include "io/file.h"
#include "train/compare.h"

static bool is_meta(const char *path) {
    const size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".json") == 0;
}

enum mm_code mm_check_parse(struct mm_check *c, const struct mm_args *args, struct mm_error *err) {
    *c = (struct mm_check){.n = mm_args_count(args, "--check"),
                           .samples = mm_args_int(args, "--samples"),
                           .limit = mm_args_int(args, "--limit")};
    const int n_benches = mm_args_count(args, "--bench");
    int used = 0;
    c->items = mm_xcalloc((size_t)c->n + 1, sizeof *c->items);
    for (int i = 0; i < c->n; i++) {
        struct mm_check_item *item = &c->items[i];
        item->data = mm_args_nth(args, "--check", i);
        if (!mm_path_exists(item->data)) {
            return mm_fail(err, mm_code_input, "%s: is not there (given to --check)", item->data);
        }
        if (is_meta(item->data)) continue;
        if (used == n_benches) {
            return mm_fail(err, mm_code_usage,
                           "quantize: --check %s: is no meta.json, so --bench has to name the "
                           "benchmark it belongs to",
                           item->data);
        }
        MM_TRY(mm_bench_find(&item->bench, mm_args_nth(args, "--bench", used++), err));
    }
    if (used < n_benches) {
        return mm_fail(err, mm_code_usage,
                       "quantize: --bench %s has no data: each needs a --check of its own",
                       mm_args_nth(args, "--bench", used));
    }
    if (n_benches == 0) return mm_args_refuse(args, "--limit", "no benchmark is asked for", err);
    return mm_code_ok;
}

void mm_check_free(struct mm_check *c) {
    free(c->items);
    *c = (struct mm_check){0};
}

// ---- divergence ---------------------------------------------------------------------------------

static json_t *divergence(const struct mm_divergence *d) {
    return json_pack("{s:I, s:f, s:f}", "tokens", (json_int_t)d->n, "kl", d->kl, "top1", d->top1);
}

static enum mm_code compare(const struct mm_check *c, const struct mm_check_item *item,
                            struct mm_backend *be, const char *before, const char *after,
                            json_t *list, struct mm_error *err) {
    struct mm_model is = {0}, other = {0};
    struct mm_comparison r;
    char *folder = mm_model_folder(before);
    enum mm_code code = mm_model_load(&is, be, before, -1, err);
    if (!code) code = mm_model_load(&other, be, after, -1, err);
    be->scan_rounds = true;  // as an engine computes
    // another part of the stream than calibration saw
    if (!code) code = mm_compare(&r, &is, &other, folder, item->data, c->samples, 2, err);
    if (!code) {
        json_array_append_new(
            list, json_pack("{s:s, s:I, s:I, s:o, s:o}", "data", item->data, "samples",
                            (json_int_t)r.samples, "skipped", (json_int_t)r.skipped, "answers",
                            divergence(&r.answers), "all", divergence(&r.all)));
    }
    if (other.be) mm_model_deinit(&other);
    if (is.be) mm_model_deinit(&is);
    free(folder);
    return code;
}

// ---- scores -------------------------------------------------------------------------------------

static enum mm_code score_one(const struct mm_check *c, const struct mm_check_item *item,
                              struct mm_backend *be, const char *folder, struct mm_report *report,
                              struct mm_error *err) {
    char path[4096];
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/mmamba-quantize-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    const int fd = mkstemp(path);
    if (fd < 0) return mm_fail_errno(err, "%s: cannot be written", path);
    close(fd);
    const char *const predictions[] = {path, NULL};
    const struct mm_eval_job ask = {
        .bench = item->bench, .data = item->data, .out = path, .limit = c->limit};
    const struct mm_score_job score = {
        .bench = item->bench, .data = item->data, .predictions = predictions, .limit = c->limit};
    struct mm_engine *engine = NULL;
    enum mm_code code = mm_engine_open(&engine, be, folder, -1, err);
    if (!code) code = mm_eval_run(&ask, engine, err);
    if (!code) code = mm_score_run(&score, report, err);
    mm_engine_close(engine);
    unlink(path);
    return code;
}

static json_t *headline(const struct mm_report *r) {
    return r->has_headline ? json_real(r->headline) : json_null();
}

static enum mm_code score(const struct mm_check *c, const struct mm_check_item *item,
                          struct mm_backend *be, const char *before, const char *after,
                          json_t *list, struct mm_error *err) {
    struct mm_report was, is;
    MM_TRY(score_one(c, item, be, before, &was, err));
    const enum mm_code code = score_one(c, item, be, after, &is, err);
    if (!code) {
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:I, s:o, s:o}", "bench", item->bench->name, "data",
                            item->data, "questions", (json_int_t)is.questions, "before",
                            headline(&was), "after", headline(&is)));
        mm_report_free(&is);
    }
    mm_report_free(&was);
    return code;
}

enum mm_code mm_check_run(const struct mm_check *c, struct mm_backend *be, const char *before,
                          const char *after, json_t *out, struct mm_error *err) {
    json_t *kl = json_array(), *scores = json_array();
    json_object_set_new(out, "kl", kl);
    json_object_set_new(out, "scores", scores);
    for (int i = 0; i < c->n; i++) {
        const struct mm_check_item *item = &c->items[i];
        MM_TRY(item->bench ? score(c, item, be, before, after, scores, err)
                           : compare(c, item, be, before, after, kl, err));
    }
    return mm_code_ok;
}

// ---- for people ---------------------------------------------------------------------------------

static void print_divergence(const char *what, const json_t *d) {
    printf("    %-16s %10lld   KL %.6f   same likeliest token %.2f%%\n", what,
           (long long)json_integer_value(json_object_get(d, "tokens")),
           json_real_value(json_object_get(d, "kl")),
           100.0 * json_real_value(json_object_get(d, "top1")));
}

void mm_check_print(const json_t *out) {
    size_t i;
    const json_t *o;
    json_array_foreach(json_object_get(out, "kl"), i, o) {
        printf("  %s, %lld samples\n", json_string_value(json_object_get(o, "data")),
               (long long)json_integer_value(json_object_get(o, "samples")));
        print_divergence("answer tokens", json_object_get(o, "answers"));
        print_divergence("all tokens", json_object_get(o, "all"));
    }
    json_array_foreach(json_object_get(out, "scores"), i, o) {
        const json_t *was = json_object_get(o, "before"), *is = json_object_get(o, "after");
        printf("  %-10s %6lld questions   ", json_string_value(json_object_get(o, "bench")),
               (long long)json_integer_value(json_object_get(o, "questions")));
        if (json_is_null(was) || json_is_null(is)) {
            printf("graded by a judge, see `mmamba eval`\n");
        } else {
            printf("%.2f before, %.2f after (%+.2f)\n", json_real_value(was), json_real_value(is),
                   json_real_value(is) - json_real_value(was));
        }
    }
}
