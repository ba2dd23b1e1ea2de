// The list of parameters: every tensor of a model is named once, here. Loader, writer, optimizer,
// checkpoints and `inspect` read this list and know no names of their own.
#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/buf.h"
#include "base/memory.h"
#include "base/rng.h"

enum { in_mha = 1, in_mamba2 = 2, in_both = 3 };
enum { stage_1 = 1, stage_2 = 2, stage_3 = 4, stages_12 = 3, stages_23 = 6, stages_123 = 7 };

struct role_info {
    const char *name;  // after the block's prefix, or whole
    int in;            // kinds of block that have it; 0: once a model
    bool matrix, used;
    unsigned stages;  // trained by the published stage s where bit s-1 is set (section 4)
};

static const struct role_info roles[mm_role_count] = {
    [mm_role_patch_w] = {"embedding_model.vision_embeddings.patch_embedding.weight", 0, true, true,
                         0},
    [mm_role_patch_b] = {"embedding_model.vision_embeddings.patch_embedding.bias", 0, false, true,
                         0},
    [mm_role_class] = {"embedding_model.vision_embeddings.class_embedding", 0, false, false, 0},
    [mm_role_position] = {"embedding_model.vision_embeddings.position_embedding", 0, false, true,
                          0},
    [mm_role_shuffle0_w] = {"embedding_model.pixel_shuffle_proj.0.weight", 0, true, true, 0},
    [mm_role_shuffle0_b] = {"embedding_model.pixel_shuffle_proj.0.bias", 0, false, true, 0},
    [mm_role_shuffle2_w] = {"embedding_model.pixel_shuffle_proj.2.weight", 0, true, true, 0},
    [mm_role_shuffle2_b] = {"embedding_model.pixel_shuffle_proj.2.bias", 0, false, true, 0},
    [mm_role_text] = {"embedding_model.llm_text_embeddings.weight", 0, true, true, 0},
    [mm_role_special] = {"embedding_model.special_text_embeddings.weight", 0, true, true, 0},
    [mm_role_tok] = {"language_model.model.tok_embeddings.weight", 0, true, false, 0},
    [mm_role_norm] = {"language_model.model.norm.weight", 0, false, true, 0},
    [mm_role_output] = {"language_model.output.weight", 0, true, true, 0},

    [mm_role_attention_norm] = {"attention_norm.weight", in_both, false, true, 0},
    [mm_role_wqkv] = {"attention.wqkv.weight", in_mha, true, true, 0},
    [mm_role_v_proj] = {"attention.v_proj.weight", in_mamba2, true, true, stages_23},
    [mm_role_k_proj] = {"attention.k_proj.weight", in_mamba2, true, true, stages_23},
    [mm_role_q_proj] = {"attention.q_proj.weight", in_mamba2, true, true, stages_23},
    [mm_role_g_proj] = {"attention.g_proj.weight", in_mamba2, true, true, stages_123},
    [mm_role_in_proj] = {"attention.in_proj.weight", in_mamba2, true, true, stages_123},
    [mm_role_conv_w] = {"attention.conv1d.weight", in_mamba2, false, true, stages_123},
    [mm_role_conv_b] = {"attention.conv1d.bias", in_mamba2, false, true, stages_123},
    [mm_role_dt_bias] = {"attention.dt_bias", in_mamba2, false, true, stages_12},
    [mm_role_A_log] = {"attention.A_log_bias", in_mamba2, false, true, stages_12},
    [mm_role_D] = {"attention.D", in_mamba2, false, true, stages_123},
    [mm_role_q_norm_w] = {"attention.q_norm.weight", in_mamba2, false, true, stages_123},
    [mm_role_q_norm_b] = {"attention.q_norm.bias", in_mamba2, false, true, stages_123},
    [mm_role_k_norm_w] = {"attention.k_norm.weight", in_mamba2, false, true, stages_123},
    [mm_role_k_norm_b] = {"attention.k_norm.bias", in_mamba2, false, true, stages_123},
    [mm_role_g_norm] = {"attention.g_norm.weight", in_mamba2, false, true, stages_123},
    [mm_role_wo] = {NULL, in_both, true, true, 0},  // wo or o_proj
    [mm_role_ffn_norm] = {"ffn_norm.weight", in_both, false, true, 0},
    [mm_role_w1] = {"feed_forward.w1.weight", in_both, true, true, 0},
    [mm_role_w2] = {"feed_forward.w2.weight", in_both, true, true, 0},
    [mm_role_w3] = {"feed_forward.w3.weight", in_both, true, true, 0},
};

