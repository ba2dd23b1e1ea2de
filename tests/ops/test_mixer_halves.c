// The two mixers' operations on activations of bf16, mixed with f32 operand by operand: against the
// reference on the same values. Only a backend that takes them (the GPU) is asked.
#include "halves_help.h"

static const int32_t starts[] = {0, 1, 4, 4};
enum { G = 2, H = 4 };

// Packed sequences of 1, 3, 0 and the remaining rows.
static struct mm_segs packed(int32_t start[5], int64_t rows) {
    for (int i = 0; i < 4; i++)
        start[i] = starts[i] < rows ? starts[i] : (int32_t)rows;
    start[4] = (int32_t)rows;
    return segs_from(start, 4);
}

static void convolution(struct world *w, int64_t rows, int64_t cols) {
    int32_t start[5];
    const struct mm_segs segs = packed(start, rows);
    const int64_t K = 2 + rows % 3;
    const struct mm_view weight = random_view(w, mm_dtype_f32, cols, K, 0, 1.0);
    const struct mm_view bias = full_vector(w, cols, 1.0);
    const struct out x = act_in(w, rows, cols, 1.0), dy = act_in(w, rows, cols, 1.0);
    const struct out y = act_out(w, rows, cols), after = act_out(w, rows, cols);
    struct out state = accumulating(w, 4, (K - 1) * cols, 0);
    struct out each = accumulating(w, rows, (K - 1) * cols, 0);
    const struct out dx = act_out(w, rows, cols), dw = accumulating(w, cols, K, 0);
    const struct out db = accumulating_vector(w, cols), one = act_out(w, rows, cols);
    for (int k = 0; k < 2; k++) {
        const struct mm_view s = mm_view3(state.v[k].data, mm_dtype_f32, 4, K - 1, cols);
        const struct mm_view t = mm_view3(each.v[k].data, mm_dtype_f32, rows, K - 1, cols);
        mm_conv_silu_fwd(w->be[k], y.v[k], x.v[k], weight, bias, MM_NONE, segs);
        mm_conv_silu_fwd(w->be[k], after.v[k], x.v[k], weight, bias, s, segs);
        mm_conv_silu_step(w->be[k], one.v[k], x.v[k], weight, bias, t);
        mm_conv_silu_bwd(w->be[k], dx.v[k], dw.v[k], db.v[k], dy.v[k], x.v[k], weight, bias, segs);
    }
    expect_halves("conv_silu_fwd", y, tol_pointwise);
    expect_halves("conv_silu_fwd with a state", after, tol_pointwise);
    expect_close("conv_silu_fwd state", state, tol_exact);
    expect_halves("conv_silu_step", one, tol_pointwise);
    expect_close("conv_silu_step state", each, tol_exact);
    expect_halves("conv_silu_bwd dx", dx, tol_pointwise);
    expect_close("conv_silu_bwd dw", dw, tol_sum);
    expect_close("conv_silu_bwd dbias", db, tol_sum);
}

static void head_norms(struct world *w, int64_t rows, int64_t P) {
    const struct mm_view weight = full_vector(w, P, 1.0), bias = full_vector(w, P, 1.0);
    const struct out x = act_heads(w, rows, H, P, 1.0), dy = act_heads(w, rows, H, P, 1.0);
    const struct out y = out_heads(w, rows, H, P), dx = out_heads(w, rows, H, P);
    const struct out stats = poisoned(w, rows, H * 2, 0);
    const struct out dw = accumulating_vector(w, P), db = accumulating_vector(w, P);
    const struct out g = act_in(w, rows, H * P, 1.0), rinv = poisoned(w, rows, H, 0);
    const struct out o = out_heads(w, rows, H, P), bare = out_heads(w, rows, H, P);
    const struct out dys = out_heads(w, rows, H, P), dg = act_out(w, rows, H * P);
    const struct out dgw = accumulating_vector(w, P);
    for (int k = 0; k < 2; k++) {
        mm_head_norm_fwd(w->be[k], y.v[k], stats.v[k], x.v[k], weight, bias, 1e-5f);
        mm_gated_norm_fwd(w->be[k], o.v[k], rinv.v[k], x.v[k], g.v[k], weight, 1e-5f);
        mm_gated_norm_fwd(w->be[k], bare.v[k], MM_NONE, x.v[k], g.v[k], MM_NONE, 1e-5f);
    }
    for (int k = 0; k < 2; k++) {
        mm_head_norm_bwd(w->be[k], dx.v[k], dw.v[k], db.v[k], dy.v[k], x.v[k], weight, stats.v[1]);
        mm_gated_norm_bwd(w->be[k], dys.v[k], dg.v[k], dgw.v[k], mm_view_flat(dy.v[k]), x.v[k],
                          g.v[k], weight, rinv.v[1]);
    }
    expect_halves("head_norm_fwd", y, tol_sum);
    expect_close("head_norm_fwd stats", stats, tol_sum);
    expect_halves("head_norm_bwd", dx, tol_sum);
    expect_close("head_norm_bwd dw", dw, tol_sum);
    expect_close("head_norm_bwd dbias", db, tol_sum);
    expect_halves("gated_norm_fwd", o, tol_sum);
    expect_halves("gated_norm_fwd without a norm", bare, tol_sum);
    expect_halves("gated_norm_bwd dy", dys, tol_sum);
    expect_halves("gated_norm_bwd dg", dg, tol_sum);
    expect_close("gated_norm_bwd dw", dgw, tol_sum);
}

