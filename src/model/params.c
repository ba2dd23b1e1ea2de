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

// What q8 and q4 hold: the matrices that every token is multiplied with. Gates and dt stay as they
// were, as do tables that are looked up by row, and the vision entry: a hundredth of the weights,
// by which a picture's details come in.
static bool is_quantized(enum mm_role role) {
    switch (role) {
        case mm_role_output:
        case mm_role_wqkv:
        case mm_role_v_proj:
        case mm_role_k_proj:
        case mm_role_q_proj:
        case mm_role_wo:
        case mm_role_w1:
        case mm_role_w2:
        case mm_role_w3:
            return true;
        default:
            return false;
    }
}

static enum mm_stack stack_of(enum mm_role role, bool quantized) {
    if (role < mm_role_v_proj || role > mm_role_in_proj) return mm_stack_none;
    if (!quantized) return mm_stack_vkqgdt;
    return role <= mm_role_q_proj ? mm_stack_vkq : mm_stack_gdt;
}

static void finish_param(struct mm_param *p, enum mm_dtype dtype, enum mm_dtype quant) {
    const struct role_info *r = &roles[p->role];
    p->matrix = r->matrix;
    p->used = r->used;
    p->decay = strstr(p->name, "bias") == NULL && p->role != mm_role_D;
    int64_t cols = 1;
    for (int i = 1; i < p->n_axes; i++)
        cols *= p->shape[i];
    const bool quantized = mm_dtype_quantized(quant);
    const enum mm_dtype t = quantized && is_quantized(p->role) ? quant
                            : p->matrix                        ? dtype
                                                               : mm_dtype_f32;
    p->stack = stack_of(p->role, quantized);
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
    finish_param(p, m->dtype, m->config.quant);
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
        if (mm_model_quantized(m) && !roles[r].used) continue;
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
    for (int i = 0; i < m->n_params; i++)
        n += mm_view_bytes(m->params[i].w);
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

static struct mm_view *stack_view(struct mm_block *b, enum mm_stack stack) {
    return stack == mm_stack_vkqgdt ? &b->wvkqgdt : stack == mm_stack_vkq ? &b->wvkq : &b->wgdt;
}

struct mm_view mm_param_stack(const struct mm_model *m, const struct mm_param *p) {
    assert(p->stack != mm_stack_none);
    return *stack_view(&m->blocks[p->block], p->stack);
}

// v, k, q, g and dt are one tensor in memory (two of a quantized model), so that a forward is one
// product.
static void stack_at(struct mm_model *m, struct mm_block *b, enum mm_stack stack, void *data,
                     bool borrowed) {
    struct mm_view whole = MM_NONE;
    for (int r = mm_role_v_proj; r <= mm_role_in_proj; r++) {
        struct mm_param *p = &m->params[b->p[r]];
        if (p->stack != stack) continue;
        const int64_t row = whole.shape[0], n = p->shape[0];
        whole = mm_view2(data, p->w.dtype, row + n, b->stack->D);
        p->w = mm_view_rows(whole, row, n);
        p->borrowed = borrowed;
    }
    *stack_view(b, stack) = whole;
}

static size_t rounded(size_t n) {
    return (n + 63) / 64 * 64;
}

void mm_param_place(struct mm_model *m, int param, void *data, bool borrowed) {
    struct mm_param *p = &m->params[param];
    if (p->stack == mm_stack_none) {
        p->w.data = data;
        p->borrowed = borrowed;
    } else {
        stack_at(m, &m->blocks[p->block], p->stack, data, borrowed);
    }
}

size_t mm_param_place_bytes(const struct mm_model *m, int param) {
    const struct mm_param *p = &m->params[param];
    if (p->stack == mm_stack_none) return mm_view_bytes(p->w);
    size_t bytes = 0;
    for (int r = mm_role_v_proj; r <= mm_role_in_proj; r++) {
        const struct mm_param *q = &m->params[m->blocks[p->block].p[r]];
        if (q->stack == p->stack) bytes += mm_view_bytes(q->w);
    }
    return bytes;
}

enum mm_code mm_model_own(struct mm_model *m, int param, struct mm_error *err) {
    const struct mm_param *p = &m->params[param];
    const struct mm_view old = p->stack == mm_stack_none ? p->w : mm_param_stack(m, p);
    void *data;
    MM_TRY(own_bytes(m, rounded(mm_param_place_bytes(m, param)), &data, err));
    mm_param_place(m, param, data, false);
    if (old.data) m->be->move(m->be, data, old.data, mm_view_bytes(old));
    return mm_code_ok;
}

enum mm_code mm_model_refuse_quantized(const struct mm_model *m, const char *what,
                                       struct mm_error *err) {
    if (!mm_model_quantized(m)) return mm_code_ok;
    return mm_fail(err, mm_code_input,
                   "%s: its weights are rounded to %s, and %s; give the model it was made from",
                   m->path, mm_dtype_name(m->config.quant), what);
}

static enum mm_code alloc(struct mm_model *m, bool unused_too, struct mm_error *err) {
    size_t bytes = 0;
    for (int i = 0; i < m->n_params; i++) {
        if (m->params[i].w.data == NULL && (unused_too || m->params[i].used))
            bytes += mm_view_bytes(m->params[i].w);
    }
    // The host hands out pages it does not have, and kills whoever touches them.
    const int64_t room = m->be->host_memory ? mm_memory_available() : m->be->available(m->be);
    if (bytes > (size_t)room) {
        return mm_fail(err, mm_code_memory, "%s: the weights take %.2f GiB and %.2f GiB are free",
                       *m->path ? m->path : "this config", (double)bytes / 1073741824.0,
                       (double)room / 1073741824.0);
    }
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        if (p->w.data == NULL && (unused_too || p->used)) MM_TRY(mm_model_own(m, i, err));
    }
    return mm_code_ok;
}

