// Quantized models: written, mapped and used in place, answering the same whichever way the
// sequence is fed, and refused where they are damaged or cannot do what is asked.
#include <math.h>

#include "infer/infer_fixture.h"
#include "infer/piece.h"
#include "ops/cpu/cpu.h"
#include "tolerance.h"

static const enum mm_dtype formats[] = {mm_dtype_q8, mm_dtype_q4};
static char *plain;         // a hybrid
static char *quantized[2];  // and it in each format

static void quantize(const char *from, const char *to, enum mm_dtype t, struct mm_backend *be) {
    struct mm_model m;
    struct mm_quantize_report report;
    const struct mm_quantize how = {.dtype = t};
    OK(mm_model_load(&m, be, from, -1, &err));
    OK(mm_model_quantize(&m, to, &how, from, &report, &err));
    assert_true(report.n_quantized > 0 && report.n_kept > 0);
    assert_true(report.squared_error > 0 &&
                report.squared_error < (t == mm_dtype_q8 ? 1e-4 : 0.0121) * report.squared_weights);
    mm_model_deinit(&m);
}

static int begin(void **state) {
    if (fixture_begin(state) != 0) return -1;
    plain = fixture_model("plain", "pre_hybrid", "0,4", 7);
    for (int i = 0; i < 2; i++) {
        quantized[i] = fixture_path(mm_dtype_name(formats[i]));
        quantize(plain, quantized[i], formats[i], fixture_be);
    }
    return 0;
}

static int end(void **state) {
    free(plain);
    for (int i = 0; i < 2; i++)
        free(quantized[i]);
    return fixture_end(state);
}

// ---- what is in memory --------------------------------------------------------------------------

static float *values(const struct mm_model *m, const struct mm_param *p) {
    float *x = mm_xmalloc((size_t)mm_view_count(p->w) * sizeof *x);
    mm_param_get(m, p->w, x);
    return x;
}

// Each parameter is what was rounded, or what it was; rounded ones lie in the mapping.
static void rows_are_used_where_they_are_mapped(void **state) {
    (void)state;
    struct mm_model m, q;
    OK(mm_model_load(&m, fixture_be, plain, -1, &err));
    for (int f = 0; f < 2; f++) {
        int n_rounded = 0;
        OK(mm_model_load(&q, fixture_be, quantized[f], -1, &err));
        assert_string_equal(mm_model_dtype_name(&q), mm_dtype_name(formats[f]));
        assert_true(mm_model_weight_bytes(&q) < mm_model_weight_bytes(&m));
        for (int i = 0; i < q.n_params; i++) {
            const struct mm_param *p = &q.params[i];
            const struct mm_param *was = &m.params[mm_model_find(&m, p->name)];
            assert_true(p->used && p->borrowed);
            float *is = values(&q, p), *want = values(&m, was);
            const int64_t n = mm_view_count(p->w), k = mm_view_cols(p->w);
            if (mm_dtype_quantized(p->w.dtype)) {
                n_rounded++;
                assert_int_equal((uintptr_t)p->w.data % mm_quant_align, 0);
                assert_true(p->role != mm_role_g_proj && p->role != mm_role_in_proj);
                void *row = mm_xmalloc((size_t)mm_quant_row_bytes(formats[f], k));
                for (int64_t r = 0; r < p->w.shape[0]; r++) {
                    assert_true(mm_quantize_row(row, formats[f], want + r * k, NULL, k));
                    mm_dequantize_row(want + r * k, formats[f], row, k);
                }
                free(row);
            }
            assert_memory_equal(is, want, (size_t)n * sizeof(float));
            free(is);
            free(want);
        }
        // 4 blocks of Mamba-2 with v, k, q; 2 of attention with qkv; wo, w1, w2, w3 of each; the
        // head
        assert_int_equal(n_rounded, 4 * 3 + 2 + 6 * 4 + 1);
        char a[33], b[33];
        mm_model_hash(&q, a);
        mm_model_hash(&m, b);
        assert_string_not_equal(a, b);
        mm_model_deinit(&q);
    }
    mm_model_deinit(&m);
}

