// Owns: the two loops that compute: reading what waits in a session, and writing an answer.
#include <stdlib.h>

#include "base/log.h"
#include "infer/writing.h"

// Room made before the first token; a longer answer grows what it needs by half now and then.
enum { room_tokens = 8192, room_bytes = 1 << 20 };

const char *mm_finish_name(enum mm_finish f) {
    static const char *const names[] = {"stop", "length", "cancelled"};
    return names[f];
}

// ---- reading ------------------------------------------------------------------------------------

static enum mm_code room_for_tiles(struct mm_engine *e, int64_t n, struct mm_error *err) {
    if (n <= e->n_pixel_tiles) return mm_code_ok;
    const int64_t S = e->model.config.image_size;
    const size_t bytes = (size_t)(n * 3 * S * S) * sizeof(float);
    float *pixels = realloc(e->pixels, bytes);
    if (pixels == NULL) {
        return mm_fail(err, mm_code_memory, "no memory for %lld tiles of %lld x %lld pixels",
                       (long long)n, (long long)S, (long long)S);
    }
    e->pixels = pixels;
    e->n_pixel_tiles = n;
    return mm_code_ok;
}

// The next n tiles of the waiting pictures, normalised, in the engine's pixels.
static enum mm_code read_tiles(struct mm_session *s, int64_t n, struct mm_error *err) {
    struct mm_engine *e = s->e;
    MM_TRY(room_for_tiles(e, n, err));
    const int64_t S = e->model.config.image_size;
    int next = 0;
    for (int64_t done = 0; done < n;) {
        while (next < s->n_pictures && s->pictures[next].n_read == s->pictures[next].n_tiles)
            next++;
        if (next == s->n_pictures) {
            // text given with <IMG_CONTEXT> written out, and no picture for it
            return mm_fail(err, mm_code_input,
                           "the text has %lld more <IMG_CONTEXT> tiles than the pictures given",
                           (long long)(n - done));
        }
        struct mm_queued_picture *q = &s->pictures[next];
        int64_t take = q->n_tiles - q->n_read;
        if (take > n - done) take = n - done;
        MM_TRY(
            mm_queued_picture_read(q, &s->tiles, (int32_t)take, e->pixels + done * 3 * S * S, err));
        done += take;
    }
    return mm_code_ok;
}

// ---- what a session still has in the stepper's memory ----

static void forget_row(struct mm_session *s) {
    if (s->row >= 0) s->e->rows[s->row] = NULL;
    s->row = -1;
}

static enum mm_code fetch_logits(struct mm_session *s, struct mm_error *err) {
    if (s->row < 0) return mm_code_ok;
    const int64_t row = s->row;
    forget_row(s);
    return mm_stepper_logits(&s->e->stepper, row, s->logits, err);
}

// Before a step overwrites the first n rows.
static enum mm_code fetch_rows(struct mm_engine *e, int64_t n, struct mm_error *err) {
    for (int64_t i = 0; i < n && i < e->n_rows; i++) {
        if (e->rows[i]) MM_TRY(fetch_logits(e->rows[i], err));
    }
    return mm_code_ok;
}

// Back to before the steps, and again up to n_fed: the same numbers, since a sequence's do not
// depend on others. Keys and values need no going back: rows are overwritten.
static enum mm_code take_steps_back(struct mm_session *s, struct mm_error *err) {
    struct mm_engine *e = s->e;
    const struct mm_ahead *a = &s->ahead;
    if (a->fixed) e->be->move(e->be, s->state.fixed, a->fixed, s->state.fixed_bytes);
    s->state.n_embed = a->n_embed, s->state.n_llm = a->n_llm;
    forget_row(s);
    MM_TRY(fetch_rows(e, 1, err));
    for (int64_t i = a->n_fed; i < s->n_fed; i++) {
        e->stepper.states[0] = &s->state;
        e->stepper.tokens[0] = s->ids.data[i];
        e->stepper.wanted[0] = i + 1 == s->n_fed ? s->logits : NULL;
        MM_TRY(mm_stepper_run(&e->stepper, 1, err));
    }
    return mm_code_ok;
}

// A session is the same before and after.
enum mm_code mm_session_settle(const struct mm_session *session, struct mm_error *err) {
    struct mm_session *s = (struct mm_session *)session;
    const bool further = s->n_fed < s->ahead.n_fed + s->ahead.n;
    enum mm_code code = mm_code_ok;
    if (s->ahead.n > 0 && further) code = take_steps_back(s, err);
    s->ahead.n = s->ahead.at = 0;
    // its state is then that of no token list
    if (code) s->broken = true;
    return code ? code : fetch_logits(s, err);
}