static void rotation(struct world *w, int64_t rows, int64_t cols) {
    const int64_t P = cols / 2 * 2;
    const struct mm_view pos = random_ids(w, rows, 0, 100000);
    const struct out qkv = act_in(w, rows, (H + 2 * G) * P, 1.0);
    const struct out q = out_heads(w, rows, H, P), k = out_heads(w, rows, G, P);
    const struct out v = out_heads(w, rows, G, P), back = act_out(w, rows, (H + 2 * G) * P);
    for (int i = 0; i < 2; i++)
        mm_qkv_rope_fwd(w->be[i], q.v[i], k.v[i], v.v[i], qkv.v[i], pos, 10000.0f, 1.0f);
    for (int i = 0; i < 2; i++) {
        mm_qkv_rope_bwd(w->be[i], back.v[i], q.v[1], k.v[1], v.v[1], pos, 10000.0f, 1.0f);
    }
    expect_halves("qkv_rope_fwd q", q, tol_pointwise);
    expect_halves("qkv_rope_fwd k", k, tol_pointwise);
    expect_halves("qkv_rope_fwd v", v, tol_pointwise);
    expect_halves("qkv_rope_bwd", back, tol_pointwise);
}

static void attention(struct world *w, int64_t rows, int64_t P) {
    int32_t start[5];
    const struct mm_segs segs = packed(start, rows);
    const int64_t past = 37;
    const struct out q = act_heads(w, rows, H, P, 1.0), k = act_heads(w, rows, G, P, 1.0);
    const struct out v = act_heads(w, rows, G, P, 1.0), dy = act_heads(w, rows, H, P, 1.0);
    const struct out old_k = act_heads(w, past + rows, G, P, 1.0);
    const struct out old_v = act_heads(w, past + rows, G, P, 1.0);
    const struct out y = out_heads(w, rows, H, P), lse = poisoned(w, rows, H, 0);
    const struct out on = out_heads(w, rows, H, P), dq = out_heads(w, rows, H, P);
    const struct out dk = out_heads(w, rows, G, P), dv = out_heads(w, rows, G, P);
    for (int b = 0; b < 2; b++) {
        mm_attention_fwd(w->be[b], y.v[b], lse.v[b], q.v[b], k.v[b], v.v[b], segs);
        mm_attention_step(w->be[b], on.v[b], q.v[b], old_k.v[b], old_v.v[b], past);
    }
    for (int b = 0; b < 2; b++)
        mm_attention_bwd(w->be[b], dq.v[b], dk.v[b], dv.v[b], dy.v[b], y.v[1], lse.v[1], q.v[b],
                         k.v[b], v.v[b], segs);
    expect_halves("attention_fwd", y, tol_halves_mixer);
    expect_close("attention_fwd lse", lse, tol_halves_mixer);
    expect_halves("attention_step", on, tol_halves_mixer);
    expect_halves("attention_bwd dv", dv, tol_halves_mixer);
    if (rows < 5) return;  // one key each: dq and dk are zero but for rounding
    expect_halves("attention_bwd dq", dq, tol_halves_mixer);
    expect_halves("attention_bwd dk", dk, tol_halves_mixer);
}

