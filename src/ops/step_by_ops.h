// A token step made of a backend's other operations, one after the other, a sequence at a time: the
// reference of it, and what a backend has until it has a better one. In a header, because plug-ins
// do not link the program.
#ifndef MM_OPS_STEP_BY_OPS_H
#define MM_OPS_STEP_BY_OPS_H

#include "ops/ops.h"

// Rows of one sequence.
struct mm_by_ops_rows {
    struct mm_view u, z, c, kq, dt, y, o, a, b;
};

static inline struct mm_view mm_by_ops_cut(float **at, int64_t n) {
    const struct mm_view v = mm_view2(*at, mm_dtype_f32, 1, n);
    *at += n;
    return v;
}

static inline int64_t mm_by_ops_in_rows(const struct mm_step_block *b) {
    return b->in[0].shape[0] + (b->in[1].data ? b->in[1].shape[0] : 0);
}

static inline int64_t mm_by_ops_floats_of(const struct mm_step_block *b, int64_t d_dim) {
    return d_dim + mm_by_ops_in_rows(b) + 2 * (2 * b->G + b->H) * b->P + b->H + 2 * b->H * b->P +
           2 * b->F;
}

static inline struct mm_by_ops_rows mm_by_ops_rows_of(const struct mm_step_block *b, int64_t d_dim,
                                                      float *at) {
    struct mm_by_ops_rows r;
    r.u = mm_by_ops_cut(&at, d_dim);
    r.z = mm_by_ops_cut(&at, mm_by_ops_in_rows(b));
    r.c = mm_by_ops_cut(&at, (2 * b->G + b->H) * b->P);
    r.kq = mm_by_ops_cut(&at, (2 * b->G + b->H) * b->P);
    r.dt = mm_by_ops_cut(&at, b->H);
    r.y = mm_by_ops_cut(&at, b->H * b->P);
    r.o = mm_by_ops_cut(&at, b->H * b->P);
    r.a = mm_by_ops_cut(&at, b->F);
    r.b = mm_by_ops_cut(&at, b->F);
    return r;
}

static inline struct mm_view mm_by_ops_heads(struct mm_view v, int64_t column, int64_t n,
                                             int64_t p_dim) {
    return mm_view_split(mm_view_cut(v, column, n * p_dim), n, p_dim);
}

static inline void mm_by_ops_mamba2(struct mm_backend *be, const struct mm_step_block *b,
                                    const struct mm_by_ops_rows *r,
                                    const struct mm_block_state *state, struct mm_segs one) {
    const int64_t G = b->G, H = b->H, P = b->P, C = (2 * G + H) * P;
    const struct mm_view x = mm_view_cut(r->z, 0, C);
    if (state->conv.data) {
        be->ops->conv_silu_step(be, r->c, x, b->conv_w, b->conv_b, state->conv);
    } else {
        be->ops->conv_silu_fwd(be, r->c, x, b->conv_w, b->conv_b, MM_NONE, one);
    }
    struct mm_view k = mm_by_ops_heads(r->c, G * P, G, P),
                   q = mm_by_ops_heads(r->c, 2 * G * P, H, P);
    if (b->q_norm_w.data) {
        const struct mm_view kn = mm_by_ops_heads(r->kq, 0, G, P),
                             qn = mm_by_ops_heads(r->kq, G * P, H, P);
        be->ops->head_norm_fwd(be, kn, MM_NONE, k, b->k_norm_w, b->k_norm_b, 1e-5f);
        be->ops->head_norm_fwd(be, qn, MM_NONE, q, b->q_norm_w, b->q_norm_b, 1e-5f);
        k = kn, q = qn;
    }
    be->ops->softplus_fwd(be, r->dt, mm_view_cut(r->z, C + H * P, H), b->dt_bias);
    const struct mm_view y = mm_by_ops_heads(r->y, 0, H, P);
    be->ops->ssd_step(be, y, mm_by_ops_heads(r->c, 0, G, P), k, q, r->dt, b->a_log, b->d, state->S);
    be->ops->gated_norm_fwd(be, mm_by_ops_heads(r->o, 0, H, P), MM_NONE, y,
                            mm_view_cut(r->z, C, H * P), b->g_norm, 1e-5f);
}