enum mm_code mm_engine_reserve_steps(struct mm_engine *e, int n, struct mm_error *err) {
    if (n <= e->n_rows) return mm_code_ok;
    MM_TRY(fetch_rows(e, e->n_rows, err));
    MM_TRY(mm_stepper_reserve(&e->stepper, &e->model, n, err));
    e->rows = mm_xrealloc(e->rows, (size_t)n * sizeof *e->rows);
    e->drawn = mm_xrealloc(e->drawn, (size_t)(n * mm_stepper_ahead) * sizeof *e->drawn);
    for (int64_t i = 0; i < n; i++)
        e->rows[i] = NULL;
    e->n_rows = n;
    return mm_code_ok;
}

enum mm_code mm_sessions_read_token(struct mm_session *const *s, int n, struct mm_error *err) {
    struct mm_engine *e = s[0]->e;
    MM_TRY(mm_engine_reserve_steps(e, n, err));
    for (int i = 0; i < n; i++)
        forget_row(s[i]);
    MM_TRY(fetch_rows(e, n, err));
    for (int i = 0; i < n; i++) {
        // logits of a token that others follow are wanted by nobody
        const bool last = s[i]->n_fed + 1 == s[i]->ids.n;
        e->stepper.states[i] = &s[i]->state;
        e->stepper.tokens[i] = s[i]->ids.data[s[i]->n_fed];
        e->stepper.wanted[i] = last ? s[i]->logits : NULL;
    }
    MM_TRY(mm_stepper_run(&e->stepper, n, err));
    for (int i = 0; i < n; i++) {
        s[i]->n_fed++;
        s[i]->have_logits = s[i]->have_logits || s[i]->n_fed == s[i]->ids.n;
    }
    return mm_code_ok;
}

static enum mm_code read_piece(struct mm_session *s, int64_t end, int64_t n_tiles,
                               struct mm_error *err) {
    struct mm_engine *e = s->e;
    const int64_t n = end - s->n_fed;
    if (n == 1 && n_tiles == 0) return mm_sessions_read_token(&s, 1, err);
    MM_TRY(read_tiles(s, n_tiles, err));
    MM_TRY(mm_piece_memory_reserve(&e->memory, &e->model, n, n_tiles, 1, err));
    struct mm_view hidden;
    MM_TRY(mm_piece_run(&e->memory, &e->model, &s->state, s->ids.data + s->n_fed, n, e->pixels,
                        n_tiles, NULL, &hidden, "the conversation", err));
    s->n_fed = end;
    if (end < s->ids.n) return mm_code_ok;
    MM_TRY(mm_piece_logits(&e->memory, &e->model, hidden, 1, s->logits, err));
    s->have_logits = true;
    return mm_code_ok;
}

// The cache takes the whole of what waits at once: it neither moves nor grows between pieces.
static enum mm_code make_room_for_all(struct mm_session *s, struct mm_error *err) {
    const struct mm_config *c = &s->e->model.config;
    int64_t of_pictures = 0;
    for (int64_t i = s->n_fed; i < s->ids.n; i++)
        of_pictures += s->ids.data[i] == c->img_context_id;
    // Where pictures are shuffled late, the first stack has four rows for each of their tokens.
    const int64_t waiting = s->ids.n - s->n_fed;
    const int64_t embed = s->state.n_embed + waiting + (c->shuffle_post ? 3 * of_pictures : 0);
    const int64_t llm = s->state.n_llm + waiting;
    return mm_state_reserve(&s->state, embed > llm ? embed : llm, err);
}

static enum mm_code read_all(struct mm_session *s, const struct mm_listener *l,
                             struct mm_error *err) {
    const int64_t from = s->n_fed;
    MM_TRY(make_room_for_all(s, err));
    while (s->n_fed < s->ids.n) {
        int64_t n_tiles;
        const int64_t end = mm_piece_end(&s->e->model.config, s->ids.data, s->ids.n, s->n_fed,
                                         s->piece_tokens, &n_tiles);
        MM_TRY(read_piece(s, end, n_tiles, err));
        if (l && l->read && !l->read(l->arg, s->n_fed - from, s->ids.n - from)) {
            return mm_fail(err, mm_code_interrupted, "stopped after %lld of %lld tokens",
                           (long long)(s->n_fed - from), (long long)(s->ids.n - from));
        }
    }
    for (int i = 0; i < s->n_pictures; i++)
        mm_queued_picture_deinit(&s->pictures[i]);
    s->n_pictures = 0;
    return mm_code_ok;
}

