// `bench` on small models: what it counts, the rows it measures and refuses, and what it reports.
// How fast anything is, is nobody's business here.
#include "bench_fixture.h"

#include <cairo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/counts.h"
#include "bench/report.h"
#include "io/chart.h"

static struct mm_bench_plan plan_of(int64_t prompt) {
    return (struct mm_bench_plan){.prompt = prompt,
                                  .new_tokens = 3,
                                  .batch = 1,
                                  .piece = 512,
                                  .repeats = 2,
                                  .max_seconds = 600.0};
}

static struct mm_bench_row row_of(struct mm_model *m, const struct mm_bench_plan *plan) {
    struct mm_bench_row row = {0};
    struct mm_error err;
    if (mm_bench_run(&row, m, plan, &err)) fail_msg("%s", err.text);
    return row;
}

// ---- counting -----------------------------------------------------------------------------------

// D 256, H 4, G 2, P 64, F 768, V 2560, 2 + 6 blocks, 112-pixel tiles of 16 tokens.
static void counts_are_those_of_the_shapes(void **state) {
    (void)state;
    struct mm_bench_source s;
    source_open(&s, true, mm_dtype_f32);
    struct mm_model *teacher = form_of(&s, mm_bench_form_attention);
    struct mm_model *linear = form_of(&s, mm_bench_form_linear);
    const double mlp = 3 * 256 * 768, wo = 256 * 256, output = 2560 * 256;
    const double mha = 512 * 256 + wo + mlp, mamba = (256 + 2 * 256 + 4) * 256 + wo + mlp;
    // of the last block, what follows its mixer's keys, values or state is for the last row only
    assert_true(mm_bench_prefill_ops(linear, 1000, 0) ==
                2000.0 * 8 * mamba - 2 * 999 * (wo + mlp) + 2 * output);
    assert_true(mm_bench_prefill_ops(teacher, 3, 0) ==
                6.0 * 8 * mha - 2 * 2 * (wo + mlp) + 2 * output + 7 * 4.0 * 256 * (1 + 2 + 3) +
                    4.0 * 256 * 3);
    // a tile: 64 patches of 3 * 14 * 14, 16 rows of 4 * 256 and of 256, 16 tokens more
    assert_true(mm_bench_prefill_ops(linear, 10, 2) - mm_bench_prefill_ops(linear, 42, 0) ==
                2.0 * 2 * (64.0 * 588 * 256 + 16.0 * (1024 * 256 + 256 * 256)));

    int64_t weights = 0;
    for (int i = 0; i < linear->n_params; i++) {
        const struct mm_param *p = &linear->params[i];
        if (p->block >= 0 || p->role == mm_role_norm || p->role == mm_role_output) {
            weights += 4 * mm_view_count(p->w);
        }
    }
    const int64_t state_bytes = (int64_t)mm_model_state_bytes(linear);
    assert_int_equal(mm_bench_step_bytes(linear, 100, 1), weights + 2 * state_bytes);
    assert_int_equal(mm_bench_step_bytes(linear, 100000, 3), weights + 6 * state_bytes);
    // keys and values of 2 heads of 64, f32, 8 blocks
    assert_int_equal(mm_bench_step_bytes(teacher, 101, 1) - mm_bench_step_bytes(teacher, 100, 1),
                     8 * 2 * 2 * 64 * 4);
    mm_bench_model_close(&s, teacher);
    mm_bench_model_close(&s, linear);
    mm_bench_source_close(&s);
}

// ---- rows ---------------------------------------------------------------------------------------

static void check_row(const struct mm_bench_row *row) {
    assert_true(row->prefill_s.median > 0.0 && row->ttft_s.median >= row->prefill_s.least);
    assert_true(row->prefill_s.least <= row->prefill_s.median);
    assert_true(row->prefill_s.median <= row->prefill_s.most);
    assert_true(row->decode_tok_s.median > 0.0);
    assert_true(row->step_p50_s > 0.0 && row->step_p99_s >= row->step_p50_s);
    assert_true(row->peak_bytes > row->weight_bytes);
}

