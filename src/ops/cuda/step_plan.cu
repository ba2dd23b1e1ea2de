// The list of tasks of a token step: what the host makes of a model once.
#include "ops/cuda/step_plan.cuh"

#include <stdlib.h>
#include <string.h>

// ---- what the kernel can take ----

static bool whole(const void *p, int64_t bytes) {
    return (uintptr_t)p % 16 == 0 && bytes % 16 == 0;
}

static bool matrix_fits(struct mm_view w, int64_t most_rows) {
    const int64_t k = mm_view_cols(w);
    if (!w.data || w.shape[0] > most_rows || k > 65536 || k % 8) return false;
    if (mm_dtype_quantized(w.dtype)) return whole(w.data, 0);
    return w.dtype == mm_dtype_bf16 && whole(w.data, 2 * w.ld);
}

static bool block_fits(const struct mm_step_block *b) {
    const int64_t ratio = b->H / b->G, most = 1 << 24;
    if (b->P < 8 || b->P > 128 || (b->P & (b->P - 1)) || b->F % 8) return false;
    // of the products with bf16 in a quantized model the operand is kept exact; only normed ones
    const bool quantized = mm_dtype_quantized(b->in[0].dtype);
    if (quantized != mm_dtype_quantized(b->wo.dtype) ||
        quantized != mm_dtype_quantized(b->w2.dtype))
        return false;
    if (b->attention && ratio != 1 && ratio != 2 && ratio != 4) return false;
    if (!matrix_fits(b->in[0], most) || (b->in[1].data && !matrix_fits(b->in[1], most)))
        return false;
    if (!matrix_fits(b->wo, most) || !matrix_fits(b->w1, most) || !matrix_fits(b->w2, most) ||
        !matrix_fits(b->w3, most) || b->w1.ld != b->w3.ld)
        return false;
    return whole(b->attention_norm.data, 0) && whole(b->ffn_norm.data, 0) &&
           whole(b->g_norm.data, 0);
}

// cache: the type of all keys and values, f32 or bf16.
static bool seq_fits(const struct mm_step *s, const struct mm_step_seq *seq,
                     const enum mm_dtype *cache) {
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_block_state *st = &seq->blocks[i];
        const int64_t row = s->blocks[i].G * s->blocks[i].P;
        if (s->blocks[i].attention) {
            if (st->k.ld != row || st->v.ld != row || !whole(st->k.data, 2 * row) ||
                !whole(st->v.data, 2 * row) || seq->past[s->blocks[i].stack] > INT32_MAX / 4)
                return false;
            if (cache && *cache != st->k.dtype) return false;
        } else if (!whole(st->S.data, 0)) {
            return false;
        }
    }
    return true;
}

bool mm_step_fits(const struct mm_step *s) {
    const int64_t D = mm_view_cols(s->x);
    if (D % 8 || !whole(s->x.data, 4 * s->x.ld) || !whole(s->norm.data, 0)) return false;
    if (s->output.data && !matrix_fits(s->output, 1 << 24)) return false;
    for (int64_t i = 0; i < s->n_blocks; i++)
        if (!block_fits(&s->blocks[i])) return false;
    const enum mm_dtype *cache = NULL;
    for (int64_t i = 0; i < s->n_blocks; i++)
        if (s->blocks[i].attention) cache = &s->seqs[0].blocks[i].k.dtype;
    for (int64_t t = 0; t < s->n_seqs; t++)
        if (!seq_fits(s, &s->seqs[t], cache)) return false;
    return true;
}

// ---- the list ----

struct list {
    struct mm_step_task *tasks;
    int n, first, sms;
};

static struct mm_step_task *add(struct list *l, int kind, int sync) {
    struct mm_step_task *t = &l->tasks[l->n++];
    memset(t, 0, sizeof *t);
    t->kind = kind, t->sync = sync;
    return t;
}

static void bring(struct mm_step_task *t, struct mm_view v) {
    if (!v.data || t->n_ahead == mm_step_most_ahead) return;
    t->ahead[t->n_ahead++] = {(const char *)v.data, (int64_t)mm_view_bytes(v)};
}

