// A token of many sequences: what of a block each product leaves to do before the next, as one
// kernel over all sequences. Operands of products are bf16, or codes where weights are; the
// residual stream, what products return, states and statistics are f32.
#include "ops/cuda/step_many_kernels.cuh"
#include "ops/cuda/step_plan.cuh"

#include <stdlib.h>

static bool send_positions(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s) {
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

static bool send_rope(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s) {
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
static void product(struct mm_backend *be, const struct mm_many_rows *r, float *y, int64_t y_ld,
                    const struct mm_many_operand &x, struct mm_view w, bool add) {
    struct mm_view to = mm_view2(y, mm_dtype_f32, r->padded, w.shape[0]);
    to.ld = y_ld;
    const struct mm_view from = mm_view2(x.u, mm_dtype_bf16, r->padded, mm_view_cols(w));
    mm_linear_add_fwd_cuda(be, to, from, w, add ? to : MM_NONE);
}

// What of the next product's weights (one or two matrices) is brought ahead of it.
static struct mm_many_ahead ahead_of(struct mm_backend *be, const struct mm_many_rows *r,
                                     struct mm_view w, struct mm_view w3) {
    int64_t bytes = w3.data ? 4 << 20 : 8 << 20;
    if (!w.data || !mm_many_own_parts(be, r, w)) return {};
    for (const struct mm_view &v : {w, w3}) {
        const int64_t all = (v.shape[0] - 1) * mm_many_row_bytes(v) + mm_many_code_bytes(v);
        if (v.data && all < bytes) bytes = all / 16 * 16;
    }
    return {{(const char *)w.data, (const char *)w3.data}, bytes};
}

static struct mm_many_product own_product(const struct mm_many_rows *r, float *y, int64_t y_ld,
                                          const struct mm_many_operand &x, struct mm_view w) {
    struct mm_many_product p = {};
    p.w = w, p.x = x, p.n = r->n, p.padded = r->padded;
    p.out = y, p.out_ld = y_ld, p.part = r->padded * y_ld;
    return p;
}

// y = u w^T, or its parts, whose number is returned; `next` is the product after it.
static int project_by(struct mm_backend *be, const struct mm_many_rows *r, float *y, int64_t y_ld,
                      struct mm_view w, struct mm_view next) {
    const int parts = mm_many_own_parts(be, r, w);
    if (!parts) {
        product(be, r, y, y_ld, r->u, w, false);
        return 1;
    }
    struct mm_many_product p = own_product(r, y, y_ld, r->u, w);
    p.before = r->before, p.ahead = ahead_of(be, r, next, MM_NONE);
    mm_many_hopper(be, &p, parts);
    return parts;
}

static void project(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step_block *b) {
    int parts[2];
    if (b->in[1].data && mm_many_hopper_split(be, b->in[0], b->in[1], r->padded, parts)) {
        struct mm_many_product codes = own_product(r, r->z, r->z_cols, r->u, b->in[0]),
                               gates = own_product(r, r->gates, r->gates_cols, r->u, b->in[1]);
        codes.before = gates.before = r->before;
        mm_many_hopper_two(be, &codes, &gates, parts);
        r->z_parts = parts[0], r->gates_parts = parts[1];
        return;
    }
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
static bool folds(struct mm_backend *be, const struct mm_many_rows *r, struct mm_view w,
                  const struct follows &f) {
    return f.norm.data && r->early && mm_many_hopper_meets(be, w, r->padded) &&
           mm_many_own_parts(be, r, f.w) && (!f.w2.data || mm_many_own_parts(be, r, f.w2));
}

// x += in w^T, or the parts of what x then lacks; or x, and u but for the factors of its rows
static void add_product(struct mm_backend *be, struct mm_many_rows *r,
                        const struct mm_many_operand &in, struct mm_view w,
                        const struct follows &f) {
    const int parts = r->x_parts = mm_many_own_parts(be, r, w);
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
static void gate(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step_block *b) {
    if (mm_many_own_parts(be, r, b->w1) && mm_many_own_parts(be, r, b->w3)) {
        struct mm_many_product p = {};
        p.w = b->w1, p.w3 = b->w3, p.x = r->u, p.n = r->n, p.padded = r->padded;
        p.gated = meets(r->s, b->F, b->w2, MM_NONE), p.before = r->before;
        p.ahead = ahead_of(be, r, b->w2, MM_NONE);
        p.gated_sums = r->a, p.gated_met = r->met;
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

static void logits(struct mm_backend *be, const struct mm_many_rows *r, const struct mm_step *s) {
    const int64_t V = s->output.shape[0], whole = V >= 1024 ? V / 8 * 8 : V;
    float *y = r->logit_cols ? r->logits : (float *)s->logits.data;
    const int64_t ld = r->logit_cols ? r->logit_cols : s->logits.ld;
    if (mm_many_own_parts(be, r, s->output)) {
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
static void norm(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s,
                 struct mm_view w, float eps, const struct mm_view (&next)[2], struct mm_view from,
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

static struct mm_many_z projected(const struct mm_many_rows *r) {
    return {r->z, r->z_cols, r->padded * r->z_cols, r->z_parts};
}

// Shared memory of mm_many_mamba2: v, k, q and y of a group, and its heads' steps and decays.
static size_t mixer_bytes(const struct mm_step_block *b) {
    const int64_t ratio = b->H / b->G;
    return (size_t)((2 + 2 * ratio) * b->P + 2 * ratio) * sizeof(float);
}

static void mamba2(struct mm_backend *be, const struct mm_many_rows *r,
                   const struct mm_step_block *b, int64_t index) {
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

// For so many heads at a time: 1, 2 or 4 of those that share keys.
typedef void attend_fn(struct mm_many_attention);
static attend_fn *attend_of(int heads) {
    return heads == 1 ? mm_many_attend<1> : heads == 2 ? mm_many_attend<2> : mm_many_attend<4>;
}
template <int D>
static attend_fn *attend_halves_of(int heads) {
    return heads == 1   ? mm_many_attend_halves<1, D>
           : heads == 2 ? mm_many_attend_halves<2, D>
                        : mm_many_attend_halves<4, D>;
}

static void attention(struct mm_backend *be, const struct mm_many_rows *r,
                      const struct mm_step_block *b, int64_t index, bool half) {
    struct mm_many_attention a = {};
    a.z = projected(r), a.o = meets(r->o, b->H * b->P, b->wo, MM_NONE);
    a.states = r->states + index * r->n, a.stopped = r->stopped, a.at = r->at, a.rope = r->rope,
    a.part = r->part;
    a.H = (int)b->H, a.G = (int)b->G, a.P = (int)b->P, a.stack = b->stack, a.half = half;
    a.pieces = r->pieces[b->stack];
    const int heads = a.H / a.G < 4 ? a.H / a.G : 4;
    const dim3 grid((unsigned)a.pieces, (unsigned)(a.H / heads), (unsigned)r->n);
    const bool products = half && (a.P == 64 || a.P == 128);
    mm_many_launch(be, r->early, "attention of a token",
                   !products   ? attend_of(heads)
                   : a.P == 64 ? attend_halves_of<64>(heads)
                               : attend_halves_of<128>(heads),
                   grid, dim3(products ? mm_many_attend_warps * 32 : mm_many_threads), 0, a);
    mm_many_launch(be, r->early, "merging attention of a token", mm_many_merge,
                   dim3((unsigned)b->H, (unsigned)r->n), dim3(32), 0, a);
}

static void block(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s,
                  int64_t i) {
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

static void l2norm(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s) {
    const int64_t D = mm_view_cols(s->x);
    if (s->l2_before == 0) mm_copy_cuda(be, mm_view2(r->x, mm_dtype_f32, r->n, D), s->x);
    mm_many_launch(be, r->early && s->l2_before > 0, "L2 norms of rows", mm_many_l2_rows,
                   dim3((unsigned)r->n), dim3(mm_many_threads), 0, r->x, (int)D, r->sums,
                   r->padded * D, r->x_parts);
    r->x_parts = 0;
}

bool mm_step_many_fits(struct mm_backend *be, const struct mm_step *s) {
    const int64_t padded = mm_many_padded(s, true);
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

static void step_all(struct mm_backend *be, const struct mm_step *s, int64_t padded) {
    struct mm_many_rows r = {};
    if (!mm_many_rows_begin(be, &r, s, padded) || !send_rope(be, &r, s)) return;
    for (int64_t i = 0; i < s->n_blocks && !be->error.code; i++) {
        if (i == s->l2_before) l2norm(be, &r, s);
        block(be, &r, s, i);
    }
    if (be->error.code) return;
    norm(be, &r, s, s->norm, s->eps, {s->output, MM_NONE}, s->n_blocks ? MM_NONE : s->x, s->hidden);
    if (s->logits.data) logits(be, &r, s);
}

void mm_step_many(struct mm_backend *be, const struct mm_step *s) {
    const bool codes = mm_many_has_codes(s);
    const int64_t padded = mm_many_padded(s, codes), most_rows = codes ? padded : s->n_seqs;
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
