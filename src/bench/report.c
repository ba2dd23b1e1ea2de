#include "bench/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mm_bench_report_add(struct mm_bench_report *r, const struct mm_bench_row *row) {
    r->rows = mm_xrealloc(r->rows, (size_t)(r->n_rows + 1) * sizeof *r->rows);
    r->rows[r->n_rows++] = *row;
}

void mm_bench_report_skip(struct mm_bench_report *r, const char *mixers, int64_t prompt,
                          const char *why) {
    r->skipped = mm_xrealloc(r->skipped, (size_t)(r->n_skipped + 1) * sizeof *r->skipped);
    r->skipped[r->n_skipped++] = (struct mm_bench_skipped){mixers, prompt, mm_xstrdup(why)};
}

void mm_bench_report_deinit(struct mm_bench_report *r) {
    for (int i = 0; i < r->n_skipped; i++)
        free(r->skipped[i].why);
    free(r->skipped);
    free(r->rows);
}

// ---- derived numbers ----------------------------------------------------------------------------

double mm_bench_prefill_tok_s(const struct mm_bench_row *row) {
    if (row->prefill_s.n == 0) return 0.0;
    return (double)(row->plan.prompt + row->visual_tokens) / row->prefill_s.median;
}

double mm_bench_prefill_fraction(const struct mm_bench_report *r, const struct mm_bench_row *row) {
    const double ceiling = r->ceilings.of[mm_bench_product_of(row->dtype)].best;
    if (row->prefill_s.n == 0 || ceiling <= 0.0) return 0.0;
    return row->prefill_ops / row->prefill_s.median / ceiling;
}

static double bytes_a_second(const struct mm_bench_row *row) {
    return row->step_bytes * row->decode_tok_s.median / (double)row->plan.batch;
}

double mm_bench_decode_fraction(const struct mm_bench_report *r, const struct mm_bench_row *row) {
    const double ceiling = r->ceilings.of[mm_ceiling_read].best;
    return ceiling > 0.0 ? bytes_a_second(row) / ceiling : 0.0;
}

double mm_bench_decode_fraction_near(const struct mm_bench_row *row) {
    const double near = row->read_before > row->read_after ? row->read_before : row->read_after;
    return near > 0.0 ? bytes_a_second(row) / near : 0.0;
}

// ---- JSON ---------------------------------------------------------------------------------------

static void set(json_t *o, const char *key, json_t *v) {
    json_object_set_new(o, key, v);
}
static void set_real(json_t *o, const char *key, double v) {
    set(o, key, json_real(v));
}
static void set_int(json_t *o, const char *key, int64_t v) {
    set(o, key, json_integer((json_int_t)v));
}

static json_t *json_load(const struct mm_load *l) {
    json_t *o = json_object();
    set(o, "waited", l->waited < 0.0 ? json_null() : json_real(l->waited));
    set(o, "other_processors", l->others < 0.0 ? json_null() : json_real(l->others));
    set(o, "stolen_processors", l->stolen < 0.0 ? json_null() : json_real(l->stolen));
    set(o, "high", json_boolean(mm_load_high(l)));
    return o;
}

static void add_prefill(json_t *o, const struct mm_bench_report *r,
                        const struct mm_bench_row *row) {
    const bool read = row->prefill_s.n > 0;
    const double n = (double)(row->plan.prompt + row->visual_tokens);
    set(o, "prefill_tok_s", read ? json_real(mm_bench_prefill_tok_s(row)) : json_null());
    set(o, "prefill_fraction", read ? json_real(mm_bench_prefill_fraction(r, row)) : json_null());
    set(o, "ttft_s", read ? json_real(row->ttft_s.median) : json_null());
    set(o, "prefill_skipped", json_boolean(!read));
    if (!read) return;
    set_real(o, "prefill_tok_s_best", n / row->prefill_s.least);
    set_real(o, "prefill_tok_s_worst", n / row->prefill_s.most);
    set_real(o, "prefill_operations", row->prefill_ops);
    if (row->first_tok_s > 0.0) {
        set_real(o, "prefill_first_tok_s", row->first_tok_s);
        set_real(o, "prefill_last_tok_s", row->last_tok_s);
    }
}

