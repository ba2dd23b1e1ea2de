// The two mixers between a block's norm and its output projection: softmax attention (docs/MODEL.md
// section 1) and Mamba-2 (section 2), forward, with and without a carried state, and backward.
#include "model/acts.h"

#include <assert.h>
#include <math.h>

static struct mm_view grad(const struct mm_block *b, const struct mm_grads *g, enum mm_role role) {
    return b->p[role] < 0 ? MM_NONE : g->of[b->p[role]];
}

// A model whose weights have eight bits or fewer does not need more from inner products.
static enum mm_dtype inner_product(const struct mm_model *m) {
    const bool coarse = m->dtype == mm_dtype_bf16 || mm_dtype_quantized(m->dtype);
    return coarse ? mm_dtype_bf16 : mm_dtype_f32;
}

// ---- attention ----------------------------------------------------------------------------------

// Base of the rotary angles for a sequence of `length`: dynamic scaling (NTK) raises it only past
// the length the model was trained for.
float mm_rope_base(const struct mm_stack_config *s, int64_t length) {
    if (s->rope_scaling != mm_rope_scaling_dynamic || length <= s->max_positions) {
        return (float)s->rope_theta;
    }
    const double f = s->rope_factor, ratio = (double)length / (double)s->max_positions;
    return (float)(s->rope_theta * pow(f * ratio - (f - 1.0), (double)s->P / (double)(s->P - 2)));
}

float mm_rope_scale(const struct mm_stack_config *s) {
    return s->rope_scaling == mm_rope_scaling_linear ? (float)(1.0 / s->rope_factor) : 1.0f;
}

// Sequences may need different bases; then each is rotated by itself.
static bool one_base(const struct mm_stack_config *s, const struct mm_stream *st) {
    return s->rope_scaling != mm_rope_scaling_dynamic || st->longest <= s->max_positions ||
           st->segs.n == 1;
}

static void rope_fwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                     struct mm_view q, struct mm_view k, struct mm_view v, struct mm_view qkv) {
    const struct mm_stack_config *s = b->stack;
    if (one_base(s, st)) {
        mm_qkv_rope_fwd(m->be, q, k, v, qkv, st->pos, mm_rope_base(s, st->longest),
                        mm_rope_scale(s));
        return;
    }
    for (int64_t i = 0; i < st->segs.n; i++) {
        const int64_t t = st->segs.start[i], n = st->segs.start[i + 1] - t;
        mm_qkv_rope_fwd(m->be, mm_view_rows(q, t, n), mm_view_rows(k, t, n), mm_view_rows(v, t, n),
                        mm_view_rows(qkv, t, n), mm_view_rows(st->pos, t, n), mm_rope_base(s, n),
                        mm_rope_scale(s));
    }
}

static void rope_bwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                     struct mm_view dqkv, struct mm_view dq, struct mm_view dk, struct mm_view dv) {
    const struct mm_stack_config *s = b->stack;
    if (one_base(s, st)) {
        mm_qkv_rope_bwd(m->be, dqkv, dq, dk, dv, st->pos, mm_rope_base(s, st->longest),
                        mm_rope_scale(s));
        return;
    }
    for (int64_t i = 0; i < st->segs.n; i++) {
        const int64_t t = st->segs.start[i], n = st->segs.start[i + 1] - t;
        mm_qkv_rope_bwd(m->be, mm_view_rows(dqkv, t, n), mm_view_rows(dq, t, n),
                        mm_view_rows(dk, t, n), mm_view_rows(dv, t, n), mm_view_rows(st->pos, t, n),
                        mm_rope_base(s, n), mm_rope_scale(s));
    }
}

static void attention_fwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                          struct mm_mixer_acts *a, struct mm_block_state *state, bool keep,
                          struct mm_arena *arena) {
    const struct mm_stack_config *s = b->stack;
    const int64_t T = st->T, H = s->H, G = s->G, P = s->P;
    a->y = mm_acts3(m, arena, T, H, P);
    a->q = mm_acts3(m, arena, T, H, P);
    if (state == NULL) {
        a->k = mm_acts3(m, arena, T, G, P);
        a->v = mm_acts3(m, arena, T, G, P);
        a->lse = keep ? mm_take2(arena, T, H) : MM_NONE;
    }
    const size_t mark = mm_arena_mark(arena);
    struct mm_view qkv = mm_acts2(m, arena, T, (H + 2 * G) * P);
    mm_linear_fwd(m->be, qkv, a->u, mm_block_w(m, b, mm_role_wqkv), MM_NONE);
    if (state == NULL) {
        rope_fwd(m, b, st, a->q, a->k, a->v, qkv);
        mm_attention_fwd(m->be, a->y, a->lse, a->q, a->k, a->v, st->segs);
    } else {
        const int64_t past = st->longest - T;
        rope_fwd(m, b, st, a->q, mm_view_rows(state->k, past, T), mm_view_rows(state->v, past, T),
                 qkv);
        const int64_t n = st->tail > 0 && st->tail < T ? st->tail : T;
        mm_attention_step(m->be, mm_view_rows(a->y, T - n, n), mm_view_rows(a->q, T - n, n),
                          mm_view_rows(state->k, 0, past + T), mm_view_rows(state->v, 0, past + T),
                          past + T - n);
    }
    mm_arena_release(arena, mark);
    a->o = mm_view_flat(a->y);
}

