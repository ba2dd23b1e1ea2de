// A token of many sequences: what of a block each product leaves to do before the next, as one
// kernel over all sequences. Operands of products are bf16, or codes where weights are; the
// residual stream, what products return, states and statistics are f32.
#include "ops/cuda/step_many.cuh"

#include <stdlib.h>
#include <string.h>

#include "ops/cuda/attention_hopper.cuh"
#include "ops/cuda/step_many_hopper.cuh"
#include "ops/cuda/step_many_kernels.cuh"
#include "ops/cuda/step_plan.cuh"

// Where the sequences' states are, as the device was told last: (blocks, n).
struct mm_step_many_states {
    struct mm_many_state *host, *dev;
    size_t bytes;  // of each
    int64_t n;     // sequences of the last step; 0: none was
};

// Rows of one step, in the backend's scratch.
struct rows {
    int64_t n, padded;
    bool early;  // kernels begin while the one before them ends (Hopper)
    float *x, *a, *b, *logits, *part;
    float *z;  // (z_parts, padded, z_cols) what the mixer's projection returned
    float *
        gates;  // (gates_parts, padded, gates_cols) ... and that of gates and dt, where it is apart
    float *sums;    // (x_parts, padded, D) of a product that x still lacks
    float *ss;      // (padded, tiles of x), where products make norms themselves
    unsigned *met;  // of those products that are still to come: a word a tile each
    float *s_sums;  // (padded, f_cols) s before it is codes
    struct mm_many_norm_before before;  // what u still lacks
    int z_parts, gates_parts, x_parts;
    bool quantized;
    struct mm_many_operand u, o, s;  // a normed x, and what wo and w2 meet, in every form there is
    float2 *rope;
    struct mm_many_at *at;
    struct mm_many_state *states;
    const int32_t *stopped;  // (n) of the sequences; NULL: none has
    int64_t z_cols, gates_cols, o_cols, f_cols, logit_cols;
    int most_z_parts, most_gates_parts, most_x_parts, x_tiles;
    int pieces[2];  // of the longest cache of each stack
};

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t padded_rows(int64_t n) {
    int64_t p = 16;
    while (p < n)
        p *= 2;
    return p;
}

// Into how many parts our own products cut this one; 0: it is left to cuBLASLt.
static int own_parts(struct mm_backend *be, const struct rows *r, struct mm_view w) {
    return r->early ? mm_many_hopper_parts(be, w, r->padded) : 0;
}

static bool has_codes(const struct mm_step *s) {
    bool codes = s->output.data && mm_dtype_quantized(s->output.dtype);
    for (int64_t i = 0; i < s->n_blocks; i++)
        codes = codes || mm_dtype_quantized(s->blocks[i].wo.dtype);
    return codes;
}

static void measure(struct mm_backend *be, struct rows *r, const struct mm_step *s,
                    int64_t padded) {
    r->stopped = (const int32_t *)s->stopped.data;
    r->n = s->n_seqs, r->padded = padded;
    r->early = mm_hopper_here(be);
    r->most_z_parts = 1;
    r->quantized = has_codes(s);
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        r->z_cols = most(r->z_cols, (b->in[0].shape[0] + 7) / 8 * 8);
        r->o_cols = most(r->o_cols, b->H * b->P);
        r->f_cols = most(r->f_cols, b->F);
        r->most_z_parts = (int)most(r->most_z_parts, own_parts(be, r, b->in[0]));
        r->x_tiles = mm_many_hopper_tiles(b->wo);
        if (b->in[1].data) {
            r->gates_cols = most(r->gates_cols, (b->in[1].shape[0] + 7) / 8 * 8);
            r->most_gates_parts = (int)most(r->most_gates_parts, own_parts(be, r, b->in[1]));
        }
        r->most_x_parts = (int)most(r->most_x_parts, own_parts(be, r, b->wo));
        r->most_x_parts = (int)most(r->most_x_parts, own_parts(be, r, b->w2));
        if (!b->attention) continue;
        for (int64_t t = 0; t < r->n; t++) {
            const int pieces = mm_many_pieces((int)s->seqs[t].past[b->stack] + 1);
            if (pieces > r->pieces[b->stack]) r->pieces[b->stack] = pieces;
        }
    }
    // cuBLASLt writes whole rows of logits, and wants them to begin at multiples of eight
    const bool fit = r->padded == r->n && s->logits.ld % 8 == 0;
    if (s->output.data && !fit && !own_parts(be, r, s->output))
        r->logit_cols = (s->output.shape[0] + 7) / 8 * 8;
}

