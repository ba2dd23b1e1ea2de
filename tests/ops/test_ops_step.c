// A token step as one operation: every instruction set against the reference, several steps on, in
// every format, both mixers; and a sequence among others, with any number of threads, against
// itself alone, to the bit.
#include "step_help.h"

static const int64_t pasts[some_seqs] = {0, 1, 37, 127, 128, 511, 600, 1300, 5, 0, 64};

// Models are numbered 5 * shape + type. Under a sanitizer a CPU takes every seventh; a GPU those
// that go by a kernel of its own, each type once: by other operations, which tests of their own
// take through sanitizers, a step is hundreds of launches.
static bool left_out(int v) {
    if (!test_few()) return false;
    return testing_cuda() ? v != 26 && v != 28 && v != 29 : v % 7 != 0;
}

static void against_reference(void **state) {
    (void)state;
    for (int v = 0; v < (testing_cuda() ? 30 : 20); v++) {
        // and once what is made of operations, and ends of all kinds
        if (left_out(v) && !(testing_cuda() && (v == 0 || v == 21))) continue;
        const int n = v % 5 == 0 ? 9 : 2;
        const enum mm_dtype type = types[v % 5];
        struct model m;
        make_model(&m, shapes[v / 5], type, (uint64_t)v);
        struct seqs want_seqs;
        struct result want;
        seqs_init(&want_seqs, &m, pasts, n);
        result_init(&want, &m, n);
        go_reference(&m, &want_seqs, n, rounds_nothing, &want);
        for (int isa = best_under_test(); isa > 0; isa--) {
            struct mm_backend *be = open_isa((enum mm_isa)isa, 2);
            struct seqs q;
            struct result r;
            seqs_init(&q, &m, pasts, n);
            result_init(&r, &m, n);
            go(be, &m, &q, 0, n, &r);
            const double tolerance = tolerance_of(type);
            results_close(&r, &want, tolerance);
            states_close(&q, &want_seqs, n, tolerance);
            result_free(&r);
            seqs_free(&q, n);
            mm_backend_close(be);
        }
        result_free(&want);
        seqs_free(&want_seqs, n);
        model_free(&m);
    }
}

// On a GPU caches are bf16 where the weights are.
static void caches_of_bf16(void **state) {
    (void)state;
    if (!testing_cuda()) skip();
    struct mm_backend *be[2] = {open_isa(mm_isa_best(), 1), open_isa(mm_isa_plain, 1)};
    // Nine sequences go by the kernels for many. The walk has heads of 128 and 64, one, two or
    // eight of which share keys; with shapes[4] one of its rows is by rounding alone up to 2.5e-2
    // off the reference, which rounds nothing: that is held to floats below.
    for (int shape = 4; shape <= 7; shape++) {
        const int n = shape == 4 ? 9 : 7;
        struct model m;
        struct seqs q[2];
        struct result r[2];
        make_model(&m, shapes[shape], mm_dtype_bf16, 1);
        be[0]->activations = mm_dtype_bf16;
        for (int k = 0; k < 2; k++) {
            seqs_init(&q[k], &m, pasts, n);
            round_caches(&q[k], &m, n, k == 0);
            result_init(&r[k], &m, n);
            go(be[k], &m, &q[k], 0, n, &r[k]);
        }
        results_close(&r[0], &r[1], tol_step_bf16_rounded);
        for (int k = 0; k < 2; k++)
            result_free(&r[k]), seqs_free(&q[k], n);
        model_free(&m);
        block_of_halves(be[0], shapes[shape], (uint64_t)shape, 7);
    }
    for (int k = 0; k < 2; k++)
        mm_backend_close(be[k]);
}

