// The door of every operation: operands are checked once, here, then the backend's slot is
// called. A wrong operand is a bug in the program and ends it with a line that says which
// condition of which operation did not hold. Once the backend has failed nothing is done at all.
#include <stdio.h>
#include <stdlib.h>
#include "ops/check_step.h"
#include "ops/draw.h"
#include "ops/ops.h"

#define WANT(condition)                                                                          \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "mmamba: bug: mm_%s: %s does not hold\n", __func__ + 6, #condition); \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

static bool is_float(struct mm_view v) {
    return v.dtype == mm_dtype_f32 || v.dtype == mm_dtype_bf16 || v.dtype == mm_dtype_f16;
}

static bool given(struct mm_view v) {
    return v.data != NULL;
}

static int64_t cols(struct mm_view v) {
    return mm_view_cols(v);
}

// (rows, n elements a row), however the row is divided into axes
static bool has(struct mm_view v, int64_t rows, int64_t n) {
    return v.n_axes >= 1 && v.n_axes <= 4 && v.shape[0] == rows && cols(v) == n && rows >= 0 &&
           n >= 1 && v.ld >= n && (v.data || rows == 0);
}

static bool same(struct mm_view a, struct mm_view b) {
    return has(a, b.shape[0], cols(b));
}

// An activation or its gradient: f32, or what the backend has them in.
static bool act(const struct mm_backend *be, struct mm_view v, int64_t rows, int64_t n) {
    return has(v, rows, n) && (v.dtype == mm_dtype_f32 || v.dtype == be->activations);
}

static bool act3(const struct mm_backend *be, struct mm_view v, int64_t t, int64_t a, int64_t b) {
    return act(be, v, t, a * b) && v.n_axes >= 3 && v.shape[1] == a && v.shape[2] == b;
}

static bool weight(struct mm_view v, int64_t rows, int64_t n) {
    return has(v, rows, n) && is_float(v);
}

// A weight that only linear_fwd and ffn_fwd take: rows as base/quant.h lays them out, one after the
// other
static bool quantized(struct mm_view v, int64_t rows, int64_t n) {
    return mm_dtype_quantized(v.dtype) && v.n_axes == 2 && has(v, rows, n) && v.ld == n;
}

// A vector of n elements, dense
static bool vec(struct mm_view v, int64_t n) {
    return weight(v, n, 1) && v.ld == 1;
}

static bool vec_f32(struct mm_view v, int64_t n) {
    return vec(v, n) && v.dtype == mm_dtype_f32;
}

static bool f32(struct mm_view v, int64_t rows, int64_t n) {
    return has(v, rows, n) && v.dtype == mm_dtype_f32;
}

// n whole numbers; where the host can see them, each at least `low` and below `end`
static bool ids_in(const struct mm_backend *be, struct mm_view v, int64_t n, int64_t low,
                   int64_t end) {
    if (!has(v, n, 1) || v.dtype != mm_dtype_i32 || v.ld != 1) return false;
    for (int64_t i = 0; be->host_memory && i < n; i++) {
        const int32_t id = ((const int32_t *)v.data)[i];
        if (id < low || id >= end) return false;
    }
    return true;
}

static bool segs_of(struct mm_segs s, int64_t rows) {
    if (s.n < 0 || !s.start || !s.dev || s.start[0] != 0 || s.start[s.n] != rows) return false;
    for (int64_t i = 0; i < s.n; i++) {
        if (s.start[i] > s.start[i + 1]) return false;
    }
    return true;
}

// ---- moving rows and elements ----

static void check_fill(struct mm_backend *be, struct mm_view y, float value) {
    (void)be, (void)value;
    WANT(weight(y, y.shape[0], cols(y)));
}

static void check_copy(struct mm_backend *be, struct mm_view y, struct mm_view x) {
    (void)be;
    WANT(weight(x, x.shape[0], cols(x)));
    WANT(same(y, x) && is_float(y));
}

static void check_add(struct mm_backend *be, struct mm_view y, struct mm_view a, struct mm_view b) {
    WANT(act(be, y, y.shape[0], cols(y)));
    WANT(act(be, a, y.shape[0], cols(y)));
    WANT(act(be, b, y.shape[0], cols(y)));
}

