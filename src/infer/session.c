// Owns: the life of a session: what is added to it, copies of it, and going back.
#include "infer/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { largest_piece_tokens = 1 << 20 };

static const char picture_marker[] = "<image>";

// ---- marks --------------------------------------------------------------------------------------

static void mark_drop(struct mm_engine *e, struct mm_mark *m) {
    if (--m->n_refs > 0) return;
    if (m->fixed) e->be->release(e->be, m->fixed, mm_model_state_bytes(&e->model));
    free(m->logits);
    free(m);
}

static enum mm_code mark_new(struct mm_mark **out, struct mm_session *s, struct mm_error *err) {
    struct mm_backend *be = s->e->be;
    void *fixed = NULL;
    MM_TRY(mm_session_settle(s, err));
    if (s->n_fed > 0 && s->state.fixed_bytes > 0) {
        MM_TRY(be->alloc(be, s->state.fixed_bytes, &fixed, err));
        be->move(be, fixed, s->state.fixed, s->state.fixed_bytes);
    }
    struct mm_mark *m = mm_xmalloc(sizeof *m);
    *m = (struct mm_mark){.n_refs = 1,
                          .fixed = fixed,
                          .n_embed = s->state.n_embed,
                          .n_llm = s->state.n_llm,
                          .n_ids = s->ids.n,
                          .n_fed = s->n_fed,
                          .n_answered = s->n_answered,
                          .answer_from = s->answer_from,
                          .rng = s->rng,
                          .finished = s->finished,
                          .n_turns = s->n_turns};
    if (s->have_logits) {
        const size_t bytes = (size_t)s->e->model.config.V * sizeof(float);
        m->logits = memcpy(mm_xmalloc(bytes), s->logits, bytes);
    }
    *out = m;
    return mm_backend_sync(be, err);
}

// Remembers the present as the start of a turn; the oldest mark makes room.
static enum mm_code mark(struct mm_session *s, struct mm_error *err) {
    s->marked = s->max_marks > 0;
    if (!s->marked) return mm_code_ok;
    struct mm_mark *m;
    MM_TRY(mark_new(&m, s, err));
    if (s->n_marks == s->max_marks) {
        mark_drop(s->e, s->marks[0]);
        memmove(s->marks, s->marks + 1, (size_t)--s->n_marks * sizeof(struct mm_mark *));
    }
    s->marks[s->n_marks++] = m;
    return mm_code_ok;
}

static void forget_pictures(struct mm_session *s) {
    for (int i = 0; i < s->n_pictures; i++)
        mm_queued_picture_deinit(&s->pictures[i]);
    s->n_pictures = 0;
}

enum mm_code mm_session_rewind(struct mm_session *s, int n, struct mm_error *err) {
    if (n < 1 || n > s->n_marks) {
        return mm_fail(
            err, mm_code_input,
            "%d turns back: %d of the %lld turns can be taken back (%d are remembered at "
            "most)",
            n, s->n_marks, (long long)s->n_turns, s->max_marks);
    }
    MM_TRY(mm_session_settle(s, err));
    const struct mm_mark *m = s->marks[s->n_marks - n];
    struct mm_backend *be = s->e->be;
    if (m->fixed) {
        be->move(be, s->state.fixed, m->fixed, s->state.fixed_bytes);
    } else {
        mm_state_clear(&s->state);
    }
    s->state.n_embed = m->n_embed;
    s->state.n_llm = m->n_llm;
    s->ids.n = m->n_ids;
    s->n_fed = m->n_fed;
    s->n_answered = m->n_answered;
    s->answer_from = m->answer_from;
    s->n_turns = m->n_turns;
    s->rng = m->rng;
    s->finished = m->finished;
    s->have_logits = m->logits != NULL;
    if (m->logits) memcpy(s->logits, m->logits, (size_t)s->e->model.config.V * sizeof(float));
    forget_pictures(s);
    s->asked_at = 0.0;
    s->broken = false;
    s->marked = n < s->n_marks;
    for (int i = 0; i < n; i++)
        mark_drop(s->e, s->marks[--s->n_marks]);
    return mm_backend_sync(be, err);
}

// ---- life ---------------------------------------------------------------------------------------

