// The whole model: pictures and text into one sequence, the embedding stack, the decoder stack, the
// final norm; and back.
#include "model/acts.h"

#include <assert.h>

// Rows of the embedding stream: text, special tokens, pictures.
static void enter(struct mm_model *m, const struct mm_layout *l, struct mm_view pixels,
                  struct mm_forward *f, bool keep, struct mm_arena *arena) {
    const bool post = m->config.shuffle_post;
    f->embed_in = mm_acts2(m, arena, l->embed.T, m->config.embed.D);
    const size_t mark = mm_arena_mark(arena);
    mm_embed_fwd(m->be, f->embed_in, mm_model_w(m, mm_role_text), l->ids);
    if (l->special_rows.shape[0] > 0) {
        struct mm_view rows = mm_acts2(m, arena, l->special_rows.shape[0], m->config.embed.D);
        mm_embed_fwd(m->be, rows, mm_model_w(m, mm_role_special), l->special_ids);
        mm_scatter_rows(m->be, f->embed_in, rows, l->special_rows);
    }
    f->vision = (struct mm_vision_acts){0};
    if (l->n_tiles > 0) {
        assert(pixels.shape[0] == l->n_tiles);
        mm_vision_patch_fwd(m, &f->vision, pixels, arena);
        if (!post) mm_vision_shuffle_fwd(m, &f->vision, f->vision.rows, arena);
        mm_scatter_rows(m->be, f->embed_in, post ? f->vision.rows : f->vision.out, l->img_rows);
    }
    if (!keep) mm_arena_release(arena, mark);
}

// From the embedding stack's rows to the decoder's.
static void cross(struct mm_model *m, const struct mm_layout *l, struct mm_forward *f, bool keep,
                  struct mm_arena *arena) {
    const int64_t D = m->config.llm.D;
    struct mm_view in = f->embed_out;
    if (m->config.shuffle_post && l->n_tiles > 0) {
        in = mm_acts2(m, arena, l->llm.T, D);
        const size_t mark = mm_arena_mark(arena);
        struct mm_view rows = mm_acts2(m, arena, l->img_rows.shape[0], D);
        struct mm_view text = mm_acts2(m, arena, l->text_from.shape[0], D);
        mm_gather_rows(m->be, rows, f->embed_out, l->img_rows);
        mm_vision_shuffle_fwd(m, &f->vision, rows, arena);
        if (text.shape[0] > 0) {
            mm_gather_rows(m->be, text, f->embed_out, l->text_from);
            mm_scatter_rows(m->be, in, text, l->text_to);
        }
        mm_scatter_rows(m->be, in, f->vision.out, l->img_to);
        if (!keep) mm_arena_release(arena, mark);
    }
    f->llm_in = in;
    if (m->config.normalize_encoder_output) {
        f->llm_in = mm_acts2(m, arena, l->llm.T, D);
        f->norm_rinv = mm_take1(arena, l->llm.T);
        mm_l2norm_fwd(m->be, f->llm_in, f->norm_rinv, in);
    }
}

// Runs blocks [begin, end) on one stream from x; returns the last block's output.
static struct mm_view run_blocks(struct mm_model *m, int64_t begin, int64_t end,
                                 const struct mm_stream *st, struct mm_view x,
                                 struct mm_state *state, struct mm_forward *f, bool keep,
                                 bool recompute, const struct mm_tap *tap, struct mm_arena *arena) {
    // without keep two buffers take turns, and a block's temporaries go when it is done
    struct mm_view turn[2] = {MM_NONE, MM_NONE};
    if (!keep) {
        turn[0] = mm_acts2(m, arena, st->T, m->config.llm.D);
        turn[1] = mm_acts2(m, arena, st->T, m->config.llm.D);
    }
    struct mm_stream last = *st;
    last.tail = f->tail;
    for (int64_t i = begin; i < end; i++) {
        const bool is_last = i + 1 == m->n_blocks;
        struct mm_view y =
            keep ? mm_acts2(m, arena, st->T, m->config.llm.D) : turn[(i - begin) % 2];
        const size_t mark = mm_arena_mark(arena);
        struct mm_block_acts local, *acts = keep ? &f->blocks[i] : &local;
        mm_block_fwd(m, &m->blocks[i], is_last ? &last : st, acts, y, x,
                     state ? &state->blocks[i] : NULL, keep, tap && tap->whole, arena);
        if (tap) tap->fn(tap->arg, i, st, acts, y, arena);
        // what the backward makes again was kept here, too: without, other operations would be
        // chosen, which round otherwise
        if (!keep || recompute) mm_arena_release(arena, mark);
        x = y;
    }
    if (end == m->n_blocks && end > begin && f->tail > 0 && f->tail < st->T) {
        x = mm_view_rows(x, st->T - f->tail, f->tail);
    }
    return x;
}