static bool block_has(enum mm_role role, enum mm_mixer mixer, const struct mm_stack_config *s) {
    const int kind = mixer == mm_mixer_mha ? in_mha : in_mamba2;
    if (!(roles[role].in & kind)) return false;
    switch (role) {
        case mm_role_A_log:
            return s->use_A;
        case mm_role_D:
            return s->use_D;
        case mm_role_q_norm_w:
        case mm_role_q_norm_b:
        case mm_role_k_norm_w:
        case mm_role_k_norm_b:
            return s->use_qknorm;
        default:
            return true;
    }
}

static void shape_of_block_role(struct mm_param *p, const struct mm_stack_config *s) {
    const int64_t D = s->D, H = s->H, G = s->G, P = s->P, F = s->F;
    int64_t a = 0, b = 0, c = 0;  // 0: no such axis
    switch (p->role) {
        case mm_role_attention_norm:
        case mm_role_ffn_norm:
            a = D;
            break;
        case mm_role_wqkv:
            a = (H + 2 * G) * P, b = D;
            break;
        case mm_role_v_proj:
        case mm_role_k_proj:
            a = G * P, b = D;
            break;
        case mm_role_q_proj:
        case mm_role_g_proj:
            a = H * P, b = D;
            break;
        case mm_role_in_proj:
            a = H, b = D;
            break;
        case mm_role_conv_w:
            a = (2 * G + H) * P, b = 1, c = s->K;
            break;
        case mm_role_conv_b:
            a = (2 * G + H) * P;
            break;
        case mm_role_dt_bias:
        case mm_role_A_log:
        case mm_role_D:
            a = H;
            break;
        case mm_role_q_norm_w:
        case mm_role_q_norm_b:
        case mm_role_k_norm_w:
        case mm_role_k_norm_b:
        case mm_role_g_norm:
            a = P;
            break;
        case mm_role_wo:
            a = D, b = H * P;
            break;
        case mm_role_w1:
        case mm_role_w3:
            a = F, b = D;
            break;
        case mm_role_w2:
            a = D, b = F;
            break;
        default:
            assert(!"no such role in a block");
    }
    p->shape[0] = a, p->shape[1] = b, p->shape[2] = c, p->shape[3] = 0;
    p->n_axes = c ? 3 : b ? 2 : 1;
}

static void shape_of_global_role(struct mm_param *p, const struct mm_config *c) {
    const int64_t D = c->embed.D, V = c->V, side = c->patch;
    int64_t s[4] = {D, 0, 0, 0};
    switch (p->role) {
        case mm_role_patch_w:
            s[1] = 3, s[2] = side, s[3] = side;
            break;
        case mm_role_class:
            s[0] = 1, s[1] = 1, s[2] = D;
            break;
        case mm_role_position:
            s[0] = 1, s[1] = mm_config_tile_patches(c) + 1, s[2] = D;
            break;
        case mm_role_shuffle0_w:
            s[1] = 4 * D;
            break;
        case mm_role_shuffle2_w:
            s[1] = D;
            break;
        case mm_role_text:
        case mm_role_tok:
        case mm_role_output:
            s[0] = V, s[1] = D;
            break;
        case mm_role_special:
            s[0] = c->n_special, s[1] = D;
            break;
        default:  // vectors of D
            break;
    }
    memcpy(p->shape, s, sizeof s);
    p->n_axes = s[3] ? 4 : s[2] ? 3 : s[1] ? 2 : 1;
}

