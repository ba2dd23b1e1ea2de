// Moving rows: embedding, gather, scatter; the largest of a row.
#include <math.h>

#include "ops/cpu/convert.h"
#include "ops/cpu/kernels.h"

struct rows_job {
    const struct mm_kernels *k;
    struct mm_view to, from;
    const int32_t *idx;
    enum mm_isa isa;
};

static int64_t row_grain(struct mm_view x) {
    return 1 + 16384 / mm_view_cols(x);
}

static void embed_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct rows_job *j = arg;
    const int64_t cols = mm_view_cols(j->to);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *y = mm_view_at(j->to, t, 0);
        if (j->idx[t] < 0) {
            memset(y, 0, (size_t)cols * sizeof *y);
        } else {
            mm_convert_to_f32(j->isa, y, mm_view_at(j->from, j->idx[t], 0), j->from.dtype, cols);
        }
    }
}

void mm_embed_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view table,
                      struct mm_view ids) {
    struct rows_job j = {.to = y, .from = table, .idx = ids.data, .isa = mm_cpu_isa(be)};
    mm_parallel_for(be->pool, y.shape[0], row_grain(y), embed_rows, &j);
}

// Each thread owns a range of columns and walks all of t in order: one id may occur often.
enum { column_unit = 64 };

static void embed_bwd_columns(void *arg, int64_t begin, int64_t end, int thread) {
    const struct rows_job *j = arg;
    const int64_t cols = mm_view_cols(j->from), c = begin * column_unit;
    const int64_t n = (end * column_unit < cols ? end * column_unit : cols) - c;
    (void)thread;
    for (int64_t t = 0; n > 0 && t < j->from.shape[0]; t++) {
        if (j->idx[t] < 0) continue;
        float *to = mm_view_at(j->to, j->idx[t], c);
        j->k->add(to, to, mm_view_at(j->from, t, c), n);
    }
}

void mm_embed_bwd_cpu(struct mm_backend *be, struct mm_view dtable, struct mm_view dy,
                      struct mm_view ids) {
    struct rows_job j = {.k = mm_kernels_of(be), .to = dtable, .from = dy, .idx = ids.data};
    const int64_t units = (mm_view_cols(dy) + column_unit - 1) / column_unit;
    const bool small = mm_view_count(dy) < 1 << 15;
    mm_parallel_for(be->pool, units, small ? units : 1, embed_bwd_columns, &j);
}

static void gather(void *arg, int64_t begin, int64_t end, int thread) {
    const struct rows_job *j = arg;
    const size_t bytes = (size_t)mm_view_cols(j->to) * sizeof(float);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        memcpy(mm_view_at(j->to, r, 0), mm_view_at(j->from, j->idx[r], 0), bytes);
    }
}

void mm_gather_rows_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                        struct mm_view idx) {
    struct rows_job j = {.to = y, .from = x, .idx = idx.data};
    mm_parallel_for(be->pool, y.shape[0], row_grain(y), gather, &j);
}

static void scatter(void *arg, int64_t begin, int64_t end, int thread) {
    const struct rows_job *j = arg;
    const size_t bytes = (size_t)mm_view_cols(j->from) * sizeof(float);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        memcpy(mm_view_at(j->to, j->idx[r], 0), mm_view_at(j->from, r, 0), bytes);
    }
}

void mm_scatter_rows_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                         struct mm_view idx) {
    struct rows_job j = {.to = y, .from = x, .idx = idx.data};
    mm_parallel_for(be->pool, x.shape[0], row_grain(x), scatter, &j);
}

// The largest of a row with the banned columns left out. Lanes of their own, so that it is a loop
// of vectors; a NaN is larger than nothing.
static float largest(const float *x, int64_t n) {
    enum { lanes = 16 };
    float most[lanes];
    for (int i = 0; i < lanes; i++)
        most[i] = -INFINITY;
    int64_t at = 0;
    for (; at + lanes <= n; at += lanes) {
        for (int i = 0; i < lanes; i++)
            most[i] = x[at + i] > most[i] ? x[at + i] : most[i];
    }
    for (; at < n; at++)
        most[0] = x[at] > most[0] ? x[at] : most[0];
    for (int i = 1; i < lanes; i++)
        most[0] = most[i] > most[0] ? most[i] : most[0];
    return most[0];
}

static int32_t first_largest(const float *x, int64_t n, const int32_t *sorted, int64_t n_banned) {
    int32_t best = -1;
    float most = -INFINITY;
    int64_t from = 0;
    for (int64_t i = 0; i <= n_banned && from <= n; i++) {
        const int64_t to = i < n_banned && sorted[i] < n ? sorted[i] : n;
        if (to < from) continue;
        const float here = largest(x + from, to - from);
        if (here > most) {
            most = here;
            for (best = (int32_t)from; x[best] != here;)
                best++;
        }
        from = to + 1;
    }
    return isfinite(most) ? best : -1;
}

void mm_argmax_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                   struct mm_view banned) {
    enum { most = 64 };
    int32_t sorted[most];
    int64_t n = 0;
    if (banned.data && banned.shape[0] > most) {
        mm_argmax_ref(be, y, x, banned);
        return;
    }
    for (int64_t i = 0; banned.data && i < banned.shape[0]; i++) {
        const int32_t id = ((const int32_t *)banned.data)[i];
        if (id < 0) continue;
        int64_t at = n++;
        for (; at > 0 && sorted[at - 1] > id; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = id;
    }
    for (int64_t r = 0; r < x.shape[0]; r++) {
        ((int32_t *)y.data)[r] = first_largest(mm_view_at(x, r, 0), mm_view_cols(x), sorted, n);
    }
}
