// Decoding: the model described once as mm_decode_step takes it, and one token of some sequences.
#include "model/model.h"
#include "ops/take.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static void describe(struct mm_step_block *to, const struct mm_model *m, const struct mm_block *b,
                     int stack, struct mm_view zeros) {
    const struct mm_stack_config *s = b->stack;
    const bool attention = b->mixer == mm_mixer_mha;
    *to = (struct mm_step_block){.attention = attention,
                                 .stack = stack,
                                 .H = s->H,
                                 .G = s->G,
                                 .P = s->P,
                                 .F = s->F,
                                 .eps = (float)s->rms_eps,
                                 .pos_scale = mm_rope_scale(s)};
    to->attention_norm = mm_block_w(m, b, mm_role_attention_norm);
    to->ffn_norm = mm_block_w(m, b, mm_role_ffn_norm);
    if (attention) {
        to->in[0] = mm_block_w(m, b, mm_role_wqkv);
    } else if (mm_model_quantized(m)) {
        to->in[0] = b->wvkq, to->in[1] = b->wgdt;
    } else {
        to->in[0] = b->wvkqgdt;
    }
    to->wo = mm_block_w(m, b, mm_role_wo);
    to->w1 = mm_block_w(m, b, mm_role_w1);
    to->w3 = mm_block_w(m, b, mm_role_w3);
    to->w2 = mm_block_w(m, b, mm_role_w2);
    if (attention) return;
    to->conv_w = mm_block_w(m, b, mm_role_conv_w);
    to->conv_b = mm_block_w(m, b, mm_role_conv_b);
    to->dt_bias = mm_block_w(m, b, mm_role_dt_bias);
    to->a_log = mm_block_w(m, b, mm_role_A_log);
    if (!s->use_A) to->a_log = mm_view1(zeros.data, mm_dtype_f32, s->H);  // A is -1
    to->d = mm_block_w(m, b, mm_role_D);
    to->q_norm_w = mm_block_w(m, b, mm_role_q_norm_w);
    to->q_norm_b = mm_block_w(m, b, mm_role_q_norm_b);
    to->k_norm_w = mm_block_w(m, b, mm_role_k_norm_w);
    to->k_norm_b = mm_block_w(m, b, mm_role_k_norm_b);
    to->g_norm = mm_block_w(m, b, mm_role_g_norm);
}

// Whose tokens a row of `seen` has, and how many of them.
struct mm_stepper_seen {
    uint64_t answer;
    int64_t n;
};

static int64_t words_of(const struct mm_model *m) {
    return (m->config.V + 31) / 32;
}

// Takes the rows from the arena; returns zeros for decays that are no parameter.
static struct mm_view take_rows(struct mm_stepper *p, struct mm_arena *arena, int64_t n) {
    const struct mm_config *c = &p->m->config;
    p->x = mm_take2(arena, n, c->llm.D);
    p->hidden = mm_take2(arena, n, c->llm.D);
    // rows of logits begin at multiples of eight: products on a GPU want that
    p->logits = mm_view_cut(mm_take2(arena, n, (c->V + 7) / 8 * 8), 0, c->V);
    p->ids = mm_take(arena, mm_dtype_i32, n);
    p->drawn = mm_take(arena, mm_dtype_i32, mm_stepper_ahead * n);
    p->banned = mm_take(arena, mm_dtype_i32, mm_stepper_banned);
    p->stopped = mm_take(arena, mm_dtype_i32, n);
    p->kept = p->m->be->steps_ahead > 1 ? mm_take2(arena, n, c->V) : MM_NONE;
    const struct mm_view words = mm_take(arena, mm_dtype_i32, n * words_of(p->m));
    p->seen = mm_view2(words.data, mm_dtype_i32, n, words_of(p->m));
    return mm_take1(arena, c->embed.H > c->llm.H ? c->embed.H : c->llm.H);
}

enum mm_code mm_stepper_reserve(struct mm_stepper *p, struct mm_model *m, int64_t n,
                                struct mm_error *err) {
    if (p->m == m && n <= p->max) return mm_code_ok;
    mm_stepper_deinit(p);
    p->m = m;
    struct mm_arena arena;
    mm_arena_init_dry(&arena);
    take_rows(p, &arena, n);
    p->bytes = arena.peak;
    enum mm_code code = m->be->alloc(m->be, p->bytes, &p->memory, err);
    if (code) {
        *p = (struct mm_stepper){0};
        return code;
    }
    mm_arena_init_over(&arena, p->memory, p->bytes);
    const struct mm_view zeros = take_rows(p, &arena, n);
    p->max = n;
    p->states = mm_xcalloc((size_t)n, sizeof(struct mm_state *));
    p->tokens = mm_xcalloc((size_t)n, sizeof *p->tokens);
    p->wanted = mm_xcalloc((size_t)n, sizeof(float *));
    p->draws = mm_xcalloc((size_t)n, sizeof *p->draws);
    p->seen_of = mm_xcalloc((size_t)n, sizeof *p->seen_of);
    p->words = mm_xcalloc((size_t)words_of(m), sizeof *p->words);
    p->text = mm_xcalloc((size_t)n, sizeof *p->text);
    p->how = mm_xcalloc((size_t)(mm_stepper_ahead * n), sizeof *p->how);
    p->is_kept = mm_xcalloc((size_t)n, sizeof *p->is_kept);
    p->seqs = mm_xcalloc((size_t)n, sizeof *p->seqs);
    p->blocks = mm_xcalloc((size_t)m->n_blocks, sizeof *p->blocks);
    for (int64_t i = 0; i < m->n_blocks; i++)
        describe(&p->blocks[i], m, &m->blocks[i], i >= m->config.embed.n_blocks, zeros);
    return mm_code_ok;
}

