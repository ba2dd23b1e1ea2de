// ssd_fwd, and all of a mixer between its projections (struct mm_mamba2), where the kernels lay out
// chunks (struct mm_chunks): the heads of a group share what is laid out of their keys and values.
// Of a whole mixer the convolution's and the recurrence's results of one chunk stay in the caches:
// z is read once and o written once. A sequence of a block of heads is work for one thread; of a
// sequence that is long for the number of threads the chunks are shared out as well: first what
// each adds to the state, then a scan over them, then the outputs. Both ways give the same bits.
#include <string.h>
#include "ops/cpu/conv.h"
#include "ops/cpu/ssd.h"

enum { most_heads = 4, few_tokens = 8 };

struct fwd {
    struct mm_ssd e;
    const struct mm_chunks *chunks;
    struct mm_view y, state;  // y: or o of a whole mixer
    struct mm_segs segs;
    bool whole;  // a whole mixer: e has no views of v, k and q
    struct mm_conv conv;
    struct mm_view gate;  // (T, HP)
    const float *norm_w;
    float eps;
    int64_t per_block, per_group, n_blocks;  // heads of a block, blocks of a group, all blocks
    unsigned char *pieces;
    size_t piece_bytes, room_bytes;
    int64_t long_from;
    // A long sequence: chunks [chunk0, chunk0 + n_chunks); for each (chunk, head) what it adds to
    // the state, then the state before it.
    int64_t seq, chunk0, n_chunks;
    float *kept;   // (n_chunks, H, N, ld_rows)
    float *carry;  // (H, N, ld_rows) the state after the chunks done
    float *total;  // (n_chunks, H)
};

struct work {
    struct mm_chunk chunk;
    struct mm_decay *decay;
    float *states;  // (per_block, N, ld_rows)
    // Of a whole mixer: v, k, and q and y of one head, of one chunk (mm_ssd_chunk_max, P).
    float *v, *k, *q, *y;
    int64_t first;  // head of the block at hand
};

static int64_t state_size(const struct fwd *f) {
    return f->e.n_cols * f->e.ld_rows;
}

static struct work work_of(const struct fwd *f, int thread) {
    unsigned char *at = f->pieces + (size_t)thread * f->piece_bytes;
    struct work w = {.chunk = {.P = f->e.n_rows, .N = f->e.n_cols, .heads = f->per_block}};
    w.chunk.room = at;
    w.decay = (struct mm_decay *)(at + f->room_bytes);
    w.states = (float *)(at + f->room_bytes + mm_cpu_piece(sizeof *w.decay));
    w.v = w.states + f->per_block * state_size(f);
    w.k = w.v + mm_ssd_chunk_max * f->e.n_rows, w.q = w.k + mm_ssd_chunk_max * f->e.n_rows;
    w.y = w.q + mm_ssd_chunk_max * f->e.n_rows;
    return w;
}

// The heads of block b: [*first, *first + result).
static int64_t heads_of(const struct fwd *f, int64_t b, int64_t *first) {
    const int64_t in_group = b % f->per_group * f->per_block;
    *first = b / f->per_group * f->e.per_group + in_group;
    const int64_t left = f->e.per_group - in_group;
    return left < f->per_block ? left : f->per_block;
}

// Tokens [t, t + n) of sequence s.
struct tokens {
    int64_t s, t, n;
};

// Of the group of head h.
static void keys(const struct fwd *f, struct work *w, int64_t h, struct tokens at) {
    const struct mm_ssd *e = &f->e;
    if (!f->whole) {
        f->chunks->keys(&w->chunk, mm_ssd_k(e, h, at.t), e->k.ld, mm_ssd_v(e, h, at.t), e->v.ld,
                        at.n);
        return;
    }
    const int64_t P = e->n_rows, g = h / e->per_group, of_k = e->n_heads / e->per_group * P;
    mm_conv_rows(&f->conv, w->v, P, at.s, at.t, at.n, g * P, P);
    mm_conv_rows(&f->conv, w->k, P, at.s, at.t, at.n, of_k + g * P, P);
    f->chunks->keys(&w->chunk, w->k, P, w->v, P, at.n);
}