// After a failure inside a turn the state is that of no token list; back to the turn's start.
static void take_back(struct mm_session *s) {
    struct mm_error ignored;
    s->broken = true;
    s->ahead.n = s->ahead.at = 0;
    forget_row(s);
    if (s->marked) mm_session_rewind(s, 1, &ignored);
}

enum mm_code mm_session_prefill(struct mm_session *s, const struct mm_listener *l,
                                struct mm_error *err) {
    MM_TRY(mm_session_check(s, err));
    const enum mm_code code = read_all(s, l, err);
    if (code) take_back(s);
    return code;
}

// ---- writing ------------------------------------------------------------------------------------

static enum mm_code check(const struct mm_session *s, const struct mm_generation *g,
                          struct mm_error *err) {
    MM_TRY(mm_session_check(s, err));
    if (g->max_new_tokens < 1) {
        return mm_fail(err, mm_code_input, "max_new_tokens is %lld, must be at least 1",
                       (long long)g->max_new_tokens);
    }
    if (g->min_new_tokens < 0 || g->min_new_tokens > g->max_new_tokens) {
        return mm_fail(err, mm_code_input,
                       "min_new_tokens is %lld, must be 0 to max_new_tokens, which is %lld",
                       (long long)g->min_new_tokens, (long long)g->max_new_tokens);
    }
    if (s->ids.n == 0) {
        return mm_fail(err, mm_code_input, "there is nothing to answer; add a turn first");
    }
    if (s->finished) {
        return mm_fail(err, mm_code_input, "the answer has ended; add a turn first");
    }
    return mm_code_ok;
}

// What n tokens more will touch, so that the steps find it there.
static enum mm_code make_room(struct mm_session *s, int64_t n, struct mm_error *err) {
    if (n > room_tokens) n = room_tokens;
    if (s->ids.cap < s->ids.n + n) {
        s->ids.cap = s->ids.n + n;
        s->ids.data = mm_xrealloc(s->ids.data, (size_t)s->ids.cap * sizeof *s->ids.data);
    }
    int64_t bytes = n * s->e->longest_piece;
    if (bytes > room_bytes) bytes = room_bytes;
    mm_answer_text_begin(&s->answer, (size_t)bytes, (size_t)s->e->longest_piece);
    const int64_t rows = s->state.n_embed > s->state.n_llm ? s->state.n_embed : s->state.n_llm;
    MM_TRY(mm_engine_reserve_steps(s->e, 1, err));
    struct mm_backend *be = s->e->be;
    if (be->steps_ahead > 1 && s->ahead.fixed == NULL && s->state.fixed_bytes > 0)
        MM_TRY(be->alloc(be, s->state.fixed_bytes, &s->ahead.fixed, err));
    // beside longer answers a sequence that has stopped still gets rows, which nobody reads
    return mm_state_reserve(&s->state, rows + n + be->steps_ahead, err);
}

// What cannot come as token `number` of the answer, from 0. A picture cannot be said: its token has
// no embedding of its own.
struct banned {
    int32_t ids[2];
    int n;
};
static struct banned banned_at(const struct mm_writing *w, int64_t number) {
    const struct mm_chat_special *sp = &w->s->e->special;
    const bool may_end = number >= w->how.min_new_tokens;
    return (struct banned){{sp->img_context, sp->im_end}, may_end ? 1 : 2};
}

// Tokens that may still be drawn, at least 1 before the answer is over. Positions are counted in 32
// bits.
enum { most_tokens = INT32_MAX / 4 };
static int64_t tokens_left(const struct mm_writing *w) {
    const int64_t asked = w->how.max_new_tokens - w->answer.new_tokens;
    const int64_t room = most_tokens - w->s->ids.n;
    return asked < room ? asked : room;
}

static int32_t draw(struct mm_writing *w) {
    struct mm_session *s = w->s;
    struct mm_ahead *a = &s->ahead;
    if (a->at < a->n) {
        const int32_t id = a->ids[a->at];
        if (id >= 0) s->rng = a->rng[a->at];
        a->at++;
        return id;
    }
    const struct banned out = banned_at(w, w->answer.new_tokens);
    return mm_sample(&s->e->scratch, s->logits, &s->sampling, &s->rng, s->ids.data + s->answer_from,
                     s->ids.n - s->answer_from, out.ids, out.n);
}