static enum mm_code tile_rule(struct mm_tile_rule *r, const struct mm_config *c,
                              const struct mm_session_options *o, struct mm_error *err) {
    *r = (struct mm_tile_rule){(int32_t)c->image_size, 1, 1, c->thumbnail};
    if (c->dynamic_tiles) {
        r->max_tiles = o->max_tiles ? o->max_tiles : (int32_t)c->max_tiles;
        r->min_tiles = o->min_tiles ? o->min_tiles : (int32_t)c->min_tiles;
        // a smaller maximum than the config's minimum was asked for
        if (!o->min_tiles && r->min_tiles > r->max_tiles) r->min_tiles = r->max_tiles;
    } else if (o->max_tiles > 1 || o->min_tiles > 1) {
        return mm_fail(err, mm_code_input,
                       "%d tiles: this model takes every picture as one tile (config.json: "
                       "'dynamic_image_size' is false)",
                       o->max_tiles > 1 ? o->max_tiles : o->min_tiles);
    }
    if (r->min_tiles < 1 || r->min_tiles > r->max_tiles || r->max_tiles > mm_tiles_max) {
        return mm_fail(err, mm_code_input,
                       "%d to %d tiles a picture, wanted a range within 1 to %d", r->min_tiles,
                       r->max_tiles, mm_tiles_max);
    }
    return mm_code_ok;
}

enum mm_code mm_session_new(struct mm_session **out, struct mm_engine *e,
                            const struct mm_session_options *o, struct mm_error *err) {
    *out = NULL;
    struct mm_tile_rule rule;
    MM_TRY(tile_rule(&rule, &e->model.config, o, err));
    const int64_t piece = o->piece_tokens ? o->piece_tokens : e->be->piece_tokens;
    if (piece < 1 || piece > largest_piece_tokens) {
        return mm_fail(err, mm_code_input, "pieces of %lld tokens, wanted 1 to %d",
                       (long long)piece, largest_piece_tokens);
    }
    if (o->n_marks < 0 || o->n_marks > mm_session_max_marks) {
        return mm_fail(err, mm_code_input, "%d turns to remember, wanted 0 to %d", o->n_marks,
                       mm_session_max_marks);
    }
    struct mm_session *s = mm_xcalloc(1, sizeof *s);
    const enum mm_code code = mm_state_init(&s->state, &e->model, err);
    if (code) {
        free(s);
        return code;
    }
    s->e = e;
    s->row = -1;
    s->tiles = rule;
    s->piece_tokens = piece;
    s->max_marks = o->n_marks;
    s->marks = mm_xcalloc((size_t)o->n_marks, sizeof *s->marks);
    s->system = mm_xstrdup(o->system ? o->system : mm_chat_default_system);
    s->logits = mm_xmalloc((size_t)e->model.config.V * sizeof *s->logits);
    s->sampling = e->sampling;
    mm_session_set_seed(s, 0);
    *out = s;
    return mm_code_ok;
}

void mm_session_free(struct mm_session *s) {
    if (s == NULL) return;
    if (s->row >= 0) s->e->rows[s->row] = NULL;
    if (s->ahead.fixed) s->e->be->release(s->e->be, s->ahead.fixed, s->state.fixed_bytes);
    for (int i = 0; i < s->n_marks; i++)
        mark_drop(s->e, s->marks[i]);
    free(s->marks);
    forget_pictures(s);
    free(s->pictures);
    mm_ids_free(&s->ids);
    mm_answer_text_deinit(&s->answer);
    free(s->logits);
    free(s->system);
    mm_state_deinit(&s->state);
    free(s);
}

enum mm_code mm_session_set_sampling(struct mm_session *s, const struct mm_sampling *how,
                                     struct mm_error *err) {
    MM_TRY(mm_sampling_check(how, "sampling", err));
    s->sampling = *how;
    return mm_code_ok;
}

void mm_session_set_seed(struct mm_session *s, uint64_t seed) {
    s->rng = mm_rng_make(seed, mm_rng_stream("sample"));
}

static void copy_ids(struct mm_ids *to, const struct mm_ids *from) {
    *to = (struct mm_ids){mm_xmalloc((size_t)from->n * sizeof *to->data), from->n, from->n};
    if (from->n > 0) memcpy(to->data, from->data, (size_t)from->n * sizeof *to->data);
}