static char *take(char **at, int64_t bytes) {
    char *here = *at;
    *at += (bytes + 255) / 256 * 256;
    return here;
}

// Words of a block's products: of wo and of w2, and of w1 and w3 where their result is to be codes.
static int64_t block_words(const struct rows *r) {
    return 2 * r->x_tiles + (r->quantized ? r->f_cols / mm_quant_block : 0);
}
static int64_t met_bytes(const struct rows *r, const struct mm_step *s) {
    return s->n_blocks * block_words(r) * (int64_t)sizeof *r->met;
}

// Rows of x of a product are brought in boxes of 64.
static struct mm_many_operand take_operand(char **at, const struct rows *r, int64_t cols) {
    struct mm_many_operand o = {};
    o.cols = (int)cols, o.scales_ld = (r->padded + 63) / 64 * 64;
    o.u = (__nv_bfloat16 *)take(at, r->padded * cols * 2);
    if (!r->quantized) return o;
    o.codes = (int8_t *)take(at, r->padded * cols);
    o.scales = (float *)take(at, mm_quant_blocks(cols) * o.scales_ld * (int64_t)sizeof(float));
    return o;
}

// Lays the rows out from `base` on; returns the bytes they take.
static int64_t lay_out(struct rows *r, const struct mm_step *s, char *base) {
    const int64_t n = r->padded, D = mm_view_cols(s->x), f = sizeof(float);
    int64_t parts = 0;
    char *at = base;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        if (b->attention) parts = most(parts, r->pieces[b->stack] * b->H * (b->P + 4));
    }
    r->x = (float *)take(&at, n * D * f);
    r->u = take_operand(&at, r, D);
    r->z = (float *)take(&at, r->most_z_parts * n * r->z_cols * f);
    r->gates = (float *)take(&at, r->most_gates_parts * n * r->gates_cols * f);
    r->sums = (float *)take(&at, r->most_x_parts * n * D * f);
    r->ss = (float *)take(&at, n * r->x_tiles * f);
    r->met = (unsigned *)take(&at, met_bytes(r, s));
    r->o = take_operand(&at, r, r->o_cols);
    r->a = (float *)take(&at, n * r->f_cols * f);
    r->b = (float *)take(&at, n * r->f_cols * f);
    r->s = take_operand(&at, r, r->f_cols);
    r->s_sums = r->a;
    r->part = (float *)take(&at, r->n * parts * f);
    r->rope = (float2 *)take(&at, r->n * 2 * mm_many_pairs * (int64_t)sizeof(float2));
    r->at = (struct mm_many_at *)take(&at, r->n * (int64_t)sizeof *r->at);
    r->logits = (float *)take(&at, n * r->logit_cols * f);
    return at - base;
}

static bool room_for_states(struct mm_backend *be, size_t bytes) {
    struct mm_step_many_states *m = mm_cuda_of(be)->many;
    if (bytes <= m->bytes) return true;
    mm_step_many_free(be);
    m = mm_cuda_of(be)->many = (struct mm_step_many_states *)calloc(1, sizeof *m);
    if (m) m->host = (struct mm_many_state *)calloc(1, bytes);
    if (!m || !m->host) return mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
    struct mm_error why = {};
    m->dev = (struct mm_many_state *)mm_cuda_take(be, bytes, "a token step", &why);
    if (!m->dev) {
        if (!be->error.code) be->error = why;
        return false;
    }
    m->bytes = bytes;
    be->scratch_bytes += bytes;
    return true;
}