static void finish_param(struct mm_param *p, enum mm_dtype dtype) {
    const struct role_info *r = &roles[p->role];
    p->matrix = r->matrix;
    p->used = r->used;
    p->decay = strstr(p->name, "bias") == NULL && p->role != mm_role_D;
    int64_t cols = 1;
    for (int i = 1; i < p->n_axes; i++)
        cols *= p->shape[i];
    const enum mm_dtype t = p->matrix ? dtype : mm_dtype_f32;
    if (p->role == mm_role_position || p->role == mm_role_class) {
        // (1, R+1, D): rows are positions
        p->w = mm_view2(NULL, t, p->shape[1], p->shape[2]);
    } else if (p->n_axes == 1) {
        p->w = mm_view1(NULL, t, p->shape[0]);
    } else {
        p->w = mm_view2(NULL, t, p->shape[0], cols);
    }
}

static struct mm_param *add_param(struct mm_model *m, enum mm_role role, int block) {
    m->params = mm_xrealloc(m->params, (size_t)(m->n_params + 1) * sizeof *m->params);
    struct mm_param *p = &m->params[m->n_params];
    *p = (struct mm_param){.role = role, .block = block};
    const struct role_info *r = &roles[role];
    if (block < 0) {
        snprintf(p->name, sizeof p->name, "%s", r->name);
        shape_of_global_role(p, &m->config);
        m->global[role] = m->n_params;
    } else {
        struct mm_block *b = &m->blocks[block];
        const int64_t n_embed = m->config.embed.n_blocks;
        char prefix[64];
        if (block < n_embed) {
            snprintf(prefix, sizeof prefix, "embedding_model.encoder.%d", block);
        } else {
            snprintf(prefix, sizeof prefix, "language_model.model.layers.%d", block - (int)n_embed);
        }
        const char *name = r->name;
        if (role == mm_role_wo) {
            name = b->mixer == mm_mixer_mha ? "attention.wo.weight" : "attention.o_proj.weight";
        }
        snprintf(p->name, sizeof p->name, "%s.%s", prefix, name);
        shape_of_block_role(p, b->stack);
        p->stages = b->mixer == mm_mixer_mamba2 ? r->stages : 0;
        b->p[role] = m->n_params;
    }
    finish_param(p, m->dtype);
    m->n_params++;
    return p;
}

void mm_model_init(struct mm_model *m, const struct mm_config *config, struct mm_backend *be,
                   enum mm_dtype dtype) {
    *m = (struct mm_model){.be = be, .dtype = dtype};
    struct mm_error err;
    const enum mm_code code = mm_config_copy(&m->config, config, &err);
    assert(code == mm_code_ok), (void)code;
    m->n_blocks = mm_config_blocks(config);
    m->blocks = mm_xcalloc((size_t)m->n_blocks, sizeof *m->blocks);
    for (int64_t i = 0; i < m->n_blocks; i++) {
        struct mm_block *b = &m->blocks[i];
        b->mixer = m->config.mixers[i];
        b->stack = mm_config_stack(&m->config, i);
        for (int r = 0; r < mm_role_count; r++)
            b->p[r] = -1;
    }
    for (int r = 0; r < mm_role_first_of_block; r++) {
        m->global[r] = -1;
        if (r == mm_role_special && config->n_special == 0) continue;
        if (r == mm_role_norm || r == mm_role_output) continue;  // after the blocks
        add_param(m, (enum mm_role)r, -1);
    }
    for (int64_t i = 0; i < m->n_blocks; i++) {
        for (int r = mm_role_first_of_block; r < mm_role_count; r++) {
            if (block_has((enum mm_role)r, m->blocks[i].mixer, m->blocks[i].stack)) {
                add_param(m, (enum mm_role)r, (int)i);
            }
        }
    }
    add_param(m, mm_role_norm, -1);
    add_param(m, mm_role_output, -1);
}

void mm_model_deinit(struct mm_model *m) {
    for (int i = 0; i < m->n_owned; i++)
        m->be->release(m->be, m->owned[i], m->owned_bytes[i]);
    free(m->owned);
    free(m->owned_bytes);
    free(m->params);
    free(m->blocks);
    mm_st_close(m->source);
    mm_config_deinit(&m->config);
    *m = (struct mm_model){0};
}