// Head h, which is number i of the block's; the keys and the head's decays are there.
static void outputs(const struct fwd *f, struct work *w, int64_t h, int64_t i, struct tokens at,
                    bool with_state) {
    const struct mm_ssd *e = &f->e;
    const int64_t P = e->n_rows;
    const float skip = mm_ssd_skip(e, h);
    float *y = (float *)f->y.data + at.t * f->y.ld + h * P;
    if (!f->whole) {
        f->chunks->outputs(&w->chunk, i, with_state, y, f->y.ld, mm_ssd_q(e, h, at.t), e->q.ld,
                           w->decay, skip);
        return;
    }
    const int64_t of_q = 2 * (e->n_heads / e->per_group) * P;
    mm_conv_rows(&f->conv, w->q, P, at.s, at.t, at.n, of_q + h * P, P);
    f->chunks->outputs(&w->chunk, i, with_state, w->y, P, w->q, P, w->decay, skip);
    const float *gate = (const float *)f->gate.data + at.t * f->gate.ld + h * P;
    for (int64_t r = 0; r < at.n; r++) {
        for (int64_t c = 0; r + 16 < at.n && c < P; c += 16)
            __builtin_prefetch(gate + (r + 16) * f->gate.ld + c, 0, 2);
        e->kern->gated_norm_fwd(y + r * f->y.ld, NULL, w->y + r * P, gate + r * f->gate.ld,
                                f->norm_w, f->eps, 1, P);
    }
}

// What a whole mixer reads after the queries of head h: the gate, the queries of the next head, or
// those of the next chunk's first head with the group's values and keys.
static void look_ahead(const struct fwd *f, struct work *w, int64_t h, struct tokens at, bool more,
                       int64_t chunk) {
    const struct mm_ssd *e = &f->e;
    const int64_t P = e->n_rows, G = e->n_heads / e->per_group, g = h / e->per_group;
    const int64_t left = f->segs.start[at.s + 1] - at.t - chunk;
    const int64_t t = more ? at.t : at.t + chunk;
    const int64_t n = more ? at.n : left < 0 ? 0 : left < chunk ? left : chunk;
    const int64_t first = w->first, ld = f->conv.x.ld;
    const float *z = (const float *)f->conv.x.data;
    struct mm_ahead *to = w->chunk.ahead;
    to[0] = (struct mm_ahead){(const float *)f->gate.data + at.t * f->gate.ld + h * P, f->gate.ld,
                              at.n};
    to[1] = (struct mm_ahead){z + t * ld + (2 * G + (more ? h + 1 : first)) * P, ld, n};
    to[2] = (struct mm_ahead){z + t * ld + g * P, ld, more ? 0 : n};
    to[3] = (struct mm_ahead){z + t * ld + (G + g) * P, ld, more ? 0 : n};
}

static float *session_state(const struct fwd *f, int64_t s, int64_t h) {
    return (float *)f->state.data + s * f->state.ld + h * f->e.n_rows * f->e.n_cols;
}

// (P, N) of a session to (N, P) of a buffer and back.
static void state_in(const struct fwd *f, float *to, int64_t s, int64_t h) {
    const struct mm_ssd *e = &f->e;
    e->kern->transpose(to, e->ld_rows, session_state(f, s, h), e->n_cols, e->n_rows, e->n_cols);
}
static void state_out(const struct fwd *f, const float *from, int64_t s, int64_t h) {
    const struct mm_ssd *e = &f->e;
    float *to = session_state(f, s, h);
    if (e->n_cols % e->kern->lanes == 0) {
        e->kern->transpose(to, e->n_cols, from, e->ld_rows, e->n_cols, e->n_rows);
        return;
    }
    for (int64_t i = 0; i < e->n_rows; i++) {
        for (int64_t j = 0; j < e->n_cols; j++) {
            to[i * e->n_cols + j] = from[j * e->ld_rows + i];
        }
    }
}

