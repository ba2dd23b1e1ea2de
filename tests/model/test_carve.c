// Carving: the released layout name by name, and every start value of docs/MODEL.md section 3, held
// against the golden teachers and students.
#include "cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/json.h"
#include "model/model.h"
#include "scratch.h"

static struct mm_backend *be;

static int setup(void **state) {
    struct mm_error err;
    if (scratch_make(state)) return -1;
    return mm_backend_open_cpu(&be, 1, &err) == mm_code_ok ? 0 : -1;
}

static int teardown(void **state) {
    mm_backend_close(be);
    return scratch_remove(state);
}

static const struct golden {
    const char *name;
    const char *keep;
} goldens[] = {{"post_gqa", "none"}, {"pre_hybrid", "0,4"}, {"text_long", "none"}};
enum { n_goldens = 3 };

static void must(enum mm_code code, const struct mm_error *err) {
    if (code) fail_msg("%s", err->text);
}

static void load_teacher(struct mm_model *m, const char *name, int dtype) {
    struct mm_error err = {0};
    char *path = mm_xasprintf(
        "tests/golden/%s/teacher_config.json:tests/golden/%s/"
        "teacher.safetensors",
        name, name);
    must(mm_model_load(m, be, path, dtype, &err), &err);
    free(path);
}

static void carve(struct mm_model *student, const struct mm_model *teacher, const char *keep_text,
                  enum mm_init init, uint64_t seed) {
    bool keep[mm_max_blocks] = {false};
    struct mm_error err = {0};
    must(mm_keep_parse(keep_text, teacher->n_blocks, keep, &err), &err);
    must(mm_model_carve(student, teacher, keep, init, seed, &err), &err);
}

static float *values(const struct mm_model *m, struct mm_view w) {
    float *x = mm_xmalloc((size_t)mm_view_count(w) * sizeof *x);
    mm_param_get(m, w, x);
    return x;
}

// ---- the released layout ------------------------------------------------------------------------

static void compare_layout(const char *got_path, const char *wanted_path) {
    struct mm_error err = {0};
    struct mm_st *got, *wanted;
    must(mm_st_open(&got, got_path, &err), &err);
    must(mm_st_open(&wanted, wanted_path, &err), &err);
    assert_int_equal(mm_st_count(got), mm_st_count(wanted));
    for (int i = 0; i < mm_st_count(wanted); i++) {
        const struct mm_st_tensor *a = mm_st_at(got, i), *b = mm_st_at(wanted, i);
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->dtype, b->dtype);
        assert_int_equal(a->n_axes, b->n_axes);
        for (int j = 0; j < a->n_axes; j++)
            assert_int_equal(a->shape[j], b->shape[j]);
    }
    assert_string_equal(mm_st_metadata(got, "format"), "pt");
    mm_st_close(got);
    mm_st_close(wanted);
}

static void carved_folder_has_the_released_layout(void **state) {
    (void)state;
    for (int i = 0; i < n_goldens; i++) {
        struct mm_model teacher, student;
        struct mm_error err = {0};
        load_teacher(&teacher, goldens[i].name, -1);
        carve(&student, &teacher, goldens[i].keep, mm_init_mimic, 1);
        char *out = mm_path_join(folder, goldens[i].name);
        must(mm_model_save(&student, out, mm_dtype_f32, NULL, &err), &err);
        char *weights = mm_path_join(out, "model.safetensors");
        char *config = mm_path_join(out, "config.json");
        char *wanted = mm_xasprintf("tests/golden/%s/student.safetensors", goldens[i].name);
        char *wanted_config = mm_xasprintf("tests/golden/%s/student_config.json", goldens[i].name);
        compare_layout(weights, wanted);
        json_t *a, *b;
        must(mm_json_load(&a, config, &err), &err);
        must(mm_json_load(&b, wanted_config, &err), &err);
        assert_true(json_equal(a, b));
        json_decref(a);
        json_decref(b);
        free(wanted_config);
        free(wanted);
        free(config);
        free(weights);
        free(out);
        mm_model_deinit(&student);
        mm_model_deinit(&teacher);
    }
}