void mm_step_many_free(struct mm_backend *be) {
    struct mm_step_many_states *m = mm_cuda_of(be)->many;
    mm_cuda_of(be)->many = NULL;
    if (!m) return;
    be->scratch_bytes -= m->bytes;
    mm_cuda_give(be, m->dev, m->bytes);
    free(m->host);
    free(m);
}

// The states, sent where they are others than in the last step.
static bool send_states(struct mm_backend *be, struct rows *r, const struct mm_step *s) {
    const size_t bytes = (size_t)(s->n_blocks * r->n) * sizeof(struct mm_many_state);
    if (!room_for_states(be, bytes)) return false;
    struct mm_step_many_states *m = mm_cuda_of(be)->many;
    bool other = m->n != r->n;
    for (int64_t t = 0; t < r->n; t++) {
        for (int64_t i = 0; i < s->n_blocks; i++) {
            const struct mm_block_state *b = &s->seqs[t].blocks[i];
            const struct mm_many_state is = {(float *)b->S.data, (float *)b->conv.data, b->k.data,
                                             b->v.data};
            struct mm_many_state *to = &m->host[i * r->n + t];
            other = other || memcmp(to, &is, sizeof is) != 0;
            *to = is;
        }
    }
    r->states = m->dev;
    m->n = 0;
    // a copy from pageable memory has read it when the call returns
    if (other &&
        !mm_cuda_ok(
            be, cudaMemcpyAsync(m->dev, m->host, bytes, cudaMemcpyDefault, mm_cuda_of(be)->stream),
            "copying where the states are"))
        return false;
    m->n = r->n;
    return true;
}

static bool send_positions(struct mm_backend *be, struct rows *r, const struct mm_step *s) {
    struct mm_many_at *at = (struct mm_many_at *)malloc((size_t)r->n * sizeof *at);
    if (!at) return mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
    for (int64_t t = 0; t < r->n; t++) {
        const struct mm_step_seq *q = &s->seqs[t];
        at[t] = {{(int)q->past[0], (int)q->past[1]}, {q->rope_base[0], q->rope_base[1]}};
    }
    const bool ok = mm_cuda_ok(be,
                               cudaMemcpyAsync(r->at, at, (size_t)r->n * sizeof *at,
                                               cudaMemcpyDefault, mm_cuda_of(be)->stream),
                               "copying the sequences' positions");
    free(at);
    return ok;
}

static bool send_rope(struct mm_backend *be, struct rows *r, const struct mm_step *s) {
    struct mm_many_rope rope = {};
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        if (b->attention) rope.half[b->stack] = (int)b->P / 2, rope.scale[b->stack] = b->pos_scale;
    }
    if (!rope.half[0] && !rope.half[1]) return true;
    if (!send_positions(be, r, s)) return false;
    mm_many_launch(be, false, "rotary angles", mm_many_rope_table, dim3(2, (unsigned)r->n),
                   dim3(mm_many_pairs), 0, r->rope, r->at, rope);
    return true;
}

// ---- products ----

// An operand of `cols` columns in the forms that these matrices meet.
static struct mm_many_operand meets(struct mm_many_operand o, int64_t cols, struct mm_view w,
                                    struct mm_view w2) {
    bool halves = false, codes = false;
    for (const struct mm_view &v : {w, w2}) {
        if (!v.data) continue;
        codes = codes || mm_dtype_quantized(v.dtype);
        halves = halves || !mm_dtype_quantized(v.dtype);
    }
    o.cols = (int)cols;
    if (!halves) o.u = NULL;
    if (!codes) o.codes = NULL;
    return o;
}

// y (padded, N) f32 = x w^T, or y += x w^T, by cuBLASLt.
static void product(struct mm_backend *be, const struct rows *r, float *y, int64_t y_ld,
                    const struct mm_many_operand &x, struct mm_view w, bool add) {
    struct mm_view to = mm_view2(y, mm_dtype_f32, r->padded, w.shape[0]);
    to.ld = y_ld;
    const struct mm_view from = mm_view2(x.u, mm_dtype_bf16, r->padded, mm_view_cols(w));
    mm_linear_add_fwd_cuda(be, to, from, w, add ? to : MM_NONE);
}