static void memory_grows_with_length_where_attention_is_kept(void **state) {
    (void)state;
    struct mm_bench_source s;
    source_open(&s, true, mm_dtype_bf16);
    for (int f = 0; f < mm_bench_form_count; f++) {
        struct mm_model *m = form_of(&s, (enum mm_bench_form)f);
        struct mm_bench_plan plan = plan_of(40);
        const struct mm_bench_row a = row_of(m, &plan);
        plan.prompt = 1300;
        plan.pair = 40;
        const struct mm_bench_row b = row_of(m, &plan);
        check_row(&a);
        check_row(&b);
        assert_string_equal(a.mixers, mm_bench_form_names[f]);
        assert_int_equal(a.weight_bytes, b.weight_bytes);
        assert_int_equal(a.state_bytes, b.state_bytes);
        assert_true(b.pair_ratio > 0.0 && a.pair_ratio <= 0.0);
        assert_true((a.state_bytes > 0) == (f != mm_bench_form_attention));
        if (f == mm_bench_form_linear) {
            assert_true(a.cache_bytes == 0 && b.cache_bytes == 0);
        } else {
            assert_true(a.cache_bytes > 0);
            assert_int_equal(b.cache_bytes / 1303, a.cache_bytes / 43);  // prompt and 3 steps
        }
        mm_bench_model_close(&s, m);
    }
    mm_bench_source_close(&s);
}

static void a_folder_gives_all_three_forms(void **state) {
    (void)state;
    struct mm_bench_source s;
    source_open(&s, false, -1);
    struct mm_bench_plan plan = plan_of(9);
    plan.tiles = 2;
    for (int f = 0; f < mm_bench_form_count; f++) {
        struct mm_model *m = form_of(&s, (enum mm_bench_form)f);
        const struct mm_bench_row row = row_of(m, &plan);
        check_row(&row);
        assert_int_equal(row.visual_tokens, 32);
        assert_int_equal(row.dtype, mm_dtype_bf16);
        mm_bench_model_close(&s, m);
    }
    mm_bench_source_close(&s);
}

static void sequences_side_by_side_each_have_a_state(void **state) {
    (void)state;
    struct mm_bench_source s;
    source_open(&s, true, mm_dtype_bf16);
    struct mm_model *m = form_of(&s, mm_bench_form_hybrid);
    struct mm_bench_plan plan = plan_of(60);
    const struct mm_bench_row one = row_of(m, &plan);
    plan.batch = 5;
    const struct mm_bench_row five = row_of(m, &plan);
    check_row(&five);
    assert_int_equal(five.state_bytes, 5 * one.state_bytes);
    assert_int_equal(five.cache_bytes, 5 * one.cache_bytes);
    // weights once, states and caches of each
    assert_int_equal((int64_t)(five.step_bytes - one.step_bytes),
                     4 * (2 * one.state_bytes + 61 * (int64_t)mm_model_cache_bytes_per_token(m)));
    mm_bench_model_close(&s, m);
    mm_bench_source_close(&s);
}

static void skipping_the_prompt_is_told(void **state) {
    (void)state;
    struct mm_bench_source s;
    source_open(&s, true, mm_dtype_bf16);
    struct mm_model *m = form_of(&s, mm_bench_form_hybrid);
    struct mm_bench_plan plan = plan_of(5000);
    plan.skip_prefill = true;
    const struct mm_bench_row row = row_of(m, &plan);
    assert_int_equal(row.prefill_s.n, 0);
    assert_true(row.decode_tok_s.median > 0.0);
    // what a step reads is there: 5000 tokens and the steps after them
    assert_int_equal(row.cache_bytes / (int64_t)mm_model_cache_bytes_per_token(m), 5003);
    struct mm_bench_report r = {.be = be};
    mm_bench_report_add(&r, &row);
    json_t *o = mm_bench_report_json(&r);
    const json_t *one = json_array_get(json_object_get(o, "rows"), 0);
    assert_true(json_is_null(json_object_get(one, "prefill_tok_s")));
    assert_true(json_is_null(json_object_get(one, "ttft_s")));
    assert_true(json_is_true(json_object_get(one, "prefill_skipped")));
    json_decref(o);
    mm_bench_report_deinit(&r);
    mm_bench_model_close(&s, m);
    mm_bench_source_close(&s);
}

