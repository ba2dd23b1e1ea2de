// The Mamba-2 mixer of a token step: a head of a sequence goes from the projections to the gated
// norm in one thread, and its state through that thread's cache once.
#include <math.h>
#include "ops/cpu/step.h"

int64_t mm_step_mamba2_floats(const struct mm_step_block *b) {
    return 4 * (b->P + 16);
}

// Rows of v, k or q of one head after the convolution. `c`: its first channel.
static void conv(const struct mm_stepping *r, float *y, const struct mm_step_block *b,
                 const struct mm_block_state *state, const float *z, int64_t c) {
    const int64_t width = mm_view_cols(b->conv_w), channels = (2 * b->G + b->H) * b->P;
    const float *taps[mm_step_taps];
    for (int64_t j = 0; j + 1 < width; j++)
        taps[j] = (const float *)state->conv.data + j * channels + c;
    taps[width - 1] = z + c;
    r->k->conv_silu(y, taps, (const float *)b->conv_w.data + c * width,
                    (const float *)b->conv_b.data + c, width, b->P);
}

// exp(-exp(a_log) dt), as prefill has it: no denormals.
static float decay(const struct mm_step_block *b, int64_t h, float dt) {
    if (!b->a_log.data) return 1.0f;
    const double l = -exp((double)((const float *)b->a_log.data)[h]) * (double)dt;
    return l > -80.0 ? (float)exp(l) : 0.0f;
}

static void head(const struct mm_stepping *r, const struct mm_step_block *b,
                 const struct mm_block_state *state, int64_t t, int64_t h, float *work) {
    const int64_t G = b->G, H = b->H, P = b->P, pad = P + 16;
    const int64_t g = h / (H / G), gates = (2 * G + H) * P;
    const float *z = r->z + t * r->ldz;
    float *v = work, *k = v + pad, *q = k + pad, *y = q + pad, dt;
    conv(r, v, b, state, z, g * P);
    conv(r, k, b, state, z, (G + g) * P);
    conv(r, q, b, state, z, (2 * G + h) * P);
    if (b->q_norm_w.data) {
        r->x->head_norm_fwd(k, NULL, k, b->k_norm_w.data, b->k_norm_b.data, 1e-5f, 1, P);
        r->x->head_norm_fwd(q, NULL, q, b->q_norm_w.data, b->q_norm_b.data, 1e-5f, 1, P);
    }
    r->x->softplus_fwd(&dt, z + gates + H * P + h, (const float *)b->dt_bias.data + h, 1);
    const float d = b->d.data ? ((const float *)b->d.data)[h] : 0.0f;
    r->x->step(y, (float *)state->S.data + h * P * P, v, k, q, decay(b, h, dt), dt, d, P, P);
    r->x->gated_norm_fwd(r->o + t * r->ldo + h * P, NULL, y, z + gates + h * P, b->g_norm.data,
                         1e-5f, 1, P);
}

void mm_step_mamba2(const struct mm_stepping *r, struct mm_team *team, int64_t block, int thread) {
    const struct mm_step_block *b = &r->s->blocks[block];
    int64_t begin, end;
    while (mm_team_take(team, r->n * b->H, 1, &begin, &end)) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t t = i / b->H;
            head(r, b, &r->s->seqs[t].blocks[block], t, i % b->H, mm_step_work(r, thread));
        }
    }
}

void mm_step_conv_past(const struct mm_stepping *r, int64_t block, int thread, int n_threads) {
    const struct mm_step_block *b = &r->s->blocks[block];
    const int64_t width = mm_view_cols(b->conv_w), channels = (2 * b->G + b->H) * b->P;
    if (width == 1) return;
    for (int64_t t = thread; t < r->n; t += n_threads) {
        float *past = r->s->seqs[t].blocks[block].conv.data;
        const size_t row = (size_t)channels * sizeof *past;
        if (width > 2) memmove(past, past + channels, row * (size_t)(width - 2));
        memcpy(past + (width - 2) * channels, r->z + t * r->ldz, row);
    }
}
