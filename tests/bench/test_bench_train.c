// `bench --train`: every stage takes steps on made-up samples, and the counts are those of the
// shapes.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/models.h"
#include "bench/train.h"
#include "cmocka_all.h"

static const char teacher_config[] = "tests/golden/post_gqa/teacher_config.json";

static struct mm_error err;
static struct mm_backend *be;

static void source_open(struct mm_bench_source *s) {
    *s = (struct mm_bench_source){
        .be = be, .path = teacher_config, .random = true, .dtype = mm_dtype_bf16, .seed = 3};
    assert_int_equal(mm_bench_source_open(s, &err), mm_code_ok);
}

static void stages_learn(void **state) {
    (void)state;
    struct mm_bench_source s;
    struct mm_model *teacher;
    source_open(&s);
    assert_int_equal(mm_bench_model_open(&teacher, &s, mm_bench_form_attention, &err), mm_code_ok);
    for (int stage = 1; stage <= 3; stage++) {
        struct mm_bench_training row;
        const enum mm_code code = mm_bench_train(&row, teacher, stage, 70, 5, 9, &err);
        if (code) fail_msg("%s", err.text);
        assert_int_equal(row.n_steps, 5);
        assert_true(row.step_s > 0.0 && row.ops > 0.0);
        assert_true(isfinite(row.first_loss) && row.last_loss < row.first_loss);
        assert_true(row.plan_bytes > 0 && row.state_bytes > 0 && row.peak_bytes > row.plan_bytes);
        assert_false(row.recompute);
    }
    mm_bench_model_close(&s, teacher);
    mm_bench_source_close(&s);
}

// Of a block, by hand: the teacher's wqkv, wo, w1, w2, w3 once; the student's projection and MLP
// forward and back; what trains once more; three products with the output.
static void operations_are_counted(void **state) {
    (void)state;
    struct mm_bench_source s;
    struct mm_model *teacher, student;
    const bool keep[mm_max_blocks] = {false};
    const int64_t T = 10;
    source_open(&s);
    assert_int_equal(mm_bench_model_open(&teacher, &s, mm_bench_form_attention, &err), mm_code_ok);
    assert_int_equal(mm_model_carve(&student, teacher, keep, mm_init_mimic, 1, &err), mm_code_ok);
    double first = 0.0, last = 0.0;
    for (int64_t i = 0; i < teacher->n_blocks; i++) {
        const struct mm_stack_config *k = teacher->blocks[i].stack;
        const double D = (double)k->D, H = (double)k->H, G = (double)k->G, P = (double)k->P;
        const double ffn = 3.0 * D * (double)k->F, wo = D * H * P;
        const double qkv = (H + 2.0 * G) * P * D, all = (2.0 * G * P + 2.0 * H * P + H) * D;
        const double attention = 4.0 * H * P * (double)T * ((double)T + 1.0) / 2.0;
        const double new_ones = (H * P + H) * D;  // g and dt
        first += 2.0 * (double)T * (qkv + wo + ffn + all + new_ones) + attention;
        last += 2.0 * (double)T * (qkv + wo + ffn + 2.0 * (all + wo + ffn) + all) + attention;
    }
    last += 3.0 * 2.0 * (double)T * (double)(teacher->config.V * teacher->config.llm.D);
    assert_true(fabs(mm_bench_training_ops(teacher, &student, 1, T) / first - 1.0) < 1e-12);
    assert_true(fabs(mm_bench_training_ops(teacher, &student, 3, T) / last - 1.0) < 1e-12);
    mm_model_deinit(&student);
    mm_bench_model_close(&s, teacher);
    mm_bench_source_close(&s);
}

static int begin(void **state) {
    (void)state;
    return mm_backend_open_cpu(&be, 2, &err) == mm_code_ok ? 0 : -1;
}

static int end(void **state) {
    (void)state;
    mm_backend_close(be);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_learn),
        cmocka_unit_test(operations_are_counted),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
