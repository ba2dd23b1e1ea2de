// Causal softmax attention, forward: tiles of 48 queries by 128 keys with a running maximum and
// sum (Milakov & Gimelshein 2018; Dao et al. 2022), so that no T x T matrix exists. A tile of
// queries of one head is done by one thread in one order: results do not depend on the threads.
// Where the kernels have `attend`, tiles are queries of some heads of one group.
#include <math.h>
#include "ops/cpu/attention.h"

struct tile {
    int64_t row, n;     // queries
    int64_t key, past;  // query i of the tile sees keys key .. key + past + i
    int64_t head, n_heads;
};

struct attend_job {
    const struct mm_kernels *k;
    const struct mm_mixer_kernels *x;
    struct mm_view y, lse, q, key, v;
    const struct tile *tiles;
    float *room;
    int64_t room_floats, pad;  // of a thread; P padded to vectors
    int64_t queries, heads;    // of a tile, at most
};

static void attend_tile(const struct attend_job *j, const struct tile *t, float *room) {
    const int64_t p_dim = j->q.shape[2], pad = j->pad, n_keys = t->past + t->n;
    const int64_t col = t->head / (j->q.shape[1] / j->key.shape[1]) * p_dim;
    const float by = 1.0f / sqrtf((float)p_dim);
    float *scores = room, *keys = scores + mm_tile_queries * mm_tile_keys;
    float *values = keys + p_dim * mm_tile_keys, *out = values + mm_tile_keys * pad;
    float top[mm_tile_queries], sum[mm_tile_queries];
    for (int64_t i = 0; i < t->n; i++)
        top[i] = -HUGE_VALF, sum[i] = 0.0f;
    for (int64_t j0 = 0; j0 < n_keys; j0 += mm_tile_keys) {
        const int64_t n = n_keys - j0 < mm_tile_keys ? n_keys - j0 : mm_tile_keys;
        const int64_t ld = mm_padded(j->x, n);
        mm_tile_transpose(j->x, keys, ld, j->key, t->key + j0, col, n);
        mm_tile_pack(j->x, values, pad, j->v, t->key + j0, col, n);
        j->x->gemm(&(struct mm_gemm){.c = scores,
                                     .ldc = ld,
                                     .a = mm_view_at(j->q, t->row, t->head * p_dim),
                                     .a_row = j->q.ld,
                                     .a_col = 1,
                                     .b = keys,
                                     .ldb = ld,
                                     .m = t->n,
                                     .n = ld,
                                     .k = p_dim});
        for (int64_t i = 0; i < t->n; i++) {
            const int64_t seen = t->past + i + 1 - j0;
            if (seen <= 0) {  // all of this tile's keys come later
                memset(scores + i * ld, 0, (size_t)ld * sizeof *scores);
                continue;
            }
            const float factor =
                j->k->soften(scores + i * ld, seen < n ? seen : n, ld, by, &top[i], &sum[i]);
            if (j0 && factor != 1.0f) j->k->scale(out + i * pad, out + i * pad, factor, pad);
        }
        j->x->gemm(&(struct mm_gemm){.c = out,
                                     .ldc = pad,
                                     .a = scores,
                                     .a_row = ld,
                                     .a_col = 1,
                                     .b = values,
                                     .ldb = pad,
                                     .m = t->n,
                                     .n = pad,
                                     .k = n,
                                     .alpha = j0 ? 1.0f : 0.0f});
    }
    for (int64_t i = 0; i < t->n; i++) {
        float *y = mm_view_at(j->y, t->row + i, t->head * p_dim);
        j->k->scale(y, out + i * pad, 1.0f / sum[i], p_dim);
        if (j->lse.data) {
            *(float *)mm_view_at(j->lse, t->row + i, t->head) = top[i] + logf(sum[i]);
        }
    }
}