void mm_model_fwd(struct mm_model *m, const struct mm_layout *l, struct mm_view pixels,
                  struct mm_state *state, struct mm_forward *f, bool keep, bool recompute,
                  const struct mm_tap *tap, struct mm_arena *arena) {
    const int64_t n_embed = m->config.embed.n_blocks;
    assert(f->tail == 0 || (state && !keep && !tap && l->llm.segs.n == 1 && n_embed < m->n_blocks));
    f->hidden = mm_acts2(m, arena, l->llm.T, m->config.llm.D);
    if (f->tail > 0 && f->tail < l->llm.T) f->hidden = mm_view_rows(f->hidden, 0, f->tail);
    f->last_rinv = keep ? mm_take1(arena, l->llm.T) : MM_NONE;
    const size_t mark = mm_arena_mark(arena);
    enter(m, l, pixels, f, keep, arena);
    f->embed_out =
        run_blocks(m, 0, n_embed, &l->embed, f->embed_in, state, f, keep, recompute, tap, arena);
    cross(m, l, f, keep, arena);
    f->last = run_blocks(m, n_embed, m->n_blocks, &l->llm, f->llm_in, state, f, keep, recompute,
                         tap, arena);
    mm_rmsnorm_fwd(m->be, f->hidden, f->last_rinv, f->last, mm_model_w(m, mm_role_norm),
                   (float)m->config.llm.rms_eps);
    if (!keep) mm_arena_release(arena, mark);
    if (state) {
        state->n_embed += l->embed.T;
        state->n_llm += l->llm.T;
    }
}

// The lowest block with a parameter that trains; n_blocks when none does, -1 when something before
// the blocks does.
static int64_t lowest_trained(const struct mm_model *m, const struct mm_grads *g) {
    int64_t lowest = m->n_blocks;
    for (int i = 0; i < m->n_params; i++) {
        if (g->of[i].data == NULL) continue;
        const enum mm_role role = m->params[i].role;
        if (role == mm_role_norm || role == mm_role_output) continue;
        if (m->params[i].block < lowest) lowest = m->params[i].block;
    }
    return lowest;
}

static void back_blocks(struct mm_model *m, int64_t begin, int64_t end, const struct mm_stream *st,
                        struct mm_forward *f, struct mm_grads *g, struct mm_view dy, bool recompute,
                        struct mm_arena *arena) {
    for (int64_t i = end - 1; i >= begin; i--) {
        const size_t mark = mm_arena_mark(arena);
        if (recompute) {
            struct mm_view again = mm_acts2(m, arena, st->T, m->config.llm.D);
            mm_block_fwd(m, &m->blocks[i], st, &f->blocks[i], again, f->blocks[i].x, NULL, true,
                         false, arena);
        }
        mm_block_bwd(m, &m->blocks[i], st, &f->blocks[i], g, dy, arena);
        mm_arena_release(arena, mark);
    }
}