bool mm_writing_waits(const struct mm_writing *w) {
    return w->s->n_fed < w->s->ids.n && w->s->ahead.at == w->s->ahead.n;
}

bool mm_writing_go_on(struct mm_writing *w) {
    if (w->s->ahead.at == w->s->ahead.n) return false;
    w->s->n_fed++;
    return true;
}

// Steps to take before the host looks. The first tokens of an answer come one by one, so that it is
// seen to begin at once; then the number doubles. Who listens gets what they drew together, which
// should look no different from one by one: so they are over within about a picture of a film.
static int steps_of(struct mm_writing *const *w, int n, int most) {
    const double together_s = 0.02;
    int64_t steps = most < mm_stepper_ahead ? most : mm_stepper_ahead, longest = 1;
    if (w[0]->s->e->be->steps_ahead < steps) steps = w[0]->s->e->be->steps_ahead;
    for (int i = 0; i < n; i++) {
        const struct mm_writing *one = w[i];
        if (steps > 2 * one->steps) steps = 2 * one->steps;
        if (one->listener.text && (double)steps * one->step_s > together_s)
            steps = (int64_t)(together_s / one->step_s);
        if (tokens_left(one) > longest) longest = tokens_left(one);
    }
    if (steps > longest) steps = longest;
    return steps > 1 ? (int)steps : 1;
}

// What row i of n does in the steps that come.
static void plan_steps(struct mm_writing *w, int i, int n, int count) {
    struct mm_session *s = w->s;
    struct mm_engine *e = s->e;
    struct mm_stepper *p = &e->stepper;
    struct mm_ahead *a = &s->ahead;
    struct mm_rng rng = s->rng;
    const int64_t left = tokens_left(w);
    if (count > 1 && a->fixed) e->be->move(e->be, a->fixed, s->state.fixed, s->state.fixed_bytes);
    a->n = a->at = 0;
    a->n_fed = s->n_fed;
    a->n_embed = s->state.n_embed, a->n_llm = s->state.n_llm;
    p->states[i] = &s->state;
    p->tokens[i] = s->ids.data[s->n_fed];
    p->draws[i] = (struct mm_stepper_draw){s->ids.data + s->answer_from, s->ids.n - s->answer_from,
                                           w->number};
    for (int k = 0; k < count; k++) {
        const struct banned out = banned_at(w, w->answer.new_tokens + k);
        struct mm_draw *how = &p->how[k * n + i];
        *how = mm_sampling_draw(&s->sampling, &rng, out.ids, out.n);
        how->last = k + 1 >= left;
        a->rng[k] = rng;
    }
}

// What row i of n did.
static void keep_steps(struct mm_writing *w, int i, int n, int count) {
    struct mm_session *s = w->s;
    const struct mm_stepper *p = &s->e->stepper;
    struct mm_ahead *a = &s->ahead;
    bool ends = false;
    while (a->n < count && !ends) {
        const int at = a->n * n + i;
        a->ids[a->n++] = s->e->drawn[at];
        ends = mm_draw_ends(&p->how[at], &p->stops, s->e->drawn[at]);
    }
    s->n_fed++;  // the others are when they are taken
    s->row = i;
    s->e->rows[i] = s;
}

enum mm_code mm_writings_read_token(struct mm_writing *const *w, int n, int most,
                                    struct mm_error *err) {
    struct mm_engine *e = w[0]->s->e;
    MM_TRY(mm_engine_reserve_steps(e, n, err));
    for (int i = 0; i < n; i++)
        forget_row(w[i]->s);
    MM_TRY(fetch_rows(e, n, err));
    const int count = steps_of(w, n, most);
    e->stepper.stops = (struct mm_draw_stops){{e->special.im_end}, 1};
    for (int i = 0; i < n; i++)
        plan_steps(w[i], i, n, count);
    const double from = mm_now();
    MM_TRY(mm_stepper_draw(&e->stepper, n, count, e->drawn, err));
    const double step_s = (mm_now() - from) / count;
    for (int i = 0; i < n; i++) {
        keep_steps(w[i], i, n, count);
        w[i]->steps = count;
        w[i]->step_s = step_s;
    }
    return mm_code_ok;
}

