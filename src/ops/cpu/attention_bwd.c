// Causal softmax attention, backward. One thread takes a key/value group of a sequence, so that
// the gradients of keys and values are sums of one thread in one order. For queries i and keys j
// of a tile, with p = exp(q_i k_j / sqrt(P) - lse_i) and delta_i = dy_i y_i:
//   dv_j += p dy_i;  ds = p (dy_i v_j - delta_i) / sqrt(P);  dq_i += ds k_j;  dk_j += ds q_i
#include <math.h>
#include "ops/cpu/attention.h"

struct bwd_job {
    const struct mm_kernels *k;
    const struct mm_mixer_kernels *x;
    struct mm_view dq, dk, dv, dy, y, lse, q, key, v;
    struct mm_segs segs;
    float *room;
    int64_t room_floats, pad, longest;
};

// One thread's memory; pad is P padded to vectors.
struct bwd_room {
    float *p, *ds;   // (queries, keys) of a tile
    float *kt, *vt;  // (P, keys)
    float *k;        // (keys, pad)
    float *q, *dy;   // (queries, pad)
    float *dk, *dv;  // (keys, pad)
    float *delta;    // (H/G, longest)
    float *dq;       // (H/G, longest, pad)
};

static int64_t lay_out(struct bwd_room *r, float *base, int64_t p_dim, int64_t pad, int64_t ratio,
                       int64_t longest) {
    enum { tile = mm_tile_queries * mm_tile_keys };
    const int64_t rows = (longest + 31) / 32 * 32;
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
    TAKE(delta, ratio * rows);
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

// Queries i0 .. i0 + m - 1 against keys j0 .. j0 + n - 1, all counted in the sequence at `row`.
static void bwd_tile(const struct bwd_job *j, const struct bwd_room *r, int64_t row, int64_t i0,
                     int64_t m, int64_t j0, int64_t n, int64_t ld_keys, int64_t head, float *dq,
                     const float *delta) {
    const int64_t p_dim = j->q.shape[2], col = head * p_dim;
    const int64_t reach = i0 + m - j0, used = n < reach ? n : reach;  // keys any of them sees
    const int64_t ld = mm_padded(j->x, used);
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
        const int64_t seen = i0 + i + 1 - j0;
        const float lse = *(const float *)mm_view_at(j->lse, row + i0 + i, head);
        j->k->soften_bwd(r->p + i * ld, r->ds + i * ld, seen < used ? seen : used, ld, by, lse,
                         delta[i0 + i]);
    }
    mm_tile_pack(j->x, r->q, j->pad, j->q, row + i0, col, m);
    mm_tile_pack(j->x, r->dy, j->pad, j->dy, row + i0, col, m);
    add_product(j, r->dv, used, r->p, 1, ld, r->dy, m);
    add_product(j, r->dk, used, r->ds, 1, ld, r->q, m);
    add_product(j, dq + i0 * j->pad, m, r->ds, ld, 1, r->k, used);
}

static void store_rows(struct mm_view to, int64_t row, int64_t col, const float *from, int64_t pad,
                       int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        memcpy(mm_view_at(to, row + i, col), from + i * pad, (size_t)to.shape[2] * sizeof *from);
    }
}

static void bwd_group(const struct bwd_job *j, const struct bwd_room *r, int64_t row,
                      int64_t n_rows, int64_t group) {
    const int64_t p_dim = j->q.shape[2], ratio = j->q.shape[1] / j->key.shape[1];
    const int64_t first = group * ratio, gc = group * p_dim, pad = j->pad;
    const int64_t rows = (j->longest + 31) / 32 * 32;
    for (int64_t h = 0; h < ratio; h++) {
        memset(r->dq + h * rows * pad, 0, (size_t)(n_rows * pad) * sizeof(float));
        for (int64_t i = 0; i < n_rows; i++) {
            r->delta[h * rows + i] =
                j->k->dot(mm_view_at(j->dy, row + i, (first + h) * p_dim),
                          mm_view_at(j->y, row + i, (first + h) * p_dim), p_dim);
        }
    }
    for (int64_t j0 = 0; j0 < n_rows; j0 += mm_tile_keys) {
        const int64_t n = n_rows - j0 < mm_tile_keys ? n_rows - j0 : mm_tile_keys;
        const int64_t ld = mm_padded(j->x, n);
        mm_tile_transpose(j->x, r->kt, ld, j->key, row + j0, gc, n);
        mm_tile_transpose(j->x, r->vt, ld, j->v, row + j0, gc, n);
        mm_tile_pack(j->x, r->k, pad, j->key, row + j0, gc, n);
        memset(r->dk, 0, (size_t)(n * pad) * sizeof(float));
        memset(r->dv, 0, (size_t)(n * pad) * sizeof(float));
        for (int64_t h = 0; h < ratio; h++) {
            for (int64_t i0 = j0; i0 < n_rows; i0 += mm_tile_queries) {
                const int64_t m = n_rows - i0 < mm_tile_queries ? n_rows - i0 : mm_tile_queries;
                bwd_tile(j, r, row, i0, m, j0, n, ld, first + h, r->dq + h * rows * pad,
                         r->delta + h * rows);
            }
        }
        store_rows(j->dk, row + j0, gc, r->dk, pad, n);
        store_rows(j->dv, row + j0, gc, r->dv, pad, n);
    }
    for (int64_t h = 0; h < ratio; h++) {
        store_rows(j->dq, row, (first + h) * p_dim, r->dq + h * rows * pad, pad, n_rows);
    }
}

static void bwd_groups(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bwd_job *j = arg;
    const int64_t g_dim = j->key.shape[1];
    struct bwd_room r;
    lay_out(&r, j->room + thread * j->room_floats, j->q.shape[2], j->pad, j->q.shape[1] / g_dim,
            j->longest);
    for (int64_t i = begin; i < end; i++) {
        const int64_t row = j->segs.start[i / g_dim], after = j->segs.start[i / g_dim + 1];
        bwd_group(j, &r, row, after - row, i % g_dim);
    }
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
    for (int64_t s = 0; s < segs.n; s++) {
        const int64_t n = segs.start[s + 1] - segs.start[s];
        j.longest = n > j.longest ? n : j.longest;
    }
    j.pad = mm_padded(j.x, q.shape[2]);
    struct bwd_room r;
    j.room_floats = lay_out(&r, NULL, q.shape[2], j.pad, q.shape[1] / k.shape[1], j.longest);
    const size_t bytes = (size_t)(mm_pool_size(be->pool) * j.room_floats) * sizeof(float);
    j.room = mm_cpu_scratch(be, mm_scratch_a, bytes);
    if (!j.room) return;
    mm_parallel_for(be->pool, segs.n * k.shape[1], 1, bwd_groups, &j);
}
