// What the host makes of a model once for its token steps: kinds of blocks, where their matrices
// are, and how shared memory is cut for a number of sequences.
#include "ops/cuda/step_plan.cuh"

#include "ops/cuda/step_maps.cuh"

#include <stddef.h>
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
    if (ratio > 256 || (ratio & (ratio - 1)) || ratio * b->G != b->H) return false;
    if (!b->attention && mm_view_cols(b->conv_w) > 4) return false;
    // of the products with bf16 in a quantized model the operand is kept exact; only normed ones
    const bool quantized = mm_dtype_quantized(b->in[0].dtype);
    if (quantized != mm_dtype_quantized(b->wo.dtype) ||
        quantized != mm_dtype_quantized(b->w2.dtype))
        return false;
    if (b->w1.dtype != b->w3.dtype) return false;
    // a block of codes has one scale, so it must be of one head
    if (mm_dtype_quantized(b->wo.dtype) && b->P != mm_quant_block) return false;
    // dt is a product by itself, with bf16
    const struct mm_view dt = b->in[1].data ? b->in[1] : b->in[0];
    if (!b->attention && dt.dtype != mm_dtype_bf16) return false;
    // one matrix, or the gates and dt of a Mamba-2 block by themselves
    const int64_t vkq = (2 * b->G + b->H) * b->P;
    if (b->in[1].data && (b->attention || b->in[0].shape[0] != vkq)) return false;
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

// ---- the model ----

struct list {
    struct mm_step_model model;
    struct mm_step_layer *layers;
    int n_kinds, crews, weights;
};

// Warps that share a tile, so that all have something to do: 2^that.
static int split_of(int tiles, int slots) {
    int log = 3;
    while (log > 0 && (tiles > mm_step_warps >> log || slots < 1 << log))
        log--;
    return log;
}

static struct mm_step_shape shape_of(struct list *l, struct mm_view w) {
    struct mm_step_shape m = {};
    const bool quantized = mm_dtype_quantized(w.dtype);
    m.type = (int)w.dtype, m.rows = (int)w.shape[0], m.k = (int)mm_view_cols(w);
    m.pitch = (int)(quantized ? mm_quant_row_bytes(w.dtype, m.k) : w.ld * 2);
    if (quantized) m.code_bytes = (int)mm_quant_code_bytes(w.dtype, m.k);
    m.blocks = (int)mm_quant_blocks(m.k);
    const bool small = l->weights == mm_dtype_q4 && w.dtype != mm_dtype_q4;
    m.spb = (quantized ? 1 : 2) << (small ? 1 : 0);
    m.slots = (m.k * m.spb + mm_step_block - 1) / mm_step_block;
    return m;
}

// `tiles` of a crew, `per` of a block; all columns, which warps share out where `shared`.
static void cut_rows(struct mm_step_shape *m, int tiles, int per, bool shared) {
    m->tiles = tiles, m->per = per;
    m->split_log = shared ? split_of(per, m->slots) : 0;
    m->per_part = (m->slots + (1 << m->split_log) - 1) >> m->split_log;
}

// A last projection: columns from a crew's first on, `columns` of them; a block's rows are its
// columns of the residual stream.
static void cut_columns(struct mm_step_shape *m, int slice, int columns) {
    m->tiles = (m->rows + mm_step_tile - 1) / mm_step_tile, m->per = slice / mm_step_tile;
    m->split_log = 0;
    m->per_part = (columns + mm_step_block - 1) / mm_step_block * m->spb;
}

static void add_seg(struct mm_step_shape *m, int64_t row, int64_t per_head, int64_t per_group) {
    m->seg[m->n_seg].row = (int)row;
    m->seg[m->n_seg].per_head = (int)per_head, m->seg[m->n_seg].per_group = (int)per_group;
    m->n_seg++;
}

// Rows of a head's parts, `rows` each, the first of them part `z` of z.
static void cut_heads(struct mm_step_shape *m, int64_t rows, int z) {
    const int tiles = rows < mm_step_tile ? 1 : (int)rows / mm_step_tile;
    m->seg_rows = (int)rows, m->seg_z = z;
    while (1 << m->seg_tiles_log < tiles)
        m->seg_tiles_log++;
    const int all = m->n_seg << m->seg_tiles_log;
    cut_rows(m, all, (all + mm_step_crew - 1) / mm_step_crew, true);
}

