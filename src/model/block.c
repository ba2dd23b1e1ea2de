// One block: x += wo mixer(rmsnorm(x)); x += w2 (silu(w1 h) * w3 h) with h = rmsnorm(x).
#include "model/acts.h"

void mm_block_fwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                  struct mm_block_acts *acts, struct mm_view y, struct mm_view x,
                  struct mm_block_state *state, bool keep, bool whole, struct mm_arena *arena) {
    const struct mm_stack_config *s = b->stack;
    int64_t T = st->T;
    const float eps = (float)s->rms_eps;
    *acts = (struct mm_block_acts){.x = x};
    acts->rinv1 = keep ? mm_take1(arena, T) : MM_NONE;
    acts->mix.u = mm_acts2(m, arena, T, s->D);
    mm_rmsnorm_fwd(m->be, acts->mix.u, acts->rinv1, x, mm_block_w(m, b, mm_role_attention_norm),
                   eps);
    mm_mixer_fwd(m, b, st, &acts->mix, state, keep, arena);
    whole = whole || keep;
    if (st->tail > 0 && st->tail < T) {  // the mixer has seen all rows
        x = mm_view_rows(x, T - st->tail, st->tail);
        y = mm_view_rows(y, T - st->tail, st->tail);
        acts->mix.o = mm_view_rows(acts->mix.o, T - st->tail, st->tail);
        T = st->tail;
    }
    acts->x2 = whole ? mm_acts2(m, arena, T, s->D) : y;
    mm_linear_add_fwd(m->be, acts->x2, acts->mix.o, mm_block_w(m, b, mm_role_wo), x);

    acts->rinv2 = keep ? mm_take1(arena, T) : MM_NONE;
    acts->h = mm_acts2(m, arena, T, s->D);
    mm_rmsnorm_fwd(m->be, acts->h, acts->rinv2, acts->x2, mm_block_w(m, b, mm_role_ffn_norm), eps);
    if (!whole) {
        mm_ffn_fwd(m->be, y, y, acts->h, mm_block_w(m, b, mm_role_w1), mm_block_w(m, b, mm_role_w3),
                   mm_block_w(m, b, mm_role_w2));
        return;
    }
    acts->a = mm_acts2(m, arena, T, s->F);
    acts->b = mm_acts2(m, arena, T, s->F);
    acts->s = keep ? mm_acts2(m, arena, T, s->F) : acts->a;
    mm_linear_fwd(m->be, acts->a, acts->h, mm_block_w(m, b, mm_role_w1), MM_NONE);
    mm_linear_fwd(m->be, acts->b, acts->h, mm_block_w(m, b, mm_role_w3), MM_NONE);
    mm_swiglu_fwd(m->be, acts->s, acts->a, acts->b);
    mm_linear_add_fwd(m->be, y, acts->s, mm_block_w(m, b, mm_role_w2), acts->x2);
}

static void weight_bwd(struct mm_model *m, const struct mm_block *b, struct mm_grads *g,
                       enum mm_role role, struct mm_view dy, struct mm_view x) {
    const struct mm_view dw = g->of[b->p[role]];
    if (dw.data) {
        mm_linear_bwd_w(m->be, dw, MM_NONE, dy, x, mm_model_product(m));
    }
}

void mm_block_bwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                  const struct mm_block_acts *acts, struct mm_grads *g, struct mm_view dy,
                  struct mm_arena *arena) {
    const struct mm_stack_config *s = b->stack;
    const int64_t T = st->T;
    const size_t mark = mm_arena_mark(arena);
    struct mm_view dh = mm_acts2(m, arena, T, s->D);

    const size_t inner = mm_arena_mark(arena);
    struct mm_view ds = mm_acts2(m, arena, T, s->F), da = mm_acts2(m, arena, T, s->F),
                   db = mm_acts2(m, arena, T, s->F);
    weight_bwd(m, b, g, mm_role_w2, dy, acts->s);
    mm_linear_bwd_x(m->be, ds, dy, mm_block_w(m, b, mm_role_w2), false);
    mm_swiglu_bwd(m->be, da, db, ds, acts->a, acts->b);
    weight_bwd(m, b, g, mm_role_w1, da, acts->h);
    weight_bwd(m, b, g, mm_role_w3, db, acts->h);
    mm_linear_bwd_x(m->be, dh, da, mm_block_w(m, b, mm_role_w1), false);
    mm_linear_bwd_x(m->be, dh, db, mm_block_w(m, b, mm_role_w3), true);
    mm_arena_release(arena, inner);
    mm_rmsnorm_bwd(m->be, dh, g->of[b->p[mm_role_ffn_norm]], dh, acts->x2,
                   mm_block_w(m, b, mm_role_ffn_norm), acts->rinv2);
    mm_add(m->be, dy, dy, dh);

    weight_bwd(m, b, g, mm_role_wo, dy, acts->mix.o);
    struct mm_view d_o = mm_acts2(m, arena, T, s->H * s->P);
    mm_linear_bwd_x(m->be, d_o, dy, mm_block_w(m, b, mm_role_wo), false);
    mm_mixer_bwd(m, b, st, &acts->mix, g, dh, d_o, arena);
    mm_rmsnorm_bwd(m->be, dh, g->of[b->p[mm_role_attention_norm]], dh, acts->x,
                   mm_block_w(m, b, mm_role_attention_norm), acts->rinv1);
    mm_add(m->be, dy, dy, dh);
    mm_arena_release(arena, mark);
}