// ---- a sequence of a block of heads ----

static void sequence(const struct fwd *f, struct work *w, int64_t s, int64_t b) {
    const int64_t begin = f->segs.start[s], end = f->segs.start[s + 1], size = state_size(f);
    const int64_t chunk = mm_ssd_chunk(f->e.kern, end - begin);
    int64_t head;
    const int64_t n_heads = heads_of(f, b, &head);
    w->first = head;
    bool have_state = f->state.data;
    for (int64_t i = 0; have_state && i < n_heads; i++) {
        state_in(f, w->states + i * size, s, head + i);
        f->chunks->state(&w->chunk, i, w->states + i * size, f->e.ld_rows);
    }
    for (int64_t t = begin; t < end; t += chunk) {
        const struct tokens at = {s, t, end - t < chunk ? end - t : chunk};
        const bool last = t + chunk >= end;
        keys(f, w, head, at);
        for (int64_t i = 0; i < n_heads; i++) {
            mm_ssd_decay(&f->e, head + i, t, at.n, w->decay);
            if (f->whole) look_ahead(f, w, head + i, at, i + 1 < n_heads, chunk);
            outputs(f, w, head + i, i, at, have_state);
            if (last && !f->state.data) continue;
            f->chunks->advance(&w->chunk, last ? -1 : i, w->states + i * size, f->e.ld_rows,
                               have_state ? w->decay->total : 0.0f, w->decay);
        }
        have_state = true;
    }
    for (int64_t i = 0; f->state.data && i < n_heads; i++) {
        state_out(f, w->states + i * size, s, head + i);
    }
}

// The loop runs over rows of all blocks; a (block, sequence) belongs to the thread that has its
// first row. So threads get equal numbers of tokens, not of sequences.
static void some_sequences(void *arg, int64_t begin, int64_t end, int thread) {
    const struct fwd *f = arg;
    const int64_t n_tokens = f->segs.start[f->segs.n];
    struct work w = work_of(f, thread);
    f->chunks->begin(&w.chunk);
    for (int64_t b = begin / n_tokens; b * n_tokens < end; b++) {
        int64_t s = mm_ssd_first_seq(f->segs, begin - b * n_tokens);
        for (; s < f->segs.n && b * n_tokens + f->segs.start[s] < end; s++) {
            const int64_t n = f->segs.start[s + 1] - f->segs.start[s];
            if (n == 0 || n >= f->long_from) continue;
            if (f->state.data && n <= few_tokens && !f->whole) {
                int64_t head, n_heads = heads_of(f, b, &head);
                for (int64_t h = head; h < head + n_heads; h++) {
                    mm_ssd_tokens(&f->e, f->y, session_state(f, s, h), h, f->segs.start[s],
                                  f->segs.start[s + 1]);
                }
            } else {
                sequence(f, &w, s, b);
            }
        }
    }
    f->chunks->end(&w.chunk);
}

// ---- one long sequence over all threads ----

// Item i is a chunk of a block of heads.
struct place {
    struct tokens at;
    int64_t head, n_heads;
    int64_t chunk;  // of those at hand
};

static struct place place_of(const struct fwd *f, int64_t i) {
    const int64_t size = f->e.kern->long_chunk;
    struct place p = {.chunk = i / f->n_blocks};
    p.at.s = f->seq, p.at.t = f->segs.start[f->seq] + (f->chunk0 + p.chunk) * size;
    const int64_t left = f->segs.start[f->seq + 1] - p.at.t;
    p.at.n = left < size ? left : size;
    p.n_heads = heads_of(f, i % f->n_blocks, &p.head);
    return p;
}