// What of the next product's weights (one or two matrices) is brought ahead of it.
static struct mm_many_ahead ahead_of(struct mm_backend *be, const struct rows *r, struct mm_view w,
                                     struct mm_view w3) {
    int64_t bytes = w3.data ? 4 << 20 : 8 << 20;
    if (!w.data || !own_parts(be, r, w)) return {};
    for (const struct mm_view &v : {w, w3}) {
        const int64_t all = (v.shape[0] - 1) * mm_many_row_bytes(v) + mm_many_code_bytes(v);
        if (v.data && all < bytes) bytes = all / 16 * 16;
    }
    return {{(const char *)w.data, (const char *)w3.data}, bytes};
}

static struct mm_many_product own_product(const struct rows *r, float *y, int64_t y_ld,
                                          const struct mm_many_operand &x, struct mm_view w) {
    struct mm_many_product p = {};
    p.w = w, p.x = x, p.n = r->n, p.padded = r->padded;
    p.out = y, p.out_ld = y_ld, p.part = r->padded * y_ld;
    return p;
}

// y = u w^T, or its parts, whose number is returned; `next` is the product after it.
static int project_by(struct mm_backend *be, const struct rows *r, float *y, int64_t y_ld,
                      struct mm_view w, struct mm_view next) {
    const int parts = own_parts(be, r, w);
    if (!parts) {
        product(be, r, y, y_ld, r->u, w, false);
        return 1;
    }
    struct mm_many_product p = own_product(r, y, y_ld, r->u, w);
    p.before = r->before, p.ahead = ahead_of(be, r, next, MM_NONE);
    mm_many_hopper(be, &p, parts);
    return parts;
}

static void project(struct mm_backend *be, struct rows *r, const struct mm_step_block *b) {
    r->z_parts = project_by(be, r, r->z, r->z_cols, b->in[0], b->in[1]);
    if (b->in[1].data)
        r->gates_parts = project_by(be, r, r->gates, r->gates_cols, b->in[1], MM_NONE);
}

// What follows a product that adds to x: a norm, and the one or two products of its result.
struct follows {
    struct mm_view norm;  // none: something else comes between, or wants the result in f32
    float eps;
    struct mm_view w, w2;
};

// Whether the product with `w` and those that follow make the norm between them themselves.
static bool folds(struct mm_backend *be, const struct rows *r, struct mm_view w,
                  const struct follows &f) {
    return f.norm.data && r->early && mm_many_hopper_meets(be, w, r->padded) &&
           own_parts(be, r, f.w) && (!f.w2.data || own_parts(be, r, f.w2));
}

// x += in w^T, or the parts of what x then lacks; or x, and u but for the factors of its rows
static void add_product(struct mm_backend *be, struct rows *r, const struct mm_many_operand &in,
                        struct mm_view w, const struct follows &f) {
    const int parts = r->x_parts = own_parts(be, r, w);
    r->before = {};
    if (!parts) {
        product(be, r, r->x, w.shape[0], in, w, true);
        return;
    }
    struct mm_many_product p = own_product(r, r->sums, w.shape[0], in, w);
    // gates and dt come after the rest of their projection
    p.ahead = ahead_of(be, r, f.w, f.w2.shape[0] == f.w.shape[0] ? f.w2 : MM_NONE);
    if (folds(be, r, w, f)) {
        p.after = {r->x, meets(r->u, w.shape[0], f.w, f.w2), (const float *)f.norm.data, r->ss,
                   r->met};
        r->before = {r->ss, r->x_tiles, (int)w.shape[0], f.eps};
        r->met += r->x_tiles, r->x_parts = 0;
    }
    mm_many_hopper(be, &p, parts);
}