// Back over the border between the stacks: returns the gradient of the embedding stack's output.
static struct mm_view uncross(struct mm_model *m, const struct mm_layout *l, struct mm_forward *f,
                              struct mm_grads *g, struct mm_view d, struct mm_arena *arena) {
    const int64_t D = m->config.llm.D;
    if (m->config.normalize_encoder_output) {
        mm_l2norm_bwd(m->be, d, d, f->llm_in, f->norm_rinv);
    }
    if (!m->config.shuffle_post || l->n_tiles == 0) return d;
    struct mm_view de = mm_acts2(m, arena, l->embed.T, D);
    const size_t mark = mm_arena_mark(arena);
    struct mm_view drows = mm_acts2(m, arena, l->img_rows.shape[0], D);
    struct mm_view dout = mm_acts2(m, arena, l->img_to.shape[0], D);
    struct mm_view dtext = mm_acts2(m, arena, l->text_to.shape[0], D);
    mm_fill(m->be, de, 0.0f);
    mm_gather_rows(m->be, dout, d, l->img_to);
    mm_vision_shuffle_bwd(m, &f->vision, g, drows, dout, arena);
    mm_scatter_rows(m->be, de, drows, l->img_rows);
    if (dtext.shape[0] > 0) {
        mm_gather_rows(m->be, dtext, d, l->text_to);
        mm_scatter_rows(m->be, de, dtext, l->text_from);
    }
    mm_arena_release(arena, mark);
    return de;
}

static void leave(struct mm_model *m, const struct mm_layout *l, struct mm_forward *f,
                  struct mm_grads *g, struct mm_view d, struct mm_arena *arena) {
    const int64_t D = m->config.embed.D;
    const struct mm_view dtext = g->of[m->global[mm_role_text]];
    if (dtext.data) mm_embed_bwd(m->be, dtext, d, l->ids);
    const int special = m->global[mm_role_special];
    if (l->special_rows.shape[0] > 0 && special >= 0 && g->of[special].data) {
        const size_t mark = mm_arena_mark(arena);
        struct mm_view rows = mm_acts2(m, arena, l->special_rows.shape[0], D);
        mm_gather_rows(m->be, rows, d, l->special_rows);
        mm_embed_bwd(m->be, g->of[special], rows, l->special_ids);
        mm_arena_release(arena, mark);
    }
    if (l->n_tiles == 0) return;
    const size_t mark = mm_arena_mark(arena);
    struct mm_view dimg = mm_acts2(m, arena, l->img_rows.shape[0], D);
    mm_gather_rows(m->be, dimg, d, l->img_rows);
    if (m->config.shuffle_post) {
        mm_vision_patch_bwd(m, &f->vision, g, dimg);
    } else {
        struct mm_view drows = mm_acts2(m, arena, f->vision.rows.shape[0], D);
        mm_vision_shuffle_bwd(m, &f->vision, g, drows, dimg, arena);
        mm_vision_patch_bwd(m, &f->vision, g, drows);
    }
    mm_arena_release(arena, mark);
}

void mm_model_bwd(struct mm_model *m, const struct mm_layout *l, struct mm_forward *f,
                  struct mm_grads *g, struct mm_view dhidden, bool recompute,
                  struct mm_arena *arena) {
    const int64_t n_embed = m->config.embed.n_blocks;
    const int64_t lowest = lowest_trained(m, g);
    const size_t mark = mm_arena_mark(arena);
    mm_rmsnorm_bwd(m->be, dhidden, g->of[m->global[mm_role_norm]], dhidden, f->last,
                   mm_model_w(m, mm_role_norm), f->last_rinv);
    struct mm_view d = dhidden;
    const int64_t stop = lowest < 0 ? 0 : lowest;
    back_blocks(m, stop > n_embed ? stop : n_embed, m->n_blocks, &l->llm, f, g, d, recompute,
                arena);
    if (lowest < n_embed) {
        d = uncross(m, l, f, g, d, arena);
        back_blocks(m, stop, n_embed, &l->embed, f, g, d, recompute, arena);
    }
    if (lowest < 0) leave(m, l, f, g, d, arena);
    mm_arena_release(arena, mark);
}