static struct mm_step_matrix matrix_of(struct list *l, struct mm_view w, struct mm_view w3) {
    struct mm_step_matrix m = {};
    const bool quantized = mm_dtype_quantized(w.dtype);
    m.w = (const char *)w.data, m.w3 = (const char *)w3.data;
    m.type = (int)w.dtype, m.rows = (int)w.shape[0], m.k = (int)mm_view_cols(w);
    m.pitch = quantized ? mm_quant_row_bytes(w.dtype, m.k) : w.ld * 2;
    m.slot_k = quantized ? 128 : 64;
    m.n_slots = (m.k + m.slot_k - 1) / m.slot_k;
    m.per_warp = (m.n_slots + mm_step_warps - 1) / mm_step_warps;
    if (!quantized) m.per_warp = (m.per_warp + 1) / 2 * 2;  // whole units (step_product.cuh)
    m.tiles = w3.data ? (m.rows + 7) / 8 : (m.rows + 15) / 16;
    if (quantized) m.code_bytes = (int)mm_quant_code_bytes(w.dtype, m.k);
    m.blocks = (int)mm_quant_blocks(m.k);
    m.first = l->first;
    l->first = (l->first + m.tiles) % l->sms;
    return m;
}

static struct mm_step_task *add_product(struct list *l, struct mm_view w, struct mm_view w3,
                                        enum mm_step_from from, enum mm_step_to to) {
    struct mm_step_task *t = add(l, mm_step_kind_product, 1);
    t->m = matrix_of(l, w, w3);
    t->from = from, t->to = to;
    return t;
}

static const float *floats(struct mm_view v) {
    return (const float *)v.data;
}

// What every task of a block knows of it.
static void describe(struct mm_step_task *t, const struct mm_step_block *b, int index) {
    t->block = index, t->stack = b->stack;
    t->H = (int)b->H, t->G = (int)b->G, t->P = (int)b->P, t->F = (int)b->F;
    t->conv_k = b->attention ? 1 : (int)mm_view_cols(b->conv_w);
    t->conv_w = floats(b->conv_w), t->conv_b = floats(b->conv_b);
    t->dt_bias = floats(b->dt_bias), t->a_log = floats(b->a_log), t->d = floats(b->d);
    t->q_norm_w = floats(b->q_norm_w), t->q_norm_b = floats(b->q_norm_b);
    t->k_norm_w = floats(b->k_norm_w), t->k_norm_b = floats(b->k_norm_b);
}

// Vectors that a block's first products and its mixer read.
static void bring_block(struct mm_step_task *t, const struct mm_step_block *b) {
    bring(t, b->attention_norm);
    bring(t, b->conv_w), bring(t, b->conv_b), bring(t, b->dt_bias);
    bring(t, b->a_log), bring(t, b->d);
    bring(t, b->q_norm_w), bring(t, b->q_norm_b), bring(t, b->k_norm_w), bring(t, b->k_norm_b);
}

static void add_block(struct list *l, const struct mm_step *s, int i) {
    const struct mm_step_block *b = &s->blocks[i];
    const int begin = l->n;
    const enum mm_step_to to = b->attention ? mm_step_to_z : mm_step_to_mixer;
    struct mm_step_task *t = add_product(l, b->in[0], MM_NONE, mm_step_from_norm, to);
    t->norm = floats(b->attention_norm), t->eps = b->eps;
    t->state_ahead = !b->attention;
    bring(t, b->g_norm);
    if (i == 0) bring_block(t, b);
    if (b->in[1].data) {
        t->sync = 0;
        t = add_product(l, b->in[1], MM_NONE, mm_step_from_norm, to);
        t->norm = floats(b->attention_norm), t->eps = b->eps;
        t->row0 = (int)b->in[0].shape[0];
    }
    add(l, b->attention ? mm_step_kind_attention : mm_step_kind_mamba2, 1);
    if (b->attention) add(l, mm_step_kind_merge, 1);
    t = add_product(l, b->wo, MM_NONE, b->attention ? mm_step_from_heads : mm_step_from_gated,
                    mm_step_to_x);
    if (!b->attention) t->norm = floats(b->g_norm), t->eps = 1e-5f;
    bring(t, b->ffn_norm);
    t = add_product(l, b->w1, b->w3, mm_step_from_norm, mm_step_to_ffn);
    t->norm = floats(b->ffn_norm), t->eps = b->eps;
    t = add_product(l, b->w2, MM_NONE, mm_step_from_ffn, mm_step_to_x);
    if (i + 1 < s->n_blocks) {
        bring_block(t, &s->blocks[i + 1]);
    } else {
        bring(t, s->norm);
    }
    for (int k = begin; k < l->n; k++)
        describe(&l->tasks[k], b, i);
}

