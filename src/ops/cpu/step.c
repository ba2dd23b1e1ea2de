// A token step: all threads walk through the blocks together. A block is six loops with a meeting
// after each: the mixer's projections, the mixer (a head at a time), its output projection, w1 and
// w3 with silu(a) * b, w2; residual rows are added where products end. What every thread needs
// whole and is cheap (a normed row, its codes) each makes for itself.
#include "ops/cpu/step.h"

enum {
    piece_bytes = 1 << 16,  // of weights: the least that a thread takes
    cached_bytes = 1 << 17  // of weights that more than mm_gemv_most rows of x go over in turns
};

static int64_t row_bytes(struct mm_view w) {
    return mm_dtype_quantized(w.dtype) ? mm_quant_row_bytes(w.dtype, mm_view_cols(w))
                                       : w.ld * (int64_t)mm_dtype_bytes(w.dtype);
}

static int64_t grain(struct mm_view w) {
    const int64_t rows = piece_bytes / row_bytes(w);
    return rows < 8 ? 8 : rows;
}

// ---- operands of products ----

// Rows `from` (n, ld), normed by w unless that is NULL, as products with a and b take them.
static struct mm_gemv_x operand(const struct mm_stepping *r, int thread, const float *from,
                                int64_t ld, int64_t k, const float *norm, float eps,
                                struct mm_view a, struct mm_view b) {
    char *room = mm_step_room(r, thread);
    const bool coded = mm_dtype_quantized(a.dtype) || (b.data && mm_dtype_quantized(b.dtype));
    struct mm_gemv_x x = {.k = k};
    if (coded) x = mm_gemv_x_at(room + r->codes_at, r->n, k);
    x.x = from, x.ld = ld;
    if (norm) {
        float *rows = (float *)room;
        for (int64_t t = 0; t < r->n; t++)
            r->k->rmsnorm_fwd(rows + t * k, from + t * ld, norm, eps, k);
        x.x = rows, x.ld = k;
    }
    for (int64_t t = 0; coded && t < r->n; t++)
        mm_gemv_x_code(&r->g, &x, t, x.x + t * x.ld);
    return x;
}

// y[t * ldy + i] = x[t] w[begin + i] for all t.
static void product(const struct mm_stepping *r, float *y, int64_t ldy, struct mm_gemv_x x,
                    struct mm_view w, int64_t begin, int64_t end) {
    int64_t most = end - begin;
    if (r->n > mm_gemv_most) most = cached_bytes / row_bytes(w) + 1;
    for (int64_t at = begin; at < end; at += most) {
        const int64_t stop = end - at < most ? end : at + most;
        for (int64_t t = 0; t < r->n; t += mm_gemv_most) {
            const int64_t n = r->n - t < mm_gemv_most ? r->n - t : mm_gemv_most;
            const struct mm_gemv_x rows = mm_gemv_x_from(x, t);
            mm_gemv_rows_of(&r->g, w.dtype, n)(y + t * ldy + at - begin, ldy, &rows, w, at, stop);
        }
    }
}

// ---- the loops of a block ----

static void project(const struct mm_stepping *r, struct mm_team *team,
                    const struct mm_step_block *b, int thread) {
    const struct mm_gemv_x x = operand(r, thread, r->s->x.data, r->s->x.ld, r->d_dim,
                                       b->attention_norm.data, b->eps, b->in[0], b->in[1]);
    const int64_t first = b->in[0].shape[0];
    const int64_t all = first + (b->in[1].data ? b->in[1].shape[0] : 0);
    int64_t begin, end;
    while (mm_team_take(team, all, grain(b->in[0]), &begin, &end)) {
        const int64_t border = end < first ? end : first;
        if (begin < border) product(r, r->z + begin, r->ldz, x, b->in[0], begin, border);
        if (end > first) {
            const int64_t from = begin > first ? begin : first;
            product(r, r->z + from, r->ldz, x, b->in[1], from - first, end - first);
        }
    }
}

// x += w rows.
static void add_product(const struct mm_stepping *r, struct mm_team *team, struct mm_gemv_x rows,
                        struct mm_view w, int thread) {
    float *y = mm_step_work(r, thread), *x = r->s->x.data;
    int64_t begin, end;
    while (mm_team_take(team, r->d_dim, grain(w), &begin, &end)) {
        for (int64_t at = begin; at < end; at += mm_step_rows) {
            const int64_t n = end - at < mm_step_rows ? end - at : mm_step_rows;
            product(r, y, mm_step_rows, rows, w, at, at + n);
            for (int64_t t = 0; t < r->n; t++) {
                float *to = x + t * r->s->x.ld + at;
                r->k->add(to, to, y + t * mm_step_rows, n);
            }
        }
    }
}