// ---- what is the teacher's ----------------------------------------------------------------------

// Everything but the carved mixers, to the bit and in the teacher's own memory.
static void all_else_is_the_teachers(void **state) {
    (void)state;
    for (int i = 0; i < n_goldens; i++) {
        struct mm_model teacher, student;
        load_teacher(&teacher, goldens[i].name, -1);
        carve(&student, &teacher, goldens[i].keep, mm_init_mimic, 1);
        int shared = 0;
        for (int j = 0; j < student.n_params; j++) {
            const struct mm_param *p = &student.params[j];
            const int from =
                p->block < 0 ? teacher.global[p->role] : teacher.blocks[p->block].p[p->role];
            assert_int_equal(p->borrowed, from >= 0);
            if (from < 0) continue;
            assert_ptr_equal(p->w.data, teacher.params[from].w.data);
            shared++;
        }
        assert_true(shared > 20);
        for (int64_t b = 0; b < student.n_blocks; b++) {
            const struct mm_block *s = &student.blocks[b];
            const char *name = student.params[s->p[mm_role_wo]].name;
            const bool kept = s->mixer == mm_mixer_mha;
            assert_non_null(strstr(name, kept ? ".attention.wo." : ".attention.o_proj."));
            assert_true(mm_block_w(&student, s, mm_role_wo).data ==
                        mm_block_w(&teacher, &teacher.blocks[b], mm_role_wo).data);
        }
        mm_model_deinit(&student);
        mm_model_deinit(&teacher);
    }
}

// Row r of q, k or v by the packing's definition: group g holds H/G query heads, a key, a value.
static int64_t packed_row(const struct mm_stack_config *s, enum mm_role role, int64_t r) {
    const int64_t head = r / s->P, at = r % s->P, per = s->H / s->G;
    if (role == mm_role_q_proj) return ((head / per) * (per + 2) + head % per) * s->P + at;
    return (head * (per + 2) + per + (role == mm_role_v_proj)) * s->P + at;
}

static void check_qkv(const struct mm_model *student, const struct mm_model *teacher, int64_t block,
                      bool inherited) {
    static const enum mm_role roles[] = {mm_role_v_proj, mm_role_k_proj, mm_role_q_proj};
    const struct mm_block *b = &student->blocks[block];
    const struct mm_stack_config *s = b->stack;
    float *wqkv = values(teacher, mm_block_w(teacher, &teacher->blocks[block], mm_role_wqkv));
    float *stacked = values(student, b->wvkqgdt);
    int64_t at = 0;  // the row of wvkqgdt: v, k, q, g, dt
    for (int i = 0; i < 3; i++) {
        const int64_t rows = (roles[i] == mm_role_q_proj ? s->H : s->G) * s->P;
        for (int64_t r = 0; r < rows; r++, at++) {
            const float *wanted = wqkv + packed_row(s, roles[i], r) * s->D;
            const int same = memcmp(stacked + at * s->D, wanted, (size_t)s->D * sizeof(float)) == 0;
            assert_int_equal(same, inherited);
        }
    }
    free(stacked);
    free(wqkv);
}

// ---- start values -------------------------------------------------------------------------------

// Uniform on [low, high]: nothing outside, and n values reach close to both ends and the middle.
static void check_uniform(const float *x, int64_t n, double low, double high) {
    double least = HUGE_VAL, most = -HUGE_VAL, sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)x[i];
        least = v < least ? v : least;
        most = v > most ? v : most;
        sum += v;
    }
    const double width = high - low, slack = 1e-6 * (fabs(low) + fabs(high));
    assert_true(least >= low - slack && most <= high + slack);
    if (n < 64) return;
    // the extremes lie about 1/n from the ends; the mean within 5 sigma of the middle
    assert_true(least < low + width * 12.0 / (double)n);
    assert_true(most > high - width * 12.0 / (double)n);
    const double sigma = width / sqrt(12.0 * (double)n);
    assert_true(fabs(sum / (double)n - (low + high) / 2) < 5.0 * sigma);
}