static void kind_mixer(struct list *l, struct mm_step_kind *t, const struct mm_step_block *b) {
    const int64_t G = b->G, H = b->H, P = b->P, ratio = H / G;
    struct mm_step_shape *in = &t->shape[mm_step_in];
    *in = shape_of(l, b->in[0]);
    if (b->attention) {  // a group's queries, key, value
        add_seg(in, (ratio + 1) * P, 0, (ratio + 2) * P);
        add_seg(in, ratio * P, 0, (ratio + 2) * P);
        add_seg(in, 0, P, 2 * P);
        cut_heads(in, P, 0);
        return;
    }
    const int64_t vkq = (2 * G + H) * P;
    struct mm_step_shape *gate = &t->shape[mm_step_gate];
    add_seg(in, 0, 0, P), add_seg(in, G * P, 0, P), add_seg(in, 2 * G * P, P, 0);
    const struct mm_view rest = b->in[1].data ? b->in[1] : b->in[0];
    t->dt_pitch = (int)rest.ld * 2;
    t->dt_row = (int)(b->in[1].data ? H * P : vkq + H * P) * t->dt_pitch;
    cut_heads(in, P, 0);
    *gate = shape_of(l, rest);
    add_seg(gate, b->in[1].data ? 0 : vkq, P, 0);
    cut_heads(gate, P, 3);
}

static struct mm_step_kind kind_of(struct list *l, const struct mm_step_block *b, int slice) {
    struct mm_step_kind t = {};
    t.attention = b->attention, t.eps = b->eps;
    t.H = (int)b->H, t.P = (int)b->P, t.F = (int)b->F;
    while ((b->G << t.ratio_log) < b->H)
        t.ratio_log++;
    t.pairs = t.attention && t.ratio_log > 0 && l->crews % 2 == 0;
    t.conv_k = b->attention ? 1 : (int)mm_view_cols(b->conv_w);
    t.channels = (int)(b->attention ? b->G * b->P : (2 * b->G + b->H) * b->P);
    t.rounds = (t.H + l->crews - 1) / l->crews;
    const int blocks = (t.F + mm_step_block - 1) / mm_step_block;
    t.unit = (blocks + l->crews - 1) / l->crews * mm_step_block;
    kind_mixer(l, &t, b);
    struct mm_step_shape *wo = &t.shape[mm_step_wo], *w2 = &t.shape[mm_step_w2],
                         *ffn = &t.shape[mm_step_ffn];
    *wo = shape_of(l, b->wo), *w2 = shape_of(l, b->w2), *ffn = shape_of(l, b->w1);
    cut_columns(wo, slice, t.P), cut_columns(w2, slice, t.unit);
    cut_rows(ffn, t.unit / 8, t.unit / 8 / mm_step_crew, false);
    t.codes[0] = t.shape[mm_step_in].type != mm_dtype_bf16;
    t.exact[0] = !t.codes[0] || !b->attention;  // gates and dt
    t.codes[1] = ffn->type != mm_dtype_bf16, t.exact[1] = !t.codes[1];
    return t;
}

static const float *floats(struct mm_view v) {
    return (const float *)v.data;
}

static struct mm_step_layer layer_of(const struct mm_step_block *b, int kind, bool l2norm) {
    struct mm_step_layer y = {};
    y.kind = kind, y.l2norm = l2norm, y.stack = b->stack;
    y.w[mm_step_in] = (const char *)b->in[0].data;
    y.dt = (const char *)(b->in[1].data ? b->in[1].data : b->in[0].data);
    y.w[mm_step_gate] = b->attention ? NULL : y.dt;
    y.w[mm_step_wo] = (const char *)b->wo.data, y.w[mm_step_w2] = (const char *)b->w2.data;
    // in the order of their addresses, as the copy engine wants them (step_maps.cu)
    y.turned = (uintptr_t)b->w3.data < (uintptr_t)b->w1.data;
    y.w[mm_step_ffn] = (const char *)(y.turned ? b->w3.data : b->w1.data);
    y.w3 = (const char *)(y.turned ? b->w1.data : b->w3.data);
    y.norm[0] = floats(b->attention_norm), y.norm[1] = floats(b->ffn_norm);
    y.conv_w = floats(b->conv_w), y.conv_b = floats(b->conv_b);
    y.dt_bias = floats(b->dt_bias), y.a_log = floats(b->a_log), y.d = floats(b->d);
    y.q_norm_w = floats(b->q_norm_w), y.q_norm_b = floats(b->q_norm_b);
    y.k_norm_w = floats(b->k_norm_w), y.k_norm_b = floats(b->k_norm_b);
    y.g_norm = floats(b->g_norm);
    return y;
}