int mm_model_find(const struct mm_model *m, const char *name) {
    for (int i = 0; i < m->n_params; i++) {
        if (strcmp(m->params[i].name, name) == 0) return i;
    }
    return -1;
}

int64_t mm_model_n_parameters(const struct mm_model *m) {
    int64_t n = 0;
    for (int i = 0; i < m->n_params; i++)
        n += mm_view_count(m->params[i].w);
    return n;
}

size_t mm_model_weight_bytes(const struct mm_model *m) {
    size_t n = 0;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_view w = m->params[i].w;
        n += (size_t)mm_view_count(w) * mm_dtype_bytes(w.dtype);
    }
    return n;
}

// Hands out `bytes` of the device, remembered for deinit.
static enum mm_code own_bytes(struct mm_model *m, size_t bytes, void **out, struct mm_error *err) {
    MM_TRY(m->be->alloc(m->be, bytes, out, err));
    m->owned = mm_xrealloc(m->owned, (size_t)(m->n_owned + 1) * sizeof *m->owned);
    m->owned_bytes = mm_xrealloc(m->owned_bytes, (size_t)(m->n_owned + 1) * sizeof(size_t));
    m->owned[m->n_owned] = *out;
    m->owned_bytes[m->n_owned++] = bytes;
    return mm_code_ok;
}

// v, k, q, g and dt are always one tensor in memory, so that a forward is one product.
static const enum mm_role stacked[] = {mm_role_v_proj, mm_role_k_proj, mm_role_q_proj,
                                       mm_role_g_proj, mm_role_in_proj};
enum { n_stacked = 5 };

static bool is_stacked(enum mm_role role) {
    return role >= mm_role_v_proj && role <= mm_role_in_proj;
}

// Points the five parameters of a block at rows of one (Z, D) tensor at `data`.
void mm_block_stack_at(struct mm_model *m, int64_t block, void *data) {
    struct mm_block *b = &m->blocks[block];
    const int64_t D = b->stack->D;
    int64_t row = 0;
    for (int i = 0; i < n_stacked; i++) {
        struct mm_param *p = &m->params[b->p[stacked[i]]];
        p->w = mm_view2((char *)data + (size_t)(row * D) * mm_dtype_bytes(m->dtype), m->dtype,
                        p->shape[0], D);
        row += p->shape[0];
    }
    b->wvkqgdt = mm_view2(data, m->dtype, row, D);
}

static size_t rounded(size_t n) {
    return (n + 63) / 64 * 64;
}

enum mm_code mm_model_own(struct mm_model *m, int param, struct mm_error *err) {
    struct mm_param *p = &m->params[param];
    if (is_stacked(p->role)) {
        struct mm_block *b = &m->blocks[p->block];
        const int64_t D = b->stack->D, H = b->stack->H, G = b->stack->G, P = b->stack->P;
        const int64_t Z = 2 * G * P + 2 * H * P + H;
        const struct mm_view old = b->wvkqgdt;
        void *data;
        MM_TRY(own_bytes(m, rounded((size_t)(Z * D) * mm_dtype_bytes(m->dtype)), &data, err));
        mm_block_stack_at(m, p->block, data);
        for (int i = 0; i < n_stacked; i++)
            m->params[b->p[stacked[i]]].borrowed = false;
        if (old.data) mm_copy(m->be, b->wvkqgdt, old);
        return mm_code_ok;
    }
    const struct mm_view old = p->w;
    void *data;
    MM_TRY(
        own_bytes(m, rounded((size_t)mm_view_count(old) * mm_dtype_bytes(old.dtype)), &data, err));
    p->w.data = data;
    p->borrowed = false;
    if (old.data) mm_copy(m->be, p->w, old);
    return mm_code_ok;
}

