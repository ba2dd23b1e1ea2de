#include "bench/run.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/rng.h"
#include "bench/ceilings.h"
#include "bench/counts.h"
#include "infer/piece.h"
#include "infer/sample.h"

enum { edge_tokens = 2048, most_steps = 1 << 20 };
static const double repeat_until_s = 30.0;  // a repeat begins only before

struct runner {
    struct mm_model *m;
    const struct mm_bench_plan *p;
    struct mm_bench_row *row;
    struct mm_piece_memory memory;
    struct mm_state state;    // of the prompt and the first sequence
    struct mm_state *others;  // (batch - 1) the sequences beside it
    struct mm_stepper stepper;
    struct mm_sample_scratch scratch;
    int32_t *ids;  // (n) the prompt: pictures, then text
    int64_t n;
    float *pixels;   // of the piece with the most tiles
    float *logits;   // (batch, V)
    int32_t *last;   // (batch) the token that each sequence reads next
    int32_t *drawn;  // (mm_stepper_ahead, batch)
    double *steps;   // seconds of every step so far
    int64_t n_steps, steps_cap;
    double first_tok_s, last_tok_s;  // reading about the first and last edge_tokens
};

// ---- the prompt ---------------------------------------------------------------------------------

static void make_prompt(struct runner *r) {
    const struct mm_config *c = &r->m->config;
    const int64_t visual = r->row->visual_tokens;
    const uint64_t stream = mm_rng_stream("bench/ids");
    r->ids = mm_xmalloc((size_t)r->n * sizeof *r->ids);
    for (int64_t i = 0; i < r->n; i++) {
        uint32_t id = mm_rng_u32_at(r->p->seed, stream, (uint64_t)i);
        id %= (uint32_t)c->V;
        if ((int64_t)id == c->img_context_id) id = id ? id - 1 : 1;
        r->ids[i] = i < visual ? (int32_t)c->img_context_id : (int32_t)id;
    }
}

static void make_pixels(struct runner *r) {
    const struct mm_config *c = &r->m->config;
    int64_t most = 0;
    for (int64_t at = 0; at < r->n;) {
        int64_t tiles;
        at = mm_piece_end(c, r->ids, r->n, at, r->p->piece, &tiles);
        if (tiles > most) most = tiles;
    }
    const int64_t n = most * 3 * c->image_size * c->image_size;
    r->pixels = mm_xmalloc((size_t)(n + 1) * sizeof *r->pixels);
    struct mm_rng rng = mm_rng_make(r->p->seed, mm_rng_stream("bench/pixels"));
    for (int64_t i = 0; i < n; i++)
        r->pixels[i] = 2.0f * mm_rng_f32(&rng) - 1.0f;
}

// One piece from `at`; returns its end in *at.
static enum mm_code read_piece(struct runner *r, struct mm_state *state, int64_t n, int64_t *at,
                               struct mm_view *hidden, struct mm_error *err) {
    int64_t tiles;
    const int64_t end = mm_piece_end(&r->m->config, r->ids, n, *at, r->p->piece, &tiles);
    MM_TRY(mm_piece_memory_reserve(&r->memory, r->m, end - *at, tiles, 1, err));
    MM_TRY(mm_piece_run(&r->memory, r->m, state, r->ids + *at, end - *at, r->pixels, tiles, NULL,
                        hidden, "the prompt", err));
    *at = end;
    return mm_code_ok;
}

static enum mm_code damaged(const struct runner *r, struct mm_error *err) {
    return mm_fail(err, mm_code_input, "%s: the logits are not finite; its weights are damaged",
                   r->m->path);
}

static enum mm_code draw(struct runner *r, const float *logits, int32_t *id, struct mm_error *err) {
    const int32_t banned = (int32_t)r->m->config.img_context_id;
    const struct mm_sampling greedy = MM_SAMPLING_GREEDY;
    *id = mm_sample(&r->scratch, logits, &greedy, NULL, NULL, 0, &banned, 1);
    return *id >= 0 ? mm_code_ok : damaged(r, err);
}