static void weigh(struct list *l, struct mm_view w) {
    if (w.dtype == mm_dtype_q4 || (w.dtype == mm_dtype_q8 && l->weights != mm_dtype_q4))
        l->weights = (int)w.dtype;
}

// False: more kinds of blocks or more heads than there is room for.
static bool fill(struct list *l, const struct mm_step *s, int slice) {
    l->weights = mm_dtype_bf16;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        weigh(l, b->in[0]), weigh(l, b->wo), weigh(l, b->w1), weigh(l, b->w2);
        if (b->in[1].data) weigh(l, b->in[1]);
    }
    if (s->output.data) weigh(l, s->output);
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_kind t = kind_of(l, &s->blocks[i], slice);
        if (t.rounds > mm_step_rounds) return false;
        int k = 0;
        while (k < l->n_kinds && memcmp(&l->model.kinds[k], &t, sizeof t) != 0)
            k++;
        if (k == mm_step_kinds) return false;
        l->model.kinds[k] = t;
        if (k == l->n_kinds) l->n_kinds++;
        l->layers[i] = layer_of(&s->blocks[i], k, i == s->l2_before);
    }
    l->model.n_kinds = l->n_kinds;
    if (!s->output.data) return true;
    struct mm_step_shape *m = &l->model.output;
    *m = shape_of(l, s->output);
    const int tiles = (m->rows + mm_step_tile - 1) / mm_step_tile, n = l->crews * mm_step_crew;
    cut_rows(m, tiles, (tiles + n - 1) / n, false);
    return true;
}

// ---- shared memory ----

static int take(int *at, int64_t bytes) {
    const int here = *at;
    *at += (int)((bytes + 127) / 128 * 128);
    return here;
}

// Cuts it for n sequences, slots of queues first; false where that does not fit.
static bool cut_room(struct mm_step_plan *p, int n, int warps) {
    struct mm_step_args *a = &p->args;
    struct mm_step_room *r = &a->room;
    const bool quantized = p->weights != mm_dtype_bf16;
    const int64_t row = !quantized ? mm_step_row_bf16
                        : n == 1   ? mm_step_row_codes_one
                                   : mm_step_row_codes;
    int at = 0;
    const bool attends = a->rope_half[0] > 0 || a->rope_half[1] > 0;
    r->red = take(&at, n == 1 && !attends ? 2 * warps * mm_step_tile * 4
                                          : 4 * mm_step_warps * mm_step_block * 4);
    r->dt = take(&at, mm_step_dt_ways * 8 * 4);
    r->local = take(&at, p->local_blocks * n * (p->exact_last ? mm_step_row_exact : row));
    r->operand = take(&at, a->D_blocks * n * row);
    r->exact = take(&at, p->exact ? (int64_t)a->D_blocks * n * mm_step_row_exact : 0);
    r->squares = take(&at, (int64_t)n * mm_squares_of(a->D_blocks) * 4);
    r->z = take(&at, (int64_t)n * a->z_ld * 4);
    r->stream = take(&at, n == 1 ? a->D_blocks * mm_step_block * 4 : (int64_t)n * a->slice * 4);
    r->fresh = take(&at, (int64_t)p->rounds * n * mm_step_rows * 4);
    r->sum = take(&at, p->rounds > 1 ? (int64_t)n * a->slice * 4 : 0);
    r->conv = take(&at, (int64_t)p->rounds * n * mm_step_rows * 8 * 4);
    r->parts = take(&at, (int64_t)(p->n_kinds * a->ops + 1) * warps * mm_part_bytes);
    r->items = take(&at, (int64_t)p->n_kinds * p->rounds * mm_step_rows * 16);
    r->states = take(&at, p->n_blocks * n * (int64_t)sizeof(struct mm_step_state));
    r->layers = take(&at, p->n_blocks * (int64_t)sizeof(struct mm_step_layer));
    r->model = take(&at, a->model_bytes);
    r->lanes = take(&at, warps > mm_step_warps && p->weights == mm_dtype_q4 ? 32 * 16 : 0);
    r->pace = take(&at, sizeof(unsigned));
    r->zeros = take(&at, n == 1 ? mm_sums_piece : 0);
    r->numbers = take(&at, 2 * (int64_t)sizeof(unsigned));
    const int queues = mm_step_queues(p->weights, p->device.shared - at, warps, a);
    if (queues == 0) return false;
    for (int *o = &r->red; o <= &r->numbers; o++)
        *o += queues;
    r->bytes = at + queues;
    a->n = n, p->warps = warps;
    return true;
}