static void some_contributions(void *arg, int64_t begin, int64_t end, int thread) {
    const struct fwd *f = arg;
    struct work w = work_of(f, thread);
    f->chunks->begin(&w.chunk);
    for (int64_t i = begin; i < end; i++) {
        const struct place p = place_of(f, i);
        keys(f, &w, p.head, p.at);
        for (int64_t h = p.head; h < p.head + p.n_heads; h++) {
            const int64_t at = p.chunk * f->e.n_heads + h;
            mm_ssd_decay(&f->e, h, p.at.t, p.at.n, w.decay);
            f->chunks->advance(&w.chunk, -1, f->kept + at * state_size(f), f->e.ld_rows, 0.0f,
                               w.decay);
            f->total[at] = w.decay->total;
        }
    }
    f->chunks->end(&w.chunk);
}

static void some_scans(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct fwd *f = arg;
    const struct mm_ssd *e = &f->e;
    for (int64_t i = begin; i < end; i++) {  // a head and a row of its (N, P)
        const int64_t h = i / e->n_cols, at = i * e->ld_rows;
        for (int64_t c = 0; c < f->n_chunks; c++) {
            e->kern->scan(f->carry + at, f->kept + c * e->n_heads * state_size(f) + at,
                          f->total[c * e->n_heads + h], e->ld_rows);
        }
    }
}

static void some_outputs(void *arg, int64_t begin, int64_t end, int thread) {
    const struct fwd *f = arg;
    struct work w = work_of(f, thread);
    f->chunks->begin(&w.chunk);
    for (int64_t i = begin; i < end; i++) {
        const struct place p = place_of(f, i);
        const bool with_state = f->state.data || f->chunk0 + p.chunk > 0;
        keys(f, &w, p.head, p.at);
        for (int64_t h = p.head; h < p.head + p.n_heads; h++) {
            const float *state = f->kept + (p.chunk * f->e.n_heads + h) * state_size(f);
            mm_ssd_decay(&f->e, h, p.at.t, p.at.n, w.decay);
            if (with_state) f->chunks->state(&w.chunk, 0, state, f->e.ld_rows);
            outputs(f, &w, h, 0, p.at, with_state);
        }
    }
    f->chunks->end(&w.chunk);
}

// Memory: at most `kept_bytes` of states at a time, or one chunk's.
static const int64_t kept_bytes = (int64_t)64 << 20;

static void long_sequence(struct mm_backend *be, struct fwd *f, int64_t s) {
    const struct mm_ssd *e = &f->e;
    const int64_t n = f->segs.start[s + 1] - f->segs.start[s];
    const int64_t of_heads = e->n_heads * state_size(f);
    const int64_t n_chunks = (n + e->kern->long_chunk - 1) / e->kern->long_chunk;
    int64_t at_once = kept_bytes / (of_heads * (int64_t)sizeof(float));
    at_once = at_once < 1 ? 1 : at_once > n_chunks ? n_chunks : at_once;
    f->kept =
        mm_cpu_scratch(be, mm_scratch_b,
                       (size_t)((at_once + 1) * of_heads + at_once * e->n_heads) * sizeof(float));
    if (!f->kept) return;
    f->carry = f->kept + at_once * of_heads, f->total = f->carry + of_heads;
    f->seq = s;
    memset(f->carry, 0, (size_t)of_heads * sizeof(float));
    for (int64_t h = 0; f->state.data && h < e->n_heads; h++) {
        state_in(f, f->carry + h * state_size(f), s, h);
    }
    for (f->chunk0 = 0; f->chunk0 < n_chunks; f->chunk0 += at_once) {
        f->n_chunks = n_chunks - f->chunk0 < at_once ? n_chunks - f->chunk0 : at_once;
        mm_parallel_for(be->pool, f->n_chunks * f->n_blocks, 1, some_contributions, f);
        mm_parallel_for(be->pool, e->n_heads * e->n_cols, 8, some_scans, f);
        mm_parallel_for(be->pool, f->n_chunks * f->n_blocks, 1, some_outputs, f);
    }
    for (int64_t h = 0; f->state.data && h < e->n_heads; h++) {
        state_out(f, f->carry + h * state_size(f), s, h);
    }
}

