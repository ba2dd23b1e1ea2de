#include "cli/run_options.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum mm_code mm_cli_run_options(struct mm_run_options *o, const struct mm_args *args,
                                struct mm_error *err) {
    mm_recipe_defaults(&o->recipe);
    o->keep = "none";
    o->init = mm_init_mimic;
    o->data = mm_args_string(args, "--data");
    o->resume = mm_args_flag(args, "--resume");
    if (o->data == NULL) return mm_fail(err, mm_code_usage, "--data META is missing");
    const char *recipe = mm_args_string(args, "--recipe");
    if (recipe) MM_TRY(mm_recipe_read(&o->recipe, recipe, err));
    if (mm_args_given(args, "--seed")) o->recipe.seed = (uint64_t)mm_args_int(args, "--seed");
    return mm_code_ok;
}

// What the backend could multiply in the run's type, measured now for a moment; 0: not known.
static double product_rate(struct mm_backend *be, enum mm_dtype compute) {
    const enum mm_ceiling which = compute == mm_dtype_bf16 ? mm_ceiling_bf16 : mm_ceiling_f32;
    struct mm_error err;
    const char *how;
    double rate = 0.0, wide = 0.0;
    if (be->gauges->ceiling(be, which, 0.2, &rate, &how, &err)) return 0.0;
    if (which == mm_ceiling_bf16 &&
        !be->gauges->ceiling(be, mm_ceiling_f32, 0.2, &wide, &how, &err)) {
        rate = wide > rate ? wide : rate;  // bf16 can be widened
    }
    return rate;
}

static void print_summary(const struct mm_run_summary *s, double ceiling, bool json) {
    const double rate = s->seconds > 0 ? (double)s->tokens / s->seconds : 0.0;
    const double fraction = ceiling > 0 ? s->operations_per_s / ceiling : 0.0;
    if (!json) {
        mm_info(
            "%lld steps, loss %.4g, %lld tokens in %.1f s (%.0f tokens/s, products of %.1f G/s, "
            "%.1f%% of what the device multiplies), peak %.2f GiB, %lld samples skipped",
            (long long)s->steps, s->loss, (long long)s->tokens, s->seconds, rate,
            s->operations_per_s * 1e-9, 100.0 * fraction, (double)s->peak_bytes / 1073741824.0,
            (long long)s->skipped_samples);
        return;
    }
    json_t *o = json_pack(
        "{s:I, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "steps", (json_int_t)s->steps,
        "loss", s->loss, "seconds", s->seconds, "tokens", (json_int_t)s->tokens, "tokens_per_s",
        rate, "operations_per_s", s->operations_per_s, "product_rate", ceiling, "product_fraction",
        fraction, "planned_bytes", (json_int_t)s->planned_bytes, "peak_bytes",
        (json_int_t)s->peak_bytes, "skipped_samples", (json_int_t)s->skipped_samples);
    char *text = json_dumps(o, JSON_REAL_PRECISION(9));
    puts(text);
    free(text);
    json_decref(o);
}

enum mm_code mm_cli_run(const struct mm_run_options *o, const struct mm_args *args,
                        struct mm_error *err) {
    struct mm_backend *be;
    MM_TRY(mm_cli_backend(&be, args, err));
    mm_interrupt_catch();
    struct mm_run_summary s;
    const enum mm_code code = mm_run(o, be, &s, err);
    if (!code) {
        const bool json = mm_args_flag(args, "--json"), steps = s.operations_per_s > 0.0;
        const bool told = json || !mm_args_flag(args, "--quiet");
        print_summary(&s, steps && told ? product_rate(be, o->recipe.compute) : 0.0, json);
    }
    mm_backend_close(be);
    return code;
}