bool mm_step_plan_cut(struct mm_step_plan *p, int n) {
    const int warps = n == 1 && p->args.group_maps ? mm_step_twice : mm_step_warps;
    if (p->args.n == n && p->warps == warps) return true;
    return cut_room(p, n, warps) || cut_room(p, n, mm_step_warps);
}

// ---- the plan on the device ----

static bool make_room(struct mm_backend *be, struct mm_step_plan *p, const struct mm_step *s,
                      const struct list *l) {
    struct mm_step_args *a = &p->args;
    const size_t layers = (size_t)s->n_blocks * sizeof *l->layers;
    const size_t states = (size_t)s->n_blocks * mm_step_cols * sizeof(struct mm_step_state);
    const size_t parts = (size_t)2 * (size_t)a->crews * mm_step_cols * (size_t)a->D_blocks *
                         mm_step_block * sizeof(uint64_t);
    const size_t rope = (size_t)mm_step_cols * 2 * 128 * sizeof(float2);
    const size_t exchange = (size_t)a->crews * (size_t)a->ex.words * sizeof(uint64_t);
    const size_t maps = 2 * mm_step_maps_bytes(a->n_layers);
    // four turns; groups have 32 bytes of them in a line of 128 (mm_sums_apart)
    const size_t sums = (size_t)(4 * 4 * a->D_blocks * mm_step_block + 1) * sizeof(uint64_t);
    size_t at = 0, where[8];
    const size_t sizes[8] = {sizeof l->model, layers, states, parts, rope, exchange, maps, sums};
    for (int i = 0; i < 8; i++)
        where[i] = at, at += (sizes[i] + 255) / 256 * 256;
    p->bytes = at;
    p->work = (char *)mm_cuda_take(be, p->bytes, "what a token step works in", &be->error);
    if (!p->work ||
        !mm_cuda_ok(be, cudaMemsetAsync(p->work, 0, p->bytes, mm_cuda_of(be)->stream),
                    "cudaMemset") ||
        !mm_cuda_ok(be, cudaStreamSynchronize(mm_cuda_of(be)->stream), "cudaMemset"))
        return false;
    be->scratch_bytes += p->bytes;
    a->model = (const struct mm_step_model *)(p->work + where[0]);
    a->layers = (const struct mm_step_layer *)(p->work + where[1]);
    a->states = (const struct mm_step_state *)(p->work + where[2]);
    a->parts = (uint64_t *)(p->work + where[3]);
    a->rope = (float2 *)(p->work + where[4]);
    a->exchange = (uint64_t *)(p->work + where[5]);
    a->sums = (uint64_t *)(p->work + where[7]);
    // a copy from pageable memory has read it when it returns
    return mm_cuda_ok(be, cudaMemcpy(p->work, &l->model, sizeof l->model, cudaMemcpyDefault),
                      "copying a token step's model") &&
           mm_cuda_ok(be, cudaMemcpy(p->work + where[1], l->layers, layers, cudaMemcpyDefault),
                      "copying a token step's model") &&
           mm_step_maps_make(be, a, p->work + where[6], l->weights, &l->model, l->layers);
}

// Where the words of a crew are.
static void cut_exchange(struct mm_step_exchange *ex, const struct mm_step_args *a, bool quantized,
                         bool exact) {
    ex->x_exact = mm_words_codes;
    ex->x_block = !quantized ? mm_words_bf16 : mm_words_codes + (exact ? mm_words_exact : 0);
    ex->x = 0;
    ex->z = ex->x + 2 * mm_step_cols * a->D_blocks * ex->x_block;
    ex->y = ex->z + 2 * mm_step_rounds * mm_step_cols * a->z_ld;
    ex->s = ex->y + 2 * mm_step_rounds * mm_step_cols * ex->y_ld;
    ex->words = ex->s + 2 * mm_step_cols * ex->s_ld;
}

