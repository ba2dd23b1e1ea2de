// The models that `bench` makes up or rounds: the same numbers whatever the number of threads, in
// their range, in every type.
#include "bench_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "bench/random.h"
#include "bench/round.h"
#include "bench/run.h"

// ---- weights out of nothing ---------------------------------------------------------------------

static void random_weights_do_not_depend_on_threads(void **state) {
    (void)state;
    static const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16, mm_dtype_q8,
                                          mm_dtype_q4};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        char hash[3][33];
        for (int i = 0; i < 3; i++) {
            struct mm_backend *own;
            struct mm_model m;
            struct mm_config c = {0};
            struct mm_error err;
            assert_int_equal(mm_backend_open_cpu(&own, 1 + 2 * i, &err), mm_code_ok);
            assert_int_equal(mm_config_read(&c, pico, &err), mm_code_ok);
            const bool rounded = mm_dtype_quantized(types[t]);
            if (rounded) mm_config_set_quant(&c, types[t]);
            assert_int_equal(mm_bench_random_model(&m, &c, own, rounded ? mm_dtype_bf16 : types[t],
                                                   i == 2 ? 8 : 7, &err),
                             mm_code_ok);
            mm_model_hash(&m, hash[i]);
            mm_model_deinit(&m);
            mm_config_deinit(&c);
            mm_backend_close(own);
        }
        assert_string_equal(hash[0], hash[1]);
        assert_string_not_equal(hash[0], hash[2]);  // another seed
    }
}

static void random_weights_fill_their_range(void **state) {
    (void)state;
    struct mm_bench_source s;
    source_open(&s, true, mm_dtype_bf16);
    struct mm_model *m = form_of(&s, mm_bench_form_linear);
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        const int64_t n = mm_view_count(p->w);
        assert_int_equal(p->used, p->w.data != NULL);
        if (!p->used || p->n_axes == 1 || n < 4096) continue;
        float *x = malloc((size_t)n * sizeof *x);
        mm_param_get(m, p->w, x);
        double sum = 0.0, squares = 0.0, most = 0.0;
        for (int64_t k = 0; k < n; k++) {
            sum += x[k], squares += (double)x[k] * (double)x[k];
            most = fmax(most, fabs((double)x[k]));
        }
        const double deviation = sqrt(squares / (double)n);
        assert_true(fabs(sum / (double)n) < 0.1 * deviation);
        // uniform: the largest is sqrt(3) deviations away
        assert_true(most > 1.6 * deviation && most < 1.85 * deviation);
        free(x);
    }
    mm_bench_model_close(&s, m);
    mm_bench_source_close(&s);
}

// A config whose rows are no whole blocks: D 48, F 88 or so.
static const char odd[] = "tests/golden/pre_hybrid/teacher_config.json";

static void random_codes_are_codes(void **state) {
    (void)state;
    for (int dtype = mm_dtype_q8; dtype <= mm_dtype_q4; dtype++) {
        struct mm_bench_source s = {.be = be, .path = odd, .random = true, .dtype = dtype};
        struct mm_error err;
        if (mm_bench_source_open(&s, &err)) fail_msg("%s", err.text);
        struct mm_model *m = form_of(&s, mm_bench_form_linear);
        int seen = 0;
        for (int i = 0; i < m->n_params; i++) {
            const struct mm_view w = m->params[i].w;
            if (!mm_dtype_quantized(w.dtype)) continue;
            const int64_t k = mm_view_cols(w), padded = mm_quant_blocks(k) * mm_quant_block;
            int8_t *codes = malloc((size_t)padded);
            float *x = malloc((size_t)k * sizeof *x);
            double most = 0.0;
            seen++;
            for (int64_t r = 0; r < w.shape[0]; r++) {
                const void *row = mm_view_at(w, r, 0);
                mm_quant_expand_row(codes, w.dtype, row, k);
                for (int64_t j = 0; j < padded; j++)
                    assert_true(codes[j] > -128 && (j < k || codes[j] == 0));
                mm_dequantize_row(x, w.dtype, row, k);
                for (int64_t j = 0; j < k; j++)
                    most = fmax(most, fabs((double)x[j]));
            }
            const double size = m->params[i].role == mm_role_wo || m->params[i].role == mm_role_w2
                                    ? 1.0 / sqrt(2.0 * (double)(m->n_blocks * k))
                                    : 1.0 / sqrt((double)k);
            assert_true(most > 0.8 * size && most < 1.01 * size);
            free(codes);
            free(x);
        }
        assert_true(seen > 6);
        struct mm_bench_row row = {0};
        const struct mm_bench_plan plan = {
            .prompt = 70, .new_tokens = 2, .batch = 2, .piece = 32, .repeats = 1};
        if (mm_bench_run(&row, m, &plan, &err)) fail_msg("%s", err.text);
        assert_int_equal(row.dtype, dtype);
        mm_bench_model_close(&s, m);
        mm_bench_source_close(&s);
    }
}

static void a_folder_is_rounded_in_memory(void **state) {
    (void)state;
    struct mm_bench_source exact;
    source_open(&exact, false, -1);
    for (int dtype = mm_dtype_q8; dtype <= mm_dtype_q4; dtype++) {
        struct mm_bench_source s;
        source_open(&s, false, dtype);
        for (int form = mm_bench_form_linear; form < mm_bench_form_count; form += 2) {
            struct mm_model *was = form_of(&exact, (enum mm_bench_form)form);
            struct mm_model *is = form_of(&s, (enum mm_bench_form)form);
            assert_int_equal(is->config.quant, dtype);
            assert_true(mm_model_weight_bytes(is) < mm_model_weight_bytes(was));
            for (int i = 0; i < is->n_params; i++) {
                const struct mm_param *p = &is->params[i];
                const int64_t n = mm_view_count(p->w);
                float *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b);
                mm_param_get(was, was->params[mm_model_find(was, p->name)].w, a);
                mm_param_get(is, p->w, b);
                double error = 0.0, square = 0.0;
                for (int64_t j = 0; j < n; j++) {
                    error += ((double)a[j] - (double)b[j]) * ((double)a[j] - (double)b[j]);
                    square += (double)a[j] * (double)a[j];
                }
                const double limit = !mm_dtype_quantized(p->w.dtype) ? 0.0
                                     : dtype == mm_dtype_q8          ? 0.02
                                                                     : 0.2;
                assert_true(sqrt(error) <= limit * sqrt(square));
                free(a);
                free(b);
            }
            mm_bench_model_close(&s, is);
            mm_bench_model_close(&exact, was);
        }
        mm_bench_source_close(&s);
    }
    mm_bench_source_close(&exact);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_weights_do_not_depend_on_threads),
        cmocka_unit_test(random_weights_fill_their_range),
        cmocka_unit_test(random_codes_are_codes),
        cmocka_unit_test(a_folder_is_rounded_in_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
