// Drawing tokens: every backend against the definition written down plainly (sorting, and sums from
// the likeliest on), to the token, over settings, sizes, ties and logits that are not numbers; and
// the weights against the exponential.
#include "ops/draw.h"
#include "ops_test.h"

static const float *sort_by;

static int by_likelihood(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sort_by[x] != sort_by[y]) return sort_by[x] > sort_by[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

static bool has_bit(const uint32_t *bits, int64_t i) {
    return bits && (bits[i / 32] >> (i % 32) & 1);
}

// The high half of a * b, a digit of 32 bits at a time.
static uint64_t high_half(uint64_t a, uint64_t b) {
    uint64_t digit[4] = {0};
    for (int i = 0; i < 2; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < 2; j++) {
            const uint64_t x = (a >> 32 * i & 0xffffffffu) * (b >> 32 * j & 0xffffffffu);
            const uint64_t sum = digit[i + j] + (x & 0xffffffffu) + carry;
            digit[i + j] = sum & 0xffffffffu;
            carry = (x >> 32) + (sum >> 32);
        }
        digit[i + 2] += carry;
    }
    return digit[3] << 32 | digit[2];
}

// ops/draw.h, word by word.
static int32_t plainly(const struct mm_draw *d, const float *logits, int64_t V,
                       const uint32_t *seen) {
    float *l = mm_xmalloc((size_t)V * sizeof *l);
    int32_t *ids = mm_xmalloc((size_t)V * sizeof *ids);
    bool *in = mm_xcalloc((size_t)V, sizeof *in);
    int64_t n = 0;
    for (int64_t i = 0; i < V; i++) {
        l[i] = logits[i];
        if (has_bit(seen, i) && d->penalty != 1.0) {
            l[i] =
                (float)((double)l[i] > 0 ? (double)l[i] / d->penalty : (double)l[i] * d->penalty);
        }
        if (i == d->banned[0] || i == d->banned[1]) l[i] = -INFINITY;
        if (l[i] > -INFINITY) ids[n++] = (int32_t)i;
    }
    sort_by = l;
    qsort(ids, (size_t)n, sizeof *ids, by_likelihood);
    int32_t id = n > 0 && isfinite(l[ids[0]]) ? ids[0] : -1;
    if (id >= 0 && d->temperature > 0.0) {
        const float inverse = mm_draw_inverse(d);
        const int64_t k = d->top_k > 0 && d->top_k < n ? d->top_k : n;
        uint64_t total = 0, sum = 0;
        for (int64_t i = 0; i < k; i++)
            total += mm_draw_weight(l[ids[i]] - l[ids[0]], inverse);
        const uint64_t part = mm_draw_part(d->top_p, total);
        for (int64_t i = 0; i < k && (d->top_p >= 1.0 || sum < part); i++) {
            const uint64_t w = mm_draw_weight(l[ids[i]] - l[ids[0]], inverse);
            sum += w;
            in[ids[i]] = w > 0 && w >= mm_draw_least(d);
        }
        total = sum = 0;
        for (int64_t i = 0; i < V; i++)
            if (in[i]) total += mm_draw_weight(l[i] - l[ids[0]], inverse);
        const uint64_t spot = high_half(d->bits, total);
        for (int64_t i = 0; i < V && sum <= spot; i++) {
            if (!in[i]) continue;
            sum += mm_draw_weight(l[i] - l[ids[0]], inverse);
            id = (int32_t)i;
        }
    }
    free(l);
    free(ids);
    free(in);
    return id;
}

enum { n_rows = 13 };

static struct mm_draw settings(struct mm_rng *rng, int i, int64_t V) {
    static const double temperatures[] = {1.0, 0.0, 0.7, 2.5, 1e-3, 100.0, 1e-310};
    static const double top_ps[] = {1.0, 0.9, 0.5, 0.999999, 0.0, 0.3};
    static const int64_t top_ks[] = {0, 1, 40, 3, 1000};
    static const double min_ps[] = {0.0, 0.05, 1.0, 0.0};
    return (struct mm_draw){.temperature = temperatures[i % 7],
                            .top_k = top_ks[i % 5],
                            .top_p = top_ps[i / 2 % 6],
                            .min_p = min_ps[i / 3 % 4],
                            .penalty = i % 4 == 1   ? 1.3
                                       : i % 4 == 3 ? 0.8
                                                    : 1.0,
                            .bits = i % 11 == 3 ? UINT64_MAX : mm_rng_u64(rng),
                            .banned = {i % 2 ? (int32_t)(V / 2) : -1, i % 3 ? (int32_t)V : 0}};
}