// s = silu(u w1^T) * (u w3^T)
static void gate(struct mm_backend *be, struct rows *r, const struct mm_step_block *b) {
    if (own_parts(be, r, b->w1) && own_parts(be, r, b->w3)) {
        struct mm_many_product p = {};
        p.w = b->w1, p.w3 = b->w3, p.x = r->u, p.n = r->n, p.padded = r->padded;
        p.gated = meets(r->s, b->F, b->w2, MM_NONE), p.before = r->before;
        p.ahead = ahead_of(be, r, b->w2, MM_NONE);
        p.gated_sums = r->s_sums, p.gated_met = r->met;
        if (p.gated.codes) r->met += r->f_cols / mm_quant_block;
        mm_many_hopper(be, &p, 1);
        return;
    }
    product(be, r, r->a, b->F, r->u, b->w1, false);
    product(be, r, r->b, b->F, r->u, b->w3, false);
    const int64_t n = r->n * b->F / 4;
    mm_many_launch(be, r->early, "silu(a) * b", mm_many_gate, dim3((unsigned)((n + 255) / 256)),
                   dim3(256), 0, r->s.u, r->a, r->b, n);
}

static void logits(struct mm_backend *be, const struct rows *r, const struct mm_step *s) {
    const int64_t V = s->output.shape[0], whole = V >= 1024 ? V / 8 * 8 : V;
    float *y = r->logit_cols ? r->logits : (float *)s->logits.data;
    const int64_t ld = r->logit_cols ? r->logit_cols : s->logits.ld;
    if (own_parts(be, r, s->output)) {
        const struct mm_many_product p = own_product(r, y, ld, r->u, s->output);
        mm_many_hopper(be, &p, 1);
        return;
    }
    // the last columns apart where the rows of weights are no multiple of eight, as above
    product(be, r, y, ld, r->u, mm_view_rows(s->output, 0, whole), false);
    if (whole < V)
        product(be, r, y + whole, ld, r->u, mm_view_rows(s->output, whole, V - whole), false);
    if (!r->logit_cols) return;
    struct mm_view from = mm_view2(y, mm_dtype_f32, r->n, V);
    from.ld = ld;
    mm_copy_cuda(be, s->logits, from);
}

// ---- between products ----

// u, as the matrices of `next` meet it.
static void norm(struct mm_backend *be, struct rows *r, const struct mm_step *s, struct mm_view w,
                 float eps, const struct mm_view (&next)[2], struct mm_view from,
                 struct mm_view hidden) {
    struct mm_many_norm a = {};
    a.u = meets(r->u, mm_view_cols(s->x), next[0], next[1]), a.x = r->x,
    a.w = (const float *)w.data;
    a.cols = (int)mm_view_cols(s->x), a.eps = eps;
    a.from = (const float *)from.data, a.from_ld = from.ld;
    a.sums = r->sums, a.part = r->padded * a.cols, a.parts = r->x_parts;
    a.hidden = (float *)hidden.data, a.hidden_ld = hidden.ld;
    // the first kernel of a step waits for all before
    mm_many_launch(be, r->early && !from.data, "norms of rows", mm_many_norm_rows,
                   dim3((unsigned)r->n), dim3(mm_many_norm_threads), 0, a);
    r->x_parts = 0;
}

static struct mm_many_z projected(const struct rows *r) {
    return {r->z, r->z_cols, r->padded * r->z_cols, r->z_parts};
}

// Shared memory of mm_many_mamba2: v, k, q and y of a group, and its heads' steps and decays.
static size_t mixer_bytes(const struct mm_step_block *b) {
    const int64_t ratio = b->H / b->G;
    return (size_t)((2 + 2 * ratio) * b->P + 2 * ratio) * sizeof(float);
}

