// Causal softmax attention, backward. For queries i and keys j of a tile, with
// p = exp(q_i k_j / sqrt(P) - lse_i) and delta_i = dy_i y_i:
//   dv_j += p dy_i;  ds = p (dy_i v_j - delta_i) / sqrt(P);  dq_i += ds k_j;  dk_j += ds q_i
// Of a short sequence a key/value group is work for one thread. Of a long one the blocks of keys
// are shared out for dk and dv, then the tiles of queries for dq: each pass computes p and ds again
// (seven products in place of five), and nobody adds to what another thread adds to. Every sum has
// one order: results do not depend on the threads.
#include <math.h>
#include "ops/cpu/attention.h"

struct bwd_job {
    const struct mm_kernels *k;
    const struct mm_mixer_kernels *x;
    struct mm_view dq, dk, dv, dy, y, lse, q, key, v;
    struct mm_segs segs;
    float *room;
    int64_t room_floats, pad;
    int64_t rows;      // the longest short sequence, rounded up
    int64_t seq;       // a long one
    int64_t n_blocks;  // of its keys, or of its queries
};

enum { long_from = 4 * mm_tile_keys };  // rows

// One thread's memory; pad is P padded to vectors.
struct bwd_room {
    float *p, *ds;   // (queries, keys) of a tile
    float *kt, *vt;  // (P, keys)
    float *k;        // (keys, pad)
    float *q, *dy;   // (queries, pad)
    float *dk, *dv;  // (keys, pad)
    float *dq;       // (H/G, rows, pad)
};

static int64_t lay_out(struct bwd_room *r, float *base, int64_t p_dim, int64_t pad, int64_t ratio,
                       int64_t rows) {
    enum { tile = mm_tile_queries * mm_tile_keys };
    int64_t at = 0;
#define TAKE(field, n) r->field = base ? base + at : NULL, at += (n)
    TAKE(p, tile);
    TAKE(ds, tile);
    TAKE(kt, p_dim * mm_tile_keys);
    TAKE(vt, p_dim * mm_tile_keys);
    TAKE(k, mm_tile_keys * pad);
    TAKE(q, mm_tile_queries * pad);
    TAKE(dy, mm_tile_queries * pad);
    TAKE(dk, mm_tile_keys * pad);
    TAKE(dv, mm_tile_keys * pad);
    TAKE(dq, ratio * rows * pad);
#undef TAKE
    return (at + 31) / 32 * 32;
}

// C (m, n) += A B or, with a_row 1, A^T B.
static void add_product(const struct bwd_job *j, float *c, int64_t m, const float *a, int64_t a_row,
                        int64_t a_col, const float *b, int64_t k) {
    j->x->gemm(&(struct mm_gemm){.c = c,
                                 .ldc = j->pad,
                                 .a = a,
                                 .a_row = a_row,
                                 .a_col = a_col,
                                 .b = b,
                                 .ldb = j->pad,
                                 .m = m,
                                 .n = j->pad,
                                 .k = k,
                                 .alpha = 1.0f});
}

// Queries i0 .. i0 + m - 1 against keys j0 .. j0 + n - 1, all counted in the sequence at `row`,
// with the keys and values in the room. dq (m, pad) is added to unless NULL; so are dk and dv of
// the room if `keys`.
static void bwd_tile(const struct bwd_job *j, const struct bwd_room *r, int64_t row, int64_t i0,
                     int64_t m, int64_t j0, int64_t n, int64_t head, float *dq, bool keys) {
    const int64_t p_dim = j->q.shape[2], col = head * p_dim;
    const int64_t reach = i0 + m - j0, used = n < reach ? n : reach;  // keys any of them sees
    const int64_t ld = mm_padded(j->x, used), ld_keys = mm_padded(j->x, n);
    const float by = 1.0f / sqrtf((float)p_dim);
    struct mm_gemm g = {.c = r->p,
                        .ldc = ld,
                        .a = mm_view_at(j->q, row + i0, col),
                        .a_row = j->q.ld,
                        .a_col = 1,
                        .b = r->kt,
                        .ldb = ld_keys,
                        .m = m,
                        .n = ld,
                        .k = p_dim};
    j->x->gemm(&g);
    g.c = r->ds, g.b = r->vt;
    g.a = mm_view_at(j->dy, row + i0, col), g.a_row = j->dy.ld;
    j->x->gemm(&g);
    for (int64_t i = 0; i < m; i++) {
        const int64_t at = row + i0 + i, reached = i0 + i + 1 - j0;
        const int64_t seen = reached < 0 ? 0 : reached < used ? reached : used;
        const float lse = *(const float *)mm_view_at(j->lse, at, head);
        const float delta = j->k->dot(mm_view_at(j->dy, at, col), mm_view_at(j->y, at, col), p_dim);
        j->k->soften_bwd(r->p + i * ld, r->ds + i * ld, seen, ld, by, lse, delta);
    }
    if (keys) {
        mm_tile_pack(j->x, r->q, j->pad, j->q, row + i0, col, m);
        mm_tile_pack(j->x, r->dy, j->pad, j->dy, row + i0, col, m);
        add_product(j, r->dv, used, r->p, 1, ld, r->dy, m);
        add_product(j, r->dk, used, r->ds, 1, ld, r->q, m);
    }
    if (dq) add_product(j, dq, m, r->ds, ld, 1, r->k, used);
}

