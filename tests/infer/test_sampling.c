// The choice of the next token: settings one by one on small lists of logits, draws against the
// probabilities they should have, and the heap against sorting.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cmocka_all.h"

#include "infer/sample.h"

enum { V = 8 };
static struct mm_sample_scratch scratch;
static const float logits[V] = {1.0f, 3.0f, -2.0f, 2.5f, 3.0f, 0.0f, -INFINITY, 2.0f};

static int begin(void **state) {
    (void)state;
    mm_sample_scratch_init(&scratch, V);
    return 0;
}

static int end(void **state) {
    (void)state;
    mm_sample_scratch_deinit(&scratch);
    return 0;
}

static int32_t choose(struct mm_sampling how, struct mm_rng *rng) {
    return mm_sample(&scratch, logits, &how, rng, NULL, 0, NULL, 0);
}

static void greedy_takes_the_first_of_the_largest(void **state) {
    (void)state;
    struct mm_rng rng = mm_rng_make(1, 2);
    assert_int_equal(choose(MM_SAMPLING_GREEDY, &rng), 1);
    assert_int_equal(rng.counter, 0);
    const int32_t banned[2] = {1, 4}, gone[2] = {-1, 99};
    assert_int_equal(mm_sample(&scratch, logits, &MM_SAMPLING_GREEDY, &rng, NULL, 0, banned, 2), 3);
    assert_int_equal(mm_sample(&scratch, logits, &MM_SAMPLING_GREEDY, &rng, NULL, 0, gone, 2), 1);
}

static void penalty_divides_and_multiplies_once(void **state) {
    (void)state;
    struct mm_rng rng = mm_rng_make(1, 2);
    struct mm_sampling how = MM_SAMPLING_GREEDY;
    how.repetition_penalty = 1.1;
    const int32_t answer[3] = {1, 4, 1};
    // 3 / 1.1 = 2.73 is still the largest; twice would be 2.48 and 3 would win
    assert_int_equal(mm_sample(&scratch, logits, &how, &rng, answer, 3, NULL, 0), 1);
    how.repetition_penalty = 1.3;
    assert_int_equal(mm_sample(&scratch, logits, &how, &rng, answer, 3, NULL, 0), 3);
    // negative logits go down too
    const float low[V] = {-5, -1, -5, -5, -1.5f, -5, -5, -5};
    how.repetition_penalty = 2.0;
    assert_int_equal(mm_sample(&scratch, low, &how, &rng, (int32_t[]){1}, 1, NULL, 0), 4);
    assert_int_equal(scratch.seen[0], 0);
}

// Draws n times and compares the counts with p (chi-square, far in the tail).
static void draws_like(struct mm_sampling how, const double p[V]) {
    enum { n = 200000 };
    struct mm_rng rng = mm_rng_make(3, 4);
    int count[V] = {0};
    for (int i = 0; i < n; i++)
        count[choose(how, &rng)]++;
    double chi = 0.0;
    for (int i = 0; i < V; i++) {
        if (p[i] == 0.0) {
            assert_int_equal(count[i], 0);
        } else {
            const double d = count[i] - n * p[i];
            chi += d * d / (n * p[i]);
        }
    }
    if (chi > 30.0) fail_msg("chi-square %g of at most 7 degrees of freedom", chi);
}

static void softmax(double p[V], double temperature, const int *kept, int n_kept) {
    double sum = 0.0;
    memset(p, 0, V * sizeof *p);
    for (int i = 0; i < n_kept; i++)
        sum += p[kept[i]] = exp((double)logits[kept[i]] / temperature);
    for (int i = 0; i < V; i++)
        p[i] /= sum;
}

static void draws_follow_the_settings(void **state) {
    (void)state;
    double p[V];
    const int all[] = {0, 1, 2, 3, 4, 5, 7}, four[] = {1, 4, 3, 7}, one[] = {1};
    softmax(p, 1.0, all, 7);
    draws_like((struct mm_sampling){1.0, 0, 1.0, 0.0, 1.0}, p);
    draws_like((struct mm_sampling){1.0, 100, 1.0, 0.0, 1.0}, p);
    softmax(p, 0.5, all, 7);
    draws_like((struct mm_sampling){0.5, 0, 1.0, 0.0, 1.0}, p);
    softmax(p, 2.0, four, 4);
    draws_like((struct mm_sampling){2.0, 4, 1.0, 0.0, 1.0}, p);
    // ties: the lower id is kept
    softmax(p, 1.0, one, 1);
    draws_like((struct mm_sampling){1.0, 1, 1.0, 0.0, 1.0}, p);
    draws_like((struct mm_sampling){1.0, 0, 0.0, 0.0, 1.0}, p);
    // at temperature 1 the probabilities are .317 .317 .192 .117 ..: two make .63, three .83
    softmax(p, 1.0, four, 2);
    draws_like((struct mm_sampling){1.0, 0, 0.60, 0.0, 1.0}, p);
    softmax(p, 1.0, four, 3);
    draws_like((struct mm_sampling){1.0, 0, 0.70, 0.0, 1.0}, p);
    // top-p counts within top-k: of four, two make .67
    softmax(p, 1.0, four, 2);
    draws_like((struct mm_sampling){1.0, 4, 0.66, 0.0, 1.0}, p);
    // exp(2 - 3) = .37 of the first
    softmax(p, 1.0, four, 4);
    draws_like((struct mm_sampling){1.0, 0, 1.0, 0.36, 1.0}, p);
    softmax(p, 1.0, four, 3);
    draws_like((struct mm_sampling){1.0, 0, 1.0, 0.38, 1.0}, p);
}