static void gate(const struct mm_stepping *r, struct mm_team *team, const struct mm_step_block *b,
                 int thread) {
    const struct mm_gemv_x x = operand(r, thread, r->s->x.data, r->s->x.ld, r->d_dim,
                                       b->ffn_norm.data, b->eps, b->w1, MM_NONE);
    float *one = mm_step_work(r, thread), *three = one + r->n * mm_step_rows;
    int64_t begin, end;
    while (mm_team_take(team, b->F, grain(b->w1) / 2, &begin, &end)) {
        for (int64_t at = begin; at < end; at += mm_step_rows) {
            const int64_t n = end - at < mm_step_rows ? end - at : mm_step_rows;
            product(r, one, mm_step_rows, x, b->w1, at, at + n);
            product(r, three, mm_step_rows, x, b->w3, at, at + n);
            for (int64_t t = 0; t < r->n; t++) {
                r->k->swiglu_fwd(r->act + t * r->lda + at, one + t * mm_step_rows,
                                 three + t * mm_step_rows, n);
            }
        }
    }
}

static void block(const struct mm_stepping *r, struct mm_team *team, int64_t i, int thread) {
    const struct mm_step_block *b = &r->s->blocks[i];
    project(r, team, b, thread);
    mm_team_meet(team);
    if (b->attention) {
        mm_step_attention(r, team, i, thread);
    } else {
        mm_step_mamba2(r, team, i, thread);
    }
    mm_team_meet(team);
    if (!b->attention) mm_step_conv_past(r, i, thread, mm_team_size(team));
    const int64_t hp = b->H * b->P;
    add_product(r, team, operand(r, thread, r->o, r->ldo, hp, NULL, 0, b->wo, MM_NONE), b->wo,
                thread);
    mm_team_meet(team);
    gate(r, team, b, thread);
    mm_team_meet(team);
    add_product(r, team, operand(r, thread, r->act, r->lda, b->F, NULL, 0, b->w2, MM_NONE), b->w2,
                thread);
    mm_team_meet(team);
}

// ---- the whole ----

static void leave(const struct mm_stepping *r, struct mm_team *team, int thread) {
    const struct mm_step *s = r->s;
    const struct mm_gemv_x x =
        operand(r, thread, s->x.data, s->x.ld, r->d_dim, s->norm.data, s->eps, s->output, MM_NONE);
    for (int64_t t = 0; thread == 0 && t < r->n; t++) {
        memcpy(mm_view_at(s->hidden, t, 0), x.x + t * x.ld, (size_t)r->d_dim * sizeof(float));
    }
    if (!s->logits.data) return;
    int64_t begin, end;
    while (mm_team_take(team, s->output.shape[0], grain(s->output), &begin, &end))
        product(r, (float *)s->logits.data + begin, s->logits.ld, x, s->output, begin, end);
}

