#include "infer/piece.h"

#include <stdlib.h>

#include "base/buf.h"
#include "ops/dry.h"
#include "ops/take.h"

int64_t mm_piece_end(const struct mm_config *c, const int32_t *ids, int64_t n, int64_t from,
                     int64_t want, int64_t *tiles) {
    const int64_t per = mm_config_tile_tokens(c);
    int64_t end = from;
    *tiles = 0;
    while (end < n && (end == from || end - from < want)) {
        if (ids[end] == c->img_context_id) {
            // the layout checks that runs are whole tiles
            end = end + per < n ? end + per : n;
            ++*tiles;
        } else {
            end++;
        }
    }
    return end;
}

void mm_piece_memory_deinit(struct mm_piece_memory *p) {
    if (p->block) p->be->release(p->be, p->block, p->block_bytes);
    mm_arena_deinit(&p->host);
    *p = (struct mm_piece_memory){0};
}

// Takes from the arena what a piece takes: the same code, on a backend that only counts.
size_t mm_piece_plan(struct mm_model *m, int64_t n_tokens, int64_t n_seqs, int64_t n_tiles,
                     int64_t n_logits, bool with_state) {
    struct mm_arena dry_arena, *arena = &dry_arena;
    mm_arena_init_dry(arena);
    struct mm_backend *be = m->be, dry;
    mm_backend_dry(&dry, be);
    m->be = &dry;
    struct mm_layout l;
    mm_layout_plan(&l, m, arena, n_tokens, n_seqs, n_tiles);
    const int64_t S = m->config.image_size;
    struct mm_view pixels = mm_take4(arena, n_tiles, 3, S, S);
    struct mm_block_state *blocks = mm_xcalloc((size_t)m->n_blocks, sizeof *blocks);
    struct mm_state state = {.model = m, .blocks = blocks};
    struct mm_forward f = {0};
    mm_model_fwd(m, &l, pixels, with_state ? &state : NULL, &f, false, false, NULL, arena);
    mm_arena_take(arena, (size_t)(n_logits * m->config.V) * sizeof(float));
    free(blocks);
    m->be = be;
    return arena->peak;
}

enum mm_code mm_piece_memory_reserve(struct mm_piece_memory *p, struct mm_model *m,
                                     int64_t n_tokens, int64_t n_tiles, int64_t n_logits,
                                     struct mm_error *err) {
    if (p->block && n_tokens <= p->n_tokens && n_tiles <= p->n_tiles && n_logits <= p->n_logits) {
        return mm_code_ok;
    }
    if (n_tokens < p->n_tokens) n_tokens = p->n_tokens;
    if (n_tiles < p->n_tiles) n_tiles = p->n_tiles;
    if (n_logits < p->n_logits) n_logits = p->n_logits;
    mm_piece_memory_deinit(p);
    p->be = m->be;
    const size_t bytes = mm_piece_plan(m, n_tokens, 1, n_tiles, n_logits, true);
    MM_TRY(m->be->alloc(m->be, bytes, &p->block, err));
    p->block_bytes = bytes;
    mm_arena_init_over(&p->device, p->block, p->block_bytes);
    MM_TRY(mm_arena_init(&p->host, mm_layout_host_bytes(m, n_tokens, 1, n_tiles), err));
    p->n_tokens = n_tokens;
    p->n_tiles = n_tiles;
    p->n_logits = n_logits;
    return mm_code_ok;
}

enum mm_code mm_piece_run(struct mm_piece_memory *p, struct mm_model *m, struct mm_state *state,
                          const int32_t *ids, int64_t n, const float *pixels, int64_t n_tiles,
                          const struct mm_tap *tap, struct mm_view *hidden, const char *what,
                          struct mm_error *err) {
    mm_arena_release(&p->device, 0);
    mm_arena_release(&p->host, 0);
    const int32_t start[2] = {0, (int32_t)n};
    struct mm_layout l;
    MM_TRY(mm_layout_make(&l, m, &p->host, &p->device, ids, start, 1, n_tiles, state->n_embed,
                          state->n_llm, what, err));
    MM_TRY(mm_state_reserve(
        state, l.embed.longest > l.llm.longest ? l.embed.longest : l.llm.longest, err));
    const int64_t S = m->config.image_size;
    const size_t bytes = (size_t)(n_tiles * 3 * S * S) * sizeof(float);
    struct mm_view px = mm_take4(&p->device, n_tiles, 3, S, S);
    if (n_tiles > 0) m->be->upload(m->be, px.data, pixels, bytes);
    struct mm_forward f = {0};
    if (!tap && m->config.embed.n_blocks < m->n_blocks) f.tail = p->n_logits > 0 ? p->n_logits : 1;
    mm_model_fwd(m, &l, px, state, &f, false, false, tap, &p->device);
    *hidden = f.hidden;
    return mm_backend_sync(m->be, err);
}

enum mm_code mm_piece_logits(struct mm_piece_memory *p, struct mm_model *m, struct mm_view hidden,
                             int64_t n, float *logits, struct mm_error *err) {
    const int64_t V = m->config.V;
    const size_t mark = mm_arena_mark(&p->device);
    struct mm_view out = mm_take2(&p->device, n, V);
    mm_linear_fwd(m->be, out, mm_view_rows(hidden, hidden.shape[0] - n, n),
                  mm_model_w(m, mm_role_output), MM_NONE);
    m->be->download(m->be, logits, out.data, (size_t)(n * V) * sizeof(float));
    mm_arena_release(&p->device, mark);
    return mm_backend_sync(m->be, err);
}
