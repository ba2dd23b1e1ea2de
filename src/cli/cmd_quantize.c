// The verb `quantize`: a model with its big matrices rounded to 8 or 4 bits.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cli/model_out.h"
#include "cli/quantize_check.h"
#include "model/model.h"
#include "train/calibrate.h"
#include "train/run.h"

static const struct mm_opt opts[] = {
    {"--type", mm_opt_kind_string, "q8|q4", "8.1 or 4.3 bits a weight", NULL, 0, 0, false},
    {"--calibrate", mm_opt_kind_string, "META",
     "let weights make up for the errors of others, as the inputs of these samples allow (a "
     "meta.json); closer, and slower",
     NULL, 0, 0, false},
    {"--check", mm_opt_kind_string, "DATA",
     "compare with the unquantized model afterwards: on a meta.json, or on the data of a "
     "benchmark; may be given several times",
     NULL, 0, 0, true},
    {"--bench", mm_opt_kind_string, "NAME",
     "the benchmark of a --check that is no meta.json; in their order", NULL, 0, 0, true},
    {"--samples", mm_opt_kind_int, "N", "of a meta.json, for --calibrate and for --check", "256", 1,
     1e9, false},
    {"--limit", mm_opt_kind_int, "N", "only the first N questions of a benchmark (0: all)", "0", 0,
     1e15, false},
    MM_CLI_COMMON,
};

struct quantize {
    const char *from, *to;
    struct mm_quantize how;
    struct mm_calibration calibration;  // its counts stay behind
    bool calibrated;
    struct mm_check check;
    struct mm_quantize_report report;
    double seconds;  // of writing
};

static enum mm_code check_options(struct quantize *q, const struct mm_args *args,
                                  struct mm_error *err) {
    const char *type = mm_args_string(args, "--type");
    if (mm_args_n_positional(args) != 2) {
        return mm_fail(err, mm_code_usage, "quantize: wanted MODEL and OUT, got %d arguments",
                       mm_args_n_positional(args));
    }
    q->from = mm_args_positional(args, 0);
    q->to = mm_args_positional(args, 1);
    if (type == NULL)
        return mm_fail(err, mm_code_usage, "quantize: --type is missing, wanted q8 or q4");
    if (strcmp(type, "q8") && strcmp(type, "q4")) {
        return mm_fail(err, mm_code_usage, "quantize: --type is '%s', wanted q8 or q4", type);
    }
    q->how.dtype = strcmp(type, "q8") ? mm_dtype_q4 : mm_dtype_q8;
    if (mm_run_is_folder(q->from)) {
        return mm_fail(err, mm_code_input,
                       "%s: is a run; `mmamba export %s FOLDER` writes its model, to be given here",
                       q->from, q->from);
    }
    if (mm_run_is_folder(q->to)) {
        return mm_fail(err, mm_code_usage, "%s: holds a run; the model needs another folder",
                       q->to);
    }
    if (!mm_args_given(args, "--calibrate") && !mm_args_given(args, "--check")) {
        MM_TRY(mm_args_refuse(args, "--samples", "neither --calibrate nor --check reads any", err));
    }
    return mm_check_parse(&q->check, args, err);
}

static enum mm_code write_model(struct quantize *q, struct mm_backend *be,
                                const struct mm_args *args, struct mm_error *err) {
    const char *meta = mm_args_string(args, "--calibrate");
    struct mm_model m;
    MM_TRY(mm_model_load(&m, be, q->from, -1, err));
    char *assets = mm_model_folder(q->from);
    enum mm_code code = mm_code_ok;
    if (meta) {
        mm_calibration_init(&q->calibration, &m, assets, meta, mm_args_int(args, "--samples"), 1);
        q->how.feedback = mm_calibration_feedback;
        q->how.arg = &q->calibration;
        q->calibrated = true;
    }
    struct mm_model_out out = {0};
    const double start = mm_now();
    if (!code) code = mm_model_out_begin(&out, q->to, q->from, err);
    if (!code) {
        code = mm_model_quantize(&m, out.stage, &q->how, assets, &q->report, err);
        code = mm_model_out_end(&out, code, err);
    }
    q->seconds = mm_now() - start;
    mm_calibration_drop(&q->calibration);
    free(assets);
    mm_model_deinit(&m);
    return code;
}