static void check_scale(struct mm_backend *be, struct mm_view y, struct mm_view x, float s) {
    (void)s;
    WANT(act(be, y, y.shape[0], cols(y)));
    WANT(same(x, y) && x.dtype == y.dtype);
}

static void check_embed_fwd(struct mm_backend *be, struct mm_view y, struct mm_view table,
                            struct mm_view ids) {
    WANT(weight(table, table.shape[0], cols(y)));
    WANT(act(be, y, y.shape[0], cols(y)));
    WANT(ids_in(be, ids, y.shape[0], INT32_MIN, table.shape[0]));
}

static void check_embed_bwd(struct mm_backend *be, struct mm_view dtable, struct mm_view dy,
                            struct mm_view ids) {
    WANT(f32(dtable, dtable.shape[0], cols(dy)));
    WANT(act(be, dy, dy.shape[0], cols(dy)));
    WANT(ids_in(be, ids, dy.shape[0], INT32_MIN, dtable.shape[0]));
}

static void check_gather_rows(struct mm_backend *be, struct mm_view y, struct mm_view x,
                              struct mm_view idx) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, y.shape[0], cols(x)) && y.dtype == x.dtype);
    WANT(ids_in(be, idx, y.shape[0], 0, x.shape[0]));
}

static void check_scatter_rows(struct mm_backend *be, struct mm_view y, struct mm_view x,
                               struct mm_view idx) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, y.shape[0], cols(x)) && y.dtype == x.dtype);
    WANT(ids_in(be, idx, x.shape[0], 0, y.shape[0]));
}

static void check_argmax(struct mm_backend *be, struct mm_view y, struct mm_view x,
                         struct mm_view banned) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(ids_in(be, y, x.shape[0], INT32_MIN, INT32_MAX));
    WANT(!given(banned) || ids_in(be, banned, banned.shape[0], INT32_MIN, INT32_MAX));
}

static void check_draw_tokens(struct mm_backend *be, struct mm_view y, struct mm_view logits,
                              struct mm_view seen, struct mm_view stopped, struct mm_view kept,
                              const struct mm_draw *how, const struct mm_draw_stops *stops) {
    WANT(f32(logits, logits.shape[0], cols(logits)));
    WANT(ids_in(be, y, logits.shape[0], INT32_MIN, INT32_MAX));
    WANT(!given(seen) ||
         (has(seen, logits.shape[0], (cols(logits) + 31) / 32) && seen.dtype == mm_dtype_i32));
    WANT(!given(stopped) || ids_in(be, stopped, logits.shape[0], INT32_MIN, INT32_MAX));
    WANT(!given(kept) || (given(stopped) && f32(kept, logits.shape[0], cols(logits))));
    WANT(!stops || (given(stopped) && stops->n >= 0 && stops->n <= mm_draw_stops_most));
    WANT(how || logits.shape[0] == 0);
}

// ---- pictures ----

static void check_normalize(struct mm_backend *be, struct mm_view y, struct mm_view rgb,
                            struct mm_view table) {
    const int64_t side = y.shape[2];
    (void)be;
    WANT(f32(y, y.shape[0], 3 * side * side) && y.shape[1] == 3 && y.ld == cols(y));
    WANT(has(rgb, y.shape[0], cols(y)) && rgb.dtype == mm_dtype_u8 && rgb.ld == cols(y));
    WANT(rgb.shape[1] == side && rgb.shape[3] == 3);
    WANT(f32(table, 3, 256) && table.ld == 256);
}

static void check_patchify(struct mm_backend *be, struct mm_view y, struct mm_view pixels,
                           int64_t patch) {
    const int64_t side = pixels.shape[2], grid = patch > 0 ? side / patch : 0;
    WANT(patch > 0 && side % patch == 0);
    WANT(f32(pixels, pixels.shape[0], 3 * side * side) && pixels.shape[1] == 3);
    WANT(pixels.ld == cols(pixels));
    WANT(act(be, y, pixels.shape[0] * grid * grid, 3 * patch * patch));
}