static void store_rows(struct mm_view to, int64_t row, int64_t col, const float *from, int64_t pad,
                       int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        memcpy(mm_view_at(to, row + i, col), from + i * pad, (size_t)to.shape[2] * sizeof *from);
    }
}

static int64_t min_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void load_keys(const struct bwd_job *j, const struct bwd_room *r, int64_t row, int64_t n,
                      int64_t col) {
    const int64_t ld = mm_padded(j->x, n);
    mm_tile_transpose(j->x, r->kt, ld, j->key, row, col, n);
    mm_tile_transpose(j->x, r->vt, ld, j->v, row, col, n);
    mm_tile_pack(j->x, r->k, j->pad, j->key, row, col, n);
}

// A block of keys of a group against all queries that see it; dq (H/G, rows, pad) or NULL.
static void bwd_keys(const struct bwd_job *j, const struct bwd_room *r, int64_t row, int64_t n_rows,
                     int64_t group, int64_t j0, float *dq) {
    const int64_t p_dim = j->q.shape[2], ratio = j->q.shape[1] / j->key.shape[1];
    const int64_t gc = group * p_dim, n = min_of(n_rows - j0, mm_tile_keys);
    load_keys(j, r, row + j0, n, gc);
    memset(r->dk, 0, (size_t)(n * j->pad) * sizeof(float));
    memset(r->dv, 0, (size_t)(n * j->pad) * sizeof(float));
    for (int64_t h = 0; h < ratio; h++) {
        for (int64_t i0 = j0; i0 < n_rows; i0 += mm_tile_queries) {
            float *to = dq ? dq + (h * j->rows + i0) * j->pad : NULL;
            bwd_tile(j, r, row, i0, min_of(n_rows - i0, mm_tile_queries), j0, n, group * ratio + h,
                     to, true);
        }
    }
    store_rows(j->dk, row + j0, gc, r->dk, j->pad, n);
    store_rows(j->dv, row + j0, gc, r->dv, j->pad, n);
}

// A tile of queries of the heads of a group against all keys it sees.
static void bwd_queries(const struct bwd_job *j, const struct bwd_room *r, int64_t row,
                        int64_t n_rows, int64_t group, int64_t i0) {
    const int64_t p_dim = j->q.shape[2], ratio = j->q.shape[1] / j->key.shape[1];
    const int64_t m = min_of(n_rows - i0, mm_tile_queries), size = mm_tile_queries * j->pad;
    memset(r->dq, 0, (size_t)(ratio * size) * sizeof(float));
    for (int64_t j0 = 0; j0 < i0 + m; j0 += mm_tile_keys) {
        const int64_t n = min_of(n_rows - j0, mm_tile_keys);
        load_keys(j, r, row + j0, n, group * p_dim);
        for (int64_t h = 0; h < ratio; h++) {
            bwd_tile(j, r, row, i0, m, j0, n, group * ratio + h, r->dq + h * size, false);
        }
    }
    for (int64_t h = 0; h < ratio; h++) {
        store_rows(j->dq, row + i0, (group * ratio + h) * p_dim, r->dq + h * size, j->pad, m);
    }
}

// ---- a short sequence ----

static void bwd_group(const struct bwd_job *j, const struct bwd_room *r, int64_t row,
                      int64_t n_rows, int64_t group) {
    const int64_t p_dim = j->q.shape[2], ratio = j->q.shape[1] / j->key.shape[1];
    for (int64_t h = 0; h < ratio; h++) {
        memset(r->dq + h * j->rows * j->pad, 0, (size_t)(n_rows * j->pad) * sizeof(float));
    }
    for (int64_t j0 = 0; j0 < n_rows; j0 += mm_tile_keys) {
        bwd_keys(j, r, row, n_rows, group, j0, r->dq);
    }
    for (int64_t h = 0; h < ratio; h++) {
        store_rows(j->dq, row, (group * ratio + h) * p_dim, r->dq + h * j->rows * j->pad, j->pad,
                   n_rows);
    }
}