static void check_constant(const float *x, int64_t n, float wanted) {
    for (int64_t i = 0; i < n; i++)
        assert_true(x[i] == wanted);
}

static float softplus(float x) {
    return x > 20.0f ? x : log1pf(expf(x));
}

static void check_start(const struct mm_model *m, const struct mm_param *p, enum mm_init init) {
    const struct mm_stack_config *s = m->blocks[p->block].stack;
    const int64_t n = mm_view_count(p->w);
    const double D = (double)s->D, linear = 1.0 / sqrt(D), conv = 1.0 / sqrt((double)s->K);
    const bool mimic = init == mm_init_mimic;
    float *x = values(m, p->w);
    switch (p->role) {
        case mm_role_v_proj:
        case mm_role_k_proj:
        case mm_role_q_proj:
            if (init == mm_init_scratch) check_uniform(x, n, -linear, linear);
            break;
        case mm_role_g_proj: {
            const double bound = pow(2.0, -2.5) * sqrt(6.0 / (D + (double)(s->H * s->P)));
            check_uniform(x, n, -bound, bound);
            break;
        }
        case mm_role_in_proj:
            mimic ? check_constant(x, n, 0.0f) : check_uniform(x, n, -linear, linear);
            break;
        case mm_role_conv_w:
            for (int64_t i = 0; mimic && i < n; i++)
                assert_true(x[i] == (i % s->K == s->K - 1 ? 1.0f : 0.0f));
            if (!mimic) check_uniform(x, n, -conv, conv);
            break;
        case mm_role_conv_b:
            mimic ? check_constant(x, n, 0.0f) : check_uniform(x, n, -conv, conv);
            break;
        case mm_role_dt_bias:
            for (int64_t i = 0; mimic && i < n; i++) {
                const float dt = softplus(x[i]);
                assert_true(dt >= 0.00099f && dt <= 0.101f);
            }
            if (!mimic) check_constant(x, n, 0.0f);
            break;
        case mm_role_A_log:
            mimic ? check_constant(x, n, 1.0f) : check_uniform(x, n, 0.0, log(16.0));
            break;
        case mm_role_g_norm:
            check_constant(x, n, 1.0f);
            break;
        default:
            fail_msg("%s is new and has no start value in the test", p->name);
    }
    free(x);
}

static void start_values_are_those_of_the_init(void **state) {
    (void)state;
    for (int i = 0; i < n_goldens; i++) {
        for (int init = 0; init < 3; init++) {
            struct mm_model teacher, student;
            load_teacher(&teacher, goldens[i].name, -1);
            carve(&student, &teacher, goldens[i].keep, (enum mm_init)init, 5);
            int checked = 0;
            for (int j = 0; j < student.n_params; j++) {
                if (student.params[j].borrowed) continue;
                check_start(&student, &student.params[j], (enum mm_init)init);
                checked++;
            }
            int carved = 0;
            for (int64_t b = 0; b < student.n_blocks; b++) {
                if (student.blocks[b].mixer != mm_mixer_mamba2) continue;
                check_qkv(&student, &teacher, b, init != mm_init_scratch);
                carved++;
            }
            assert_int_equal(checked, 10 * carved);
            mm_model_deinit(&student);
            mm_model_deinit(&teacher);
        }
    }
}

// dt_bias of the mimic start spreads over the whole of log 0.001 .. log 0.1.
static void mimic_steps_spread_over_their_range(void **state) {
    (void)state;
    struct mm_model teacher, student;
    load_teacher(&teacher, "post_gqa", -1);
    float least = 1.0f, most = 0.0f;
    for (uint64_t seed = 0; seed < 40; seed++) {
        carve(&student, &teacher, "none", mm_init_mimic, seed);
        for (int64_t b = 0; b < student.n_blocks; b++) {
            const struct mm_view w = mm_block_w(&student, &student.blocks[b], mm_role_dt_bias);
            float *x = values(&student, w);
            for (int64_t i = 0; i < mm_view_count(w); i++) {
                least = fminf(least, softplus(x[i]));
                most = fmaxf(most, softplus(x[i]));
            }
            free(x);
        }
        mm_model_deinit(&student);
    }
    assert_true(least < 0.00105f && most > 0.095f);
    mm_model_deinit(&teacher);
}