void mm_stepper_deinit(struct mm_stepper *p) {
    if (p->memory) p->m->be->release(p->m->be, p->memory, p->bytes);
    free(p->states);
    free(p->tokens);
    free(p->wanted);
    free(p->draws);
    free(p->seen_of);
    free(p->words);
    free(p->text);
    free(p->how);
    free(p->is_kept);
    free(p->seqs);
    free(p->blocks);
    *p = (struct mm_stepper){0};
}

static void embed(struct mm_stepper *p, int64_t n) {
    struct mm_model *m = p->m;
    const int64_t V = m->config.V;
    const int32_t *ids = p->tokens;
    for (int64_t t = 0; t < n; t++) {
        assert(ids[t] >= 0 && ids[t] < V + m->config.n_special);
        assert(ids[t] != m->config.img_context_id);
        p->text[t] = ids[t] < V ? ids[t] : -1;
    }
    m->be->upload(m->be, p->ids.data, p->text, (size_t)n * sizeof *p->text);
    mm_embed_fwd(m->be, mm_view_rows(p->x, 0, n), mm_model_w(m, mm_role_text),
                 mm_view_rows(p->ids, 0, n));
    for (int64_t t = 0; t < n; t++) {
        if (ids[t] < V) continue;
        const int32_t id = ids[t] - (int32_t)V;
        const struct mm_view at = mm_view_rows(p->ids, t, 1);
        m->be->upload(m->be, at.data, &id, sizeof id);
        mm_embed_fwd(m->be, mm_view_rows(p->x, t, 1), mm_model_w(m, mm_role_special), at);
    }
}

// One step of the rows in p->x.
static enum mm_code step(struct mm_stepper *p, int64_t n, bool logits, struct mm_view stopped,
                         struct mm_error *err) {
    struct mm_model *m = p->m;
    const struct mm_config *c = &m->config;
    for (int64_t t = 0; t < n; t++) {
        struct mm_state *s = p->states[t];
        MM_TRY(mm_state_reserve(s, (s->n_embed > s->n_llm ? s->n_embed : s->n_llm) + 1, err));
        p->seqs[t] = (struct mm_step_seq){
            s->blocks,
            {s->n_embed, s->n_llm},
            {mm_rope_base(&c->embed, s->n_embed + 1), mm_rope_base(&c->llm, s->n_llm + 1)}};
    }
    const struct mm_step step = {.blocks = p->blocks,
                                 .n_blocks = m->n_blocks,
                                 .l2_before = c->normalize_encoder_output ? c->embed.n_blocks : -1,
                                 .norm = mm_model_w(m, mm_role_norm),
                                 .eps = (float)c->llm.rms_eps,
                                 .seqs = p->seqs,
                                 .n_seqs = n,
                                 .x = mm_view_rows(p->x, 0, n),
                                 .hidden = mm_view_rows(p->hidden, 0, n),
                                 .output = logits ? mm_model_w(m, mm_role_output) : MM_NONE,
                                 .logits = logits ? mm_view_rows(p->logits, 0, n) : MM_NONE,
                                 .stopped = stopped};
    mm_decode_step(m->be, &step);
    for (int64_t t = 0; t < n; t++) {
        p->states[t]->n_embed++;
        p->states[t]->n_llm++;
        p->is_kept[t] = p->is_kept[t] && !logits;
    }
    return mm_code_ok;
}

enum mm_code mm_stepper_run(struct mm_stepper *p, int64_t n, struct mm_error *err) {
    struct mm_model *m = p->m;
    assert(n <= p->max);
    bool wanted = false;
    for (int64_t t = 0; t < n; t++)
        wanted = wanted || p->wanted[t];
    embed(p, n);
    MM_TRY(step(p, n, wanted, MM_NONE, err));
    for (int64_t t = 0; t < n; t++) {
        if (!p->wanted[t]) continue;
        m->be->download(m->be, p->wanted[t], mm_view_at(p->logits, t, 0),
                        (size_t)m->config.V * sizeof(float));
    }
    return mm_backend_sync(m->be, err);
}