// A sequence gets the same bits alone and among others, whatever the number of threads.
static void alone_and_together(void **state) {
    (void)state;
    static const int counts[] = {1, 2, 3};
    static const enum mm_dtype of_linear[] = {mm_dtype_bf16, mm_dtype_q8, mm_dtype_q4};
    // of many the GPU has another way: see test_ops_step_many.c
    const int together = testing_cuda() ? 8 : some_seqs;
    const int all = testing_cuda() && test_few() ? 8 : some_seqs;
    for (int isa = best_under_test(); isa > 0; isa--) {
        const int with_attention = testing_cuda() ? 15 : 5;
        // without attention three more; a GPU's sanitizers have those of linear_alone
        const int linears = !testing_cuda() ? 1 : test_few() ? 0 : 3;
        for (int v = 0; v < with_attention + linears; v++) {
            const int linear = v - with_attention;
            const int shape = linear >= 0 ? 5 : v < 5 ? v % 4 : 4 + v % 2;
            const enum mm_dtype type = linear >= 0 ? of_linear[linear] : types[v % 5];
            if (linear < 0 && left_out(shape * 5 + v % 5)) continue;
            struct model m;
            make_model(&m, shapes[shape], type, (uint64_t)v);
            if (linear >= 0) without_attention(&m);
            struct seqs alone;
            struct result want;
            struct mm_backend *be = open_isa((enum mm_isa)isa, 1);
            seqs_init(&alone, &m, pasts, all);
            result_init(&want, &m, all);
            for (int t = 0; t < all; t++)
                go(be, &m, &alone, t, 1, &want);
            mm_backend_close(be);
            // the third has other threads, of which a GPU has none
            for (int c = 0; c < (testing_cuda() && test_few() ? 2 : 3); c++) {
                be = open_isa((enum mm_isa)isa, counts[c]);
                const int n = c % 2 ? together : 5;
                struct seqs q;
                struct result r;
                seqs_init(&q, &m, pasts, all);
                result_init(&r, &m, all);
                go(be, &m, &q, 0, n, &r);
                if (n < all) go(be, &m, &q, n, all - n, &r);
                results_close(&r, &want, tol_exact);
                states_close(&q, &alone, all, tol_exact);
                result_free(&r);
                seqs_free(&q, all);
                mm_backend_close(be);
            }
            result_free(&want);
            seqs_free(&alone, all);
            model_free(&m);
        }
    }
}

// Of a model without attention one sequence has kernels of its own on a GPU, with twice the warps,
// in groups, where its sizes allow that; it gets the bits that it gets beside others there, too.
static void linear_alone(void **state) {
    (void)state;
    static const struct {
        int shape;
        enum mm_dtype type;
    } of[] = {{9, mm_dtype_bf16}, {9, mm_dtype_q8}, {9, mm_dtype_q4}, {6, mm_dtype_bf16},
              {6, mm_dtype_q4},   {6, mm_dtype_q8}, {8, mm_dtype_q8}, {5, mm_dtype_bf16},
              {5, mm_dtype_q8},   {5, mm_dtype_q4}};
    enum { few = 6, all = sizeof of / sizeof *of };  // few: every kernel once
    const int n = test_few() ? 2 : 3;
    for (int v = 0; v < (test_few() ? few : all); v++) {
        struct model m;
        struct seqs alone, together, reference;
        struct result a, t, want;
        make_model(&m, shapes[of[v].shape], of[v].type, (uint64_t)v + 40);
        without_attention(&m);
        seqs_init(&reference, &m, pasts, n), result_init(&want, &m, n);
        go_reference(&m, &reference, n, rounds_nothing, &want);
        struct mm_backend *be = open_isa((enum mm_isa)best_under_test(), 2);
        seqs_init(&alone, &m, pasts, n), result_init(&a, &m, n);
        for (int i = 0; i < n; i++)
            go(be, &m, &alone, i, 1, &a);
        seqs_init(&together, &m, pasts, n), result_init(&t, &m, n);
        go(be, &m, &together, 0, n, &t);
        mm_backend_close(be);
        results_close(&a, &t, tol_exact);
        states_close(&alone, &together, n, tol_exact);
        // a code that tips over tips others after it
        const double tolerance =
            mm_dtype_quantized(of[v].type) ? tol_step_many_quantized : tolerance_of(of[v].type);
        results_close(&a, &want, tolerance);
        states_close(&alone, &reference, n, tolerance);
        result_free(&a), result_free(&t), result_free(&want);
        seqs_free(&alone, n), seqs_free(&together, n), seqs_free(&reference, n);
        model_free(&m);
    }
}

