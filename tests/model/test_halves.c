// A model in bf16 with the activations that its backend has: the same text whole, in pieces and
// token by token, and against f32 activations. On the GPU activations are bf16; there the model's
// memory is the device's.
#include <stdio.h>

#include "infer/piece.h"
#include "model/model_test.h"

enum { n_tokens = 150 };

static const char *const models[] = {
    "tests/golden/post_gqa/teacher_config.json:tests/golden/post_gqa/teacher.safetensors",
    "tests/golden/post_gqa/student_config.json:tests/golden/post_gqa/student.safetensors",
    "tests/golden/pre_hybrid/student_config.json:tests/golden/pre_hybrid/student.safetensors",
    "tests/golden/text_long/student_config.json:tests/golden/text_long/student.safetensors",
};
enum { n_models = 4 };

static struct mm_backend *open_device(void) {
    struct mm_backend *be;
    if (testing_cuda()) {
        unsetenv("MMAMBA_CUDA_MIRROR");
        OK(mm_backend_open_cuda(&be, 0, 1, &err));
        assert_int_equal(be->activations, mm_dtype_bf16);
    } else {
        OK(mm_backend_open_cpu(&be, 2, &err));
        assert_int_equal(be->activations, mm_dtype_f32);
    }
    return be;
}

static void make_ids(int32_t *ids, const struct mm_config *c) {
    struct mm_rng rng = mm_rng_make(5, 0);
    for (int t = 0; t < n_tokens; t++) {
        do {
            ids[t] = (int32_t)mm_rng_below(&rng, (uint32_t)c->V);
        } while (ids[t] == c->img_context_id);
    }
}

// Logits (n_tokens, V): pieces of `piece` up to `steps_from`, then steps.
static float *read_text(struct mm_backend *be, const char *path, int64_t piece,
                        int64_t steps_from) {
    struct mm_model m = {0};
    OK(mm_model_load(&m, be, path, mm_dtype_bf16, &err));
    const int64_t V = m.config.V;
    int32_t ids[n_tokens];
    make_ids(ids, &m.config);
    float *logits = mm_xmalloc((size_t)(n_tokens * V) * sizeof *logits);
    struct mm_state state;
    struct mm_piece_memory memory = {0};
    struct mm_stepper stepper = {0};
    OK(mm_state_init(&state, &m, &err));
    OK(mm_stepper_reserve(&stepper, &m, 1, &err));
    for (int64_t t = 0; t < n_tokens;) {
        if (t >= steps_from) {
            stepper.states[0] = &state;
            stepper.tokens[0] = ids[t];
            stepper.wanted[0] = logits + t * V;
            OK(mm_stepper_run(&stepper, 1, &err));
            t++;
            continue;
        }
        int64_t n = steps_from - t < piece ? steps_from - t : piece;
        struct mm_view hidden;
        OK(mm_piece_memory_reserve(&memory, &m, n, 0, n, &err));
        OK(mm_piece_run(&memory, &m, &state, ids + t, n, NULL, 0, NULL, &hidden, "text", &err));
        OK(mm_piece_logits(&memory, &m, hidden, n, logits + t * V, &err));
        t += n;
    }
    mm_stepper_deinit(&stepper);
    mm_piece_memory_deinit(&memory);
    mm_state_deinit(&state);
    mm_model_deinit(&m);
    return logits;
}

// Root of the mean square of the difference, over that of `want`.
static double off_by(const float *is, const float *want, int64_t n) {
    double d = 0.0, w = 0.0;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)is[i] - (double)want[i]) * ((double)is[i] - (double)want[i]);
        w += (double)want[i] * (double)want[i];
    }
    return sqrt(d / w);
}

static void test_pieces(void **state) {
    (void)state;
    struct mm_backend *be = open_device();
    for (int i = 0; i < n_models; i++) {
        struct mm_model m = {0};
        OK(mm_model_load(&m, be, models[i], mm_dtype_bf16, &err));
        const int64_t n = n_tokens * m.config.V;
        mm_model_deinit(&m);
        const enum mm_dtype acts = be->activations;
        be->activations = mm_dtype_f32;
        float *exact = read_text(be, models[i], n_tokens, n_tokens);
        be->activations = acts;
        float *whole = read_text(be, models[i], n_tokens, n_tokens);
        float *pieces = read_text(be, models[i], 37, n_tokens);
        float *steps = read_text(be, models[i], 37, 100);
        const double bound = acts == mm_dtype_f32 ? tol_pieces_product : tol_halves_model;
        const double off[] = {off_by(whole, exact, n), off_by(pieces, whole, n),
                              off_by(steps, whole, n)};
        print_message("%.60s: rounded %.2e, pieces %.2e, steps %.2e\n", models[i], off[0], off[1],
                      off[2]);
        for (int k = 0; k < 3; k++)
            assert_true(off[k] <= bound);
        // the halves are really there: their roundings can be seen
        if (acts != mm_dtype_f32) assert_true(off[0] > 1e-5);
        free(exact);
        free(whole);
        free(pieces);
        free(steps);
    }
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