// Rows of all kinds: spread, peaked, many alike, with NaN and -inf, all alike, nothing finite.
static void fill_row(struct mm_view x, int64_t r, struct mm_rng *rng) {
    const int64_t V = mm_view_cols(x), kind = r % 7;
    for (int64_t i = 0; i < V; i++) {
        float l = (float)mm_rng_normal(rng) * (kind == 1 ? 12.0f : 2.5f);
        if (kind == 2) l = (float)mm_rng_below(rng, 5) * 0.5f - 1.0f;
        if (kind == 3 && i % 3 == 0) l = i % 2 ? NAN : -INFINITY;
        if (kind == 4) l = i % 2 ? 0.0f : -0.0f;
        if (kind == 5) l += 1e6f;
        if (kind == 6) l = r % 2 ? -INFINITY : i == 0 ? INFINITY : l;
        put(x, r, i, l);
    }
}

static void draws(struct mm_backend *const be[2], int64_t V, int64_t pad, int round) {
    struct world w = {.rng = mm_rng_make((uint64_t)round, (uint64_t)V)};
    const struct mm_view logits = make(&w, mm_dtype_f32, n_rows, V, pad);
    const int64_t words = (V + 31) / 32;
    struct mm_view seen[3], y[2];
    struct mm_draw how[n_rows];
    for (int k = 0; k < 3; k++)
        seen[k] = make(&w, mm_dtype_i32, n_rows, words, k == 2 ? 0 : 1);
    for (int64_t r = 0; r < n_rows; r++) {
        fill_row(logits, r, &w.rng);
        how[r] = settings(&w.rng, (int)r + round * 5, V);
        for (int64_t i = 0; i < words; i++) {
            const uint32_t bits = (uint32_t)mm_rng_u64(&w.rng) & (uint32_t)mm_rng_u64(&w.rng);
            for (int k = 0; k < 3; k++)
                *(uint32_t *)mm_view_at(seen[k], r, i) = bits;
        }
    }
    const bool penalties = round % 3 != 0;
    for (int k = 0; k < 2; k++) {
        y[k] = random_ids(&w, n_rows, 1 << 20, 1 << 21);
        mm_draw_tokens(be[k], y[k], logits, penalties ? seen[k] : MM_NONE, MM_NONE, MM_NONE, how,
                       NULL);
    }
    for (int64_t r = 0; r < n_rows; r++) {
        uint32_t *bits = penalties ? mm_view_at(seen[2], r, 0) : NULL;
        const int32_t want = plainly(&how[r], mm_view_at(logits, r, 0), V, bits);
        if (bits && want >= 0 && how[r].penalty != 1.0) bits[want / 32] |= 1u << want % 32;
        for (int k = 0; k < 2; k++) {
            const int32_t is = ((int32_t *)y[k].data)[r];
            if (is != want) {
                fail_msg("V %lld, round %d, row %lld: %s drew %d, wanted %d", (long long)V, round,
                         (long long)r, k ? "the reference" : "the fast one", is, want);
            }
            if (!penalties) continue;
            assert_memory_equal(mm_view_at(seen[k], r, 0), bits, (size_t)words * 4);
        }
    }
    for (int i = 0; i < w.n_blocks; i++)
        free(w.blocks[i].base);
}

static void like_the_definition(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 31, 33, 1000, 5003, 92553};
    struct mm_error err;
    struct mm_backend *be[2];
    be[0] = open_isa((enum mm_isa)best_under_test(), 2);
    be[1] = open_isa(mm_isa_plain, 1);
    for (int i = 0; i < 7; i++) {
        for (int round = 0; round < (sizes[i] > 10000 ? 4 : 12); round++)
            draws(be, sizes[i], round % 2 ? 0 : 5, round);
    }
    for (int k = 0; k < 2; k++) {
        if (mm_backend_sync(be[k], &err)) fail_msg("%s", err.text);
        mm_backend_close(be[k]);
    }
}