static void check_add_position_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                                   struct mm_view e) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, x.shape[0], cols(x)));
    WANT(weight(e, e.shape[0], cols(x)) && e.shape[0] > 0 && x.shape[0] % e.shape[0] == 0);
}

static void check_add_position_bwd(struct mm_backend *be, struct mm_view de, struct mm_view dy) {
    WANT(act(be, dy, dy.shape[0], cols(dy)));
    WANT(f32(de, de.shape[0], cols(dy)) && de.shape[0] > 0 && dy.shape[0] % de.shape[0] == 0);
}

static void check_pixel_shuffle_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                                    int64_t grid) {
    WANT(grid > 0 && grid % 2 == 0 && x.shape[0] % (grid * grid) == 0);
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, x.shape[0] / 4, 4 * cols(x)));
}

static void check_pixel_shuffle_bwd(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                                    int64_t grid) {
    WANT(grid > 0 && grid % 2 == 0 && dx.shape[0] % (grid * grid) == 0);
    WANT(act(be, dx, dx.shape[0], cols(dx)));
    WANT(act(be, dy, dx.shape[0] / 4, 4 * cols(dx)));
}

// ---- dense ----

static void check_linear_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                             struct mm_view w, struct mm_view bias) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(weight(w, w.shape[0], cols(x)) || quantized(w, w.shape[0], cols(x)));
    WANT(act(be, y, x.shape[0], w.shape[0]));
    WANT(!given(bias) || vec(bias, w.shape[0]));
}

static void check_linear_add_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                                 struct mm_view w, struct mm_view add) {
    check_linear_fwd(be, y, x, w, MM_NONE);
    WANT(act(be, add, x.shape[0], w.shape[0]) && (add.data != y.data || x.shape[0] == 0));
}

static void check_linear_bwd_x(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                               struct mm_view w, bool accumulate) {
    (void)accumulate;
    WANT(act(be, dy, dy.shape[0], cols(dy)));
    WANT(weight(w, cols(dy), cols(w)));
    WANT(act(be, dx, dy.shape[0], cols(w)));
}

static void check_linear_bwd_w(struct mm_backend *be, struct mm_view dw, struct mm_view dbias,
                               struct mm_view dy, struct mm_view x, enum mm_dtype product) {
    WANT(act(be, dy, dy.shape[0], cols(dy)));
    WANT(act(be, x, dy.shape[0], cols(x)));
    WANT(f32(dw, cols(dy), cols(x)));
    WANT(!given(dbias) || vec_f32(dbias, cols(dy)));
    WANT(product == mm_dtype_f32 || product == mm_dtype_bf16);
}

// ---- pointwise and norms ----

static void check_rmsnorm_fwd(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                              struct mm_view x, struct mm_view w, float eps) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, x.shape[0], cols(x)));
    WANT(vec(w, cols(x)));
    WANT(!given(rinv) || vec_f32(rinv, x.shape[0]));
    WANT(eps >= 0.0f);
}

static void check_rmsnorm_bwd(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                              struct mm_view dy, struct mm_view x, struct mm_view w,
                              struct mm_view rinv) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, dy, x.shape[0], cols(x)));
    WANT(act(be, dx, x.shape[0], cols(x)));
    WANT(vec(w, cols(x)));
    WANT(!given(dw) || vec_f32(dw, cols(x)));
    WANT(vec_f32(rinv, x.shape[0]));
}

static void check_l2norm_fwd(struct mm_backend *be, struct mm_view y, struct mm_view rinv,
                             struct mm_view x) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, x.shape[0], cols(x)));
    WANT(!given(rinv) || vec_f32(rinv, x.shape[0]));
}

static void check_l2norm_bwd(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                             struct mm_view y, struct mm_view rinv) {
    WANT(act(be, y, y.shape[0], cols(y)));
    WANT(act(be, dy, y.shape[0], cols(y)));
    WANT(act(be, dx, y.shape[0], cols(y)));
    WANT(vec_f32(rinv, y.shape[0]));
}

static void check_swiglu_fwd(struct mm_backend *be, struct mm_view y, struct mm_view a,
                             struct mm_view b) {
    WANT(act(be, y, y.shape[0], cols(y)));
    WANT(act(be, a, y.shape[0], cols(y)));
    WANT(act(be, b, y.shape[0], cols(y)));
}