enum mm_code mm_session_fork(struct mm_session **out, const struct mm_session *from,
                             struct mm_error *err) {
    *out = NULL;
    MM_TRY(mm_session_settle(from, err));
    const struct mm_session_options o = {from->system, from->tiles.min_tiles, from->tiles.max_tiles,
                                         from->piece_tokens, from->max_marks};
    struct mm_session *s;
    MM_TRY(mm_session_new(&s, from->e, &o, err));
    const enum mm_code code = mm_state_copy(&s->state, &from->state, err);
    if (code) {
        mm_session_free(s);
        return code;
    }
    copy_ids(&s->ids, &from->ids);
    s->n_fed = from->n_fed;
    s->n_answered = from->n_answered;
    s->answer_from = from->answer_from;
    s->n_turns = from->n_turns;
    s->have_logits = from->have_logits;
    if (from->have_logits) {
        memcpy(s->logits, from->logits, (size_t)from->e->model.config.V * sizeof(float));
    }
    s->finished = from->finished;
    s->marked = from->marked;
    s->broken = from->broken;
    s->sampling = from->sampling;
    s->rng = from->rng;
    s->asked_at = from->asked_at;
    s->pictures = mm_xcalloc((size_t)from->n_pictures, sizeof *s->pictures);
    for (int i = 0; i < from->n_pictures; i++)
        mm_queued_picture_copy(&s->pictures[s->n_pictures++], &from->pictures[i]);
    for (int i = 0; i < from->n_marks; i++) {
        from->marks[i]->n_refs++;
        s->marks[s->n_marks++] = from->marks[i];
    }
    *out = s;
    return mm_code_ok;
}

// ---- adding -------------------------------------------------------------------------------------

enum mm_code mm_session_check(const struct mm_session *s, struct mm_error *err) {
    if (!s->broken) return mm_code_ok;
    return mm_fail(err, mm_code_input,
                   "this session was left inside a turn by an earlier failure, and has no mark to "
                   "go back to; start a new one");
}

// Pictures of one call, before anything is changed.
struct arrivals {
    struct mm_queued_picture *q;
    int32_t *tiles;
    int n;
};

static void arrivals_deinit(struct arrivals *a) {
    for (int i = 0; i < a->n; i++)
        mm_queued_picture_deinit(&a->q[i]);
    free(a->q);
    free(a->tiles);
}

static enum mm_code arrivals_init(struct arrivals *a, const struct mm_session *s,
                                  const struct mm_picture *pictures, int n, struct mm_error *err) {
    *a = (struct arrivals){mm_xcalloc((size_t)n, sizeof *a->q),
                           mm_xcalloc((size_t)n, sizeof *a->tiles), 0};
    for (int i = 0; i < n; i++) {
        const enum mm_code code = mm_queued_picture_init(&a->q[i], &pictures[i], &s->tiles, err);
        if (code) {
            arrivals_deinit(a);
            return code;
        }
        a->tiles[a->n++] = a->q[i].n_tiles;
    }
    return mm_code_ok;
}

// Positions are counted in 32 bits, and where the first stack sees pictures before the shuffle a
// picture's token takes four of them there.
static enum mm_code check_room(const struct mm_session *s, const struct mm_ids *ids,
                               struct mm_error *err) {
    const int64_t per = s->e->model.config.shuffle_post ? 4 : 1;
    if ((s->ids.n + ids->n + 1) * per <= INT32_MAX) return mm_code_ok;
    return mm_fail(err, mm_code_input, "the conversation would have %lld tokens, at most %lld fit",
                   (long long)(s->ids.n + ids->n), (long long)(INT32_MAX / per - 1));
}

// Nothing fails here.
static void append(struct mm_session *s, struct arrivals *a, const struct mm_picture *pictures,
                   const struct mm_ids *ids) {
    for (int64_t i = 0; i < ids->n; i++)
        mm_ids_add(&s->ids, ids->data[i]);
    s->pictures = mm_xrealloc(s->pictures, (size_t)(s->n_pictures + a->n) * sizeof *s->pictures);
    for (int i = 0; i < a->n; i++) {
        mm_queued_picture_take(&a->q[i], &pictures[i]);
        s->pictures[s->n_pictures++] = a->q[i];
    }
    a->n = 0;
    s->finished = false;
    s->asked_at = mm_now();
}

// The user's text with markers in front when it places no picture itself.
static void place_pictures(struct mm_buf *out, const char *text, int n) {
    if (n == 1 && strstr(text, picture_marker) == NULL) {
        mm_buf_addf(out, "%s\n", picture_marker);
    } else if (n > 1 && strstr(text, picture_marker) == NULL) {
        for (int i = 0; i < n; i++)
            mm_buf_addf(out, "Image-%d: %s\n", i + 1, picture_marker);
    }
    mm_buf_adds(out, text);
}