enum mm_code mm_model_alloc(struct mm_model *m, struct mm_error *err) {
    return alloc(m, true, err);
}

enum mm_code mm_model_alloc_used(struct mm_model *m, struct mm_error *err) {
    return alloc(m, false, err);
}

void mm_param_put(struct mm_model *m, struct mm_view w, const float *src) {
    const size_t n = (size_t)mm_view_count(w);
    assert(w.ld == mm_view_cols(w) && !mm_dtype_quantized(w.dtype));
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
    void *stored = mm_xmalloc(mm_view_bytes(w));
    m->be->download(m->be, stored, w.data, mm_view_bytes(w));
    if (mm_dtype_quantized(w.dtype)) {
        const int64_t k = mm_view_cols(w), row_bytes = mm_quant_row_bytes(w.dtype, k);
        for (int64_t r = 0; r < w.shape[0]; r++)
            mm_dequantize_row(dst + r * k, w.dtype, (const char *)stored + r * row_bytes, k);
    } else {
        mm_to_f32(dst, stored, w.dtype, (int64_t)n);
    }
    free(stored);
}

// Codes are uniform, so rows of quantized weights are made as they lie in memory.
static void randomize_quantized(struct mm_model *m, struct mm_view w, float a, struct mm_rng *r) {
    const int64_t k = mm_view_cols(w), bytes = mm_quant_row_bytes(w.dtype, k);
    const bool q4 = w.dtype == mm_dtype_q4;
    unsigned char *row = mm_xcalloc(1, (size_t)bytes);
    uint16_t *scales = (uint16_t *)(uintptr_t)mm_quant_scales(w.dtype, row, k);
    for (int64_t b = 0; b < mm_quant_blocks(k); b++) {
        scales[b] = mm_f32_to_f16(a / (q4 ? 8.0f * 8.0f : 127.0f));
        if (q4) scales[mm_quant_blocks(k) + b] = 0x8888;
    }
    for (int64_t n = 0; n < w.shape[0]; n++) {
        for (int64_t i = 0; i < mm_quant_code_bytes(w.dtype, k); i++)
            row[i] = (unsigned char)(q4 ? mm_rng_below(r, 256) : mm_rng_below(r, 255) + 129);
        m->be->upload(m->be, (char *)w.data + n * bytes, row, (size_t)bytes);
    }
    free(row);
}

void mm_model_randomize(struct mm_model *m, uint64_t seed) {
    const double residual = 1.0 / sqrt(2.0 * (double)m->n_blocks);
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        const int64_t n = mm_view_count(p->w);
        struct mm_rng r = mm_rng_make(seed, mm_rng_stream(p->name));
        const double inward = 1.0 / sqrt((double)mm_view_cols(p->w)) *
                              (p->role == mm_role_wo || p->role == mm_role_w2 ? residual : 1.0);
        if (mm_dtype_quantized(p->w.dtype)) {
            randomize_quantized(m, p->w, (float)inward, &r);
            continue;
        }
        float *x = mm_xmalloc((size_t)n * sizeof *x);
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
            for (int64_t j = 0; j < n; j++)
                x[j] = (float)mm_rng_uniform(&r, -inward, inward);
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
        const size_t bytes = mm_view_bytes(w);
        if (w.data == NULL) continue;  // mm_model_alloc_used
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