static void attention_bwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                          const struct mm_mixer_acts *a, struct mm_grads *g, struct mm_view du,
                          struct mm_view d_o, struct mm_arena *arena) {
    const struct mm_stack_config *s = b->stack;
    const int64_t T = st->T, H = s->H, G = s->G, P = s->P;
    const size_t mark = mm_arena_mark(arena);
    struct mm_view dqkv = mm_acts2(m, arena, T, (H + 2 * G) * P);
    struct mm_view dq = mm_acts3(m, arena, T, H, P), dk = mm_acts3(m, arena, T, G, P),
                   dv = mm_acts3(m, arena, T, G, P);
    mm_attention_bwd(m->be, dq, dk, dv, mm_view_split(d_o, H, P), a->y, a->lse, a->q, a->k, a->v,
                     st->segs);
    rope_bwd(m, b, st, dqkv, dq, dk, dv);
    const struct mm_view dw = grad(b, g, mm_role_wqkv);
    if (dw.data) mm_linear_bwd_w(m->be, dw, MM_NONE, dqkv, a->u, mm_model_product(m));
    if (du.data) mm_linear_bwd_x(m->be, du, dqkv, mm_block_w(m, b, mm_role_wqkv), false);
    mm_arena_release(arena, mark);
}

// ---- Mamba-2 ------------------------------------------------------------------------------------

// Columns of z and c that v, k, q, g and dt take.
struct columns {
    int64_t v, k, q, g, dt, C, Z;
};

static struct columns columns_of(const struct mm_stack_config *s) {
    struct columns c = {0};
    c.k = s->G * s->P;
    c.q = 2 * c.k;
    c.C = c.g = c.q + s->H * s->P;
    c.dt = c.g + s->H * s->P;
    c.Z = c.dt + s->H;
    return c;
}

static struct mm_view heads(struct mm_view v, int64_t column, int64_t n_heads, int64_t P) {
    return mm_view_split(mm_view_cut(v, column, n_heads * P), n_heads, P);
}

enum { qk_eps_inverse = 100000 };  // LayerNorm of q and k: eps 1e-5, as PyTorch's default

// q and k of the recurrence: columns of c, or their normed copies in cn (T, k | q).
static struct mm_view view_k(const struct mm_mixer_acts *a, const struct mm_stack_config *s) {
    return s->use_qknorm ? heads(a->cn, 0, s->G, s->P) : heads(a->c, columns_of(s).k, s->G, s->P);
}
static struct mm_view view_q(const struct mm_mixer_acts *a, const struct mm_stack_config *s) {
    return s->use_qknorm ? heads(a->cn, s->G * s->P, s->H, s->P)
                         : heads(a->c, columns_of(s).q, s->H, s->P);
}

// a_log of a block: its parameter; without one (use_A off) A is the constant -1, so zeros.
static struct mm_view decay_rate(struct mm_model *m, const struct mm_block *b,
                                 struct mm_arena *arena) {
    if (b->stack->use_A) return mm_block_w(m, b, mm_role_A_log);
    struct mm_view zeros = mm_take1(arena, b->stack->H);
    mm_fill(m->be, zeros, 0.0f);
    return zeros;
}

static void mamba2_conv(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                        struct mm_mixer_acts *a, struct mm_block_state *state) {
    const struct mm_view x = mm_view_cut(a->z, 0, columns_of(b->stack).C);
    const struct mm_view w = mm_block_w(m, b, mm_role_conv_w),
                         bias = mm_block_w(m, b, mm_role_conv_b);
    if (state && st->T == 1) {
        mm_conv_silu_step(m->be, a->c, x, w, bias, state->conv);
    } else {
        mm_conv_silu_fwd(m->be, a->c, x, w, bias, state ? state->conv : MM_NONE, st->segs);
    }
}