static void recurrence(struct world *w, int64_t rows, int64_t P) {
    int32_t start[5];
    const struct mm_segs segs = packed(start, rows);
    const double scale = 1.0 / sqrt((double)P);
    const struct out v = act_heads(w, rows, G, P, scale), k = act_heads(w, rows, G, P, scale);
    const struct out q = act_heads(w, rows, H, P, scale), dy = act_heads(w, rows, H, P, 1.0);
    const struct out dt = full_in(w, rows, H, 1.0);
    for (int64_t i = 0; i < rows * H; i++)
        put(dt.v[0], i / H, i % H, 0.05f + 0.3f * fabsf(get(dt.v[0], i / H, i % H)));
    const struct mm_view a_log = full_vector(w, H, 1.0), d = full_vector(w, H, 1.0);
    struct out state = accumulating(w, 4, H * P * P, 0), each = accumulating(w, rows, H * P * P, 0);
    const struct out y = out_heads(w, rows, H, P), on = out_heads(w, rows, H, P);
    const struct out one = out_heads(w, rows, H, P), ddt = poisoned(w, rows, H, 0);
    const struct out dv = out_heads(w, rows, G, P), dk = out_heads(w, rows, G, P);
    const struct out dq = out_heads(w, rows, H, P);
    const struct out da = accumulating_vector(w, H), dd = accumulating_vector(w, H);
    for (int b = 0; b < 2; b++) {
        const struct mm_view s = mm_view4(state.v[b].data, mm_dtype_f32, 4, H, P, P);
        const struct mm_view t = mm_view4(each.v[b].data, mm_dtype_f32, rows, H, P, P);
        mm_ssd_fwd(w->be[b], y.v[b], v.v[b], k.v[b], q.v[b], dt.v[b], a_log, d, MM_NONE, segs);
        mm_ssd_fwd(w->be[b], on.v[b], v.v[b], k.v[b], q.v[b], dt.v[b], a_log, d, s, segs);
        mm_ssd_step(w->be[b], one.v[b], v.v[b], k.v[b], q.v[b], dt.v[b], a_log, d, t);
        mm_ssd_bwd(w->be[b], dv.v[b], dk.v[b], dq.v[b], ddt.v[b], da.v[b], dd.v[b], dy.v[b], v.v[b],
                   k.v[b], q.v[b], dt.v[b], a_log, d, segs);
    }
    expect_halves("ssd_fwd", y, tol_halves_mixer);
    expect_halves("ssd_fwd with a state", on, tol_halves_mixer);
    expect_close("ssd_fwd state", state, tol_halves_mixer);
    expect_halves("ssd_step", one, tol_sum);
    expect_close("ssd_step state", each, tol_sum);
    expect_halves("ssd_bwd dv", dv, tol_halves_mixer);
    expect_halves("ssd_bwd dk", dk, tol_halves_mixer);
    expect_halves("ssd_bwd dq", dq, tol_halves_mixer);
    expect_close("ssd_bwd ddt", ddt, tol_halves_mixer);
    expect_close("ssd_bwd da_log", da, tol_halves_mixer);
    expect_close("ssd_bwd dd", dd, tol_halves_mixer);
}

// The reference is slow: heads of at most 64.
static void small_attention(struct world *w, int64_t rows, int64_t cols) {
    if (cols <= 64) attention(w, rows, cols);
}
static void small_recurrence(struct world *w, int64_t rows, int64_t cols) {
    if (cols <= 64) recurrence(w, rows, cols);
}

#define TEST_OF(name, of)                   \
    static void test_##name(void **state) { \
        (void)state;                        \
        for_sizes(of);                      \
    }
TEST_OF(convolution, convolution)
TEST_OF(head_norms, head_norms)
TEST_OF(rotation, rotation)
TEST_OF(attention, small_attention)
TEST_OF(recurrence, small_recurrence)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolution), cmocka_unit_test(test_head_norms),
        cmocka_unit_test(test_rotation),    cmocka_unit_test(test_attention),
        cmocka_unit_test(test_recurrence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