static enum mm_code draw_first(struct runner *r, struct mm_view hidden, int32_t *id,
                               struct mm_error *err) {
    MM_TRY(mm_piece_logits(&r->memory, r->m, hidden, 1, r->logits, err));
    return draw(r, r->logits, id, err);
}

static enum mm_code interrupted(struct mm_error *err) {
    return mm_fail(err, mm_code_interrupted, "interrupted");
}

static enum mm_code too_long(const struct runner *r, double seconds, bool guessed,
                             struct mm_error *err) {
    char what[64] = "";
    if (guessed) snprintf(what, sizeof what, "would take about %.0f s", seconds);
    return mm_fail(err, mm_code_unsupported,
                   "reading %lld tokens %s, and --max-seconds allows %.0f", (long long)r->n,
                   guessed ? what : "takes longer than was guessed", r->p->max_seconds);
}

// Reads the prompt from an empty state. *read_s: until the last piece is read; *first_s: until the
// first token is drawn.
static enum mm_code prefill(struct runner *r, int32_t *id, double *read_s, double *first_s,
                            struct mm_error *err) {
    char what[96];
    struct mm_progress progress;
    struct mm_view hidden;
    enum mm_code code = mm_code_ok;
    mm_state_clear(&r->state);
    snprintf(what, sizeof what, "%s %s, reading", r->row->mixers, mm_dtype_name(r->row->dtype));
    mm_progress_begin(&progress, what, "tokens", r->n, 0);
    const double from = mm_now();
    double tail = from, now = from;
    int64_t tail_at = 0;
    for (int64_t at = 0; at < r->n && !code;) {
        const int64_t was = at;
        code = read_piece(r, &r->state, r->n, &at, &hidden, err);
        now = mm_now();
        if (was < edge_tokens && at >= edge_tokens) {
            r->first_tok_s = (double)at / (now - from);
        }
        if (r->n - at >= edge_tokens) tail = now, tail_at = at;
        mm_progress_update(&progress, at, NULL);
        if (!code && mm_interrupted()) code = interrupted(err);
        // a guess may have been wrong
        if (!code && r->p->max_seconds > 0.0 && now - from > 1.5 * r->p->max_seconds) {
            code = too_long(r, 0.0, false, err);
        }
    }
    *read_s = now - from;
    r->last_tok_s = (double)(r->n - tail_at) / (now - tail);
    if (!code) code = draw_first(r, hidden, id, err);
    *first_s = mm_now() - from;
    if (*read_s > 3.0 || code) mm_progress_end(&progress);
    return code;
}

// A state as if the prompt had been read: small numbers everywhere.
static enum mm_code pretend(struct runner *r, int32_t *id, struct mm_error *err) {
    struct mm_state *s = &r->state;
    struct mm_backend *be = r->m->be;
    const float some = 0.01f;
    MM_TRY(mm_piece_memory_reserve(&r->memory, r->m, 1, 0, 1, err));
    for (int64_t i = 0; i < r->m->n_blocks; i++) {
        const struct mm_block_state *b = &s->blocks[i];
        if (b->S.data) mm_fill(be, b->S, some);
        if (b->conv.data) mm_fill(be, b->conv, some);
        if (b->k.data) mm_fill(be, mm_view_rows(b->k, 0, r->n), some);
        if (b->v.data) mm_fill(be, mm_view_rows(b->v, 0, r->n), some);
    }
    s->n_embed = s->n_llm = r->n;
    *id = r->ids[r->n - 1];
    return mm_backend_sync(be, err);
}

// ---- decoding -----------------------------------------------------------------------------------

// One token of each of n sequences, and the next one drawn.
static enum mm_code step(struct runner *r, int64_t n, double *seconds, struct mm_error *err) {
    struct mm_stepper *p = &r->stepper;
    const double from = mm_now();
    for (int64_t i = 0; i < n; i++) {
        p->tokens[i] = r->last[i];
        p->wanted[i] = r->logits + i * r->m->config.V;
    }
    MM_TRY(mm_stepper_run(p, n, err));
    for (int64_t i = 0; i < n; i++)
        MM_TRY(draw(r, p->wanted[i], &r->last[i], err));
    *seconds = mm_now() - from;
    return mm_interrupted() ? interrupted(err) : mm_code_ok;
}