static void run(void *arg, struct mm_team *team, int thread) {
    const struct mm_stepping *r = arg;
    if (thread == 0) mm_step_angles(r, thread);
    for (int64_t i = 0; i < r->s->n_blocks; i++) {
        if (i == r->s->l2_before) {
            for (int64_t t = 0; thread == 0 && t < r->n; t++) {
                float *x = mm_view_at(r->s->x, t, 0);
                r->k->l2norm_fwd(x, x, r->d_dim);
            }
            mm_team_meet(team);
        }
        block(r, team, i, thread);
    }
    leave(r, team, thread);
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t padded(int64_t n) {
    return (n + 31) / 32 * 32;
}

// Sizes, and memory for them; false when there is none.
static bool prepare(struct mm_backend *be, struct mm_stepping *r) {
    const struct mm_step *s = r->s;
    int64_t most_k = r->d_dim, work = 2 * r->n * mm_step_rows, heads = 0, p_dim = 0;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        const int64_t more = b->in[1].data ? b->in[1].shape[0] : 0;
        r->ldz = larger(r->ldz, padded(b->in[0].shape[0] + more));
        r->ldo = larger(r->ldo, padded(b->H * b->P));
        r->lda = larger(r->lda, padded(b->F));
        most_k = larger(most_k, larger(b->H * b->P, b->F));
        work = larger(work, b->attention ? mm_step_attention_floats(b) : mm_step_mamba2_floats(b));
        p_dim = larger(p_dim, b->P);
        if (b->attention) heads = larger(heads, b->H);
    }
    r->ld_angles = padded(p_dim / 2);
    r->ld_partial = padded(16 + p_dim);
    r->codes_at = mm_cpu_piece((size_t)larger(r->n * r->d_dim, p_dim) * sizeof(float));
    r->work_at = r->codes_at + mm_cpu_piece(mm_gemv_x_bytes(r->n, most_k));
    r->room_bytes = r->work_at + mm_cpu_piece((size_t)work * sizeof(float));
    const int64_t z = r->n * r->ldz, o = r->n * r->ldo, act = r->n * r->lda;
    const int64_t angles = r->n * 4 * r->ld_angles;
    const int64_t partial = r->n * heads * mm_step_pieces * r->ld_partial;
    const size_t shared = mm_cpu_piece((size_t)(z + o + act + angles + partial) * sizeof(float));
    r->room = mm_cpu_scratch(be, mm_scratch_step,
                             shared + r->room_bytes * (size_t)mm_pool_size(be->pool));
    if (!r->room) return false;
    r->z = (float *)r->room;
    r->o = r->z + z;
    r->act = r->o + o;
    r->angles = r->act + act;
    r->partial = r->angles + angles;
    r->room += shared;
    return true;
}

static bool too_wide(const struct mm_step *s) {
    for (int64_t i = 0; i < s->n_blocks; i++) {
        if (!s->blocks[i].attention && mm_view_cols(s->blocks[i].conv_w) > mm_step_taps)
            return true;
    }
    return false;
}

static void step(struct mm_backend *be, const struct mm_step *s) {
    struct mm_stepping r = {.s = s,
                            .k = mm_kernels_of(be),
                            .x = mm_mixer_kernels(be),
                            .g = mm_gemv_kernels_of(be),
                            .n = s->n_seqs,
                            .d_dim = mm_view_cols(s->x)};
    if (!prepare(be, &r)) return;
    const struct mm_cpu *cpu = be->impl;
    mm_team_run(cpu->team, run, &r);
}

// ---- sequences that have stopped ----

static bool is_stopped(const struct mm_step *s, int64_t t) {
    return s->stopped.data && *(const int32_t *)mm_view_at(s->stopped, t, 0) != 0;
}

static void move_row(struct mm_view v, int64_t to, int64_t from) {
    if (!v.data || to == from) return;
    memcpy(mm_view_at(v, to, 0), mm_view_at(v, from, 0), (size_t)mm_view_cols(v) * sizeof(float));
}

// The rows of the others close up before the step and go back to their places after it: what the
// rows of those that have stopped hold is not specified.
static void step_others(struct mm_backend *be, const struct mm_step *s, int64_t n) {
    const size_t bytes = (size_t)n * sizeof *s->seqs;
    struct mm_step_seq *seqs = mm_cpu_scratch(be, mm_scratch_a, bytes);
    if (!seqs) return;
    struct mm_step some = *s;
    some.seqs = seqs, some.n_seqs = n, some.stopped = MM_NONE;
    some.x = mm_view_rows(s->x, 0, n), some.hidden = mm_view_rows(s->hidden, 0, n);
    if (s->logits.data) some.logits = mm_view_rows(s->logits, 0, n);
    for (int64_t t = 0, i = 0; t < s->n_seqs; t++) {
        if (is_stopped(s, t)) continue;
        move_row(s->x, i, t);
        seqs[i++] = s->seqs[t];
    }
    step(be, &some);
    for (int64_t t = s->n_seqs, i = n; t-- > 0;) {
        if (is_stopped(s, t)) continue;
        i--;
        move_row(s->hidden, t, i);
        move_row(s->logits, t, i);
    }
}

void mm_decode_step_cpu(struct mm_backend *be, const struct mm_step *s) {
    int64_t n = 0;
    for (int64_t t = 0; t < s->n_seqs; t++)
        n += !is_stopped(s, t);
    if (n == 0) return;
    if (too_wide(s)) {
        mm_decode_step_ref(be, s);
    } else if (n < s->n_seqs) {
        step_others(be, s, n);
    } else {
        step(be, s);
    }
}