// z = u (v | k | q | g | dt)^T. Of a quantized model v, k and q are rounded, g and dt are not.
static void project(struct mm_model *m, const struct mm_block *b, struct mm_view z,
                    struct mm_view u) {
    if (!mm_model_quantized(m)) {
        mm_linear_fwd(m->be, z, u, b->wvkqgdt, MM_NONE);
        return;
    }
    const struct columns col = columns_of(b->stack);
    mm_linear_fwd(m->be, mm_view_cut(z, 0, col.g), u, b->wvkq, MM_NONE);
    mm_linear_fwd(m->be, mm_view_cut(z, col.g, col.Z - col.g), u, b->wgdt, MM_NONE);
}

// Everything between z and o at once, where the backend can.
static bool in_one_pass(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                        const struct mm_mixer_acts *a, struct mm_block_state *state,
                        struct mm_arena *arena) {
    const struct mm_stack_config *s = b->stack;
    if (state && st->T == 1) return false;
    return mm_mamba2_fwd(m->be, mm_view_split(a->o, s->H, s->P),
                         &(struct mm_mamba2){.G = s->G,
                                             .H = s->H,
                                             .P = s->P,
                                             .z = a->z,
                                             .conv_w = mm_block_w(m, b, mm_role_conv_w),
                                             .conv_b = mm_block_w(m, b, mm_role_conv_b),
                                             .dt_bias = mm_block_w(m, b, mm_role_dt_bias),
                                             .a_log = decay_rate(m, b, arena),
                                             .d = mm_block_w(m, b, mm_role_D),
                                             .norm_w = mm_block_w(m, b, mm_role_g_norm),
                                             .eps = 1e-5f,
                                             .conv = state ? state->conv : MM_NONE,
                                             .S = state ? state->S : MM_NONE,
                                             .segs = st->segs});
}

static void mamba2_fwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                       struct mm_mixer_acts *a, struct mm_block_state *state, bool keep,
                       struct mm_arena *arena) {
    const struct mm_stack_config *s = b->stack;
    const struct columns col = columns_of(s);
    const int64_t T = st->T, H = s->H, G = s->G, P = s->P;
    a->z = mm_acts2(m, arena, T, col.Z);
    project(m, b, a->z, a->u);
    struct mm_view o = mm_acts3(m, arena, T, H, P);
    a->o = mm_view_flat(o);
    if (!keep && m->be->scan_rounds && !s->use_qknorm && in_one_pass(m, b, st, a, state, arena))
        return;
    a->c = mm_acts2(m, arena, T, col.C);
    mamba2_conv(m, b, st, a, state);
    if (s->use_qknorm) {
        const float eps = 1.0f / (float)qk_eps_inverse;
        a->cn = mm_acts2(m, arena, T, (G + H) * P);
        a->kstats = keep ? mm_take3(arena, T, G, 2) : MM_NONE;
        a->qstats = keep ? mm_take3(arena, T, H, 2) : MM_NONE;
        mm_head_norm_fwd(m->be, view_k(a, s), a->kstats, heads(a->c, col.k, G, P),
                         mm_block_w(m, b, mm_role_k_norm_w), mm_block_w(m, b, mm_role_k_norm_b),
                         eps);
        mm_head_norm_fwd(m->be, view_q(a, s), a->qstats, heads(a->c, col.q, H, P),
                         mm_block_w(m, b, mm_role_q_norm_w), mm_block_w(m, b, mm_role_q_norm_b),
                         eps);
    }
    a->dt = mm_take2(arena, T, H);
    mm_softplus_fwd(m->be, a->dt, mm_view_cut(a->z, col.dt, H), mm_block_w(m, b, mm_role_dt_bias));
    a->ys = mm_acts3(m, arena, T, H, P);
    const struct mm_view v = heads(a->c, 0, G, P), A = decay_rate(m, b, arena),
                         D = mm_block_w(m, b, mm_role_D);
    if (state && T == 1) {
        mm_ssd_step(m->be, a->ys, v, view_k(a, s), view_q(a, s), a->dt, A, D, state->S);
    } else {
        mm_ssd_fwd(m->be, a->ys, v, view_k(a, s), view_q(a, s), a->dt, A, D,
                   state ? state->S : MM_NONE, st->segs);
    }
    a->rinv = keep ? mm_take2(arena, T, H) : MM_NONE;
    mm_gated_norm_fwd(m->be, o, a->rinv, a->ys, mm_view_cut(a->z, col.g, H * P),
                      mm_block_w(m, b, mm_role_g_norm), 1e-5f);
}

