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

static void print_summary(const struct mm_run_summary *s, bool json) {
    const double rate = s->seconds > 0 ? (double)s->tokens / s->seconds : 0.0;
    if (!json) {
        mm_info(
            "%lld steps, loss %.4g, %lld tokens in %.1f s (%.0f tokens/s), peak %.2f GiB, %lld "
            "samples skipped",
            (long long)s->steps, s->loss, (long long)s->tokens, s->seconds, rate,
            (double)s->peak_bytes / 1073741824.0, (long long)s->skipped_samples);
        return;
    }
    json_t *o =
        json_pack("{s:I, s:f, s:f, s:I, s:f, s:I, s:I, s:I}", "steps", (json_int_t)s->steps, "loss",
                  s->loss, "seconds", s->seconds, "tokens", (json_int_t)s->tokens, "tokens_per_s",
                  rate, "planned_bytes", (json_int_t)s->planned_bytes, "peak_bytes",
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
    if (!code) print_summary(&s, mm_args_flag(args, "--json"));
    mm_backend_close(be);
    return code;
}
