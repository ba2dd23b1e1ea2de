// A token step of many sequences, for which the GPU has a way of its own: every number of them, and
// what it is padded to, against the reference; and a sequence among others against itself among
// fewer, in another row, to the bit.
#include "step_help.h"

static void many_pasts(int64_t *past, int n) {
    for (int t = 0; t < n; t++)
        past[t] = t == 3 ? 700 : t * 37 % 300;
}

// How far results and states are from the reference, which rounds as said.
static double off_from_reference(const struct model *m, const int64_t *past, int n,
                                 enum rounding rounding, struct seqs *q, const struct result *r) {
    struct seqs want_seqs;
    struct result want;
    seqs_init(&want_seqs, m, past, n), result_init(&want, m, n);
    go_reference(m, &want_seqs, n, rounding, &want);
    const double off = all_off(r, &want, q, &want_seqs, n);
    result_free(&want), seqs_free(&want_seqs, n);
    return off;
}

// A model of a shape, into results that nothing was in.
static void against_reference(struct mm_backend *be, int v, struct shape shape, enum mm_dtype type,
                              int n) {
    int64_t past[most_seqs];
    struct model m;
    struct seqs q;
    struct result r;
    many_pasts(past, most_seqs);
    make_model(&m, shape, type, (uint64_t)v + 40);
    seqs_init(&q, &m, past, n), result_init(&r, &m, n);
    for (int i = 0; i < n_steps; i++) {
        memset(r.hidden[i].data, 0xff, (size_t)(n * m.shape.D) * sizeof(float));
        memset(r.logits[i].data, 0xff, (size_t)(n * m.shape.V) * sizeof(float));
    }
    go(be, &m, &q, 0, n, &r);
    const bool rounds = testing_cuda() && type == mm_dtype_bf16;
    const double tolerance = rounds                     ? tol_step_many_rounded
                             : mm_dtype_quantized(type) ? tol_step_many_quantized
                                                        : tolerance_of(type);
    // next to codes only gates and dt are products of bf16
    enum rounding rounding = rounds                                       ? rounds_before_factors
                             : testing_cuda() && mm_dtype_quantized(type) ? rounds_rows
                                                                          : rounds_nothing;
    double off = off_from_reference(&m, past, n, rounding, &q, &r);
    // GPUs that make no norms within products round what the factors have multiplied
    if (rounds && off > tolerance) {
        print_message("model %d: off by %.3g if factors come later\n", v, off);
        off = off_from_reference(&m, past, n, rounds_rows, &q, &r);
    }
    if (!(off <= tolerance))
        fail_msg("model %d, %d sequences: off by %.3g, allowed %.3g", v, n, off, tolerance);
    result_free(&r), seqs_free(&q, n);
    model_free(&m);
}

static void many_sequences(void **state) {
    (void)state;
    static const int counts[] = {5, 16, 17, 64, 65};
    struct mm_backend *be = open_isa((enum mm_isa)best_under_test(), 2);
    cap = 720;
    const int models = !testing_cuda() ? 3 : test_few() ? 5 : 16;
    for (int v = 0; v < models; v++) {
        const int n = counts[v % 5];
        const bool f16 = v % 5 == 2 && v < 10;
        if (f16 && test_few()) continue;  // by other operations
        against_reference(be, v,
                          shapes[f16       ? v % 2
                                 : v == 15 ? 7
                                 : n > 17  ? 5
                                           : 4],
                          f16 ? mm_dtype_f16 : mm_dtype_bf16, n);
    }
    cap = 1400;
    mm_backend_close(be);
}

// Of quantized models up to 128 go at a time.
static void many_quantized(void **state) {
    (void)state;
    static const int counts[] = {5, 33, 65, 130};
    struct mm_backend *be = open_isa((enum mm_isa)best_under_test(), 2);
    cap = 720;
    for (int v = 0; v < (testing_cuda() ? 7 : 2); v++) {
        // every number of rows at a time, and every type; codes_alone has all kernels
        if (test_few() && v != 0 && v != 3 && v != 4 && v != 5) continue;
        against_reference(be, v + 20, shapes[6], v % 2 ? mm_dtype_q4 : mm_dtype_q8, counts[v / 2]);
    }
    cap = 1400;
    mm_backend_close(be);
}