static json_t *json_row(const struct mm_bench_report *r, const struct mm_bench_row *row) {
    json_t *o = json_object();
    set(o, "mixers", json_string(row->mixers));
    set(o, "dtype", json_string(mm_dtype_name(row->dtype)));
    set_int(o, "prompt", row->plan.prompt);
    set_int(o, "visual_tokens", row->visual_tokens);
    set_int(o, "new", row->plan.new_tokens);
    set_int(o, "batch", row->plan.batch);
    set_int(o, "piece", row->plan.piece);
    set_int(o, "repeats", row->decode_tok_s.n);
    add_prefill(o, r, row);
    set_real(o, "decode_tok_s", row->decode_tok_s.median);
    set_real(o, "decode_fraction", mm_bench_decode_fraction(r, row));
    set_real(o, "decode_fraction_near", mm_bench_decode_fraction_near(row));
    set_real(o, "decode_tok_s_best", row->decode_tok_s.most);
    set_real(o, "decode_tok_s_worst", row->decode_tok_s.least);
    set_real(o, "step_s_median", row->step_p50_s);
    set_real(o, "step_s_p99", row->step_p99_s);
    set_real(o, "step_bytes", row->step_bytes);
    set_real(o, "read_GBps_before", row->read_before * 1e-9);
    set_real(o, "read_GBps_after", row->read_after * 1e-9);
    if (row->pair_ratio > 0.0) {
        set_int(o, "compared_with_prompt", row->plan.pair);
        set_real(o, "decode_ratio", row->pair_ratio);
    }
    set_int(o, "peak_bytes", row->peak_bytes);
    set(o, "peak_of_this_row", json_boolean(row->peak_known));
    set_int(o, "peak_over_weights_bytes", row->peak_bytes - row->weight_bytes);
    set_int(o, "weight_bytes", row->weight_bytes);
    set_int(o, "state_bytes", row->state_bytes);
    set_int(o, "cache_bytes", row->cache_bytes);
    set(o, "load", json_load(&row->load));
    return o;
}

static const char *const product_names[mm_ceiling_count] = {
    [mm_ceiling_f32] = "f32", [mm_ceiling_bf16] = "bf16", [mm_ceiling_int8] = "int8"};

static json_t *json_samples(const struct mm_bench_rate *rate) {
    json_t *o = json_object(), *samples = json_array();
    for (int i = 0; i < rate->n; i++)
        json_array_append_new(samples, json_real(rate->samples[i] * 1e-9));
    set(o, "how", json_string(rate->how ? rate->how : ""));
    set_real(o, "median", mm_bench_median(rate->samples, rate->n) * 1e-9);
    set(o, "samples", samples);
    return o;
}

static json_t *json_ceilings(const struct mm_bench_ceilings *c) {
    json_t *o = json_object(), *products = json_object(), *detail = json_object();
    set_real(o, "read_GBps", c->of[mm_ceiling_read].best * 1e-9);
    set(detail, "read", json_samples(&c->of[mm_ceiling_read]));
    for (int i = mm_ceiling_f32; i < mm_ceiling_count; i++) {
        set_real(products, product_names[i], c->of[i].best * 1e-9);
        set(detail, product_names[i], json_samples(&c->of[i]));
    }
    set(o, "product_GFLOPs", products);
    set(o, "detail", detail);
    return o;
}

json_t *mm_bench_report_json(const struct mm_bench_report *r) {
    json_t *o = json_object(), *rows = json_array(), *skipped = json_array();
    for (int i = 0; i < r->n_rows; i++)
        json_array_append_new(rows, json_row(r, &r->rows[i]));
    for (int i = 0; i < r->n_skipped; i++) {
        const struct mm_bench_skipped *s = &r->skipped[i];
        json_array_append_new(skipped, json_pack("{s:s, s:I, s:s}", "mixers", s->mixers, "prompt",
                                                 (json_int_t)s->prompt, "why", s->why));
    }
    set(o, "version", json_string(MMAMBA_VERSION));
    set(o, "backend", json_string(r->be->name));
    set(o, "device", json_string(r->be->device));
    set_int(o, "threads", mm_pool_size(r->be->pool));
    set(o, "ceilings", json_ceilings(&r->ceilings));
    set(o, "rows", rows);
    set(o, "skipped", skipped);
    set(o, "interrupted", json_boolean(r->interrupted));
    return o;
}

// ---- for people ---------------------------------------------------------------------------------

static void add_ceiling(struct mm_buf *out, const char *name, const struct mm_bench_rate *r,
                        const char *unit) {
    double least = r->best;
    for (int i = 0; i < r->n; i++)
        least = r->samples[i] < least ? r->samples[i] : least;
    mm_buf_addf(out, "  %-5s %9.1f %-7s %s", name, r->best * 1e-9, unit, r->how ? r->how : "");
    if (r->n > 1) {
        mm_buf_addf(out, "; median of %d %.1f, least %.1f", r->n,
                    mm_bench_median(r->samples, r->n) * 1e-9, least * 1e-9);
    }
    mm_buf_adds(out, "\n");
}