// `count` steps of n sequences, from seconds[0] on the time of each. Where the device is not the
// host the host does not wait for each token, as no server would: the steps of a call share its
// time.
static enum mm_code steps(struct runner *r, int64_t n, int64_t count, double *seconds,
                          struct mm_error *err) {
    struct mm_stepper *p = &r->stepper;
    if (r->m->be->host_memory) {
        for (int64_t i = 0; i < count; i++)
            MM_TRY(step(r, n, &seconds[i], err));
        return mm_code_ok;
    }
    const int32_t banned = (int32_t)r->m->config.img_context_id;
    for (int64_t i = 0; i < count;) {
        const int64_t some = count - i < mm_stepper_ahead ? count - i : mm_stepper_ahead;
        const double from = mm_now();
        memcpy(p->tokens, r->last, (size_t)n * sizeof *r->last);
        MM_TRY(mm_stepper_greedy(p, n, some, &banned, 1, r->drawn, err));
        memcpy(r->last, r->drawn + (some - 1) * n, (size_t)n * sizeof *r->last);
        for (int64_t t = 0; t < some * n; t++) {
            if (r->drawn[t] < 0) return damaged(r, err);
        }
        const double each = (mm_now() - from) / (double)some;
        for (int64_t k = 0; k < some; k++)
            seconds[i++] = each;
        if (mm_interrupted()) return interrupted(err);
    }
    return mm_code_ok;
}

// The states that a step takes.
static void seat(struct runner *r) {
    r->stepper.states[0] = &r->state;
    for (int64_t i = 1; i < r->p->batch; i++)
        r->stepper.states[i] = &r->others[i - 1];
}

// The other sequences go on from the first one's prompt, each with another token.
static enum mm_code spread_state(struct runner *r, struct mm_error *err) {
    for (int64_t i = 1; i < r->p->batch; i++) {
        MM_TRY(mm_state_copy(&r->others[i - 1], &r->state, err));
        r->last[i] = r->ids[r->n - 1 - i % r->p->prompt];
    }
    seat(r);
    return mm_code_ok;
}

static enum mm_code decode(struct runner *r, double *tok_s, struct mm_error *err) {
    const int64_t n = r->p->new_tokens;
    if (r->n_steps + n > r->steps_cap) {
        r->steps_cap = r->n_steps + n;
        r->steps = mm_xrealloc(r->steps, (size_t)r->steps_cap * sizeof *r->steps);
    }
    double sum = 0.0;
    MM_TRY(steps(r, r->p->batch, n, r->steps + r->n_steps, err));
    for (int64_t i = 0; i < n; i++)
        sum += r->steps[r->n_steps++];
    *tok_s = (double)(n * r->p->batch) / sum;
    return mm_code_ok;
}

// n steps of one sequence: their time, but for the first, which brings the state to the caches.
static enum mm_code steps_of(struct runner *r, struct mm_state *state, int32_t *id, int64_t n,
                             double *sum, struct mm_error *err) {
    enum { most = 16 };
    double s[most];
    assert(n <= most);
    *sum = 0.0;
    r->stepper.states[0] = state;
    r->last[0] = *id;
    MM_TRY(step(r, 1, &s[0], err));
    MM_TRY(steps(r, 1, n, s, err));
    for (int64_t i = 0; i < n; i++)
        *sum += s[i];
    *id = r->last[0];
    return mm_code_ok;
}

// Steps after the short prompt and after this one in turns, so that both meet the same machine:
// the median over the turns of the ratio of their speeds.
static enum mm_code compare_steps(struct runner *r, struct mm_state *near, struct mm_error *err) {
    enum { turns = 9 };
    struct mm_view hidden;
    int32_t id = r->last[0], near_id = 0;
    for (int64_t at = r->n - r->p->pair; at < r->n;)  // text; pictures come before it
        MM_TRY(read_piece(r, near, r->n, &at, &hidden, err));
    MM_TRY(draw_first(r, hidden, &near_id, err));
    int64_t n = (int64_t)(0.4 / r->row->step_p50_s);
    n = n < 2 ? 2 : n > 16 ? 16 : n;
    double ratio[turns];
    for (int t = 0; t < turns; t++) {
        double short_s, long_s;
        MM_TRY(steps_of(r, near, &near_id, n, &short_s, err));
        MM_TRY(steps_of(r, &r->state, &id, n, &long_s, err));
        ratio[t] = short_s / long_s;
    }
    r->row->pair_ratio = mm_bench_median(ratio, turns);
    return mm_code_ok;
}