// The tokens that row t's penalty holds for, where the row of `seen` has others: a step adds its
// own, and `count` come now.
static void send_seen(struct mm_stepper *p, int64_t t, int64_t count) {
    struct mm_backend *be = p->m->be;
    const struct mm_stepper_draw *d = &p->draws[t];
    struct mm_stepper_seen *is = &p->seen_of[t];
    if (is->answer != d->answer || is->n != d->n) {
        const int64_t V = p->m->config.V;
        memset(p->words, 0, (size_t)words_of(p->m) * sizeof *p->words);
        for (int64_t i = 0; i < d->n; i++) {
            if (d->ids[i] < V) p->words[d->ids[i] / 32] |= (uint32_t)1 << d->ids[i] % 32;
        }
        be->upload(be, mm_view_at(p->seen, t, 0), p->words,
                   (size_t)words_of(p->m) * sizeof *p->words);
    }
    *is = (struct mm_stepper_seen){d->answer, d->n + count};
}

// Takes back what the host counted of steps that a sequence did not take.
static void count_steps(struct mm_stepper *p, int64_t n, int64_t count, const int32_t *ids) {
    for (int64_t t = 0; t < n; t++) {
        int64_t taken = 1;
        while (taken < count &&
               !mm_draw_ends(&p->how[(taken - 1) * n + t], &p->stops, ids[(taken - 1) * n + t]))
            taken++;
        p->states[t]->n_embed -= count - taken;
        p->states[t]->n_llm -= count - taken;
        const int64_t last = (taken - 1) * n + t;
        p->is_kept[t] = count > 1 && mm_draw_ends(&p->how[last], &p->stops, ids[last]);
    }
}

enum mm_code mm_stepper_draw(struct mm_stepper *p, int64_t n, int64_t count, int32_t *ids,
                             struct mm_error *err) {
    struct mm_model *m = p->m;
    struct mm_backend *be = m->be;
    assert(n <= p->max && count >= 1 && count <= mm_stepper_ahead);
    assert(count == 1 || p->kept.data);
    const bool may_stop = count > 1;  // of one step nothing follows
    const struct mm_view stopped = may_stop ? mm_view_rows(p->stopped, 0, n) : MM_NONE;
    const struct mm_view kept = may_stop ? mm_view_rows(p->kept, 0, n) : MM_NONE;
    const struct mm_view logits = mm_view_rows(p->logits, 0, n);
    bool seen = false;
    embed(p, n);
    if (may_stop) {
        memset(p->text, 0, (size_t)n * sizeof *p->text);
        be->upload(be, p->stopped.data, p->text, (size_t)n * sizeof *p->text);
    }
    for (int64_t t = 0; t < n; t++) {
        if (p->how[t].penalty == 1.0) continue;
        send_seen(p, t, count);
        seen = true;
    }
    for (int64_t i = 0; i < count; i++) {
        const struct mm_view drawn = mm_view_rows(p->drawn, i * n, n);
        MM_TRY(step(p, n, true, stopped, err));
        mm_draw_tokens(be, drawn, logits, seen ? mm_view_rows(p->seen, 0, n) : MM_NONE, stopped,
                       kept, p->how + i * n, may_stop ? &p->stops : NULL);
        // those that have stopped get rows of zeros
        if (i + 1 < count)
            mm_embed_fwd(be, mm_view_rows(p->x, 0, n), mm_model_w(m, mm_role_text), drawn);
    }
    be->download(be, ids, p->drawn.data, (size_t)(count * n) * sizeof *ids);
    MM_TRY(mm_backend_sync(be, err));
    count_steps(p, n, count, ids);
    return mm_code_ok;
}

enum mm_code mm_stepper_logits(struct mm_stepper *p, int64_t row, float *logits,
                               struct mm_error *err) {
    struct mm_backend *be = p->m->be;
    be->download(be, logits, mm_view_at(p->is_kept[row] ? p->kept : p->logits, row, 0),
                 (size_t)p->m->config.V * sizeof *logits);
    return mm_backend_sync(be, err);
}

enum mm_code mm_stepper_greedy(struct mm_stepper *p, int64_t n, int64_t count,
                               const int32_t *banned, int n_banned, int32_t *ids,
                               struct mm_error *err) {
    struct mm_model *m = p->m;
    assert(n <= p->max && count <= mm_stepper_ahead && n_banned <= mm_stepper_banned);
    const struct mm_view out =
        n_banned > 0 ? mm_view1(p->banned.data, mm_dtype_i32, n_banned) : MM_NONE;
    m->be->upload(m->be, p->banned.data, banned, (size_t)n_banned * sizeof *banned);
    embed(p, n);
    for (int64_t i = 0; i < count; i++) {
        const struct mm_view drawn = mm_view_rows(p->drawn, i * n, n);
        MM_TRY(step(p, n, true, MM_NONE, err));
        mm_argmax(m->be, drawn, mm_view_rows(p->logits, 0, n), out);
        if (i + 1 < count) {
            mm_embed_fwd(m->be, mm_view_rows(p->x, 0, n), mm_model_w(m, mm_role_text), drawn);
        }
    }
    m->be->download(m->be, ids, p->drawn.data, (size_t)(count * n) * sizeof *ids);
    return mm_backend_sync(m->be, err);
}
