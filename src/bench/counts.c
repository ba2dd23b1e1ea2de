#include "bench/counts.h"

int64_t mm_bench_step_bytes(const struct mm_model *m, int64_t context, int64_t batch) {
    int64_t bytes = 0;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        const bool met = p->block >= 0 || p->role == mm_role_norm || p->role == mm_role_output;
        if (met && p->used) bytes += (int64_t)mm_view_bytes(p->w);
    }
    const int64_t state = 2 * (int64_t)mm_model_state_bytes(m);
    return bytes + batch * (state + context * (int64_t)mm_model_cache_bytes_per_token(m));
}

double mm_bench_block_weights(const struct mm_model *m, const struct mm_block *b) {
    static const enum mm_role matrices[] = {
        mm_role_wqkv,    mm_role_v_proj, mm_role_k_proj, mm_role_q_proj, mm_role_g_proj,
        mm_role_in_proj, mm_role_wo,     mm_role_w1,     mm_role_w2,     mm_role_w3};
    double n = 0.0;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        if (b->p[matrices[i]] >= 0) n += (double)mm_view_count(m->params[b->p[matrices[i]]].w);
    }
    return n;
}

static double global_weights(const struct mm_model *m, enum mm_role role) {
    return m->global[role] < 0 ? 0.0 : (double)mm_view_count(m->params[m->global[role]].w);
}

double mm_bench_prefill_ops(const struct mm_model *m, int64_t text, int64_t tiles) {
    const struct mm_config *c = &m->config;
    const double patches = (double)mm_config_tile_patches(c), shown = patches / 4.0;
    const double T[2] = {
        (double)text + (double)tiles * (c->shuffle_post ? patches : shown),
        (double)text + (double)tiles * shown,
    };
    double ops = 0.0;
    // Of the last block, what follows its mixer is made for the last row only (mm_forward's tail).
    const struct mm_block *last = &m->blocks[m->n_blocks - 1];
    static const enum mm_role after[] = {mm_role_wo, mm_role_w1, mm_role_w2, mm_role_w3};
    for (int i = 0; i < 4 && c->embed.n_blocks < m->n_blocks; i++) {
        if (last->p[after[i]] >= 0) {
            ops -= 2.0 * (T[1] - 1.0) * (double)mm_view_count(m->params[last->p[after[i]]].w);
        }
    }
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const struct mm_block *b = &m->blocks[i];
        const double rows = T[i < c->embed.n_blocks ? 0 : 1];
        ops += 2.0 * rows * mm_bench_block_weights(m, b);
        if (b->mixer == mm_mixer_mha) {  // row t meets t + 1 keys, and as many values
            const bool tail = b == last && i >= c->embed.n_blocks;
            const double met = tail ? rows : rows * (rows + 1.0) / 2.0;
            ops += 4.0 * (double)(b->stack->H * b->stack->P) * met;
        }
    }
    const double vision =
        patches * global_weights(m, mm_role_patch_w) +
        shown * (global_weights(m, mm_role_shuffle0_w) + global_weights(m, mm_role_shuffle2_w));
    return ops + 2.0 * (double)tiles * vision + 2.0 * global_weights(m, mm_role_output);
}

const char *mm_bench_mixers(const struct mm_config *c) {
    int64_t kept = 0;
    const int64_t n = mm_config_blocks(c);
    for (int64_t i = 0; i < n; i++)
        kept += c->mixers[i] == mm_mixer_mha;
    return kept == 0 ? "linear" : kept == n ? "attention" : "hybrid";
}

enum mm_dtype mm_bench_dtype(const struct mm_model *m) {
    return mm_model_quantized(m) ? m->config.quant : m->dtype;
}