static void check_swiglu_bwd(struct mm_backend *be, struct mm_view da, struct mm_view db,
                             struct mm_view dy, struct mm_view a, struct mm_view b) {
    WANT(act(be, dy, dy.shape[0], cols(dy)));
    WANT(act(be, a, dy.shape[0], cols(dy)) && act(be, b, dy.shape[0], cols(dy)));
    WANT(act(be, da, dy.shape[0], cols(dy)) && act(be, db, dy.shape[0], cols(dy)));
}

static void check_ffn_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                          struct mm_view h, struct mm_view w1, struct mm_view w3,
                          struct mm_view w2) {
    const int64_t T = h.shape[0], D = cols(h), F = w1.shape[0];
    WANT(act(be, h, T, D) && act(be, x, T, D) && act(be, y, T, D));
    WANT(weight(w1, F, D) || quantized(w1, F, D));
    WANT(weight(w3, F, D) || quantized(w3, F, D));
    WANT(weight(w2, D, F) || quantized(w2, D, F));
    WANT(w1.dtype == w3.dtype && w1.dtype == w2.dtype);
}

static void check_gelu_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, x.shape[0], cols(x)));
}

static void check_gelu_bwd(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                           struct mm_view x) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, dy, x.shape[0], cols(x)));
    WANT(act(be, dx, x.shape[0], cols(x)));
}

// ---- softmax attention ----

// q (T,H,P), k and v (T,G,P) with whole groups
static bool heads(const struct mm_backend *be, struct mm_view q, int64_t rows, struct mm_view k,
                  struct mm_view v) {
    return act3(be, q, q.shape[0], q.shape[1], q.shape[2]) &&
           act3(be, k, rows, k.shape[1], q.shape[2]) && act3(be, v, rows, k.shape[1], q.shape[2]) &&
           q.shape[1] % k.shape[1] == 0;
}

static void check_qkv_rope_fwd(struct mm_backend *be, struct mm_view q, struct mm_view k,
                               struct mm_view v, struct mm_view qkv, struct mm_view pos, float base,
                               float pos_scale) {
    WANT(heads(be, q, q.shape[0], k, v) && q.shape[2] % 2 == 0);
    WANT(act(be, qkv, q.shape[0], (q.shape[1] + 2 * k.shape[1]) * q.shape[2]));
    WANT(ids_in(be, pos, q.shape[0], 0, INT32_MAX));
    WANT(base > 0.0f && pos_scale > 0.0f);
}

static void check_qkv_rope_bwd(struct mm_backend *be, struct mm_view dqkv, struct mm_view dq,
                               struct mm_view dk, struct mm_view dv, struct mm_view pos, float base,
                               float pos_scale) {
    WANT(heads(be, dq, dq.shape[0], dk, dv) && dq.shape[2] % 2 == 0);
    WANT(act(be, dqkv, dq.shape[0], (dq.shape[1] + 2 * dk.shape[1]) * dq.shape[2]));
    WANT(ids_in(be, pos, dq.shape[0], 0, INT32_MAX));
    WANT(base > 0.0f && pos_scale > 0.0f);
}

static void check_attention_fwd(struct mm_backend *be, struct mm_view y, struct mm_view lse,
                                struct mm_view q, struct mm_view k, struct mm_view v,
                                struct mm_segs segs) {
    WANT(heads(be, q, q.shape[0], k, v));
    WANT(act3(be, y, q.shape[0], q.shape[1], q.shape[2]));
    WANT(!given(lse) || f32(lse, q.shape[0], q.shape[1]));
    WANT(segs_of(segs, q.shape[0]));
}