static void fill(struct list *l, const struct mm_step *s) {
    for (int i = 0; i < (int)s->n_blocks; i++) {
        if (i == s->l2_before) add(l, mm_step_kind_l2norm, 1);
        add_block(l, s, i);
    }
    struct mm_step_task *t = add(l, mm_step_kind_hidden, 0);
    t->norm = floats(s->norm), t->eps = s->eps;
    if (!s->output.data) return;
    t = add_product(l, s->output, MM_NONE, mm_step_from_norm, mm_step_to_logits);
    t->norm = floats(s->norm), t->eps = s->eps;
    t->sync = 0;
}

// ---- the plan on the device ----

// Rows of the sequences and the counter of the barrier, behind each other in one block.
static int64_t take(int64_t *at, int64_t floats_wanted) {
    const int64_t here = *at;
    *at += (floats_wanted + 31) / 32 * 32;
    return here;
}

static bool make_room(struct mm_backend *be, struct mm_step_plan *p, const struct mm_step *s) {
    struct mm_step_args *a = &p->args;
    int64_t in = 0, hp = 0, ffn = 0, parts = 0, heads = 0;
    int64_t groups = 1;
    for (int64_t i = 0; i < s->n_blocks; i++)
        if (s->blocks[i].attention && s->blocks[i].G > groups) groups = s->blocks[i].G;
    a->splits = (int)(p->sms / groups < 1 ? 1 : p->sms / groups > 64 ? 64 : p->sms / groups);
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        const int64_t rows = (2 * b->G + b->H) * b->P;
        in = rows > in ? rows : in;
        hp = b->H * b->P > hp ? b->H * b->P : hp;
        ffn = b->F > ffn ? b->F : ffn;
        heads = b->H > heads ? b->H : heads;
        if (!b->attention) continue;
        const int64_t part = b->H * a->splits * (b->P + 2);
        parts = part > parts ? part : parts;
        a->rope_half[b->stack] = (int)b->P / 2;
        a->rope_scale[b->stack] = b->pos_scale;
    }
    const int64_t n = mm_step_cols;
    a->z_ld = (in + 3) / 4 * 4, a->y_ld = (hp + 3) / 4 * 4, a->ffn_ld = (ffn + 3) / 4 * 4;
    a->dt_ld = heads;
    int64_t floats_all = 0;
    const int64_t z = take(&floats_all, n * a->z_ld), gate = take(&floats_all, n * a->y_ld);
    const int64_t y = take(&floats_all, n * a->y_ld), f = take(&floats_all, n * a->ffn_ld);
    const int64_t dt = take(&floats_all, n * heads), part = take(&floats_all, n * parts);
    const int64_t rope = take(&floats_all, n * 2 * 128 * 2), meet = take(&floats_all, 32);
    const int64_t states = take(
        &floats_all, s->n_blocks * n * (int64_t)(sizeof(struct mm_step_state) / sizeof(float)));
    p->bytes = (size_t)floats_all * sizeof(float);
    if (!mm_cuda_ok(be, cudaMalloc((void **)&p->work, p->bytes), "cudaMalloc for a token step") ||
        !mm_cuda_ok(be, cudaMemsetAsync(p->work, 0, p->bytes, mm_cuda_of(be)->stream),
                    "cudaMemset"))
        return false;
    be->scratch_bytes += p->bytes;
    mm_cuda_count(be, (int64_t)p->bytes);
    a->z = p->work + z, a->gate = p->work + gate, a->y = p->work + y, a->ffn = p->work + f;
    a->dt = p->work + dt, a->part = p->work + part, a->rope = (float2 *)(p->work + rope);
    a->meet = (unsigned *)(p->work + meet);
    a->states = (const struct mm_step_state *)(p->work + states);
    return true;
}

