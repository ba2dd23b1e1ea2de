#include "ops/check_step.h"

#define WANT(condition)                      \
    do {                                     \
        if (!(condition)) return #condition; \
    } while (0)

static bool given(struct mm_view v) {
    return v.data != NULL;
}

static bool rows(struct mm_view v, int64_t n, int64_t cols) {
    return given(v) && v.dtype == mm_dtype_f32 && v.shape[0] == n && mm_view_cols(v) == cols &&
           v.ld >= cols;
}

static bool vector(struct mm_view v, int64_t n) {
    return rows(v, n, 1) && v.ld == 1;
}

static bool vector_or_none(struct mm_view v, int64_t n) {
    return !given(v) || vector(v, n);
}

static bool matrix(struct mm_view v, int64_t n, int64_t cols) {
    const bool floats =
        v.dtype == mm_dtype_f32 || v.dtype == mm_dtype_bf16 || v.dtype == mm_dtype_f16;
    return given(v) && v.shape[0] == n && mm_view_cols(v) == cols && v.ld >= cols &&
           (floats || (mm_dtype_quantized(v.dtype) && v.ld == cols));
}

static const char *check_block(const struct mm_step_block *b, int64_t d_dim) {
    const int64_t G = b->G, H = b->H, P = b->P, channels = (2 * G + H) * P;
    WANT(G > 0 && H > 0 && P > 0 && b->F > 0 && H % G == 0);
    WANT(b->stack == 0 || b->stack == 1);
    WANT(vector(b->attention_norm, d_dim) && vector(b->ffn_norm, d_dim));
    const int64_t more = given(b->in[1]) ? b->in[1].shape[0] : 0;
    WANT(matrix(b->in[0], b->in[0].shape[0], d_dim));
    WANT(more == 0 || matrix(b->in[1], more, d_dim));
    WANT(b->in[0].shape[0] + more == (b->attention ? channels : channels + H * P + H));
    WANT(matrix(b->wo, d_dim, H * P));
    WANT(matrix(b->w1, b->F, d_dim) && matrix(b->w3, b->F, d_dim) && matrix(b->w2, d_dim, b->F));
    WANT(b->w1.dtype == b->w3.dtype);
    if (b->attention) {
        WANT(P % 2 == 0);
        return NULL;
    }
    WANT(rows(b->conv_w, channels, mm_view_cols(b->conv_w)) && vector(b->conv_b, channels));
    WANT(b->conv_w.ld == mm_view_cols(b->conv_w));
    WANT(vector(b->dt_bias, H) && vector_or_none(b->a_log, H) && vector_or_none(b->d, H));
    WANT(vector_or_none(b->g_norm, P) && vector_or_none(b->q_norm_w, P));
    WANT(!given(b->q_norm_w) || (vector(b->q_norm_b, P) && vector(b->k_norm_w, P)));
    WANT(!given(b->q_norm_w) || vector(b->k_norm_b, P));
    return NULL;
}

// Keys or values of a cache
static bool cache(const struct mm_backend *be, struct mm_view v, int64_t n, int64_t cols) {
    if (v.dtype == be->activations) v.dtype = mm_dtype_f32;
    return rows(v, n, cols);
}

static const char *check_state(const struct mm_backend *be, const struct mm_step_block *b,
                               const struct mm_block_state *state, int64_t past) {
    const int64_t G = b->G, H = b->H, P = b->P;
    if (b->attention) {
        WANT(past >= 0 && past < state->k.shape[0] && state->v.shape[0] == state->k.shape[0]);
        WANT(cache(be, state->k, state->k.shape[0], G * P));
        WANT(cache(be, state->v, state->k.shape[0], G * P) && state->v.dtype == state->k.dtype);
        return NULL;
    }
    const int64_t before = mm_view_cols(b->conv_w) - 1, channels = (2 * G + H) * P;
    WANT(rows(state->S, 1, H * P * P));
    WANT(before == 0 || rows(state->conv, 1, before * channels));
    return NULL;
}

const char *mm_check_step(const struct mm_backend *be, const struct mm_step *s) {
    const int64_t n = s->n_seqs, d_dim = mm_view_cols(s->x);
    WANT(n >= 0 && s->n_blocks >= 0);
    WANT(s->l2_before < s->n_blocks);
    WANT(!be->host_memory || rows(s->x, n, d_dim));
    WANT(!be->host_memory || rows(s->hidden, n, d_dim));
    WANT(vector(s->norm, d_dim));
    WANT(given(s->output) == given(s->logits));
    if (given(s->output)) {
        WANT(matrix(s->output, s->output.shape[0], d_dim));
        WANT(rows(s->logits, n, s->output.shape[0]));
    }
    if (given(s->stopped)) {
        WANT(s->stopped.dtype == mm_dtype_i32 && s->stopped.ld == 1);
        WANT(s->stopped.shape[0] == n && mm_view_cols(s->stopped) == 1);
    }
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        const char *wrong = check_block(b, d_dim);
        for (int64_t t = 0; t < n && !wrong; t++)
            wrong = check_state(be, b, &s->seqs[t].blocks[i], s->seqs[t].past[b->stack]);
        if (wrong) return wrong;
    }
    return NULL;
}