static void check_attention_bwd(struct mm_backend *be, struct mm_view dq, struct mm_view dk,
                                struct mm_view dv, struct mm_view dy, struct mm_view y,
                                struct mm_view lse, struct mm_view q, struct mm_view k,
                                struct mm_view v, struct mm_segs segs) {
    WANT(heads(be, q, q.shape[0], k, v));
    WANT(heads(be, dq, q.shape[0], dk, dv));
    WANT(same(dq, q) && dq.shape[1] == q.shape[1] && dk.shape[1] == k.shape[1]);
    WANT(act3(be, dy, q.shape[0], q.shape[1], q.shape[2]));
    WANT(act3(be, y, q.shape[0], q.shape[1], q.shape[2]));
    WANT(f32(lse, q.shape[0], q.shape[1]));
    WANT(segs_of(segs, q.shape[0]));
}

static void check_attention_step(struct mm_backend *be, struct mm_view y, struct mm_view q,
                                 struct mm_view k, struct mm_view v, int64_t past) {
    WANT(past >= 0);
    WANT(heads(be, q, past + q.shape[0], k, v));
    WANT(act3(be, y, q.shape[0], q.shape[1], q.shape[2]));
}

// ---- the Mamba-2 mixer ----

static void check_conv_silu_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                                struct mm_view w, struct mm_view bias, struct mm_view state,
                                struct mm_segs segs) {
    const int64_t k_dim = cols(w);
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, x.shape[0], cols(x)));
    WANT(f32(w, cols(x), k_dim) && w.ld == k_dim);
    WANT(vec_f32(bias, cols(x)));
    WANT(segs_of(segs, x.shape[0]));
    WANT(!given(state) || k_dim == 1 || f32(state, segs.n, (k_dim - 1) * cols(x)));
}

static void check_conv_silu_bwd(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                                struct mm_view dbias, struct mm_view dy, struct mm_view x,
                                struct mm_view w, struct mm_view bias, struct mm_segs segs) {
    const int64_t k_dim = cols(w);
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, dy, x.shape[0], cols(x)));
    WANT(act(be, dx, x.shape[0], cols(x)));
    WANT(f32(w, cols(x), k_dim) && w.ld == k_dim);
    WANT(vec_f32(bias, cols(x)));
    WANT(given(dw) == given(dbias));
    WANT(!given(dw) || (f32(dw, cols(x), k_dim) && dw.ld == k_dim && vec_f32(dbias, cols(x))));
    WANT(segs_of(segs, x.shape[0]));
}

static void check_conv_silu_step(struct mm_backend *be, struct mm_view y, struct mm_view x,
                                 struct mm_view w, struct mm_view bias, struct mm_view state) {
    const int64_t k_dim = cols(w);
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(act(be, y, x.shape[0], cols(x)));
    WANT(f32(w, cols(x), k_dim) && w.ld == k_dim);
    WANT(vec_f32(bias, cols(x)));
    WANT(k_dim == 1 || f32(state, x.shape[0], (k_dim - 1) * cols(x)));
}

static void check_head_norm_fwd(struct mm_backend *be, struct mm_view y, struct mm_view stats,
                                struct mm_view x, struct mm_view w, struct mm_view bias,
                                float eps) {
    WANT(act3(be, x, x.shape[0], x.shape[1], x.shape[2]));
    WANT(act3(be, y, x.shape[0], x.shape[1], x.shape[2]));
    WANT(vec_f32(w, x.shape[2]) && vec_f32(bias, x.shape[2]));
    WANT(!given(stats) || f32(stats, x.shape[0], x.shape[1] * 2));
    WANT(eps >= 0.0f);
}

static void check_head_norm_bwd(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                                struct mm_view dbias, struct mm_view dy, struct mm_view x,
                                struct mm_view w, struct mm_view stats) {
    WANT(act3(be, x, x.shape[0], x.shape[1], x.shape[2]));
    WANT(act3(be, dy, x.shape[0], x.shape[1], x.shape[2]));
    WANT(act3(be, dx, x.shape[0], x.shape[1], x.shape[2]));
    WANT(vec_f32(w, x.shape[2]));
    WANT(!given(dw) || vec_f32(dw, x.shape[2]));
    WANT(!given(dbias) || vec_f32(dbias, x.shape[2]));
    WANT(f32(stats, x.shape[0], x.shape[1] * 2));
}

static void check_softplus_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                               struct mm_view bias) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(f32(y, x.shape[0], cols(x)));
    WANT(vec_f32(bias, cols(x)));
}