// Gradients of the stacked projection: neighbours that train and lie side by side in memory are
// one product.
static void stacked_bwd_w(struct mm_model *m, const struct mm_block *b, struct mm_grads *g,
                          struct mm_view dz, struct mm_view u) {
    static const enum mm_role order[] = {mm_role_v_proj, mm_role_k_proj, mm_role_q_proj,
                                         mm_role_g_proj, mm_role_in_proj};
    int64_t column = 0;
    for (int i = 0; i < 5;) {
        struct mm_view dw = grad(b, g, order[i]);
        int64_t rows = m->params[b->p[order[i]]].shape[0];
        int next = i + 1;
        while (dw.data && next < 5) {
            const struct mm_view more = grad(b, g, order[next]);
            if (more.data == NULL || (float *)more.data != (float *)dw.data + rows * dw.ld) break;
            rows += more.shape[0];
            next++;
        }
        if (dw.data) {
            dw.shape[0] = rows;
            mm_linear_bwd_w(m->be, dw, MM_NONE, mm_view_cut(dz, column, rows), u,
                            mm_model_product(m));
        }
        column += rows;
        i = next;
    }
}

static void mamba2_bwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                       const struct mm_mixer_acts *a, struct mm_grads *g, struct mm_view du,
                       struct mm_view d_o, struct mm_arena *arena) {
    const struct mm_stack_config *s = b->stack;
    const struct columns col = columns_of(s);
    const int64_t T = st->T, H = s->H, G = s->G, P = s->P;
    const size_t mark = mm_arena_mark(arena);
    struct mm_view dz = mm_acts2(m, arena, T, col.Z), ddt = mm_take2(arena, T, H);
    struct mm_view dc = mm_acts2(m, arena, T, col.C);
    struct mm_view dys = mm_view_split(d_o, H, P);  // in place
    mm_gated_norm_bwd(m->be, dys, mm_view_cut(dz, col.g, H * P), grad(b, g, mm_role_g_norm), dys,
                      a->ys, mm_view_cut(a->z, col.g, H * P), mm_block_w(m, b, mm_role_g_norm),
                      a->rinv);
    struct mm_view dk = heads(dc, col.k, G, P), dq = heads(dc, col.q, H, P);
    mm_ssd_bwd(m->be, heads(dc, 0, G, P), dk, dq, ddt, grad(b, g, mm_role_A_log),
               grad(b, g, mm_role_D), dys, heads(a->c, 0, G, P), view_k(a, s), view_q(a, s), a->dt,
               decay_rate(m, b, arena), mm_block_w(m, b, mm_role_D), st->segs);
    if (s->use_qknorm) {
        mm_head_norm_bwd(m->be, dk, grad(b, g, mm_role_k_norm_w), grad(b, g, mm_role_k_norm_b), dk,
                         heads(a->c, col.k, G, P), mm_block_w(m, b, mm_role_k_norm_w), a->kstats);
        mm_head_norm_bwd(m->be, dq, grad(b, g, mm_role_q_norm_w), grad(b, g, mm_role_q_norm_b), dq,
                         heads(a->c, col.q, H, P), mm_block_w(m, b, mm_role_q_norm_w), a->qstats);
    }
    mm_conv_silu_bwd(m->be, mm_view_cut(dz, 0, col.C), grad(b, g, mm_role_conv_w),
                     grad(b, g, mm_role_conv_b), dc, mm_view_cut(a->z, 0, col.C),
                     mm_block_w(m, b, mm_role_conv_w), mm_block_w(m, b, mm_role_conv_b), st->segs);
    mm_softplus_bwd(m->be, mm_view_cut(dz, col.dt, H), grad(b, g, mm_role_dt_bias), ddt,
                    mm_view_cut(a->z, col.dt, H), mm_block_w(m, b, mm_role_dt_bias));
    stacked_bwd_w(m, b, g, dz, a->u);
    if (du.data) mm_linear_bwd_x(m->be, du, dz, b->wvkqgdt, false);
    mm_arena_release(arena, mark);
}

void mm_mixer_fwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                  struct mm_mixer_acts *acts, struct mm_block_state *state, bool keep,
                  struct mm_arena *arena) {
    m->be->product = inner_product(m);
    if (b->mixer == mm_mixer_mha) {
        attention_fwd(m, b, st, acts, state, keep, arena);
    } else {
        mamba2_fwd(m, b, st, acts, state, keep, arena);
    }
}

void mm_mixer_bwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                  const struct mm_mixer_acts *acts, struct mm_grads *g, struct mm_view du,
                  struct mm_view d_o, struct mm_arena *arena) {
    m->be->product = inner_product(m);
    if (b->mixer == mm_mixer_mha) {
        attention_bwd(m, b, st, acts, g, du, d_o, arena);
    } else {
        mamba2_bwd(m, b, st, acts, g, du, d_o, arena);
    }
}