static struct mm_buf read_whole(const char *folder, const char *name) {
    struct mm_buf b = {0};
    char *path = mm_path_join(folder, name);
    OK(mm_file_read(&b, path, (size_t)1 << 30, &err));
    free(path);
    return b;
}

static void threads_write_the_same_file(void **state) {
    (void)state;
    struct mm_backend *one;
    char *to = fixture_path("one");
    OK(mm_backend_open_cpu(&one, 1, &err));
    for (int f = 0; f < 2; f++) {
        quantize(plain, to, formats[f], one);
        struct mm_buf a = read_whole(quantized[f], "model.safetensors");
        struct mm_buf b = read_whole(to, "model.safetensors");
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.data, b.data, a.len);
        mm_buf_free(&a);
        mm_buf_free(&b);
    }
    mm_backend_close(one);
    free(to);
}

// ---- computing ----------------------------------------------------------------------------------

enum { T = 37 };

// Logits (T, V), the sequence fed in pieces of `piece` tokens.
static float *logits_of(struct mm_model *m, int64_t piece) {
    struct mm_piece_memory mem = {0};
    struct mm_state s;
    int32_t ids[T];
    const int64_t V = m->config.V;
    float *logits = mm_xmalloc((size_t)(T * V) * sizeof *logits);
    for (int t = 0; t < T; t++)
        ids[t] = (t * 37 + 11) % 900;
    OK(mm_state_init(&s, m, &err));
    for (int64_t t = 0; t < T; t += piece) {
        const int64_t n = T - t < piece ? T - t : piece;
        struct mm_view hidden;
        OK(mm_piece_memory_reserve(&mem, m, n, 0, n, &err));
        OK(mm_piece_run(&mem, m, &s, ids + t, n, NULL, 0, NULL, &hidden, "test", &err));
        OK(mm_piece_logits(&mem, m, hidden, n, logits + t * V, &err));
    }
    mm_state_deinit(&s);
    mm_piece_memory_deinit(&mem);
    return logits;
}

static void expect_near(const char *what, const float *is, const float *want, int64_t n,
                        double tolerance) {
    double worst = 0.0, top = 0.0;
    for (int64_t i = 0; i < n; i++) {
        assert_true(isfinite(is[i]) && isfinite(want[i]));
        worst = fmax(worst, fabs((double)is[i] - (double)want[i]));
        top = fmax(top, fabs((double)want[i]));
    }
    if (worst > tolerance * top) {
        fail_msg("%s: off by %.3g of the largest, allowed %.3g", what, worst / top, tolerance);
    }
}

static void pieces_and_steps_agree(void **state) {
    (void)state;
    const int64_t pieces[] = {1, 3, 16};
    for (int isa = 0; isa <= (int)mm_isa_best(); isa++) {
        struct mm_backend *be;
        setenv("MMAMBA_ISA", mm_isa_name((enum mm_isa)isa), 1);
        OK(mm_backend_open_cpu(&be, 2, &err));
        unsetenv("MMAMBA_ISA");
        for (int f = 0; f < 2; f++) {
            struct mm_model m;
            OK(mm_model_load(&m, be, quantized[f], -1, &err));
            float *whole = logits_of(&m, T);
            for (int i = 0; i < 3; i++) {
                char what[64];
                float *parts = logits_of(&m, pieces[i]);
                snprintf(what, sizeof what, "%s on %s in pieces of %d", mm_dtype_name(formats[f]),
                         mm_isa_name((enum mm_isa)isa), (int)pieces[i]);
                expect_near(what, parts, whole, T * m.config.V, tol_code_flips);
                free(parts);
            }
            free(whole);
            mm_model_deinit(&m);
        }
        mm_backend_close(be);
    }
}