static void what_cannot_be_is_said(void **state) {
    (void)state;
    struct mm_bench_source s;
    source_open(&s, true, mm_dtype_bf16);
    struct mm_model *m = form_of(&s, mm_bench_form_attention);
    struct mm_bench_row row = {0};
    struct mm_error err;
    struct mm_bench_plan plan = plan_of(mm_bench_prompt_max);
    assert_int_equal(mm_bench_run(&row, m, &plan, &err), mm_code_memory);
    assert_non_null(strstr(err.text, "keys and values of 16777"));
    assert_non_null(strstr(err.text, "GiB are free"));
    plan = plan_of(200000);
    plan.max_seconds = 1e-3;
    assert_int_equal(mm_bench_run(&row, m, &plan, &err), mm_code_unsupported);
    assert_non_null(strstr(err.text, "reading 200000 tokens would take about"));
    mm_bench_model_close(&s, m);

    s.keep = "all";
    assert_int_equal(mm_bench_form_check(&s, mm_bench_form_hybrid, &err), mm_code_usage);
    assert_non_null(strstr(err.text, "keeps all of the 8 blocks, which is no hybrid"));
    mm_bench_source_close(&s);
}

// ---- the report ---------------------------------------------------------------------------------

static double number(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("'%s' is missing or no number", key);
    return json_number_value(v);
}

static struct mm_bench_report report_of_two(void) {
    struct mm_bench_source s;
    source_open(&s, true, mm_dtype_bf16);
    struct mm_bench_report r = {.be = be};
    struct mm_error err;
    if (mm_bench_ceilings_all(&r.ceilings, be, &err)) fail_msg("%s", err.text);
    for (int f = 0; f < mm_bench_form_count; f += 2) {
        struct mm_model *m = form_of(&s, (enum mm_bench_form)f);
        for (int64_t n = 64; n <= 640; n *= 10) {
            struct mm_bench_plan plan = plan_of(n);
            struct mm_bench_row row = row_of(m, &plan);
            row.read_after = mm_bench_last(&r.ceilings.of[mm_ceiling_read]);
            mm_bench_report_add(&r, &row);
        }
        mm_bench_model_close(&s, m);
    }
    mm_bench_report_skip(&r, "attention", 1000000, "too large");
    mm_bench_source_close(&s);
    return r;
}