static void attend_group(const struct attend_job *j, const struct tile *t, float *room) {
    const int64_t P = j->q.shape[2], col = t->head / (j->q.shape[1] / j->key.shape[1]) * P;
    struct mm_attend a = {.P = P,
                          .heads = t->n_heads,
                          .n = t->n,
                          .past = t->past,
                          .q = mm_view_at(j->q, t->row, t->head * P),
                          .k = mm_view_at(j->key, t->key, col),
                          .v = mm_view_at(j->v, t->key, col),
                          .y = mm_view_at(j->y, t->row, t->head * P),
                          .ldq = j->q.ld,
                          .ldk = j->key.ld,
                          .ldv = j->v.ld,
                          .ldy = j->y.ld,
                          .ldl = j->lse.ld,
                          .room = (unsigned char *)room};
    if (j->lse.data) a.lse = mm_view_at(j->lse, t->row, t->head);
    j->x->attend(&a);
}

static void attend_tiles(void *arg, int64_t begin, int64_t end, int thread) {
    const struct attend_job *j = arg;
    for (int64_t i = begin; i < end; i++) {
        float *room = j->room + thread * j->room_floats;
        if (j->x->attend) {
            attend_group(j, &j->tiles[i], room);
        } else {
            attend_tile(j, &j->tiles[i], room);
        }
    }
}

// Tiles of n queries from `row` on, of every head; or only how many. First and last alternate: a
// thread's contiguous share then holds as many long tiles as short ones.
static int64_t add_tiles(const struct attend_job *j, struct tile *out, int64_t row, int64_t n,
                         int64_t key, int64_t past) {
    const int64_t blocks = (n + j->queries - 1) / j->queries;
    const int64_t ratio = j->q.shape[1] / j->key.shape[1];
    int64_t count = 0;
    for (int64_t h = 0; h < j->q.shape[1];) {
        const int64_t left = ratio - h % ratio, heads = left < j->heads ? left : j->heads;
        for (int64_t i = 0; i < blocks && out; i++) {
            const int64_t at = (i % 2 ? blocks - 1 - i / 2 : i / 2) * j->queries;
            *out++ = (struct tile){.row = row + at,
                                   .n = n - at < j->queries ? n - at : j->queries,
                                   .key = key,
                                   .past = past + at,
                                   .head = h,
                                   .n_heads = heads};
        }
        h += heads;
        count += blocks;
    }
    return count;
}

enum { group_rows_wanted = 256, group_heads_most = 8 };

static bool prepare(struct mm_backend *be, struct attend_job *j) {
    const int64_t P = j->q.shape[2], ratio = j->q.shape[1] / j->key.shape[1];
    j->k = mm_kernels_of(be);
    j->x = mm_mixer_kernels(be);
    j->pad = mm_padded(j->x, P);
    j->queries = mm_tile_queries, j->heads = 1;
    int64_t floats = mm_tile_queries * (mm_tile_keys + j->pad) + mm_tile_keys * (P + j->pad);
    if (j->x->attend) {
        j->heads = ratio < group_heads_most ? ratio : group_heads_most;
        j->queries = group_rows_wanted / j->heads / 32 * 32;
        if (j->queries < 32) j->queries = 32;
        floats = (int64_t)j->x->attend_room(P, j->heads, j->queries) / (int64_t)sizeof(float);
    }
    j->room_floats = (int64_t)mm_cpu_piece((size_t)floats * sizeof(float)) / (int64_t)sizeof(float);
    const size_t bytes = (size_t)(mm_pool_size(be->pool) * j->room_floats) * sizeof(float);
    j->room = mm_cpu_scratch(be, mm_scratch_b, bytes);
    return j->room != NULL;
}

void mm_attention_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view lse,
                          struct mm_view q, struct mm_view k, struct mm_view v,
                          struct mm_segs segs) {
    struct attend_job j = {.y = y, .lse = lse, .q = q, .key = k, .v = v};
    if (!prepare(be, &j)) return;
    int64_t n = 0;
    for (int64_t s = 0; s < segs.n; s++)
        n += add_tiles(&j, NULL, 0, segs.start[s + 1] - segs.start[s], 0, 0);
    struct tile *tiles = mm_cpu_scratch(be, mm_scratch_a, (size_t)n * sizeof *tiles);
    if (!tiles) return;
    n = 0;
    for (int64_t s = 0; s < segs.n; s++) {
        const int64_t row = segs.start[s];
        n += add_tiles(&j, tiles + n, row, segs.start[s + 1] - row, row, 0);
    }
    j.tiles = tiles;
    mm_parallel_for(be->pool, n, 2, attend_tiles, &j);
}

