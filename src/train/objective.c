#include "train/objective.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "model/acts.h"
#include "ops/dry.h"

static const char *const reduction_names[] = {"batchmean", "token", "completion"};

int mm_kl_reduction_parse(const char *text) {
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, reduction_names[i]) == 0) return i;
    }
    return -1;
}

const char *mm_kl_reduction_name(enum mm_kl_reduction r) {
    return reduction_names[r];
}

static void meanwhile(const struct mm_objective *o) {
    if (o->meanwhile) o->meanwhile(o->meanwhile_arg);
}

// ---- stages 1 and 2 -----------------------------------------------------------------------------

struct layerwise {
    const struct mm_objective *o;
    struct mm_grads *g;
    struct mm_view losses;  // (L) f32, scaled
    int64_t n_converted;
};

// The teacher has just run block i: its mixer input u feeds the student's mixer, its attention
// output is what the student's o should be. No gradient crosses blocks.
static void layer_tap(void *arg, int64_t i, const struct mm_stream *st,
                      const struct mm_block_acts *acts, struct mm_view y, struct mm_arena *arena) {
    (void)y;
    struct layerwise *w = arg;
    struct mm_model *s = w->o->student;
    const struct mm_block *b = &s->blocks[i];
    if (b->mixer != mm_mixer_mamba2) return;
    const size_t mark = mm_arena_mark(arena);
    struct mm_mixer_acts mine = {.u = acts->mix.u};
    mm_mixer_fwd(s, b, st, &mine, NULL, true, arena);
    const int64_t cols = b->stack->H * b->stack->P;
    struct mm_view d_o = mm_acts2(s, arena, st->T, cols);
    const double scale =
        1000.0 * w->o->scale / ((double)w->n_converted * (double)st->T * (double)cols);
    mm_mse(s->be, mm_view_rows(w->losses, i, 1), d_o, mine.o, acts->mix.o, (float)scale);
    mm_mixer_bwd(s, b, st, &mine, w->g, MM_NONE, d_o, arena);
    mm_arena_release(arena, mark);
}

static void run_layerwise(const struct mm_objective *o, const struct mm_objective_input *in,
                          struct mm_grads *g, struct mm_arena *arena,
                          struct mm_objective_result *r) {
    struct mm_model *t = o->teacher, *s = o->student;
    struct layerwise w = {.o = o, .g = g, .losses = mm_take1(arena, s->n_blocks)};
    for (int64_t i = 0; i < s->n_blocks; i++) {
        w.n_converted += s->blocks[i].mixer == mm_mixer_mamba2;
    }
    mm_fill(t->be, w.losses, 0.0f);
    struct mm_forward f = {0};
    const struct mm_tap tap = {layer_tap, &w, false};
    mm_model_fwd(t, &in->layout, in->pixels, NULL, &f, false, false, &tap, arena);
    if (mm_backend_is_dry(t->be)) return;
    meanwhile(o);
    float losses[mm_max_blocks];
    t->be->download(t->be, losses, w.losses.data, (size_t)s->n_blocks * sizeof(float));
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const bool mamba2 = s->blocks[i].mixer == mm_mixer_mamba2;
        r->loss += losses[i] / o->scale;
        r->layer_mse[i] = mamba2 ? losses[i] / o->scale / 1000.0 * (double)w.n_converted : -1.0;
    }
    r->n_positions = in->layout.llm.T;
}

// ---- losses on logits ---------------------------------------------------------------------------

// Which positions count, with what weight.
struct positions {
    int64_t n;
    bool all;
    struct mm_view rows;    // (n) i32, when not all
    struct mm_view weight;  // (n) f32
    struct mm_view target;  // (n) i32, supervised
    struct mm_view losses;  // (n) f32
};