static void mamba2(struct mm_backend *be, const struct rows *r, const struct mm_step_block *b,
                   int64_t index) {
    struct mm_many_mixer m = {};
    m.z = projected(r), m.o = meets(r->o, b->H * b->P, b->wo, MM_NONE);
    m.gates = m.z;
    m.gates.p += (2 * b->G + b->H) * b->P;
    if (b->in[1].data)
        m.gates = {r->gates, r->gates_cols, r->padded * r->gates_cols, r->gates_parts};
    m.states = r->states + index * r->n, m.stopped = r->stopped;
    m.H = (int)b->H, m.G = (int)b->G, m.P = (int)b->P, m.K = (int)mm_view_cols(b->conv_w);
    m.conv_w = (const float *)b->conv_w.data, m.conv_b = (const float *)b->conv_b.data;
    m.dt_bias = (const float *)b->dt_bias.data;
    m.a_log = (const float *)b->a_log.data, m.d = (const float *)b->d.data;
    m.q_w = (const float *)b->q_norm_w.data, m.q_b = (const float *)b->q_norm_b.data;
    m.k_w = (const float *)b->k_norm_w.data, m.k_b = (const float *)b->k_norm_b.data;
    m.g_norm = (const float *)b->g_norm.data;
    m.ahead = ahead_of(be, r, b->wo, MM_NONE);
    mm_many_launch(be, r->early, "the recurrence of a token",
                   m.P == 128 ? mm_many_mamba2<128> : mm_many_mamba2<0>,
                   dim3((unsigned)b->G, (unsigned)r->n), dim3(mm_many_threads), mixer_bytes(b), m);
}

static void attention(struct mm_backend *be, const struct rows *r, const struct mm_step_block *b,
                      int64_t index, bool half) {
    struct mm_many_attention a = {};
    a.z = projected(r), a.o = meets(r->o, b->H * b->P, b->wo, MM_NONE);
    a.states = r->states + index * r->n, a.stopped = r->stopped, a.at = r->at, a.rope = r->rope,
    a.part = r->part;
    a.H = (int)b->H, a.G = (int)b->G, a.P = (int)b->P, a.stack = b->stack, a.half = half;
    a.pieces = r->pieces[b->stack];
    const dim3 grid((unsigned)a.pieces, (unsigned)b->G, (unsigned)r->n);
    const int ratio = a.H / a.G;
    void (*const kernel)(struct mm_many_attention) = ratio == 1   ? mm_many_attend<1>
                                                     : ratio == 2 ? mm_many_attend<2>
                                                                  : mm_many_attend<4>;
    mm_many_launch(be, r->early, "attention of a token", kernel, grid, dim3(mm_many_threads), 0, a);
    mm_many_launch(be, r->early, "merging attention of a token", mm_many_merge,
                   dim3((unsigned)b->H, (unsigned)r->n), dim3(32), 0, a);
}

static void block(struct mm_backend *be, struct rows *r, const struct mm_step *s, int64_t i) {
    const struct mm_step_block *b = &s->blocks[i];
    const bool first = i == 0 && s->l2_before != 0;
    if (!r->before.ss)
        norm(be, r, s, b->attention_norm, b->eps, {b->in[0], b->in[1]}, first ? s->x : MM_NONE,
             MM_NONE);
    project(be, r, b);
    if (b->attention) {
        attention(be, r, b, i, s->seqs[0].blocks[i].k.dtype == mm_dtype_bf16);
    } else {
        mamba2(be, r, b, i);
    }
    // each norm is a kernel only where the product before has not made it (folds)
    add_product(be, r, r->o, b->wo, {b->ffn_norm, b->eps, b->w1, b->w3});
    if (!r->before.ss) norm(be, r, s, b->ffn_norm, b->eps, {b->w1, b->w3}, MM_NONE, MM_NONE);
    gate(be, r, b);
    const bool last = i + 1 == s->n_blocks, plain = !last && i + 1 != s->l2_before;
    add_product(be, r, r->s, b->w2,
                {plain ? b[1].attention_norm : MM_NONE, plain ? b[1].eps : 0.0f,
                 last ? s->output : b[1].in[0], last ? MM_NONE : b[1].in[1]});
}