// The rounded model computes what the same model with the rounded weights as f32 computes, but for
// the rounding of activations.
static void close_to_its_weights_in_f32(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        struct mm_model m, q;
        OK(mm_model_load(&m, fixture_be, plain, -1, &err));
        OK(mm_model_load(&q, fixture_be, quantized[f], -1, &err));
        for (int i = 0; i < q.n_params; i++) {
            const int j = mm_model_find(&m, q.params[i].name);
            float *x = values(&q, &q.params[i]);
            if (m.params[j].borrowed) OK(mm_model_own(&m, j, &err));
            mm_param_put(&m, m.params[j].w, x);
            free(x);
        }
        float *is = logits_of(&q, T), *want = logits_of(&m, T);
        expect_near(mm_dtype_name(formats[f]), is, want, T * m.config.V, 0.08);
        free(is);
        free(want);
        mm_model_deinit(&q);
        mm_model_deinit(&m);
    }
}

// ---- answering ----------------------------------------------------------------------------------

static void sessions_answer_and_are_saved(void **state) {
    (void)state;
    const struct mm_generation g = {6, 6};
    char *file = fixture_path("session");
    struct mm_engine *other = fixture_engine(plain);
    for (int f = 0; f < 2; f++) {
        struct mm_engine *e = fixture_engine(quantized[f]);
        struct mm_session *s, *again;
        struct mm_answer a, b;
        const struct mm_picture photo = {.path = "tests/golden/images/photo.jpg"};
        OK(mm_session_new(&s, e, &MM_SESSION_OPTIONS, &err));
        OK(mm_session_add_turn(s, "What is this?", &photo, 1, &err));
        OK(mm_session_prefill(s, NULL, &err));
        OK(mm_session_save(s, file, &err));
        OK(mm_session_load(&again, e, &MM_SESSION_OPTIONS, file, &err));
        OK(mm_session_generate(s, &g, NULL, &a, &err));
        OK(mm_session_generate(again, &g, NULL, &b, &err));
        assert_true(a.new_tokens == 6 && b.new_tokens == 6);
        assert_string_equal(a.text, b.text);
        mm_session_free(s);
        mm_session_free(again);
        REFUSED(mm_session_load(&again, other, &MM_SESSION_OPTIONS, file, &err), "other weights");
        mm_engine_close(e);
    }
    mm_engine_close(other);
    free(file);
}

// ---- refusals -----------------------------------------------------------------------------------

static void what_needs_exact_weights_is_refused(void **state) {
    (void)state;
    static const char why[] = "give the model it was made from";
    const bool keep[mm_max_blocks] = {false};
    char *to = fixture_path("never");
    for (int f = 0; f < 2; f++) {
        struct mm_model m, student;
        struct mm_quantize_report report;
        const struct mm_quantize how = {.dtype = mm_dtype_q4};
        OK(mm_model_load(&m, fixture_be, quantized[f], -1, &err));
        REFUSED(mm_model_quantize(&m, to, &how, NULL, &report, &err), why);
        REFUSED(mm_model_save(&m, to, mm_dtype_f32, NULL, &err), why);
        REFUSED(mm_model_carve(&student, &m, keep, mm_init_mimic, 0, &err), why);
        struct mm_st *st;
        OK(mm_st_open(&st, "tests/golden/pre_hybrid/student.safetensors", &err));
        REFUSED(mm_model_apply(&m, st, true, &err), why);
        mm_st_close(st);
        assert_false(mm_path_exists(to));
        mm_model_deinit(&m);
    }
    free(to);
}

// Writes folder "damaged": a quantized model with `key` of its quantization_config as `value`
// (JSON; NULL: without it).
static char *with_config(int f, const char *key, const char *value) {
    char *folder = fixture_path("damaged"), *config = mm_path_join(quantized[f], "config.json");
    char *weights = mm_path_join(quantized[f], "model.safetensors");
    char *to_config = mm_path_join(folder, "config.json");
    char *to_weights = mm_path_join(folder, "model.safetensors");
    json_t *o;
    OK(mm_folder_make(folder, &err));
    OK(mm_json_load(&o, config, &err));
    json_t *q = key ? json_object_get(o, "quantization_config") : o;
    if (key == NULL) key = "quantization_config";
    if (value) {
        json_object_set_new(q, key, json_loads(value, JSON_DECODE_ANY, NULL));
    } else {
        json_object_del(q, key);
    }
    OK(mm_json_write_file(o, to_config, &err));
    OK(mm_file_copy(weights, to_weights, &err));
    json_decref(o);
    free(config);
    free(weights);
    free(to_config);
    free(to_weights);
    return folder;
}