static void choose_positions(struct positions *p, const struct mm_objective *o,
                             const struct mm_objective_input *in, struct mm_arena *arena) {
    struct mm_backend *be = o->student->be;
    const int64_t T = in->layout.llm.T;
    const bool answers =
        o->kind == mm_objective_kind_supervised || o->reduction == mm_kl_reduction_completion;
    p->all = !answers;
    int32_t *rows = mm_xmalloc((size_t)T * sizeof *rows),
            *target = mm_xmalloc((size_t)T * sizeof *target);
    p->n = 0;
    for (int64_t t = 0; t < T; t++) {
        if (answers && in->targets && in->targets[t] < 0) continue;
        rows[p->n] = (int32_t)t;
        target[p->n++] = in->targets ? in->targets[t] : -100;
    }
    double weight = o->scale / (double)(p->n ? p->n : 1);
    if (o->kind == mm_objective_kind_kl && o->reduction == mm_kl_reduction_batchmean) {
        weight = o->scale / (double)in->n_seqs;
    }
    p->rows = mm_take(arena, mm_dtype_i32, p->n);
    p->target = mm_take(arena, mm_dtype_i32, p->n);
    p->weight = mm_take1(arena, p->n);
    p->losses = mm_take1(arena, p->n);
    if (p->n > 0) {
        be->upload(be, p->rows.data, rows, (size_t)p->n * sizeof *rows);
        be->upload(be, p->target.data, target, (size_t)p->n * sizeof *target);
        mm_fill(be, p->weight, (float)weight);
    }
    free(rows);
    free(target);
}

// Rows of logits that are held at a time: V may be 92,553 and T 8,192. Enough that the product with
// the output matrix is one the backend is good at.
static int64_t slice_rows(const struct mm_model *m, int64_t n) {
    int64_t rows = ((int64_t)8 << 20) / m->config.V;
    if (rows < m->be->piece_tokens / 8) rows = m->be->piece_tokens / 8;
    return rows < n ? rows : n;
}

// Rows of V that begin at multiples of eight elements.
static struct mm_view take_logits(const struct mm_model *m, struct mm_arena *arena, enum mm_dtype t,
                                  int64_t rows) {
    const int64_t V = m->config.V, ld = (V + 7) / 8 * 8;
    return mm_view_cut(mm_take_as2(arena, t, rows, ld), 0, V);
}

// Losses and gradient of the hidden rows `hs` (n, D); `ht` are the teacher's, or NULL.
static void logits_loss(const struct mm_objective *o, const struct positions *p, struct mm_grads *g,
                        struct mm_view dh, struct mm_view hs, struct mm_view ht,
                        struct mm_arena *arena) {
    struct mm_model *s = o->student, *t = o->teacher;
    const struct mm_view w = mm_model_w(s, mm_role_output);
    const struct mm_view dw = g->of[s->global[mm_role_output]];
    const int64_t R = slice_rows(s, p->n);
    const enum mm_dtype product = mm_model_product(s), act = mm_model_act(s);
    const struct mm_view ls = take_logits(s, arena, mm_dtype_f32, R),
                         lt = t ? take_logits(s, arena, mm_dtype_f32, R) : MM_NONE,
                         dl = act == mm_dtype_f32 ? ls : take_logits(s, arena, act, R);
    for (int64_t i = 0; i < p->n; i += R) {
        const int64_t n = p->n - i < R ? p->n - i : R;
        const struct mm_view a = mm_view_rows(ls, 0, n), d = mm_view_rows(dl, 0, n),
                             h = mm_view_rows(hs, i, n);
        mm_linear_fwd(s->be, a, h, w, MM_NONE);
        if (t) {
            struct mm_view b = mm_view_rows(lt, 0, n);
            mm_linear_fwd(s->be, b, mm_view_rows(ht, i, n), mm_model_w(t, mm_role_output), MM_NONE);
            mm_kl(s->be, mm_view_rows(p->losses, i, n), d, a, b, mm_view_rows(p->weight, i, n));
        } else {
            mm_cross_entropy(s->be, mm_view_rows(p->losses, i, n), d, a,
                             mm_view_rows(p->target, i, n), mm_view_rows(p->weight, i, n));
        }
        if (dw.data) mm_linear_bwd_w(s->be, dw, MM_NONE, d, h, product);
        mm_linear_bwd_x(s->be, mm_view_rows(dh, i, n), d, w, false);
    }
}