static void run(struct mm_backend *be, struct fwd *f) {
    const struct mm_ssd *e = &f->e;
    const int64_t longest = mm_ssd_longest(f->segs), n_tokens = f->segs.start[f->segs.n];
    const int n_threads = mm_pool_size(be->pool);
    f->chunks = e->kern->chunks;
    f->per_block = e->per_group < most_heads ? e->per_group : most_heads;
    f->per_group = (e->per_group + f->per_block - 1) / f->per_block;
    f->n_blocks = e->n_heads / e->per_group * f->per_group;
    const int64_t rows = f->whole ? 4 * mm_ssd_chunk_max * e->n_rows : 0;
    f->room_bytes = mm_cpu_piece(f->chunks->room_bytes(e->n_rows, e->n_cols, f->per_block));
    f->piece_bytes = f->room_bytes + mm_cpu_piece(sizeof(struct mm_decay)) +
                     mm_cpu_piece((size_t)(f->per_block * state_size(f) + rows) * sizeof(float));
    f->pieces = mm_cpu_scratch(be, mm_scratch_a, f->piece_bytes * (size_t)n_threads);
    if (!f->pieces) return;
    // Long: more than half of what a thread would have in an even share, and worth cutting.
    f->long_from = n_tokens * f->n_blocks / (2 * n_threads) + 1;
    if (f->long_from < 4 * mm_ssd_chunk_max) f->long_from = 4 * mm_ssd_chunk_max;
    if (n_threads == 1) f->long_from = INT64_MAX;
    for (int64_t s = 0; longest >= f->long_from && s < f->segs.n; s++) {
        if (f->segs.start[s + 1] - f->segs.start[s] >= f->long_from) long_sequence(be, f, s);
    }
    if (be->error.code) return;
    mm_parallel_for(be->pool, n_tokens * f->n_blocks, 16, some_sequences, f);
}

void mm_ssd_fwd_groups(struct mm_backend *be, const struct mm_ssd *e, struct mm_view y,
                       struct mm_view state, struct mm_segs segs) {
    struct fwd f = {.e = *e, .y = y, .state = state, .segs = segs};
    run(be, &f);
}

bool mm_mamba2_fwd_cpu(struct mm_backend *be, struct mm_view o, const struct mm_mamba2 *m) {
    if (!mm_mixer_kernels(be)->chunks || mm_view_cols(m->conv_w) > mm_conv_width_max) return false;
    if (be->error.code || o.shape[0] == 0) return true;
    const int64_t G = m->G, H = m->H, P = m->P, T = o.shape[0], C = (2 * G + H) * P;
    float *dt = mm_cpu_scratch(be, mm_scratch_c, (size_t)(T * H) * sizeof *dt);
    if (!dt) return true;
    const struct mm_view steps = mm_view2(dt, mm_dtype_f32, T, H);
    mm_softplus_fwd_cpu(be, steps, mm_view_cut(m->z, C + H * P, H), m->dt_bias);
    const struct mm_view v = mm_view3(NULL, mm_dtype_f32, T, G, P);
    struct fwd f = {.e = mm_ssd_of(mm_mixer_kernels(be), v, v,
                                   mm_view3(NULL, mm_dtype_f32, T, H, P), steps, m->a_log, m->d),
                    .y = o,
                    .state = m->S,
                    .segs = m->segs,
                    .whole = true,
                    .gate = mm_view_cut(m->z, C, H * P),
                    .norm_w = m->norm_w.data,
                    .eps = m->eps};
    const struct mm_view x = mm_view_cut(m->z, 0, C);
    if (!mm_conv_open(be, &f.conv, x, m->conv_w, m->conv_b, m->conv, m->segs)) return true;
    run(be, &f);
    if (!be->error.code) mm_conv_keep(&f.conv);
    return true;
}
