// What rope_scaling does to a model, by the published formulas: "dynamic" is another base for each
// sequence that is longer than max_position_embeddings, "linear" is the same angles at positions
// divided by the factor.
#include "tiny_model.h"

enum { n_max = 20, max_positions = 12 };

// Logits of the first n tokens of a text, with `before` packed in front of it.
static void logits(float *out, struct mm_model *m, int32_t n, int32_t before) {
    int32_t ids[2 * n_max], start[3] = {0, before, before + n};
    for (int32_t t = 0; t < before + n; t++)
        ids[t] = (7 * (t < before ? t : t - before) + 3) % tiny_image_id;
    const int64_t n_seqs = before ? 2 : 1, T = before + n;
    if (!before) start[1] = n;
    struct mm_arena host, device;
    OK(mm_arena_init(&host, mm_layout_host_bytes(m, T, n_seqs, 0), &err));
    OK(mm_arena_init(&device, 1 << 20, &err));
    struct mm_layout l;
    OK(mm_layout_make(&l, m, &host, &device, ids, start, n_seqs, 0, 0, 0, "rope", &err));
    struct mm_forward f = {0};
    mm_model_fwd(m, &l, MM_NONE, NULL, &f, false, false, NULL, &device);
    mm_linear_fwd(m->be, mm_view2(out, mm_dtype_f32, n, tiny_V), mm_view_rows(f.hidden, before, n),
                  mm_model_w(m, mm_role_output), MM_NONE);
    OK(mm_backend_sync(m->be, &err));
    mm_arena_deinit(&host);
    mm_arena_deinit(&device);
}

static void dynamic(void **state) {
    (void)state;
    struct mm_backend *be = open_isa(mm_isa_plain, 1);
    struct mm_model scaled, plain;
    tiny_model(&scaled, be, &(struct tiny){.rope = "dynamic"}, 3);
    const int32_t lengths[] = {5, max_positions, max_positions + 1, n_max};
    for (int i = 0; i < 4; i++) {
        const int32_t n = lengths[i];
        // base' = base (f n / max - (f - 1))^(P / (P - 2)), with P 4 and f 2
        const double grown = n <= max_positions ? 1.0 : 2.0 * n / max_positions - 1.0;
        tiny_model(&plain, be, &(struct tiny){.theta = 100.0 * grown * grown}, 3);
        float is[n_max * tiny_V], want[n_max * tiny_V], packed[n_max * tiny_V];
        logits(is, &scaled, n, 0);
        logits(want, &plain, n, 0);
        expect_near("dynamic", is, want, n * tiny_V, tol_sum);
        // each packed sequence has the base of its own length
        logits(packed, &scaled, n, n == n_max ? 4 : n_max);
        expect_near("packed", packed, want, n * tiny_V, tol_sum);
        mm_model_deinit(&plain);
    }
    // and it matters
    float is[n_max * tiny_V], want[n_max * tiny_V];
    tiny_model(&plain, be, &(struct tiny){0}, 3);
    logits(is, &scaled, n_max, 0);
    logits(want, &plain, n_max, 0);
    assert_true(distance(is, want, n_max * tiny_V) > tol_golden);
    mm_model_deinit(&plain);
    mm_model_deinit(&scaled);
    mm_backend_close(be);
}

// Angles at positions divided by the factor, at every length.
static void linear(void **state) {
    (void)state;
    struct mm_backend *be = open_isa(mm_isa_plain, 1);
    enum { H = 3, G = 1, P = 4, width = (H + 2 * G) * P };
    float qkv[n_max * width], q[2][n_max * H * P], k[2][n_max * P], v[n_max * P];
    int32_t at[n_max], twice[n_max];
    struct mm_rng r = mm_rng_make(9, 9);
    for (int i = 0; i < n_max * width; i++)
        qkv[i] = (float)mm_rng_normal(&r);
    for (int32_t i = 0; i < n_max; i++)
        at[i] = i, twice[i] = 2 * i;
    // positions twice as far, scaled by one half, are the positions
    for (int i = 0; i < 2; i++) {
        mm_qkv_rope_fwd(be, mm_view3(q[i], mm_dtype_f32, n_max, H, P),
                        mm_view3(k[i], mm_dtype_f32, n_max, G, P),
                        mm_view3(v, mm_dtype_f32, n_max, G, P),
                        mm_view2(qkv, mm_dtype_f32, n_max, width),
                        mm_view1(i ? twice : at, mm_dtype_i32, n_max), 100.0f, i ? 0.5f : 1.0f);
    }
    expect_near("q", q[1], q[0], n_max * H * P, tol_pointwise);
    expect_near("k", k[1], k[0], n_max * P, tol_pointwise);
    // the model hands over 1 / factor, whatever the length: a factor of 1 changes nothing, one of 2
    // changes short sequences too
    struct mm_model scaled, plain;
    float is[n_max * tiny_V], want[n_max * tiny_V];
    tiny_model(&plain, be, &(struct tiny){0}, 3);
    tiny_model(&scaled, be, &(struct tiny){.rope = "linear"}, 3);
    assert_true(scaled.config.llm.rope_factor == 2.0);
    logits(is, &scaled, 5, 0);
    logits(want, &plain, 5, 0);
    assert_true(distance(is, want, 5 * tiny_V) > tol_golden);
    scaled.config.embed.rope_factor = scaled.config.llm.rope_factor = 1.0;
    logits(is, &scaled, n_max, 0);
    logits(want, &plain, n_max, 0);
    expect_near("linear", is, want, n_max * tiny_V, tol_exact);
    mm_model_deinit(&plain);
    mm_model_deinit(&scaled);
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(dynamic), cmocka_unit_test(linear)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