static int32_t sorted[5000];
static float many[5000];

static int by_logit(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (many[x] != many[y]) return many[x] > many[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

// Every cut keeps what sorting would keep: drawn often enough, exactly those k come.
static void top_k_is_what_sorting_gives(void **state) {
    (void)state;
    struct mm_sample_scratch big;
    struct mm_rng rng = mm_rng_make(5, 6), values = mm_rng_make(7, 8);
    mm_sample_scratch_init(&big, 5000);
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 5000; i++) {
            many[i] = (float)(mm_rng_below(&values, 50)) * 1e-4f;  // many ties, all about as likely
            sorted[i] = i;
        }
        qsort(sorted, 5000, sizeof *sorted, by_logit);
        const int64_t k = (int64_t[]){1, 2, 3, 17, 64, 100}[round];
        const struct mm_sampling how = {1.0, k, 1.0, 0.0, 1.0};
        unsigned char came[5000] = {0};
        for (int i = 0; i < 60 * k; i++)
            came[mm_sample(&big, many, &how, &rng, NULL, 0, NULL, 0)] = 1;
        for (int i = 0; i < 5000; i++)
            assert_int_equal(came[sorted[i]], i < k);
    }
    mm_sample_scratch_deinit(&big);
}

static void the_same_rng_draws_the_same(void **state) {
    (void)state;
    const struct mm_sampling how = {1.0, 5, 0.9, 0.01, 1.0};
    struct mm_rng a = mm_rng_make(9, 0), b;
    for (int i = 0; i < 100; i++) {
        b = a;
        assert_int_equal(choose(how, &a), choose(how, &b));
        assert_int_equal(a.counter, b.counter);
    }
    int other = 0;
    b = mm_rng_make(10, 0);
    for (int i = 0; i < 100; i++)
        other += choose(how, &a) != choose(how, &b);
    assert_true(other > 20);
}

static void without_finite_logits_there_is_no_token(void **state) {
    (void)state;
    struct mm_rng rng = mm_rng_make(1, 2);
    const struct mm_sampling settings[2] = {MM_SAMPLING_GREEDY, {1.0, 3, 0.5, 0.1, 1.2}};
    float bad[V];
    const float values[] = {NAN, -INFINITY, INFINITY};
    for (int s = 0; s < 2; s++) {
        for (int v = 0; v < 3; v++) {
            for (int i = 0; i < V; i++)
                bad[i] = values[v];
            assert_int_equal(mm_sample(&scratch, bad, &settings[s], &rng, NULL, 0, NULL, 0), -1);
        }
        bad[0] = NAN, bad[1] = -INFINITY, bad[2] = 1.0f;
        for (int i = 3; i < V; i++)
            bad[i] = NAN;
        assert_int_equal(mm_sample(&scratch, bad, &settings[s], &rng, NULL, 0, NULL, 0), 2);
    }
}

static void settings_out_of_range_are_named(void **state) {
    (void)state;
    const struct {
        struct mm_sampling how;
        const char *says;
    } wrong[] = {{{-0.1, 0, 1, 0, 1}, "here: 'temperature' is -0.1, must be 0 to 100"},
                 {{NAN, 0, 1, 0, 1}, "'temperature' is nan"},
                 {{1, -1, 1, 0, 1}, "'top_k' is -1"},
                 {{1, 0, 1.5, 0, 1}, "'top_p' is 1.5"},
                 {{1, 0, 1, 2, 1}, "'min_p' is 2"},
                 {{1, 0, 1, 0, 0}, "'repetition_penalty' is 0, must be 0.01 to 100"}};
    struct mm_error err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(mm_sampling_check(&wrong[i].how, "here", &err), mm_code_input);
        if (!strstr(err.text, wrong[i].says)) fail_msg("says '%s'", err.text);
    }
    assert_int_equal(mm_sampling_check(&MM_SAMPLING_GREEDY, "here", &err), mm_code_ok);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_of_the_largest),
        cmocka_unit_test(penalty_divides_and_multiplies_once),
        cmocka_unit_test(draws_follow_the_settings),
        cmocka_unit_test(top_k_is_what_sorting_gives),
        cmocka_unit_test(the_same_rng_draws_the_same),
        cmocka_unit_test(without_finite_logits_there_is_no_token),
        cmocka_unit_test(settings_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