static void the_report_has_every_field(void **state) {
    (void)state;
    struct mm_bench_report r = report_of_two();
    json_t *o = mm_bench_report_json(&r);
    static const char *const top[] = {"version", "backend", "device"};
    for (int i = 0; i < 3; i++)
        assert_true(json_is_string(json_object_get(o, top[i])));
    assert_true(number(o, "threads") == 2);
    const json_t *c = json_object_get(o, "ceilings"), *p = json_object_get(c, "product_GFLOPs");
    assert_true(number(c, "read_GBps") > 0.0);
    assert_true(number(p, "f32") > 0.0 && number(p, "int8") > 0.0);
    assert_true(number(p, "bf16") >= number(p, "f32"));
    const json_t *rows = json_object_get(o, "rows");
    assert_int_equal(json_array_size(rows), 4);
    for (size_t i = 0; i < 4; i++) {
        const json_t *row = json_array_get(rows, i);
        static const char *const positive[] = {"prompt",     "new",          "batch",
                                               "ttft_s",     "decode_tok_s", "prefill_tok_s",
                                               "peak_bytes", "weight_bytes"};
        for (int k = 0; k < 8; k++)
            assert_true(number(row, positive[k]) > 0.0);
        assert_true(number(row, "state_bytes") + number(row, "cache_bytes") > 0.0);
        assert_string_equal(json_string_value(json_object_get(row, "dtype")), "bf16");
        const double prefill = number(row, "prefill_fraction");
        const double decode = number(row, "decode_fraction");
        assert_true(prefill > 0.0 && prefill <= 1.2);
        // these weights fit in a cache, which may be ten times as fast as the memory
        assert_true(decode > 0.0 && decode <= 20.0);
        assert_true(fabs(decode - number(row, "step_bytes") * number(row, "decode_tok_s") * 1e-9 /
                                      number(c, "read_GBps")) < 1e-6 * decode);
    }
    assert_int_equal(json_array_size(json_object_get(o, "skipped")), 1);
    json_decref(o);

    struct mm_buf table = {0};
    mm_bench_report_table(&r, &table);
    assert_non_null(strstr(table.data, "attention, 1000000 tokens: left out: too large"));
    mm_buf_free(&table);
    mm_bench_report_deinit(&r);
}

// Whether some pixel of the picture is nearly this colour.
static bool shows(cairo_surface_t *s, struct mm_chart_color c) {
    const int w = cairo_image_surface_get_width(s), h = cairo_image_surface_get_height(s);
    int n = 0;
    for (int y = 0; y < h; y++) {
        const unsigned char *row =
            cairo_image_surface_get_data(s) + y * cairo_image_surface_get_stride(s);
        for (int x = 0; x < w; x++) {
            uint32_t p;
            memcpy(&p, row + 4 * x, 4);
            n += fabs((double)(p >> 16 & 255) - 255.0 * c.r) < 3.0 &&
                 fabs((double)(p >> 8 & 255) - 255.0 * c.g) < 3.0 &&
                 fabs((double)(p & 255) - 255.0 * c.b) < 3.0;
        }
    }
    return n > 100;
}

static void the_picture_shows_each_kind(void **state) {
    (void)state;
    struct mm_bench_report r = {.be = be};
    struct mm_bench_row row = {.mixers = "linear", .plan = {.prompt = 100, .batch = 1}};
    row.step_p50_s = 0.01, row.peak_bytes = 1 << 30;
    row.prefill_s = (struct mm_bench_spread){.median = 0.1, .least = 0.1, .most = 0.1, .n = 1};
    for (int i = 0; i < 2; i++) {
        row.plan.prompt = 100 + 900 * i;
        row.mixers = "linear";
        mm_bench_report_add(&r, &row);
        row.mixers = "attention";
        row.step_p50_s = 0.03;
        mm_bench_report_add(&r, &row);
    }
    char path[] = "/tmp/mmamba-bench-XXXXXX";
    struct mm_error err;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(mm_bench_report_plot(&r, path, &err), mm_code_ok);
    cairo_surface_t *s = cairo_image_surface_create_from_png(path);
    assert_int_equal(cairo_surface_status(s), CAIRO_STATUS_SUCCESS);
    assert_true(shows(s, mm_chart_blue) && shows(s, mm_chart_orange) && !shows(s, mm_chart_green));
    cairo_surface_destroy(s);
    remove(path);
    assert_int_equal(mm_bench_report_plot(&r, "/nowhere/at/all.png", &err), mm_code_io);
    mm_bench_report_deinit(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_the_shapes),
        cmocka_unit_test(memory_grows_with_length_where_attention_is_kept),
        cmocka_unit_test(a_folder_gives_all_three_forms),
        cmocka_unit_test(sequences_side_by_side_each_have_a_state),
        cmocka_unit_test(skipping_the_prompt_is_told),
        cmocka_unit_test(what_cannot_be_is_said),
        cmocka_unit_test(the_report_has_every_field),
        cmocka_unit_test(the_picture_shows_each_kind),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