static inline void mm_by_ops_attention(struct mm_backend *be, const struct mm_step_block *b,
                                       const struct mm_by_ops_rows *r,
                                       const struct mm_block_state *state, int64_t past,
                                       float rope_base, struct mm_view pos) {
    const int64_t H = b->H, P = b->P;
    const int32_t at = (int32_t)past;
    be->upload(be, pos.data, &at, sizeof at);
    const struct mm_view q = mm_by_ops_heads(r->c, 0, H, P);
    be->ops->qkv_rope_fwd(be, q, mm_view_rows(state->k, past, 1), mm_view_rows(state->v, past, 1),
                          r->z, pos, rope_base, b->pos_scale);
    be->ops->attention_step(be, mm_by_ops_heads(r->o, 0, H, P), q,
                            mm_view_rows(state->k, 0, past + 1),
                            mm_view_rows(state->v, 0, past + 1), past);
}

static inline void mm_by_ops_block(struct mm_backend *be, const struct mm_step_block *b,
                                   const struct mm_by_ops_rows *r, struct mm_view x,
                                   const struct mm_step_seq *seq,
                                   const struct mm_block_state *state, struct mm_segs one,
                                   struct mm_view pos) {
    be->ops->rmsnorm_fwd(be, r->u, MM_NONE, x, b->attention_norm, b->eps);
    const int64_t first = b->in[0].shape[0];
    be->ops->linear_fwd(be, mm_view_cut(r->z, 0, first), r->u, b->in[0], MM_NONE);
    if (b->in[1].data) {
        const int64_t more = b->in[1].shape[0];
        be->ops->linear_fwd(be, mm_view_cut(r->z, first, more), r->u, b->in[1], MM_NONE);
    }
    if (b->attention) {
        mm_by_ops_attention(be, b, r, state, seq->past[b->stack], seq->rope_base[b->stack], pos);
    } else {
        mm_by_ops_mamba2(be, b, r, state, one);
    }
    be->ops->linear_fwd(be, r->u, r->o, b->wo, MM_NONE);
    be->ops->add(be, x, x, r->u);
    be->ops->rmsnorm_fwd(be, r->u, MM_NONE, x, b->ffn_norm, b->eps);
    be->ops->linear_fwd(be, r->a, r->u, b->w1, MM_NONE);
    be->ops->linear_fwd(be, r->b, r->u, b->w3, MM_NONE);
    be->ops->swiglu_fwd(be, r->a, r->a, r->b);
    be->ops->linear_fwd(be, r->u, r->a, b->w2, MM_NONE);
    be->ops->add(be, x, x, r->u);
}

// Floats of the backend's memory that mm_step_by_ops works in.
static inline int64_t mm_step_by_ops_floats(const struct mm_step *s) {
    int64_t most = mm_view_cols(s->x);
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const int64_t n = mm_by_ops_floats_of(&s->blocks[i], mm_view_cols(s->x));
        if (n > most) most = n;
    }
    return most;
}

// ints: three of the backend's memory.
static inline void mm_step_by_ops(struct mm_backend *be, const struct mm_step *s, float *room,
                                  int32_t *ints) {
    const int32_t start[2] = {0, 1};
    be->upload(be, ints, start, sizeof start);
    const struct mm_segs one = {1, start, ints};
    const struct mm_view pos = mm_view1(ints + 2, mm_dtype_i32, 1);
    for (int64_t t = 0; t < s->n_seqs; t++) {
        int32_t stopped = 0;
        if (s->stopped.data) {
            be->download(be, &stopped, mm_view_at(s->stopped, t, 0), sizeof stopped);
            if (be->sync(be, NULL) || stopped) continue;
        }
        const struct mm_view x = mm_view_rows(s->x, t, 1), hidden = mm_view_rows(s->hidden, t, 1);
        for (int64_t i = 0; i < s->n_blocks; i++) {
            if (be->error.code) return;
            const struct mm_step_block *b = &s->blocks[i];
            const struct mm_by_ops_rows r = mm_by_ops_rows_of(b, mm_view_cols(s->x), room);
            if (i == s->l2_before) {
                be->ops->l2norm_fwd(be, r.u, MM_NONE, x);
                be->ops->copy(be, x, r.u);
            }
            mm_by_ops_block(be, b, &r, x, &s->seqs[t], &s->seqs[t].blocks[i], one, pos);
        }
        be->ops->rmsnorm_fwd(be, hidden, MM_NONE, x, s->norm, s->eps);
        if (s->logits.data) {
            be->ops->linear_fwd(be, mm_view_rows(s->logits, t, 1), hidden, s->output, MM_NONE);
        }
    }
}

#endif