static void check_softplus_bwd(struct mm_backend *be, struct mm_view dx, struct mm_view dbias,
                               struct mm_view dy, struct mm_view x, struct mm_view bias) {
    WANT(act(be, x, x.shape[0], cols(x)));
    WANT(f32(dy, x.shape[0], cols(x)));
    WANT(act(be, dx, x.shape[0], cols(x)));
    WANT(vec_f32(bias, cols(x)));
    WANT(!given(dbias) || vec_f32(dbias, cols(x)));
}

// Operands of the recurrence: v (T,G,P), k (T,G,N), q (T,H,N), dt (T,H), a_log and d (H) or NULL
static bool ssd(const struct mm_backend *be, struct mm_view v, struct mm_view k, struct mm_view q,
                struct mm_view dt, struct mm_view a_log, struct mm_view d) {
    const int64_t rows = v.shape[0], g_dim = v.shape[1], h_dim = q.shape[1], n_dim = q.shape[2];
    return act3(be, v, rows, g_dim, v.shape[2]) && act3(be, k, rows, g_dim, n_dim) &&
           act3(be, q, rows, h_dim, n_dim) && h_dim % g_dim == 0 && f32(dt, rows, h_dim) &&
           (!given(a_log) || vec_f32(a_log, h_dim)) && (!given(d) || vec_f32(d, h_dim));
}

static bool ssd_state(struct mm_view s, int64_t n, struct mm_view v, struct mm_view q) {
    return f32(s, n, q.shape[1] * v.shape[2] * q.shape[2]) && s.ld == cols(s);
}

static void check_ssd_fwd(struct mm_backend *be, struct mm_view y, struct mm_view v,
                          struct mm_view k, struct mm_view q, struct mm_view dt,
                          struct mm_view a_log, struct mm_view d, struct mm_view state,
                          struct mm_segs segs) {
    WANT(ssd(be, v, k, q, dt, a_log, d));
    WANT(act3(be, y, q.shape[0], q.shape[1], v.shape[2]));
    WANT(segs_of(segs, q.shape[0]));
    WANT(!given(state) || ssd_state(state, segs.n, v, q));
}

static void check_ssd_bwd(struct mm_backend *be, struct mm_view dv, struct mm_view dk,
                          struct mm_view dq, struct mm_view ddt, struct mm_view da_log,
                          struct mm_view dd, struct mm_view dy, struct mm_view v, struct mm_view k,
                          struct mm_view q, struct mm_view dt, struct mm_view a_log,
                          struct mm_view d, struct mm_segs segs) {
    WANT(ssd(be, v, k, q, dt, a_log, d));
    WANT(ssd(be, dv, dk, dq, ddt, da_log, dd));
    WANT(same(dv, v) && same(dk, k) && same(dq, q));
    WANT(dv.shape[1] == v.shape[1] && dk.shape[1] == k.shape[1] && dq.shape[1] == q.shape[1]);
    WANT(act3(be, dy, q.shape[0], q.shape[1], v.shape[2]));
    WANT(given(a_log) || !given(da_log));
    WANT(given(d) || !given(dd));
    WANT(segs_of(segs, q.shape[0]));
}

static void check_ssd_step(struct mm_backend *be, struct mm_view y, struct mm_view v,
                           struct mm_view k, struct mm_view q, struct mm_view dt,
                           struct mm_view a_log, struct mm_view d, struct mm_view state) {
    WANT(ssd(be, v, k, q, dt, a_log, d));
    WANT(act3(be, y, q.shape[0], q.shape[1], v.shape[2]));
    WANT(ssd_state(state, q.shape[0], v, q));
}

static void check_gated_norm_fwd(struct mm_backend *be, struct mm_view o, struct mm_view rinv,
                                 struct mm_view y, struct mm_view g, struct mm_view w, float eps) {
    const int64_t rows = y.shape[0], h_dim = y.shape[1], p_dim = y.shape[2];
    WANT(act3(be, y, rows, h_dim, p_dim));
    WANT(act3(be, o, rows, h_dim, p_dim));
    WANT(act(be, g, rows, h_dim * p_dim));
    WANT(!given(w) || vec_f32(w, p_dim));
    WANT(!given(rinv) || f32(rinv, rows, h_dim));
    WANT(eps >= 0.0f);
}