// ---- the report ---------------------------------------------------------------------------------

static json_t *describe(const struct quantize *q) {
    const struct mm_quantize_report *r = &q->report;
    const double bits = 8.0 * (double)r->quantized_bytes / (double)r->n_weights;
    json_t *o = json_pack(
        "{s:s, s:I, s:f, s:f, s:{s:i, s:i}, s:I, s:I, s:I, s:b, s:f, s:I}", "type",
        mm_dtype_name(q->how.dtype), "weights", (json_int_t)r->n_weights, "bits_per_weight", bits,
        "relative_error", sqrt(r->squared_error / r->squared_weights), "tensors", "quantized",
        r->n_quantized, "kept", r->n_kept, "source_bytes", (json_int_t)r->source_bytes,
        "weight_bytes", (json_int_t)(r->quantized_bytes + r->kept_bytes), "quantized_bytes",
        (json_int_t)r->quantized_bytes, "calibrated", (int)q->calibrated, "seconds", q->seconds,
        "peak_bytes", (json_int_t)mm_memory_peak());
    if (q->calibrated) {
        json_object_set_new(
            o, "calibration",
            json_pack("{s:I, s:I, s:I}", "samples", (json_int_t)q->calibration.taken, "skipped",
                      (json_int_t)q->calibration.skipped, "tokens",
                      (json_int_t)q->calibration.tokens));
    }
    return o;
}

static void print_text(const struct quantize *q, const json_t *o) {
    const struct mm_quantize_report *r = &q->report;
    const double mib = 1048576.0;
    printf("%s: %s, %.2f MiB (%.2f MiB before)\n", q->to, mm_dtype_name(q->how.dtype),
           (double)(r->quantized_bytes + r->kept_bytes) / mib, (double)r->source_bytes / mib);
    printf(
        "  %d tensors of %lld weights rounded, %.3f bits a weight, error %.3f%% of their size%s\n",
        r->n_quantized, (long long)r->n_weights,
        json_real_value(json_object_get(o, "bits_per_weight")),
        100.0 * json_real_value(json_object_get(o, "relative_error")),
        q->calibrated ? " (calibrated)" : "");
    printf("  %d tensors kept, %.2f MiB\n", r->n_kept, (double)r->kept_bytes / mib);
    mm_check_print(o);
}

static enum mm_code run(struct quantize *q, const struct mm_args *args, struct mm_error *err) {
    struct mm_backend *be;
    MM_TRY(check_options(q, args, err));
    MM_TRY(mm_cli_backend(&be, args, err));
    mm_interrupt_catch();
    enum mm_code code = write_model(q, be, args, err);
    json_t *o = NULL;
    if (!code) o = describe(q);
    if (!code && q->check.n > 0) code = mm_check_run(&q->check, be, q->from, q->to, o, err);
    if (!code && mm_args_flag(args, "--json")) {
        char *text = json_dumps(o, JSON_REAL_PRECISION(9));
        puts(text);
        free(text);
    } else if (!code) {
        print_text(q, o);
    }
    json_decref(o);
    mm_backend_close(be);
    return code;
}

int mm_cmd_quantize(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code =
        mm_cli_parse(&args, opts, "mmamba quantize MODEL OUT --type q8|q4 [OPTION]...",
                     "Writes a model with its big matrices rounded to 8 or 4 bits a weight, for "
                     "less memory and faster answers; can tell what that costs.",
                     argc, argv, &done, &err);
    struct quantize q = {0};
    if (!code && !done) code = run(&q, args, &err);
    mm_check_free(&q.check);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