static struct mm_view pick(struct mm_model *m, const struct positions *p, struct mm_view hidden,
                           struct mm_arena *arena) {
    if (p->all) return hidden;
    struct mm_view rows = mm_acts2(m, arena, p->n, m->config.llm.D);
    mm_gather_rows(m->be, rows, hidden, p->rows);
    return rows;
}

static double sum_losses(struct mm_backend *be, const struct positions *p) {
    float *losses = mm_xmalloc((size_t)p->n * sizeof *losses + 1);
    be->download(be, losses, p->losses.data, (size_t)p->n * sizeof *losses);
    double sum = 0.0;
    for (int64_t i = 0; i < p->n; i++)
        sum += losses[i];
    free(losses);
    return sum;
}

static void run_logits(const struct mm_objective *o, const struct mm_objective_input *in,
                       struct mm_grads *g, struct mm_arena *arena, struct mm_objective_result *r) {
    struct mm_model *s = o->student, *t = o->teacher;
    const int64_t T = in->layout.llm.T, D = s->config.llm.D;
    const bool dry = mm_backend_is_dry(s->be);
    struct positions p;
    choose_positions(&p, o, in, arena);
    r->n_positions = p.n;
    if (p.n == 0) return;
    struct mm_view dhidden = mm_acts2(s, arena, T, D);
    struct mm_view ht = MM_NONE;
    if (t) {
        struct mm_forward ft = {0};
        mm_model_fwd(t, &in->layout, in->pixels, NULL, &ft, false, false, NULL, arena);
        ht = pick(t, &p, ft.hidden, arena);
    }
    struct mm_forward f = {.blocks = mm_xcalloc((size_t)s->n_blocks, sizeof *f.blocks)};
    mm_model_fwd(s, &in->layout, in->pixels, NULL, &f, true, o->recompute, NULL, arena);
    const size_t mark = mm_arena_mark(arena);
    struct mm_view hs = pick(s, &p, f.hidden, arena);
    struct mm_view dh = p.all ? dhidden : mm_acts2(s, arena, p.n, D);
    logits_loss(o, &p, g, dh, hs, ht, arena);
    if (!p.all) {
        mm_fill(s->be, dhidden, 0.0f);
        mm_scatter_rows(s->be, dhidden, dh, p.rows);
    }
    mm_arena_release(arena, mark);
    mm_model_bwd(s, &in->layout, &f, g, dhidden, o->recompute, arena);
    free(f.blocks);
    if (dry) return;
    meanwhile(o);
    r->loss = sum_losses(s->be, &p) / o->scale;
}

// ---- how much there is to do --------------------------------------------------------------------

// Matrix elements of a model's blocks that a token meets; trained: of those with a gradient;
// mixers: of converted blocks' mixers, their output projections left out.
static double elements(const struct mm_model *m, const struct mm_grads *trained, bool mixers) {
    double n = 0.0;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        if (p->block < 0 || !p->matrix || !p->used || (trained && !trained->of[i].data)) continue;
        const struct mm_block *block = &m->blocks[p->block];
        if (mixers && (block->mixer != mm_mixer_mamba2 || p->role == mm_role_wo ||
                       p->role == mm_role_w1 || p->role == mm_role_w2 || p->role == mm_role_w3)) {
            continue;
        }
        n += (double)mm_view_count(p->w);
    }
    return n;
}

// Useful operations: the multiplications and additions of products with the blocks' matrices and
// the output's, once forward and, for the student, once for the gradient of what goes in and once
// for that of a matrix that trains. What is computed a second time to save memory does not count,
// nor does anything that is no product.
static double operations(const struct mm_objective *o, const struct mm_objective_input *in,
                         const struct mm_grads *g, int64_t positions) {
    const struct mm_model *s = o->student;
    const double T = (double)in->layout.llm.T;
    double n = o->teacher ? T * elements(o->teacher, NULL, false) : 0.0;
    if (o->kind == mm_objective_kind_layerwise) {
        return 2.0 * (n + T * (elements(s, NULL, true) + elements(s, g, true)));
    }
    n += T * (2.0 * elements(s, NULL, false) + elements(s, g, false));
    const double output = (double)positions * (double)s->config.V * (double)s->config.llm.D;
    n += output * (o->teacher ? 3.0 : 2.0);
    if (g->of[s->global[mm_role_output]].data) n += output;
    return 2.0 * n;
}