static void add_row(struct mm_buf *out, const struct mm_bench_report *r,
                    const struct mm_bench_row *row) {
    char read[64] = "  (skipped)                 -", name[32];
    const int n = snprintf(name, sizeof name, "%s", row->mixers);
    if (row->plan.batch > 1) {  // sequences side by side
        snprintf(name + n, sizeof name - (size_t)n, " x%lld", (long long)row->plan.batch);
    }
    if (row->prefill_s.n > 0) {
        snprintf(read, sizeof read, "%9.1f %5.1f%% %10.3f", mm_bench_prefill_tok_s(row),
                 100.0 * mm_bench_prefill_fraction(r, row), row->ttft_s.median);
    }
    mm_buf_addf(
        out, "%-9s %-4s %8lld %27s %9.2f %5.1f%% %5.1f%% %8.2f %8.2f %8.0f %7.0f %6.1f %7.1f\n",
        name, mm_dtype_name(row->dtype), (long long)(row->plan.prompt + row->visual_tokens), read,
        row->decode_tok_s.median, 100.0 * mm_bench_decode_fraction(r, row),
        100.0 * mm_bench_decode_fraction_near(row), 1e3 * row->step_p50_s, 1e3 * row->step_p99_s,
        (double)row->peak_bytes / 1048576.0, (double)row->weight_bytes / 1048576.0,
        (double)row->state_bytes / 1048576.0, (double)row->cache_bytes / 1048576.0);
}

static void add_remarks(struct mm_buf *out, const struct mm_bench_report *r) {
    struct mm_load worst = {-1.0, -1.0, -1.0};
    bool all_known = true;
    for (int i = 0; i < r->n_rows; i++) {
        const struct mm_bench_row *row = &r->rows[i];
        worst = mm_load_worse(worst, row->load);
        all_known &= row->peak_known;
        const long long n = (long long)(row->plan.prompt + row->visual_tokens);
        if (row->pair_ratio > 0.0) {
            mm_buf_addf(out,
                        "%s %s: a step after %lld tokens runs at %.3f times the speed of one "
                        "after %lld (taken in turns)\n",
                        row->mixers, mm_dtype_name(row->dtype), n, row->pair_ratio,
                        (long long)row->plan.pair);
        }
        if (row->first_tok_s > 0.0) {
            mm_buf_addf(out,
                        "%s %s: of %lld tokens the last 2048 are read at %.3f times the speed "
                        "of the first\n",
                        row->mixers, mm_dtype_name(row->dtype), n,
                        row->last_tok_s / row->first_tok_s);
        }
    }
    for (int i = 0; i < r->n_skipped; i++) {
        mm_buf_addf(out, "%s, %lld tokens: left out: %s\n", r->skipped[i].mixers,
                    (long long)r->skipped[i].prompt, r->skipped[i].why);
    }
    if (!all_known) {
        mm_buf_adds(out,
                    "This kernel cannot count a peak anew: peaks are those since the start.\n");
    }
    if (r->interrupted) mm_buf_adds(out, "Interrupted: what was measured until then.\n");
    if (mm_load_high(&worst)) {
        mm_buf_addf(
            out,
            "The machine was busy: our threads waited %.0f%% of their time, %.2f processors "
            "worked for others. These numbers are not to be quoted.\n",
            100.0 * (worst.waited > 0.0 ? worst.waited : 0.0),
            (worst.others > 0.0 ? worst.others : 0.0) + (worst.stolen > 0.0 ? worst.stolen : 0.0));
    }
}

void mm_bench_report_table(const struct mm_bench_report *r, struct mm_buf *out) {
    mm_buf_addf(out, "%s; its ceilings, in this run:\n", r->be->device);
    add_ceiling(out, "read", &r->ceilings.of[mm_ceiling_read], "GB/s");
    for (int i = mm_ceiling_f32; i < mm_ceiling_count; i++)
        add_ceiling(out, product_names[i], &r->ceilings.of[i], "GFLOP/s");
    if (r->n_rows > 0) {
        mm_buf_adds(
            out,
            "\n                          reading the prompt          one token at a time, of "
            "the read speed             memory, MiB\n"
            "mixers    type   tokens     tok/s of peak   first, s     tok/s   best   near  "
            "step, ms    p99      peak weights  state   cache\n");
    }
    for (int i = 0; i < r->n_rows; i++)
        add_row(out, r, &r->rows[i]);
    add_remarks(out, r);
}