static void check_gated_norm_bwd(struct mm_backend *be, struct mm_view dy, struct mm_view dg,
                                 struct mm_view dw, struct mm_view d_o, struct mm_view y,
                                 struct mm_view g, struct mm_view w, struct mm_view rinv) {
    const int64_t rows = y.shape[0], h_dim = y.shape[1], p_dim = y.shape[2];
    WANT(act3(be, y, rows, h_dim, p_dim));
    WANT(act3(be, dy, rows, h_dim, p_dim));
    WANT(act(be, d_o, rows, h_dim * p_dim));
    WANT(act(be, g, rows, h_dim * p_dim));
    WANT(act(be, dg, rows, h_dim * p_dim));
    WANT(!given(w) || (vec_f32(w, p_dim) && f32(rinv, rows, h_dim)));
    WANT(!given(dw) || (given(w) && vec_f32(dw, p_dim)));
}

static void check_decode_step(struct mm_backend *be, const struct mm_step *step) {
    const char *wrong = mm_check_step(be, step);
    if (!wrong) return;
    fprintf(stderr, "mmamba: bug: mm_decode_step: %s does not hold\n", wrong);
    abort();
}

// ---- losses and optimizer ----

static void check_mse(struct mm_backend *be, struct mm_view loss, struct mm_view dy,
                      struct mm_view y, struct mm_view target, float scale) {
    (void)scale;
    WANT(act(be, y, y.shape[0], cols(y)));
    WANT(act(be, target, y.shape[0], cols(y)));
    WANT(!given(dy) || act(be, dy, y.shape[0], cols(y)));
    WANT(vec_f32(loss, 1));
}

static void check_kl(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
                     struct mm_view student, struct mm_view teacher, struct mm_view weight) {
    WANT(act(be, student, student.shape[0], cols(student)));
    WANT(act(be, teacher, student.shape[0], cols(student)));
    WANT(!given(dlogits) || act(be, dlogits, student.shape[0], cols(student)));
    WANT(vec_f32(loss, student.shape[0]) && vec_f32(weight, student.shape[0]));
}

static void check_cross_entropy(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
                                struct mm_view logits, struct mm_view target,
                                struct mm_view weight) {
    WANT(act(be, logits, logits.shape[0], cols(logits)));
    WANT(!given(dlogits) || act(be, dlogits, logits.shape[0], cols(logits)));
    WANT(vec_f32(loss, logits.shape[0]) && vec_f32(weight, logits.shape[0]));
    WANT(ids_in(be, target, logits.shape[0], -100, cols(logits)));
    for (int64_t r = 0; be->host_memory && r < logits.shape[0]; r++) {
        WANT(((const int32_t *)target.data)[r] >= 0 || ((const float *)weight.data)[r] == 0.0f);
    }
}

static void check_sum_squares(struct mm_backend *be, struct mm_view sum, struct mm_view x) {
    (void)be;
    WANT(f32(x, x.shape[0], cols(x)));
    WANT(vec_f32(sum, 1));
}

static void check_adamw(struct mm_backend *be, struct mm_view w, struct mm_view m, struct mm_view v,
                        struct mm_view g, struct mm_adamw h) {
    (void)be;
    WANT(f32(w, w.shape[0], cols(w)));
    WANT(f32(m, w.shape[0], cols(w)) && f32(v, w.shape[0], cols(w)));
    WANT(f32(g, w.shape[0], cols(w)));
    WANT(h.bias1 > 0.0f && h.bias2 > 0.0f);
}

// ---- the doors ----

#define MM_OPS_DOOR(name, params, args) \
    void mm_##name params {             \
        if (be->error.code) return;     \
        check_##name args;              \
        be->ops->name args;             \
    }
MM_OPS_TABLE(MM_OPS_DOOR)
#undef MM_OPS_DOOR

void mm_backend_close(struct mm_backend *be) {
    if (be) be->close(be);
}

enum mm_code mm_backend_sync(struct mm_backend *be, struct mm_error *err) {
    return be->sync(be, err);
}