static bool send(struct mm_backend *be, struct mm_step_plan *p, const struct list *l) {
    struct mm_step_matrix *matrices =
        (struct mm_step_matrix *)calloc((size_t)l->n + 1, sizeof *matrices);
    if (!matrices) return mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
    for (int i = 0; i < l->n; i++) {
        p->args.n_tasks++;
        p->syncs += l->tasks[i].sync;
        if (l->tasks[i].kind == mm_step_kind_product) {
            const enum mm_dtype type = (enum mm_dtype)l->tasks[i].m.type;
            matrices[p->args.n_matrices++] = l->tasks[i].m;
            if (type == mm_dtype_q4 || p->weights != mm_dtype_q4)
                if (type != mm_dtype_bf16) p->weights = type;
        }
    }
    const size_t tasks_bytes = (size_t)l->n * sizeof *l->tasks,
                 matrices_bytes = (size_t)l->n * sizeof *matrices;
    char *to = NULL;
    bool ok = mm_cuda_ok(be, cudaMalloc((void **)&to, tasks_bytes + matrices_bytes),
                         "cudaMalloc for a token step");
    // a copy from pageable memory has read it when it returns
    ok = ok && mm_cuda_ok(be, cudaMemcpy(to, l->tasks, tasks_bytes, cudaMemcpyDefault),
                          "copying a token step's tasks");
    ok = ok &&
         mm_cuda_ok(be, cudaMemcpy(to + tasks_bytes, matrices, matrices_bytes, cudaMemcpyDefault),
                    "copying a token step's tasks");
    free(matrices);
    p->list = to;
    p->list_bytes = tasks_bytes + matrices_bytes;
    be->scratch_bytes += p->list_bytes;
    mm_cuda_count(be, (int64_t)p->list_bytes);
    p->args.tasks = (const struct mm_step_task *)to;
    p->args.matrices = (const struct mm_step_matrix *)(to + tasks_bytes);
    return ok;
}

static bool same(struct mm_view a, struct mm_view b) {
    return a.data == b.data && a.dtype == b.dtype && a.ld == b.ld &&
           memcmp(a.shape, b.shape, sizeof a.shape) == 0;
}

static bool plan_is_of(const struct mm_step_plan *p, const struct mm_step *s) {
    return p->n_blocks == s->n_blocks && p->l2_before == s->l2_before && p->eps == s->eps &&
           p->args.D == (int)mm_view_cols(s->x) && same(p->norm, s->norm) &&
           (!s->output.data || same(p->output, s->output)) &&
           memcmp(p->blocks, s->blocks, (size_t)s->n_blocks * sizeof *p->blocks) == 0;
}

void mm_step_plan_free(struct mm_backend *be) {
    struct mm_step_plan *p = mm_cuda_of(be)->step;
    mm_cuda_of(be)->step = NULL;
    if (!p) return;
    const size_t bytes = (p->work ? p->bytes : 0) + (p->list ? p->list_bytes : 0);
    be->scratch_bytes -= bytes;
    mm_cuda_count(be, -(int64_t)bytes);
    cudaFree(p->work);
    cudaFree(p->list);
    free(p->blocks);
    free(p->states);
    free(p);
}

static struct mm_step_plan *plan_new(struct mm_backend *be, const struct mm_step *s) {
    struct mm_step_plan *p = (struct mm_step_plan *)calloc(1, sizeof *p);
    struct list l = {};
    const size_t n = (size_t)s->n_blocks;
    l.tasks = (struct mm_step_task *)malloc((n * 9 + 3) * sizeof *l.tasks);
    if (p) p->blocks = (struct mm_step_block *)malloc(n * sizeof *p->blocks + 1);
    if (p) p->states = (struct mm_step_state *)calloc(n * mm_step_cols + 1, sizeof *p->states);
    mm_cuda_of(be)->step = p;
    if (!p || !l.tasks || !p->blocks || !p->states) {
        mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
        free(l.tasks);
        return NULL;
    }
    memcpy(p->blocks, s->blocks, n * sizeof *p->blocks);
    p->n_blocks = s->n_blocks, p->l2_before = s->l2_before, p->eps = s->eps;
    p->norm = s->norm, p->output = s->output;
    p->args.D = (int)mm_view_cols(s->x), p->weights = mm_dtype_bf16;
    cudaDeviceGetAttribute(&p->sms, cudaDevAttrMultiProcessorCount, mm_cuda_of(be)->device);
    l.sms = p->sms;
    fill(&l, s);
    const bool ok = make_room(be, p, s) && send(be, p, &l);
    free(l.tasks);
    return ok ? p : NULL;
}

struct mm_step_plan *mm_step_plan_of(struct mm_backend *be, const struct mm_step *s) {
    struct mm_step_plan *p = mm_cuda_of(be)->step;
    if (p && plan_is_of(p, s)) return p;
    // kernels that use the old one have ended when cudaFree returns
    mm_step_plan_free(be);
    return plan_new(be, s);
}