static void same_seed_same_bits(void **state) {
    (void)state;
    struct mm_model teacher, a, b, c, hybrid;
    load_teacher(&teacher, "pre_hybrid", -1);
    carve(&a, &teacher, "none", mm_init_scratch, 7);
    carve(&b, &teacher, "none", mm_init_scratch, 7);
    carve(&c, &teacher, "none", mm_init_scratch, 8);
    carve(&hybrid, &teacher, "0,4", mm_init_scratch, 7);
    for (int64_t i = 0; i < a.n_blocks; i++) {
        const size_t bytes = (size_t)mm_view_count(a.blocks[i].wvkqgdt) * sizeof(float);
        assert_memory_equal(a.blocks[i].wvkqgdt.data, b.blocks[i].wvkqgdt.data, bytes);
        assert_memory_not_equal(a.blocks[i].wvkqgdt.data, c.blocks[i].wvkqgdt.data, bytes);
        if (i == 0 || i == 4) continue;  // what is kept changes nothing elsewhere
        assert_memory_equal(a.blocks[i].wvkqgdt.data, hybrid.blocks[i].wvkqgdt.data, bytes);
    }
    mm_model_deinit(&a);
    mm_model_deinit(&b);
    mm_model_deinit(&c);
    mm_model_deinit(&hybrid);
    mm_model_deinit(&teacher);
}

// Saved and loaded again: the same bits, in each type; rounded once, not twice.
static void halves_survive_a_folder(void **state) {
    (void)state;
    static const enum mm_dtype dtypes[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16};
    for (int i = 0; i < 3; i++) {
        struct mm_model teacher, student, again;
        struct mm_error err = {0};
        load_teacher(&teacher, "pre_hybrid", dtypes[i]);
        carve(&student, &teacher, "0,4", mm_init_mimic, 3);
        for (int64_t b = 1; b < 4; b++)
            check_qkv(&student, &teacher, b, true);
        must(mm_model_save(&student, folder, dtypes[i], NULL, &err), &err);
        must(mm_model_load(&again, be, folder, -1, &err), &err);
        assert_int_equal(again.dtype, dtypes[i]);
        for (int j = 0; j < student.n_params; j++) {
            const int64_t n = mm_view_count(student.params[j].w);
            float *x = values(&student, student.params[j].w);
            float *y = values(&again, again.params[j].w);
            uint16_t *half = mm_xmalloc((size_t)n * 4);
            mm_from_f32(half, dtypes[i], x, n);
            mm_to_f32(x, half, dtypes[i], n);
            assert_memory_equal(x, y, (size_t)n * sizeof(float));
            free(half);
            free(x);
            free(y);
        }
        mm_model_deinit(&again);
        mm_model_deinit(&student);
        mm_model_deinit(&teacher);
    }
}

static void a_student_is_no_teacher(void **state) {
    (void)state;
    struct mm_model teacher, student, twice;
    struct mm_error err = {0};
    const bool keep[mm_max_blocks] = {false};
    load_teacher(&teacher, "text_long", -1);
    carve(&student, &teacher, "0", mm_init_mimic, 1);
    assert_int_equal(mm_model_carve(&twice, &student, keep, mm_init_mimic, 1, &err), mm_code_input);
    assert_non_null(strstr(err.text, "block 1 is already a Mamba-2 block"));
    mm_model_deinit(&student);
    mm_model_deinit(&teacher);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carved_folder_has_the_released_layout),
        cmocka_unit_test(all_else_is_the_teachers),
        cmocka_unit_test(start_values_are_those_of_the_init),
        cmocka_unit_test(mimic_steps_spread_over_their_range),
        cmocka_unit_test(same_seed_same_bits),
        cmocka_unit_test(halves_survive_a_folder),
        cmocka_unit_test(a_student_is_no_teacher),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
