// Pictures to rows of the embedding stack: patches, position, pixel shuffle, projection
// (docs/MODEL.md section 1). There is no vision encoder: this is all there is before the blocks.
#include "model/acts.h"

// Row 0 of the table belongs to the class embedding and takes no part.
static struct mm_view patch_positions(struct mm_view table) {
    return mm_view_rows(table, 1, table.shape[0] - 1);
}

void mm_vision_patch_fwd(struct mm_model *m, struct mm_vision_acts *a, struct mm_view pixels,
                         struct mm_arena *arena) {
    const struct mm_config *c = &m->config;
    const int64_t rows = pixels.shape[0] * mm_config_tile_patches(c);
    a->rows = mm_acts2(m, arena, rows, c->embed.D);
    a->patches = mm_acts2(m, arena, rows, 3 * c->patch * c->patch);
    mm_patchify(m->be, a->patches, pixels, c->patch);
    mm_linear_fwd(m->be, a->rows, a->patches, mm_model_w(m, mm_role_patch_w),
                  mm_model_w(m, mm_role_patch_b));
    mm_add_position_fwd(m->be, a->rows, a->rows, patch_positions(mm_model_w(m, mm_role_position)));
}

void mm_vision_shuffle_fwd(struct mm_model *m, struct mm_vision_acts *a, struct mm_view rows,
                           struct mm_arena *arena) {
    const struct mm_config *c = &m->config;
    const int64_t n = rows.shape[0] / 4, D = c->embed.D;
    a->out = mm_acts2(m, arena, n, D);
    a->shuffled = mm_acts2(m, arena, n, 4 * D);
    a->h0 = mm_acts2(m, arena, n, D);
    a->g0 = mm_acts2(m, arena, n, D);
    mm_pixel_shuffle_fwd(m->be, a->shuffled, rows, c->image_size / c->patch);
    mm_linear_fwd(m->be, a->h0, a->shuffled, mm_model_w(m, mm_role_shuffle0_w),
                  mm_model_w(m, mm_role_shuffle0_b));
    mm_gelu_fwd(m->be, a->g0, a->h0);
    mm_linear_fwd(m->be, a->out, a->g0, mm_model_w(m, mm_role_shuffle2_w),
                  mm_model_w(m, mm_role_shuffle2_b));
}

// Weight and bias gradients of a linear layer; a bias trains only together with its weight or
// alone, both are honoured.
static void linear_grads(struct mm_model *m, struct mm_grads *g, enum mm_role w, enum mm_role bias,
                         struct mm_view dy, struct mm_view x) {
    const struct mm_view dw = g->of[m->global[w]], db = g->of[m->global[bias]];
    if (dw.data || db.data) mm_linear_bwd_w(m->be, dw, db, dy, x, mm_model_product(m));
}

void mm_vision_shuffle_bwd(struct mm_model *m, const struct mm_vision_acts *a, struct mm_grads *g,
                           struct mm_view drows, struct mm_view dout, struct mm_arena *arena) {
    const struct mm_config *c = &m->config;
    const size_t mark = mm_arena_mark(arena);
    struct mm_view dh = mm_acts2(m, arena, a->h0.shape[0], c->embed.D);
    struct mm_view ds = mm_acts2(m, arena, a->h0.shape[0], 4 * c->embed.D);
    linear_grads(m, g, mm_role_shuffle2_w, mm_role_shuffle2_b, dout, a->g0);
    mm_linear_bwd_x(m->be, dh, dout, mm_model_w(m, mm_role_shuffle2_w), false);
    mm_gelu_bwd(m->be, dh, dh, a->h0);
    linear_grads(m, g, mm_role_shuffle0_w, mm_role_shuffle0_b, dh, a->shuffled);
    mm_linear_bwd_x(m->be, ds, dh, mm_model_w(m, mm_role_shuffle0_w), false);
    mm_pixel_shuffle_bwd(m->be, drows, ds, c->image_size / c->patch);
    mm_arena_release(arena, mark);
}

void mm_vision_patch_bwd(struct mm_model *m, const struct mm_vision_acts *a, struct mm_grads *g,
                         struct mm_view drows) {
    const struct mm_view de = g->of[m->global[mm_role_position]];
    if (de.data) mm_add_position_bwd(m->be, patch_positions(de), drows);
    linear_grads(m, g, mm_role_patch_w, mm_role_patch_b, drows, a->patches);
}