static void measure(struct mm_step_plan *p, const struct mm_step *s, const struct list *l) {
    struct mm_step_args *a = &p->args;
    p->weights = (enum mm_dtype)l->weights, p->n_kinds = l->n_kinds;
    a->model_bytes = (int)(offsetof(struct mm_step_model, kinds) +
                           (size_t)l->n_kinds * sizeof(struct mm_step_kind) + 15) /
                     16 * 16;
    const bool quantized = l->weights != mm_dtype_bf16;
    a->out_codes = s->output.data && mm_dtype_quantized(s->output.dtype);
    a->n_layers = (int)s->n_blocks, a->norm = floats(s->norm), a->eps = s->eps;
    a->output = (const char *)s->output.data;
    p->exact = quantized && !a->out_codes;
    for (int k = 0; k < l->n_kinds; k++) {
        const struct mm_step_kind *t = &l->model.kinds[k];
        const int z = 4 * t->P + (t->attention ? 4 : mm_step_dt_ways);
        const int parts = t->pairs ? 2 * mm_step_crew : mm_step_crew;
        const int y = t->attention ? parts * (t->P + 4) : t->P;
        if (z > a->z_ld) a->z_ld = z;
        if (y > a->ex.y_ld) a->ex.y_ld = y;
        if (t->unit > a->ex.s_ld) a->ex.s_ld = t->unit;
        if (t->rounds > p->rounds) a->rounds = p->rounds = t->rounds;
        if (t->unit / mm_step_block > p->local_blocks) p->local_blocks = t->unit / mm_step_block;
        p->exact = p->exact || (quantized && (t->exact[0] || t->exact[1]));
        p->exact_last = p->exact_last || (quantized && t->shape[mm_step_wo].type == mm_dtype_bf16);
    }
    a->ops = 3 * p->rounds + 2;
    cut_exchange(&a->ex, a, quantized, p->exact);
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        if (!b->attention) continue;
        a->rope_half[b->stack] = (int)b->P / 2;
        a->rope_scale[b->stack] = b->pos_scale;
    }
    for (p->cols = mm_step_cols; p->cols > 0 && !cut_room(p, p->cols, mm_step_warps);)
        p->cols--;
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
    if (p->work) {
        be->scratch_bytes -= p->bytes;
        mm_cuda_give(be, p->work, p->bytes);
    }
    free(p->blocks);
    free(p->states);
    free(p);
}

static struct mm_step_plan *plan_new(struct mm_backend *be, const struct mm_step *s,
                                     const struct mm_step_device *device) {
    struct mm_step_plan *p = (struct mm_step_plan *)calloc(1, sizeof *p);
    struct list *l = (struct list *)calloc(1, sizeof *l);
    const size_t n = (size_t)s->n_blocks;
    if (p) p->blocks = (struct mm_step_block *)malloc(n * sizeof *p->blocks + 1);
    if (p) p->states = (struct mm_step_state *)calloc(n * mm_step_cols + 1, sizeof *p->states);
    if (l) l->layers = (struct mm_step_layer *)calloc(n + 1, sizeof *l->layers);
    mm_cuda_of(be)->step = p;
    bool ok = p && p->blocks && p->states && l && l->layers;
    if (!ok) mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
    if (ok) {
        memcpy(p->blocks, s->blocks, n * sizeof *p->blocks);
        p->n_blocks = s->n_blocks, p->l2_before = s->l2_before, p->eps = s->eps;
        p->norm = s->norm, p->output = s->output, p->device = *device, p->meeting = 2;
        struct mm_step_args *a = &p->args;
        a->D = (int)mm_view_cols(s->x), a->share = 1.0f / (float)a->D;
        a->crews = l->crews = device->crews;
        a->givers = mm_cuda_givers(mm_cuda_of(be));
        a->D_blocks = (a->D + mm_step_block - 1) / mm_step_block;
        a->slice = (a->D_blocks + mm_step_crew - 1) / mm_step_crew * mm_step_block;
        if (fill(l, s, a->slice)) measure(p, s, l);
        ok = p->cols == 0 || make_room(be, p, s, l);
    }
    if (l) free(l->layers);
    free(l);
    return ok ? p : NULL;
}

struct mm_step_plan *mm_step_plan_of(struct mm_backend *be, const struct mm_step *s,
                                     const struct mm_step_device *device) {
    struct mm_step_plan *p = mm_cuda_of(be)->step;
    if (p && plan_is_of(p, s)) return p;
    // kernels that use the old one have ended when cudaFree returns
    mm_step_plan_free(be);
    return plan_new(be, s, device);
}