// Rows that have stopped draw nothing and change nothing; a stop id, a last draw and a row where
// nothing is finite stop a sequence, and only these rows' logits are kept.
static void stops(struct mm_backend *be, int64_t V, int round) {
    struct world w = {.rng = mm_rng_make((uint64_t)round + 100, (uint64_t)V)};
    const struct mm_view logits = make(&w, mm_dtype_f32, n_rows, V, 3);
    const struct mm_view kept = make(&w, mm_dtype_f32, n_rows, V, 5);
    const struct mm_view seen = make(&w, mm_dtype_i32, n_rows, (V + 31) / 32, 0);
    const struct mm_view want = random_ids(&w, n_rows, 0, 1), is = random_ids(&w, n_rows, 0, 1);
    const struct mm_view stopped = random_ids(&w, n_rows, 0, 1);
    struct mm_draw how[n_rows];
    for (int64_t r = 0; r < n_rows; r++) {
        fill_row(logits, r, &w.rng);
        how[r] = settings(&w.rng, (int)r + round * 5, V);
        memset(mm_view_at(seen, r, 0), 0, (size_t)((V + 31) / 32) * 4);
        for (int64_t i = 0; i < V; i++)
            put(kept, r, i, -7.0f);
    }
    mm_draw_tokens(be, want, logits, seen, MM_NONE, MM_NONE, how, NULL);
    uint32_t *const bits = mm_xmalloc((size_t)(n_rows * ((V + 31) / 32)) * 4);
    memcpy(bits, seen.data, (size_t)(n_rows * ((V + 31) / 32)) * 4);
    memset(seen.data, 0, (size_t)(n_rows * ((V + 31) / 32)) * 4);
    const int32_t *w_ids = want.data, *ids = is.data;
    struct mm_draw_stops at = {.n = round % 2 ? mm_draw_stops_most : 2};
    for (int i = 0; i < at.n; i++)
        at.ids[i] = i == at.n - 1 ? w_ids[0] : (int32_t)V + i;
    int32_t *flags = stopped.data;
    for (int r = 0; r < n_rows; r++) {
        flags[r] = r % 3 == 1 ? r + 1 : 0;
        how[r].last = r % 5 == 2;
    }
    mm_draw_tokens(be, is, logits, seen, stopped, kept, how, &at);
    int n_ended = 0;
    for (int r = 0; r < n_rows; r++) {
        const bool was = r % 3 == 1;
        const bool ends = !was && (w_ids[r] < 0 || w_ids[r] == w_ids[0] || r % 5 == 2);
        const size_t words = (size_t)(V + 31) / 32;
        assert_int_equal(ids[r], was ? -1 : w_ids[r]);
        assert_int_equal(flags[r], was ? r + 1 : ends);
        const uint32_t *now = mm_view_at(seen, r, 0);
        for (size_t i = 0; i < words; i++)
            assert_int_equal(now[i], was ? 0 : bits[(size_t)r * words + i]);
        const uint32_t *from = mm_view_at(logits, r, 0), *to = mm_view_at(kept, r, 0);
        const float untouched = -7.0f;
        for (int64_t i = 0; i < V; i++) {
            if (ends && to[i] != from[i]) fail_msg("row %d: logit %d is not kept", r, (int)i);
            if (!ends && memcmp(&to[i], &untouched, 4) != 0) fail_msg("row %d is kept", r);
        }
        n_ended += ends;
    }
    assert_true(n_ended >= 3 && n_ended < 9);
    free(bits);
    for (int i = 0; i < w.n_blocks; i++)
        free(w.blocks[i].base);
}

static void stopping(void **state) {
    (void)state;
    static const int64_t sizes[] = {33, 1000, 92553};
    for (int k = 0; k < 2; k++) {
        struct mm_backend *be = open_isa(k ? mm_isa_plain : (enum mm_isa)best_under_test(), 2);
        for (int i = 0; i < 3; i++) {
            for (int round = 0; round < (i == 2 ? 2 : 6); round++)
                stops(be, sizes[i], round);
        }
        struct mm_error err;
        if (mm_backend_sync(be, &err)) fail_msg("%s", err.text);
        mm_backend_close(be);
    }
}

// Within 2^-21 of the exponential, and its rounding down to a whole number.
static void weights_are_exponentials(void **state) {
    (void)state;
    assert_true(mm_draw_weight(0.0f, 3.0f) == (uint64_t)1 << 40);
    assert_true(mm_draw_weight(-30.0f, 1.0f) == 0 && mm_draw_weight(NAN, 1.0f) == 0);
    assert_true(mm_draw_weight(-INFINITY, 1.0f) == 0);
    for (int i = 1; i < 20000; i++) {
        const float x = -(float)i * 1.4e-3f;
        const double want = exp((double)x) * 0x1p40, is = (double)mm_draw_weight(x, 1.0f);
        if (fabs(is - want) > want * 0x1p-21 + 1.0) fail_msg("exp(%g): %g, wanted %g", x, is, want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(like_the_definition),
        cmocka_unit_test(stopping),
        cmocka_unit_test(weights_are_exponentials),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