// ---- a few queries against a long cache: keys are read once, in pieces that run side by side ----

enum { few_queries = 4, piece_keys = 512, most_pieces = 32 };

struct step_job {
    const struct mm_kernels *k;
    struct mm_view q, key, v;
    int64_t past, pieces, ld;    // ld: floats of one partial result
    float *partial;              // (n, H, pieces, ld): top, sum, then P outputs from 16 on
    float *room;                 // (threads, room_floats): queries and sums of all groups, scores
    int64_t room_floats, parts;  // parts of the groups that a piece is cut into as well
};

static int64_t group_rows(const struct step_job *j) {
    return j->q.shape[0] * (j->q.shape[1] / j->key.shape[1]);
}

// Queries of group g, and the sums of its rows: row c is head c % ratio of query c / ratio.
static float *room_of_group(const struct step_job *j, float *room, int64_t g) {
    return room + g * group_rows(j) * (j->q.shape[2] + j->ld);
}

static void start_group(const struct step_job *j, int64_t g, float *room) {
    const int64_t p_dim = j->q.shape[2], ratio = j->q.shape[1] / j->key.shape[1];
    const int64_t rows = group_rows(j);
    float *q = room_of_group(j, room, g), *out = q + rows * p_dim;
    memset(out, 0, (size_t)(rows * j->ld) * sizeof *out);
    for (int64_t c = 0; c < rows; c++) {
        memcpy(q + c * p_dim, mm_view_at(j->q, c / ratio, (g * ratio + c % ratio) * p_dim),
               (size_t)p_dim * sizeof *q);
        out[c * j->ld] = -HUGE_VALF;
    }
}

// n keys from `at` on.
static void step_tile(const struct step_job *j, int64_t g, int64_t at, int64_t n, float *room,
                      float *scores) {
    const int64_t p_dim = j->q.shape[2], ratio = j->q.shape[1] / j->key.shape[1];
    const int64_t rows = group_rows(j);
    const float by = 1.0f / sqrtf((float)p_dim);
    float *q = room_of_group(j, room, g), *out = q + rows * p_dim;
    j->k->scores(scores, mm_tile_keys, q, rows, mm_view_at(j->key, at, g * p_dim), j->key.ld, n,
                 p_dim);
    for (int64_t c = 0; c < rows; c++) {
        float *s = scores + c * mm_tile_keys, *o = out + c * j->ld;
        const int64_t left = j->past + c / ratio + 1 - at, seen = left < n ? left : n;
        if (seen <= 0) {
            memset(s, 0, mm_tile_keys * sizeof *s);
            continue;
        }
        const float factor = j->k->soften(s, seen, mm_tile_keys, by, &o[0], &o[1]);
        if (factor != 1.0f) j->k->scale(o + 16, o + 16, factor, p_dim);
    }
    j->k->weigh(out + 16, j->ld, scores, mm_tile_keys, rows, mm_view_at(j->v, at, g * p_dim),
                j->v.ld, n, p_dim);
}

// Groups [g0, g1), tile by tile: all of a row of the cache is read at about the same time.
static void step_piece(const struct step_job *j, int64_t g0, int64_t g1, int64_t piece,
                       float *room) {
    const int64_t ratio = j->q.shape[1] / j->key.shape[1], n_keys = j->key.shape[0];
    const int64_t first = n_keys * piece / j->pieces, last = n_keys * (piece + 1) / j->pieces;
    float *scores = room_of_group(j, room, j->key.shape[1]);
    for (int64_t g = g0; g < g1; g++)
        start_group(j, g, room);
    for (int64_t at = first; at < last; at += mm_tile_keys) {
        const int64_t n = last - at < mm_tile_keys ? last - at : mm_tile_keys;
        for (int64_t g = g0; g < g1; g++)
            step_tile(j, g, at, n, room, scores);
    }
    for (int64_t c = g0 * group_rows(j); c < g1 * group_rows(j); c++) {
        const int64_t g = c / group_rows(j), in = c % group_rows(j), row = in / ratio;
        const float *out = room_of_group(j, room, g) + group_rows(j) * j->q.shape[2] + in * j->ld;
        const int64_t head = g * ratio + in % ratio;
        memcpy(j->partial + ((row * j->q.shape[1] + head) * j->pieces + piece) * j->ld, out,
               (size_t)j->ld * sizeof *out);
    }
}