enum mm_code mm_session_add_turn(struct mm_session *s, const char *text,
                                 const struct mm_picture *pictures, int n_pictures,
                                 struct mm_error *err) {
    MM_TRY(mm_session_check(s, err));
    // a mark holds no waiting pictures
    if (s->n_pictures > 0) MM_TRY(mm_session_prefill(s, NULL, err));
    struct arrivals a;
    MM_TRY(arrivals_init(&a, s, pictures, n_pictures, err));
    struct mm_buf question = {NULL, 0, 0};
    place_pictures(&question, text, n_pictures);
    const bool opens = s->ids.n == 0;
    const struct mm_chat_turn turns[3] = {{mm_chat_role_system, s->system, true},
                                          {mm_chat_role_user, question.data, true},
                                          {mm_chat_role_assistant, NULL, false}};
    struct mm_ids ids = {NULL, 0, 0};
    enum mm_code code = mm_code_ok;
    if (!opens && s->ids.data[s->ids.n - 1] != s->e->special.im_end) {
        mm_ids_add(&ids, s->e->special.im_end);
    }
    code = mm_chat_encode(s->e->tok, opens ? turns : turns + 1, opens ? 3 : 2, a.tiles, a.n,
                          (int32_t)s->e->tile_tokens, opens, "the turn", &ids, err);
    if (!code) code = check_room(s, &ids, err);
    if (!code) code = mark(s, err);
    if (!code) {
        append(s, &a, pictures, &ids);
        s->n_turns++;
    }
    mm_ids_free(&ids);
    mm_buf_free(&question);
    arrivals_deinit(&a);
    return code;
}

enum mm_code mm_session_add_text(struct mm_session *s, const char *text,
                                 const struct mm_picture *pictures, int n_pictures,
                                 struct mm_error *err) {
    MM_TRY(mm_session_check(s, err));
    struct arrivals a;
    MM_TRY(arrivals_init(&a, s, pictures, n_pictures, err));
    struct mm_buf expanded = {NULL, 0, 0};
    struct mm_ids ids = {NULL, 0, 0};
    enum mm_code code = mm_code_ok;
    if (n_pictures == 0) {
        mm_buf_adds(&expanded, text);
    } else {
        code = mm_chat_expand_images(&expanded, text, a.tiles, a.n, (int32_t)s->e->tile_tokens,
                                     "the text", err);
    }
    if (!code) {
        mm_tokenizer_encode(s->e->tok, expanded.data, expanded.len, s->ids.n == 0, &ids);
        code = check_room(s, &ids, err);
    }
    if (!code && ids.n == 0) code = mm_fail(err, mm_code_input, "the text is empty");
    if (!code) {
        append(s, &a, pictures, &ids);
        s->marked = false;
    }
    mm_ids_free(&ids);
    mm_buf_free(&expanded);
    arrivals_deinit(&a);
    return code;
}

// ---- looking ------------------------------------------------------------------------------------

int64_t mm_session_cache_bytes(const struct mm_session *s) {
    const struct mm_model *m = &s->e->model;
    int64_t bytes = 0;
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const struct mm_stack_config *c = m->blocks[i].stack;
        const int64_t rows = i < m->config.embed.n_blocks ? s->state.n_embed : s->state.n_llm;
        if (m->blocks[i].mixer == mm_mixer_mha) {
            bytes += 2 * rows * c->G * c->P * (int64_t)sizeof(float);
        }
    }
    return bytes;
}

void mm_session_text(const struct mm_session *s, struct mm_buf *out) {
    const struct mm_chat_special *sp = &s->e->special;
    struct mm_utf8_stream utf8 = {0};
    struct mm_buf piece = {NULL, 0, 0};
    bool opens = true, inside = false;  // of a picture
    for (int64_t i = 0; i < s->ids.n; i++) {
        const int32_t id = s->ids.data[i];
        mm_buf_reset(&piece);
        if (id == sp->img_end && inside) {
            inside = false;
        } else if (id == sp->img_context && !inside) {
            // the marker stands for everything between <img> and </img>
            mm_buf_adds(&piece, picture_marker);
            inside = true;
        } else if (id != sp->img && id != sp->img_context) {
            mm_tokenizer_piece(s->e->tok, id, opens, &piece);
        }
        if (piece.len > 0) mm_utf8_stream_add(&utf8, piece.data, piece.len, out);
        opens = mm_tokenizer_is_special(s->e->tok, id);
    }
    mm_utf8_stream_end(&utf8, out);
    mm_buf_free(&piece);
}