static enum mm_code pair(struct runner *r, struct mm_error *err) {
    struct mm_state near;
    MM_TRY(mm_state_init(&near, r->m, err));
    enum mm_code code = mm_state_reserve(&near, r->p->pair + 512, err);
    if (!code) code = compare_steps(r, &near, err);
    mm_state_deinit(&near);
    return code;
}

// ---- the row ------------------------------------------------------------------------------------

static struct mm_bench_spread spread_of(const double *v, int n) {
    struct mm_bench_spread s = {.median = mm_bench_median(v, n), .n = n};
    for (int i = 0; i < n; i++) {
        if (i == 0 || v[i] < s.least) s.least = v[i];
        if (i == 0 || v[i] > s.most) s.most = v[i];
    }
    return s;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// What the caches of keys and values will take, before any of it is taken.
static enum mm_code room_for_states(struct runner *r, int64_t tokens, struct mm_error *err) {
    const int64_t per_token = (int64_t)mm_model_cache_bytes_per_token(r->m) * r->p->batch;
    const int64_t room = r->m->be->available(r->m->be);
    if (per_token > 0 && tokens > room / per_token) {
        return mm_fail(err, mm_code_memory,
                       "keys and values of %lld tokens take %.1f GiB and %.1f GiB are free",
                       (long long)(tokens * r->p->batch),
                       (double)tokens * (double)per_token / 1073741824.0,
                       (double)room / 1073741824.0);
    }
    MM_TRY(mm_state_init(&r->state, r->m, err));
    MM_TRY(mm_state_reserve(&r->state, tokens, err));
    r->others = mm_xcalloc((size_t)r->p->batch, sizeof *r->others);
    for (int64_t i = 0; i < r->p->batch - 1; i++) {
        MM_TRY(mm_state_init(&r->others[i], r->m, err));
        MM_TRY(mm_state_reserve(&r->others[i], tokens, err));
    }
    MM_TRY(mm_stepper_reserve(&r->stepper, r->m, r->p->batch, err));
    seat(r);
    return mm_code_ok;
}

// Runs once over code and memory that the row will use, and guesses how long the prompt takes.
static enum mm_code warm_up(struct runner *r, struct mm_error *err) {
    double took = 0.0;
    int64_t at = 0;
    r->last[0] = r->ids[r->n - 1];
    for (int i = 0; i < 2; i++) {
        struct mm_view hidden;
        at = 0;
        mm_state_clear(&r->state);
        const double from = mm_now();
        MM_TRY(read_piece(r, &r->state, r->n, &at, &hidden, err));
        took = mm_now() - from;
        if (mm_interrupted()) return interrupted(err);
    }
    double unused;
    for (int i = 0; i < 2; i++)
        MM_TRY(step(r, 1, &unused, err));
    const int64_t per = mm_config_tile_tokens(&r->m->config);
    const int64_t tiles = r->p->tiles < at / per ? r->p->tiles : at / per;
    const double ops = mm_bench_prefill_ops(r->m, at - tiles * per, tiles);
    const double guess = took * r->row->prefill_ops / ops;
    if (r->p->max_seconds > 0.0 && guess > r->p->max_seconds && !r->p->skip_prefill) {
        return too_long(r, guess, true, err);
    }
    if (guess > 10.0 && !r->p->skip_prefill) {
        mm_info("%s %s, %lld tokens: about %.0f s", r->row->mixers, mm_dtype_name(r->row->dtype),
                (long long)r->n, guess);
    }
    return mm_code_ok;
}

static enum mm_code measure(struct runner *r, struct mm_error *err) {
    enum { most = 64 };
    double read[most], first[most], tok_s[most];
    struct mm_bench_row *row = r->row;
    int n = 0;
    const double from = mm_now();
    const int repeats = r->p->repeats < most ? r->p->repeats : most;
    do {
        if (r->p->skip_prefill) {
            MM_TRY(pretend(r, &r->last[0], err));
        } else {
            MM_TRY(prefill(r, &r->last[0], &read[n], &first[n], err));
        }
        MM_TRY(spread_state(r, err));
        MM_TRY(decode(r, &tok_s[n], err));
        n++;
    } while (n < repeats && mm_now() - from < repeat_until_s);
    const int n_read = r->p->skip_prefill ? 0 : n;
    row->prefill_s = spread_of(read, n_read);
    row->ttft_s = spread_of(first, n_read);
    row->decode_tok_s = spread_of(tok_s, n);
    qsort(r->steps, (size_t)r->n_steps, sizeof *r->steps, compare);
    row->step_p50_s = r->steps[r->n_steps / 2];
    row->step_p99_s = r->steps[(r->n_steps - 1) * 99 / 100];
    if (n_read > 0 && r->n >= 4 * edge_tokens) {
        row->first_tok_s = r->first_tok_s;
        row->last_tok_s = r->last_tok_s;
    }
    const struct mm_backend *be = r->m->be;
    row->peak_bytes = be->gauges->peak(r->m->be);
    row->cache_bytes = (int64_t)mm_model_cache_bytes_per_token(r->m) * r->state.n_llm * r->p->batch;
    // after the peak was taken: the second state is not the row's
    return r->p->pair > 0 ? pair(r, err) : mm_code_ok;
}

enum mm_code mm_bench_run(struct mm_bench_row *row, struct mm_model *m,
                          const struct mm_bench_plan *plan, struct mm_error *err) {
    struct runner r = {.m = m, .p = plan, .row = row};
    const double before = row->read_before;
    *row = (struct mm_bench_row){
        .mixers = mm_bench_mixers(&m->config),
        .dtype = mm_bench_dtype(m),
        .plan = *plan,
        .read_before = before,
        .prefill_ops = mm_bench_prefill_ops(m, plan->prompt, plan->tiles),
        .weight_bytes = (int64_t)mm_model_weight_bytes(m),
        .state_bytes = (int64_t)mm_model_state_bytes(m) * plan->batch,
    };
    row->peak_known = m->be->gauges->peak_reset(m->be);
    row->visual_tokens = plan->tiles * mm_config_tile_tokens(&m->config);
    r.n = row->visual_tokens + plan->prompt;
    r.logits = mm_xmalloc((size_t)(plan->batch * m->config.V) * sizeof *r.logits);
    r.last = mm_xcalloc((size_t)plan->batch, sizeof *r.last);
    r.drawn = mm_xcalloc((size_t)(plan->batch * mm_stepper_ahead), sizeof *r.drawn);
    mm_sample_scratch_init(&r.scratch, m->config.V);
    // the stack that sees more rows
    int64_t rows = r.n;
    if (m->config.shuffle_post) rows += 3 * row->visual_tokens;
    row->step_bytes = (double)mm_bench_step_bytes(m, r.n + plan->new_tokens / 2, plan->batch);
    const struct mm_load_mark mark = mm_load_mark_now();
    enum mm_code code = room_for_states(&r, rows + plan->new_tokens + 512, err);
    if (!code) {
        make_prompt(&r);
        make_pixels(&r);
        code = warm_up(&r, err);
    }
    if (!code) code = measure(&r, err);
    mm_state_deinit(&r.state);
    for (int64_t i = 0; r.others && i < plan->batch - 1; i++)
        mm_state_deinit(&r.others[i]);
    row->load = mm_load_since(&mark, mm_pool_size(m->be->pool));
    mm_piece_memory_deinit(&r.memory);
    mm_sample_scratch_deinit(&r.scratch);
    mm_stepper_deinit(&r.stepper);
    free(r.others);
    free(r.last);
    free(r.drawn);
    free(r.ids);
    free(r.pixels);
    free(r.logits);
    free(r.steps);
    return code;
}