static void step_pieces(void *arg, int64_t begin, int64_t end, int thread) {
    const struct step_job *j = arg;
    const int64_t G = j->key.shape[1];
    for (int64_t i = begin; i < end; i++) {
        const int64_t part = i % j->parts;
        step_piece(j, G * part / j->parts, G * (part + 1) / j->parts, i / j->parts,
                   j->room + thread * j->room_floats);
    }
}

// Adds the pieces in their order.
static void join_pieces(const struct step_job *j, struct mm_view y, int64_t row, int64_t head) {
    const int64_t p_dim = j->q.shape[2];
    const float *part = j->partial + (row * j->q.shape[1] + head) * j->pieces * j->ld;
    float *out = mm_view_at(y, row, head * p_dim), top = -HUGE_VALF, sum = 0.0f;
    for (int64_t i = 0; i < j->pieces; i++)
        top = fmaxf(top, part[i * j->ld]);
    memset(out, 0, (size_t)p_dim * sizeof *out);
    for (int64_t i = 0; i < j->pieces; i++) {
        const float *p = part + i * j->ld, factor = expf(p[0] - top);  // 0: nothing seen
        sum += factor * p[1];
        j->k->axpy(out, factor, p + 16, p_dim);
    }
    j->k->scale(out, out, 1.0f / sum, p_dim);
}

static void step_few(struct mm_backend *be, struct mm_view y, struct mm_view q, struct mm_view k,
                     struct mm_view v, int64_t past) {
    const int64_t n = q.shape[0], h_dim = q.shape[1], g_dim = k.shape[1], p_dim = q.shape[2];
    struct step_job j = {.k = mm_kernels_of(be), .q = q, .key = k, .v = v, .past = past};
    j.pieces = (k.shape[0] + piece_keys - 1) / piece_keys;
    if (j.pieces > most_pieces) j.pieces = most_pieces;
    j.ld = 16 + (p_dim + 15) / 16 * 16;
    j.parts = j.pieces < most_pieces / 2 ? g_dim : 1;
    const int64_t floats = group_rows(&j) * (g_dim * (p_dim + j.ld) + mm_tile_keys);
    j.room_floats = (int64_t)mm_cpu_piece((size_t)floats * sizeof(float)) / (int64_t)sizeof(float);
    j.partial =
        mm_cpu_scratch(be, mm_scratch_a, (size_t)(n * h_dim * j.pieces * j.ld) * sizeof *j.partial);
    j.room = mm_cpu_scratch(be, mm_scratch_b,
                            (size_t)(mm_pool_size(be->pool) * j.room_floats) * sizeof *j.room);
    if (be->error.code) return;
    const int64_t items = j.parts * j.pieces;
    const bool small = k.shape[0] * h_dim * p_dim < 1 << 16;
    mm_parallel_for(be->pool, items, small ? items : 1, step_pieces, &j);
    for (int64_t i = 0; i < n * h_dim; i++)
        join_pieces(&j, y, i / h_dim, i % h_dim);
}

void mm_attention_step_cpu(struct mm_backend *be, struct mm_view y, struct mm_view q,
                           struct mm_view k, struct mm_view v, int64_t past) {
    const int64_t n = q.shape[0];
    if (n == 0) return;
    if (n <= few_queries) {
        step_few(be, y, q, k, v, past);
        return;
    }
    struct attend_job j = {.y = y, .q = q, .key = k, .v = v};
    if (!prepare(be, &j)) return;
    const int64_t n_tiles = add_tiles(&j, NULL, 0, n, 0, past);
    struct tile *tiles = mm_cpu_scratch(be, mm_scratch_a, (size_t)n_tiles * sizeof *tiles);
    if (!tiles) return;
    add_tiles(&j, tiles, 0, n, 0, past);
    j.tiles = tiles;
    mm_parallel_for(be->pool, n_tiles, 2, attend_tiles, &j);
}