enum mm_code mm_model_alloc(struct mm_model *m, struct mm_error *err) {
    size_t bytes = 0;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_view w = m->params[i].w;
        if (w.data == NULL) bytes += (size_t)mm_view_count(w) * mm_dtype_bytes(w.dtype);
    }
    // The host hands out pages it does not have, and kills whoever touches them.
    const int64_t room = m->be->host_memory ? mm_memory_available() : INT64_MAX;
    if (bytes > (size_t)room) {
        return mm_fail(err, mm_code_memory, "%s: the weights take %.2f GiB and %.2f GiB are free",
                       *m->path ? m->path : "this config", (double)bytes / 1073741824.0,
                       (double)room / 1073741824.0);
    }
    for (int i = 0; i < m->n_params; i++) {
        if (m->params[i].w.data == NULL) MM_TRY(mm_model_own(m, i, err));
    }
    return mm_code_ok;
}

void mm_param_put(struct mm_model *m, struct mm_view w, const float *src) {
    const size_t n = (size_t)mm_view_count(w);
    assert(w.ld == mm_view_cols(w));
    if (w.dtype == mm_dtype_f32) {
        m->be->upload(m->be, w.data, src, n * sizeof(float));
        return;
    }
    void *half = mm_xmalloc(n * mm_dtype_bytes(w.dtype));
    mm_from_f32(half, w.dtype, src, (int64_t)n);
    m->be->upload(m->be, w.data, half, n * mm_dtype_bytes(w.dtype));
    free(half);
}

void mm_param_get(const struct mm_model *m, struct mm_view w, float *dst) {
    const size_t n = (size_t)mm_view_count(w);
    assert(w.ld == mm_view_cols(w));
    if (w.dtype == mm_dtype_f32) {
        m->be->download(m->be, dst, w.data, n * sizeof(float));
        return;
    }
    void *half = mm_xmalloc(n * mm_dtype_bytes(w.dtype));
    m->be->download(m->be, half, w.data, n * mm_dtype_bytes(w.dtype));
    mm_to_f32(dst, half, w.dtype, (int64_t)n);
    free(half);
}

void mm_model_randomize(struct mm_model *m, uint64_t seed) {
    const double residual = 1.0 / sqrt(2.0 * (double)m->n_blocks);
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        const int64_t n = mm_view_count(p->w);
        float *x = mm_xmalloc((size_t)n * sizeof *x);
        struct mm_rng r = mm_rng_make(seed, mm_rng_stream(p->name));
        const bool norm = p->role == mm_role_norm || p->role == mm_role_attention_norm ||
                          p->role == mm_role_ffn_norm;
        const bool table = p->role == mm_role_text || p->role == mm_role_tok ||
                           p->role == mm_role_special || p->role == mm_role_position ||
                           p->role == mm_role_class;
        if (norm) {
            for (int64_t j = 0; j < n; j++)
                x[j] = 1.0f;
        } else if (table) {
            for (int64_t j = 0; j < n; j++)
                x[j] = (float)(0.02 * mm_rng_normal(&r));
        } else if (p->n_axes == 1) {
            for (int64_t j = 0; j < n; j++)
                x[j] = 0.0f;
        } else {
            double a = 1.0 / sqrt((double)mm_view_cols(p->w));
            if (p->role == mm_role_wo || p->role == mm_role_w2) a *= residual;
            for (int64_t j = 0; j < n; j++)
                x[j] = (float)mm_rng_uniform(&r, -a, a);
        }
        mm_param_put(m, p->w, x);
        free(x);
    }
}

void mm_model_hash(const struct mm_model *m, char out[33]) {
    XXH3_state_t *h = XXH3_createState();
    XXH3_128bits_reset(h);
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_view w = m->params[i].w;
        const size_t bytes = (size_t)mm_view_count(w) * mm_dtype_bytes(w.dtype);
        XXH3_128bits_update(h, m->params[i].name, strlen(m->params[i].name));
        if (m->be->host_memory) {
            XXH3_128bits_update(h, w.data, bytes);
        } else {
            void *host = mm_xmalloc(bytes);
            m->be->download(m->be, host, w.data, bytes);
            XXH3_128bits_update(h, host, bytes);
            free(host);
        }
    }
    const XXH128_hash_t d = XXH3_128bits_digest(h);
    XXH3_freeState(h);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)d.high64, (unsigned long long)d.low64);
}