// Logits of rows that nothing came before: one product of codes, of rows of all kinds of tiles.
static void codes_alone(void **state) {
    (void)state;
    static const int counts[] = {5, 64, 65, 128};
    enum { D = 2304, V = 300 };
    struct mm_backend *be[2] = {open_isa((enum mm_isa)best_under_test(), 2),
                                open_isa(mm_isa_plain, 1)};
    for (int v = 0; v < (testing_cuda() ? 8 : 2); v++) {
        const int n = counts[v / 2];
        struct model m = {0};
        struct mm_rng rng = mm_rng_make((uint64_t)v, 9);
        const struct mm_view w = matrix(&m, &rng, v % 2 ? mm_dtype_q4 : mm_dtype_q8, V, D),
                             norm = vector(&m, &rng, D, 1, 0.1), x = vector(&m, &rng, n * D, 0, 1);
        struct mm_step_seq seqs[most_seqs] = {0};
        struct out logits = {0};
        for (int k = 0; k < 2; k++) {
            float *hidden = room(&m, (size_t)(n * D) * sizeof *hidden),
                  *to = room(&m, (size_t)(n * V) * sizeof *to);
            memset(to, 0xff, (size_t)(n * V) * sizeof *to);
            logits.v[k] = mm_view2(to, mm_dtype_f32, n, V);
            const struct mm_step s = {.l2_before = -1,
                                      .norm = norm,
                                      .eps = 1e-5f,
                                      .seqs = seqs,
                                      .n_seqs = n,
                                      .x = mm_view2(x.data, mm_dtype_f32, n, D),
                                      .hidden = mm_view2(hidden, mm_dtype_f32, n, D),
                                      .output = w,
                                      .logits = logits.v[k]};
            mm_decode_step(be[k], &s);
            struct mm_error err = {0};
            if (mm_backend_sync(be[k], &err)) fail_msg("%s", err.text);
        }
        expect_close("logits", logits, tol_code_tipped);
        model_free(&m);
    }
    for (int k = 0; k < 2; k++)
        mm_backend_close(be[k]);
}

static void caches_of_bf16(void **state) {
    (void)state;
    if (!testing_cuda()) skip();
    struct mm_backend *be = open_isa((enum mm_isa)best_under_test(), 2);
    // heads of 32, 64 and 128, two, four, one, two or eight of which share keys
    for (int v = 0; v < 5; v++)
        block_of_halves(be, shapes[(const int[]){1, 4, 5, 6, 7}[v]], (uint64_t)v, 9);
    mm_backend_close(be);
}

// A sequence gets the same bits whoever is beside it and whichever row it has, as long as the
// number of sequences goes up to the same power of two.
static void among_many(void **state) {
    (void)state;
    static const int counts[][2] = {{5, 16}, {17, 30}, {33, 64}};
    struct mm_backend *be = open_isa((enum mm_isa)best_under_test(), 2);
    int64_t past[most_seqs];
    cap = 720;
    many_pasts(past, most_seqs);
    for (int v = 0; v < (testing_cuda() ? 18 : 3); v++) {
        // every way once
        if (test_few() && v != 0 && v != 1 && v != 10 && v != 14) continue;
        // quantized: what a GPU takes eight at a time, too
        const bool whole = v >= 9;
        if (whole && v % 3 == 0) continue;
        const int few = counts[v / 3 % 3][0], all = counts[v / 3 % 3][1];
        struct model m;
        make_model(&m, shapes[whole ? 6 : 4 + v % 2],
                   (enum mm_dtype[]){mm_dtype_bf16, mm_dtype_q8, mm_dtype_q4}[v % 3], (uint64_t)v);
        struct seqs a, b;
        struct result ra, rb;
        seqs_init(&a, &m, past, all), seqs_init(&b, &m, past, all);
        result_init(&ra, &m, all), result_init(&rb, &m, all);
        go(be, &m, &a, 0, all, &ra);
        go(be, &m, &b, all - few, few, &rb);
        for (int i = 0; i < steps_taken(); i++) {
            const struct mm_view *pairs[2][2] = {{&ra.hidden[i], &rb.hidden[i]},
                                                 {&ra.logits[i], &rb.logits[i]}};
            for (int k = 0; k < (i < steps_taken() - 1 ? 2 : 1); k++) {
                const struct out o = {{mm_view_rows(*pairs[k][0], all - few, few),
                                       mm_view_rows(*pairs[k][1], all - few, few)}};
                expect_close("rows", o, tol_exact);
            }
        }
        for (int t = all - few; t < all; t++)
            assert_memory_equal(a.memory[t], b.memory[t], a.floats * sizeof(float));
        result_free(&ra), result_free(&rb);
        seqs_free(&a, all), seqs_free(&b, all);
        model_free(&m);
    }
    cap = 1400;
    mm_backend_close(be);
}

// Those that stop among many: their kernels are others than for few.
static void stopped_among_many(void **state) {
    (void)state;
    struct mm_backend *be = open_isa((enum mm_isa)best_under_test(), 2);
    int64_t past[most_seqs];
    int stops[most_seqs];
    cap = 720;
    many_pasts(past, most_seqs);
    for (int v = 0; v < (testing_cuda() ? 6 : 1); v += test_few() ? 3 : 1) {
        struct model m;
        make_model(&m, shapes[v < 4 ? 4 + v % 2 : 6],
                   v < 4    ? mm_dtype_bf16
                   : v == 4 ? mm_dtype_q8
                            : mm_dtype_q4,
                   (uint64_t)v + 90);
        for (int t = 0; t < most_seqs; t++)
            stops[t] = t * 5 % 7 % (n_steps + 1);
        stops_alone(be, &m, past, v < 2 || v > 3 ? 9 : 33, stops);
        model_free(&m);
    }
    cap = 1400;
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_sequences), cmocka_unit_test(many_quantized),
        cmocka_unit_test(codes_alone),    cmocka_unit_test(caches_of_bf16),
        cmocka_unit_test(among_many),     cmocka_unit_test(stopped_among_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