static struct bwd_room room_of(const struct bwd_job *j, int thread) {
    struct bwd_room r;
    lay_out(&r, j->room + thread * j->room_floats, j->q.shape[2], j->pad,
            j->q.shape[1] / j->key.shape[1], j->rows);
    return r;
}

static void bwd_groups(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bwd_job *j = arg;
    const int64_t g_dim = j->key.shape[1];
    const struct bwd_room r = room_of(j, thread);
    for (int64_t i = begin; i < end; i++) {
        const int64_t row = j->segs.start[i / g_dim], n = j->segs.start[i / g_dim + 1] - row;
        if (n < long_from) bwd_group(j, &r, row, n, i % g_dim);
    }
}

// ---- a long sequence ----

// Item i of n: first and last alternate, so that contiguous shares hold as much work each.
static int64_t alternate(int64_t i, int64_t n) {
    return i % 2 ? n - 1 - i / 2 : i / 2;
}

static void some_keys(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bwd_job *j = arg;
    const struct bwd_room r = room_of(j, thread);
    const int64_t row = j->segs.start[j->seq], n = j->segs.start[j->seq + 1] - row;
    for (int64_t i = begin; i < end; i++) {
        const int64_t j0 = alternate(i % j->n_blocks, j->n_blocks) * mm_tile_keys;
        bwd_keys(j, &r, row, n, i / j->n_blocks, j0, NULL);
    }
}

static void some_queries(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bwd_job *j = arg;
    const struct bwd_room r = room_of(j, thread);
    const int64_t row = j->segs.start[j->seq], n = j->segs.start[j->seq + 1] - row;
    for (int64_t i = begin; i < end; i++) {
        const int64_t i0 = alternate(i % j->n_blocks, j->n_blocks) * mm_tile_queries;
        bwd_queries(j, &r, row, n, i / j->n_blocks, i0);
    }
}

static void long_sequence(struct mm_backend *be, struct bwd_job *j, int64_t s) {
    const int64_t n = j->segs.start[s + 1] - j->segs.start[s], g_dim = j->key.shape[1];
    j->seq = s;
    j->n_blocks = (n + mm_tile_keys - 1) / mm_tile_keys;
    mm_parallel_for(be->pool, j->n_blocks * g_dim, 1, some_keys, j);
    j->n_blocks = (n + mm_tile_queries - 1) / mm_tile_queries;
    mm_parallel_for(be->pool, j->n_blocks * g_dim, 1, some_queries, j);
}

void mm_attention_bwd_cpu(struct mm_backend *be, struct mm_view dq, struct mm_view dk,
                          struct mm_view dv, struct mm_view dy, struct mm_view y,
                          struct mm_view lse, struct mm_view q, struct mm_view k, struct mm_view v,
                          struct mm_segs segs) {
    struct bwd_job j = {.k = mm_kernels_of(be),
                        .x = mm_mixer_kernels(be),
                        .dq = dq,
                        .dk = dk,
                        .dv = dv,
                        .dy = dy,
                        .y = y,
                        .lse = lse,
                        .q = q,
                        .key = k,
                        .v = v,
                        .segs = segs};
    j.rows = mm_tile_queries;
    bool any_long = false, any_short = false;
    for (int64_t s = 0; s < segs.n; s++) {
        const int64_t n = segs.start[s + 1] - segs.start[s];
        any_long = any_long || n >= long_from;
        any_short = any_short || (n > 0 && n < long_from);
        if (n < long_from && n > j.rows) j.rows = n;
    }
    j.pad = mm_padded(j.x, q.shape[2]);
    struct bwd_room r;
    j.room_floats = lay_out(&r, NULL, q.shape[2], j.pad, q.shape[1] / k.shape[1], j.rows);
    const size_t bytes = (size_t)(mm_pool_size(be->pool) * j.room_floats) * sizeof(float);
    j.room = mm_cpu_scratch(be, mm_scratch_a, bytes);
    if (!j.room) return;
    for (int64_t s = 0; any_long && s < segs.n; s++) {
        if (segs.start[s + 1] - segs.start[s] >= long_from) long_sequence(be, &j, s);
    }
    if (any_short) mm_parallel_for(be->pool, segs.n * k.shape[1], 1, bwd_groups, &j);
}