static void damaged_configs_are_refused(void **state) {
    (void)state;
    const struct {
        const char *key, *value, *words;
    } bad[] = {
        {"format", NULL, "'format' is missing"},
        {"format", "\"q5\"", "'format' is \"q5\", wanted \"q8\" or \"q4\""},
        {"format", "7", "'format' is 7"},
        {"quant_method", NULL, "'quant_method' is missing"},
        {"quant_method", "\"bitsandbytes\"", "'quant_method' is \"bitsandbytes\", only \"mmamba\""},
        {"block", "64", "'block' is 64, only 128"},
        {"group", "16", "'group' is 16, only 32"},
        {NULL, "\"q8\"", "'quantization_config' is \"q8\""},
        {NULL, NULL, "is missing"},  // the released stack is not there
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *folder = with_config((int)i % 2, bad[i].key, bad[i].value);
        struct mm_model m;
        REFUSED(mm_model_load(&m, fixture_be, folder, -1, &err), bad[i].words);
        free(folder);
    }
    // rows of one format under the name of the other
    for (int f = 0; f < 2; f++) {
        char *folder = with_config(f, "format", f ? "\"q8\"" : "\"q4\"");
        struct mm_model m;
        REFUSED(mm_model_load(&m, fixture_be, folder, -1, &err), "has shape (");
        free(folder);
    }
}

// Weights that are numbers under a config that says they are rows, and a file cut off.
static void damaged_weights_are_refused(void **state) {
    (void)state;
    struct mm_model m;
    char *folder = with_config(0, "block", "128");
    char *weights = mm_path_join(folder, "model.safetensors");
    char *other = mm_path_join(plain, "model.safetensors");
    OK(mm_file_copy(other, weights, &err));
    REFUSED(mm_model_load(&m, fixture_be, folder, -1, &err),
            "the config says that it is quantized");
    struct mm_buf b = read_whole(quantized[0], "model.safetensors");
    OK(mm_file_write(weights, b.data, b.len - 1, &err));
    REFUSED(mm_model_load(&m, fixture_be, folder, -1, &err), "model.safetensors");
    // a damaged scale is some number, and the model some model: nothing crashes
    memset(b.data + b.len / 3, 0xff, b.len / 3);
    OK(mm_file_write(weights, b.data, b.len, &err));
    OK(mm_model_load(&m, fixture_be, folder, -1, &err));
    free(logits_of(&m, 5));
    mm_model_deinit(&m);
    mm_buf_free(&b);
    free(other);
    free(weights);
    free(folder);
}

// A weight that no code can stand for: a sentence with the row, and no model.
static void weights_out_of_range_are_refused(void **state) {
    (void)state;
    struct mm_model m;
    struct mm_quantize_report report;
    const struct mm_quantize how = {.dtype = mm_dtype_q8};
    char *to = fixture_path("never");
    OK(mm_model_load(&m, fixture_be, plain, -1, &err));
    const int p = m.blocks[1].p[mm_role_w2];
    OK(mm_model_own(&m, p, &err));
    *(float *)mm_view_at(m.params[p].w, 3, 5) = NAN;
    REFUSED(mm_model_quantize(&m, to, &how, NULL, &report, &err), "row 3 of '");
    char *file = mm_path_join(to, "model.safetensors");
    assert_false(mm_path_exists(file));
    free(file);
    mm_model_deinit(&m);
    free(to);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_used_where_they_are_mapped),
        cmocka_unit_test(threads_write_the_same_file),
        cmocka_unit_test(pieces_and_steps_agree),
        cmocka_unit_test(close_to_its_weights_in_f32),
        cmocka_unit_test(sessions_answer_and_are_saved),
        cmocka_unit_test(what_needs_exact_weights_is_refused),
        cmocka_unit_test(damaged_configs_are_refused),
        cmocka_unit_test(damaged_weights_are_refused),
        cmocka_unit_test(weights_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