static void l2norm(struct mm_backend *be, struct rows *r, const struct mm_step *s) {
    const int64_t D = mm_view_cols(s->x);
    if (s->l2_before == 0) mm_copy_cuda(be, mm_view2(r->x, mm_dtype_f32, r->n, D), s->x);
    mm_many_launch(be, r->early && s->l2_before > 0, "L2 norms of rows", mm_many_l2_rows,
                   dim3((unsigned)r->n), dim3(mm_many_threads), 0, r->x, (int)D, r->sums,
                   r->padded * D, r->x_parts);
    r->x_parts = 0;
}

// Rows that a step computes at a time, wanted or not.
static int64_t padded_of(const struct mm_step *s, bool codes) {
    return padded_rows(codes && s->n_seqs > mm_step_many_codes ? mm_step_many_codes : s->n_seqs);
}

bool mm_step_many_fits(struct mm_backend *be, const struct mm_step *s) {
    const int64_t padded = padded_of(s, true);
    const auto fits = [&](struct mm_view w) {
        return mm_dtype_quantized(w.dtype) ? mm_many_hopper_parts(be, w, padded) > 0
                                           : w.dtype == mm_dtype_bf16;
    };
    if (s->output.data && !fits(s->output)) return false;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        for (const struct mm_view &w : {b->in[0], b->wo, b->w1, b->w3, b->w2})
            if (!fits(w)) return false;
        // what is gated is in the form of the two that it comes of
        if (mm_dtype_quantized(b->w1.dtype) != mm_dtype_quantized(b->w2.dtype)) return false;
        if (b->in[1].data && b->in[1].dtype != mm_dtype_bf16) return false;
        if (mixer_bytes(b) > 48 << 10) return false;
    }
    return mm_step_fits(s);
}

static bool begin(struct mm_backend *be, struct rows *r, const struct mm_step *s, int64_t padded) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    if (!cuda->many) cuda->many = (struct mm_step_many_states *)calloc(1, sizeof *cuda->many);
    if (!cuda->many) return mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
    measure(be, r, s, padded);
    const int64_t bytes = lay_out(r, s, NULL);
    char *room = (char *)mm_cuda_scratch(be, mm_cuda_slot_many, (size_t)bytes);
    if (!room) return false;
    lay_out(r, s, room);
    if (r->early && r->x_tiles &&
        !mm_cuda_ok(be, cudaMemsetAsync(r->met, 0, (size_t)met_bytes(r, s), cuda->stream),
                    "clearing a token step's counters"))
        return false;
    return send_states(be, r, s) && send_rope(be, r, s);
}

static void step_all(struct mm_backend *be, const struct mm_step *s, int64_t padded) {
    struct rows r = {};
    if (!begin(be, &r, s, padded)) return;
    for (int64_t i = 0; i < s->n_blocks && !be->error.code; i++) {
        if (i == s->l2_before) l2norm(be, &r, s);
        block(be, &r, s, i);
    }
    if (be->error.code) return;
    norm(be, &r, s, s->norm, s->eps, {s->output, MM_NONE}, s->n_blocks ? MM_NONE : s->x, s->hidden);
    if (s->logits.data) logits(be, &r, s);
}

void mm_step_many(struct mm_backend *be, const struct mm_step *s) {
    const bool codes = has_codes(s);
    const int64_t padded = padded_of(s, codes), most_rows = codes ? padded : s->n_seqs;
    for (int64_t from = 0; from < s->n_seqs && !be->error.code; from += most_rows) {
        struct mm_step some = *s;
        some.n_seqs = s->n_seqs - from < most_rows ? s->n_seqs - from : most_rows;
        some.seqs = s->seqs + from;
        some.x = mm_view_rows(s->x, from, some.n_seqs);
        some.hidden = mm_view_rows(s->hidden, from, some.n_seqs);
        if (s->logits.data) some.logits = mm_view_rows(s->logits, from, some.n_seqs);
        if (s->stopped.data) some.stopped = mm_view_rows(s->stopped, from, some.n_seqs);
        step_all(be, &some, padded);
    }
}