// Shows text[from, n_shown); false when the listener wants no more.
static bool show(const struct mm_writing *w, size_t from) {
    const struct mm_answer_text *t = &w->s->answer;
    const struct mm_listener *l = &w->listener;
    if (l->text == NULL) return true;
    return l->text(l->arg, t->text.data + from, t->n_shown - from);
}

enum mm_code mm_writing_begin(struct mm_writing *w, struct mm_session *s,
                              const struct mm_generation *g, const struct mm_listener *l,
                              struct mm_error *err) {
    MM_TRY(check(s, g, err));
    *w =
        (struct mm_writing){.s = s, .how = *g, .asked = s->asked_at > 0.0 ? s->asked_at : mm_now()};
    if (l) w->listener = *l;
    w->number = ++s->e->n_answers;
    s->asked_at = 0.0;
    if (s->ids.n > s->n_answered) s->answer_from = s->ids.n;
    w->answer =
        (struct mm_answer){.prompt_tokens = s->ids.n - s->n_answered, .finish = mm_finish_length};
    MM_TRY(mm_session_settle(s, err));
    MM_TRY(mm_session_prefill(s, l, err));
    const enum mm_code code = make_room(s, g->max_new_tokens, err);
    if (code) take_back(s);
    return code;
}

static enum mm_code end(struct mm_writing *w, struct mm_error *err) {
    struct mm_session *s = w->s;
    struct mm_answer *a = &w->answer;
    w->over = true;
    a->ttft_s = w->first - w->asked;
    a->decode_s = w->last - w->first;
    if (a->new_tokens > 1 && a->decode_s > 0.0) {
        a->decode_tok_s = (double)(a->new_tokens - 1) / a->decode_s;
    }
    const size_t from = mm_answer_text_end(&s->answer);
    if (s->answer.n_shown > from && a->finish != mm_finish_cancelled) show(w, from);
    s->n_answered = s->ids.n;
    a->text = s->answer.text.data;
    a->n_bytes = s->answer.text.len;
    return mm_session_settle(s, err);
}

// True when the token just drawn is the answer's last.
static bool is_last(struct mm_writing *w, int32_t id) {
    struct mm_session *s = w->s;
    if (id == s->e->special.im_end) {
        w->answer.finish = mm_finish_stop;
        s->finished = true;
        return true;
    }
    const size_t from =
        mm_answer_text_add(&s->answer, s->e->tok, id, s->ids.n - 1 == s->answer_from);
    // called for silent tokens too: this is where a listener can stop the answer
    if (!show(w, from)) {
        w->answer.finish = mm_finish_cancelled;
        return true;
    }
    return tokens_left(w) <= 0;
}

enum mm_code mm_writing_draw(struct mm_writing *w, struct mm_error *err) {
    struct mm_session *s = w->s;
    const int32_t id = draw(w);
    if (id < 0) {
        mm_fail(err, mm_code_input,
                "%s: the model's logits are not finite after %lld tokens; its weights are damaged "
                "or its dtype is too narrow",
                s->e->model.path, (long long)s->ids.n);
        take_back(s);
        return mm_code_input;
    }
    w->last = mm_now();
    if (w->answer.new_tokens == 0) w->first = w->last;
    mm_ids_add(&s->ids, id);
    w->answer.new_tokens++;
    return is_last(w, id) ? end(w, err) : mm_code_ok;
}

void mm_writing_cancel(struct mm_writing *w) {
    w->answer.finish = mm_finish_cancelled;
    if (w->answer.new_tokens == 0) w->first = w->last = mm_now();
    end(w, NULL);  // a device that failed says so at the next operation
}

void mm_writing_fail(struct mm_writing *w) {
    take_back(w->s);
}

enum mm_code mm_session_generate(struct mm_session *s, const struct mm_generation *g,
                                 const struct mm_listener *l, struct mm_answer *a,
                                 struct mm_error *err) {
    struct mm_writing w;
    MM_TRY(mm_writing_begin(&w, s, g, l, err));
    for (;;) {
        MM_TRY(mm_writing_draw(&w, err));
        if (w.over) break;
        if (mm_writing_go_on(&w)) continue;
        struct mm_writing *one = &w;
        const enum mm_code code = mm_writings_read_token(&one, 1, mm_stepper_ahead, err);
        if (code) {
            mm_writing_fail(&w);
            return code;
        }
    }
    *a = w.answer;
    return mm_code_ok;
}