// Some stop before the first step, some later, some never; and all of them at once.
static void stopped_rows(void **state) {
    (void)state;
    static const int stops[][8] = {{1, n_steps, 0, 2, n_steps, 1, 1, 2}, {1, 1, 1, 1, 1, 1, 1, 1}};
    for (int k = 0; k < 2; k++) {
        struct mm_backend *be = open_isa(k ? mm_isa_plain : (enum mm_isa)best_under_test(), 2);
        // of the reference some, of everybody's loops
        for (int v = k; v < (testing_cuda() && !k ? 30 : 20); v += k ? 7 : 1) {
            if (!k && (left_out(v) || (!test_few() && v % 3))) continue;
            struct model m;
            make_model(&m, shapes[v / 5], types[v % 5], (uint64_t)v + 70);
            stops_alone(be, &m, pasts, v % 3 == 0 ? 8 : 5, stops[v % 4 == 3]);
            model_free(&m);
        }
        mm_backend_close(be);
    }
}

// A step of what is no number says so in all it returns, and leaves nothing behind: sequences after
// it get the bits that they get without it.
static void not_a_number(void **state) {
    (void)state;
    static const enum mm_dtype of[] = {mm_dtype_bf16, mm_dtype_q8, mm_dtype_q4};
    enum { n = 3 };
    for (int k = 0; k < 3; k++) {
        struct model m;
        make_model(&m, shapes[testing_cuda() && k ? 5 : 4], of[k], (uint64_t)k + 90);
        struct seqs q[2];
        struct result r[2];
        for (int b = 0; b < 2; b++) {
            struct mm_backend *be = open_isa((enum mm_isa)best_under_test(), 2);
            seqs_init(&q[b], &m, pasts, n);
            result_init(&r[b], &m, n);
            float *x = mm_xmalloc((size_t)m.shape.D * sizeof *x);
            for (int64_t i = 0; i < m.shape.D; i++)
                x[i] = b && i == 5 ? NAN : 1.0f;
            const struct mm_step s = {.blocks = m.blocks,
                                      .n_blocks = most_blocks,
                                      .l2_before = 2,  // as the first step of `go`
                                      .norm = m.norm,
                                      .eps = 1e-5f,
                                      .seqs = &q[b].seq[0],
                                      .n_seqs = 1,
                                      .x = mm_view2(x, mm_dtype_f32, 1, m.shape.D),
                                      .hidden = mm_view_rows(r[b].hidden[0], 0, 1),
                                      .output = m.output,
                                      .logits = mm_view_rows(r[b].logits[0], 0, 1)};
            for (int i = 0; i < steps_taken(); i++)
                mm_decode_step(be, &s);
            for (int t = 1; t < n; t++)
                go(be, &m, &q[b], t, 1, &r[b]);
            const float *hidden = mm_view_at(s.hidden, 0, 0);
            for (int64_t i = 0; i < m.shape.D; i++)
                assert_int_equal(isfinite(hidden[i]) != 0, b == 0);
            free(x);
            mm_backend_close(be);
        }
        for (int i = 0; i < steps_taken(); i++)
            for (int t = 1; t < n; t++)
                assert_memory_equal(mm_view_at(r[0].hidden[i], t, 0),
                                    mm_view_at(r[1].hidden[i], t, 0),
                                    (size_t)m.shape.D * sizeof(float));
        for (int t = 1; t < n; t++)
            assert_memory_equal(q[0].memory[t], q[1].memory[t], q[0].floats * sizeof(float));
        for (int b = 0; b < 2; b++) {
            result_free(&r[b]);
            seqs_free(&q[b], n);
        }
        model_free(&m);
    }
}

int main(void) {
    setenv("MMAMBA_CUDA_FEW", "8", 1);  // all that one walk can take
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_reference), cmocka_unit_test(alone_and_together),
        cmocka_unit_test(linear_alone),      cmocka_unit_test(caches_of_bf16),
        cmocka_unit_test(stopped_rows),      cmocka_unit_test(not_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
