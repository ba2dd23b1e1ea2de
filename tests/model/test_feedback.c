// The factor that passes rounding errors on is what it says, on sizes around a block of columns,
// and rounding with it leaves less error in a layer's outputs than rounding without.
#include "model/feedback.h"
#include "model/model_test.h"

static const int64_t sizes[] = {1, 5, 127, 128, 129, 200, 384, 411};
enum { n_sizes = sizeof sizes / sizeof *sizes };
static const double damp = 0.01;

// Inputs (T, K) of which neighbours go together, some hardly vary, and one never does.
static struct mm_view inputs(struct mm_backend *be, int64_t T, int64_t K) {
    struct mm_rng r = mm_rng_make(4, (uint64_t)K);
    void *data;
    OK(be->alloc(be, (size_t)(T * K) * sizeof(float), &data, &err));
    float *x = data;
    for (int64_t t = 0; t < T; t++) {
        double wave = 0.0;
        for (int64_t k = 0; k < K; k++) {
            wave = 0.9 * wave + mm_rng_normal(&r);
            x[t * K + k] = K > 3 && k == 3 ? 0.0f : (float)(wave * (k % 5 == 1 ? 0.05 : 1.0));
        }
    }
    return mm_view2(data, mm_dtype_f32, T, K);
}

static struct mm_view squares(struct mm_backend *be, struct mm_view x) {
    const int64_t K = mm_view_cols(x);
    void *data;
    OK(be->alloc(be, (size_t)(K * K) * sizeof(float), &data, &err));
    const struct mm_view h = mm_view2(data, mm_dtype_f32, K, K);
    mm_linear_bwd_w(be, h, MM_NONE, x, x, mm_dtype_f32);
    return h;
}

static void drop(struct mm_backend *be, struct mm_view v) {
    be->release(be, v.data, mm_view_bytes(v));
}

// U H U^T = I, which is H^-1 = U^T U without an inverse.
static void check_factor(struct mm_backend *be, int64_t K) {
    const struct mm_view x = inputs(be, 2 * K + 7, K), h = squares(be, x), u = squares(be, x);
    const float *H = h.data, *U = u.data;
    double mean = 0.0;
    for (int64_t i = 0; i < K; i++)
        mean += (double)H[i * K + i] / (double)K;
    assert_true(mm_feedback_factor(be, u, damp));
    double *hu = mm_xcalloc((size_t)(K * K), sizeof *hu);  // H U^T
    for (int64_t i = 0; i < K; i++) {
        for (int64_t j = 0; j < K; j++) {
            if (j < i) assert_true(U[i * K + j] == 0.0f);
            for (int64_t k = j; k < K; k++) {
                const double hik = (double)H[i * K + k] + (i == k ? damp * mean : 0.0);
                hu[i * K + j] += hik * (double)U[j * K + k];
            }
        }
    }
    for (int64_t i = 0; i < K; i++) {
        for (int64_t j = 0; j < K; j++) {
            double sum = 0.0;
            for (int64_t k = i; k < K; k++)
                sum += (double)U[i * K + k] * hu[k * K + j];
            if (!(fabs(sum - (i == j)) < 2e-3)) {
                fail_msg("K %d: (%d, %d) of U H U^T is %g", (int)K, (int)i, (int)j, sum);
            }
        }
    }
    free(hu);
    drop(be, x), drop(be, h), drop(be, u);
}

static void factors_are_what_they_say(void **state) {
    (void)state;
    const enum mm_isa isas[] = {mm_isa_plain, mm_isa_best()};
    for (int i = 0; i < 2; i++) {
        struct mm_backend *be = open_isa(isas[i], 2);
        for (int s = 0; s < n_sizes; s++)
            check_factor(be, sizes[s]);
        mm_backend_close(be);
    }
}

static void no_numbers_are_refused(void **state) {
    (void)state;
    struct mm_backend *be = open_isa(mm_isa_plain, 1);
    const struct mm_view x = inputs(be, 40, 16);
    const struct mm_view h = squares(be, x);
    *(float *)mm_view_at(h, 9, 9) = NAN;
    assert_false(mm_feedback_factor(be, h, damp));
    mm_fill(be, h, 0.0f);
    assert_false(mm_feedback_factor(be, h, damp));
    drop(be, x), drop(be, h);
    mm_backend_close(be);
}

// Squared error of x (w - rounded) over that of x w, for `rounded` (N, K) of f32.
static double output_error(struct mm_view x, const float *w, const float *rounded, int64_t N) {
    const int64_t K = mm_view_cols(x);
    double error = 0.0, all = 0.0;
    for (int64_t t = 0; t < x.shape[0]; t++) {
        const float *row = mm_view_at(x, t, 0);
        for (int64_t n = 0; n < N; n++) {
            double d = 0.0, y = 0.0;
            for (int64_t k = 0; k < K; k++) {
                d += (double)row[k] * (double)(w[n * K + k] - rounded[n * K + k]);
                y += (double)row[k] * (double)w[n * K + k];
            }
            error += d * d;
            all += y * y;
        }
    }
    return error / all;
}

static void outputs_are_closer(void **state) {
    (void)state;
    enum { N = 12, K = 200 };
    struct mm_backend *be = open_isa(mm_isa_plain, 1);
    const struct mm_view x = inputs(be, 3 * K, K), u = squares(be, x);
    static float w[N * K], moving[N * K], plain[N * K], passed[N * K];
    struct mm_rng r = mm_rng_make(8, 8);
    for (int i = 0; i < N * K; i++)
        w[i] = moving[i] = (float)(0.02 * mm_rng_normal(&r));
    assert_true(mm_feedback_factor(be, u, damp));
    const enum mm_dtype types[] = {mm_dtype_q8, mm_dtype_q4};
    for (int v = 0; v < 2; v++) {
        const enum mm_dtype t = types[v];
        const size_t bytes = (size_t)mm_quant_row_bytes(t, K);
        memcpy(moving, w, sizeof w);
        for (int64_t n = 0; n < N; n++) {
            unsigned char *row = mm_xcalloc(1, bytes);
            float e[2][mm_quant_block], *m = moving + n * K;
            for (int64_t b = 0; b < 2; b++) {
                const float *at = (const float *)u.data + b * 128 * K + b * 128;
                assert_true(mm_quantize_block(row, t, K, b, m + b * 128, NULL, at, K, e[b]));
                for (int64_t j = 128; b == 0 && j < K; j++) {
                    for (int64_t i = 0; i < 128; i++)
                        m[j] -= e[0][i] * ((const float *)u.data)[i * K + j];
                }
            }
            mm_dequantize_row(passed + n * K, t, row, K);
            assert_true(mm_quantize_row(row, t, w + n * K, NULL, K));
            mm_dequantize_row(plain + n * K, t, row, K);
            free(row);
        }
        const double with = output_error(x, w, passed, N), without = output_error(x, w, plain, N);
        if (!(with < 0.5 * without)) {
            fail_msg("%s: %.3g with feedback, %.3g without", mm_dtype_name(t), with, without);
        }
    }
    drop(be, x), drop(be, u);
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_are_what_they_say),
        cmocka_unit_test(no_numbers_are_refused),
        cmocka_unit_test(outputs_are_closer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