enum mm_code mm_objective_run(const struct mm_objective *o, const struct mm_objective_input *in,
                              struct mm_grads *g, struct mm_arena *arena,
                              struct mm_objective_result *r, struct mm_error *err) {
    *r = (struct mm_objective_result){0};
    const size_t mark = mm_arena_mark(arena);
    if (o->kind == mm_objective_kind_layerwise) {
        run_layerwise(o, in, g, arena, r);
    } else {
        run_logits(o, in, g, arena, r);
    }
    r->operations = operations(o, in, g, r->n_positions);
    mm_arena_release(arena, mark);
    return mm_backend_sync(o->student->be, err);
}

size_t mm_objective_plan(const struct mm_objective *o, struct mm_grads *g, int64_t T,
                         int64_t n_seqs, int64_t n_tiles) {
    struct mm_backend *be = o->student->be, dry;
    mm_backend_dry(&dry, be);
    o->student->be = &dry;
    if (o->teacher) o->teacher->be = &dry;
    struct mm_arena arena;
    mm_arena_init_dry(&arena);
    struct mm_objective_input in = {.n_seqs = n_seqs};
    mm_layout_plan(&in.layout, o->student, &arena, T, n_seqs, n_tiles);
    const int64_t S = o->student->config.image_size;
    in.pixels = mm_view4(mm_arena_take(&arena, (size_t)(n_tiles * 3 * S * S) * sizeof(float)),
                         mm_dtype_f32, n_tiles, 3, S, S);
    const size_t mark = mm_arena_mark(&arena);  // pixels as bytes, and what they become
    mm_arena_take(&arena, (size_t)(n_tiles * 3 * S * S));
    mm_take2(&arena, 3, 256);
    mm_arena_release(&arena, mark);
    struct mm_objective_result r;
    struct mm_error err;
    const enum mm_code code = mm_objective_run(o, &in, g, &arena, &r, &err);
    assert(code == mm_code_ok), (void)code;
    o->student->be = be;
    if (o->teacher) o->teacher->be = be;
    return arena.peak;
}

// ---- gradients ----------------------------------------------------------------------------------

enum mm_code mm_grad_memory_init(struct mm_grad_memory *g, const struct mm_model *m,
                                 bool (*want)(const struct mm_param *p, const void *arg),
                                 const void *arg, struct mm_error *err) {
    *g = (struct mm_grad_memory){.be = m->be};
    g->grads.of = mm_xcalloc((size_t)m->n_params, sizeof *g->grads.of);
    // two passes over the same walk: count, then place. Parameters of one stack stay neighbours,
    // so nothing is padded between them.
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        for (int i = 0; i < m->n_params; i++) {
            const struct mm_param *p = &m->params[i];
            if (!p->used || !want(p, arg)) continue;
            if (pass == 1) {
                struct mm_view v = p->w;
                v.dtype = mm_dtype_f32;
                v.data = (char *)g->block + at;
                g->grads.of[i] = v;
            }
            at += (size_t)mm_view_count(p->w) * sizeof(float);
        }
        g->bytes = at;
        if (at == 0) break;
        if (pass == 0) MM_TRY(m->be->alloc(m->be, at, &g->block, err));
    }
    return mm_code_ok;
}

void mm_grad_memory_zero(struct mm_grad_memory *g) {
    mm_fill(g->be, mm_view1(g->block, mm_dtype_f32, (int64_t)(g->bytes / sizeof(float))), 0.0f);
}

void mm_grad_memory_deinit(struct mm_grad_memory *g) {
    if (g->block) g->be->release(g->be, g->block, g->bytes);
    free(g->grads.of);
    *g = (struct mm_grad_memory){0};
}
