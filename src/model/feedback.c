// H = M M^T with M upper triangular, a block of columns at a time from the last to the first; then
// U = M^-1, a block of rows at a time. The large products are the backend's.
#include "model/feedback.h"

#include <math.h>
#include <stdlib.h>

#include "base/buf.h"

enum { block = 128 };

static float *at(struct mm_view v, int64_t row, int64_t col) {
    return mm_view_at(v, row, col);
}

static struct mm_view part(struct mm_view v, int64_t row, int64_t n_rows, int64_t col,
                           int64_t n_cols) {
    return mm_view_cut(mm_view_rows(v, row, n_rows), col, n_cols);
}

// A = M M^T in place for one block on the diagonal; only the upper triangle is read and written.
static bool factor_diagonal(struct mm_view a) {
    for (int64_t j = a.shape[0] - 1; j >= 0; j--) {
        for (int64_t i = j; i >= 0; i--) {
            double sum = (double)*at(a, i, j);
            for (int64_t k = j + 1; k < a.shape[0]; k++)
                sum -= (double)*at(a, i, k) * (double)*at(a, j, k);
            if (i == j && !(sum > 0.0 && isfinite(sum))) return false;
            *at(a, i, j) = (float)(i == j ? sqrt(sum) : sum / (double)*at(a, j, j));
        }
    }
    return true;
}

// Rows above a block on the diagonal: X M^T = H, row by row; X to the panel, transposed, too.
struct solve_job {
    struct mm_view above, diagonal, plus, minus;
};

static void solve_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct solve_job *j = arg;
    const int64_t n = j->diagonal.shape[0];
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        float *x = at(j->above, r, 0);
        for (int64_t c = n - 1; c >= 0; c--) {
            const float *m = at(j->diagonal, c, 0);
            double sum = (double)x[c];
            for (int64_t k = c + 1; k < n; k++)
                sum -= (double)x[k] * (double)m[k];
            x[c] = (float)(sum / (double)m[c]);
            *at(j->plus, c, r) = x[c];
            *at(j->minus, c, r) = -x[c];
        }
    }
}

static bool factor(struct mm_backend *be, struct mm_view h, float *room) {
    const int64_t K = h.shape[0];
    for (int64_t end = K; end > 0;) {
        const int64_t n = end % block ? end % block : block, begin = end - n;
        struct solve_job j = {part(h, 0, begin, begin, n), part(h, begin, n, begin, n),
                              mm_view2(room, mm_dtype_f32, n, begin),
                              mm_view2(room + n * begin, mm_dtype_f32, n, begin)};
        if (!factor_diagonal(j.diagonal)) return false;
        end = begin;
        if (begin == 0) break;
        mm_parallel_for(be->pool, begin, 16, solve_rows, &j);
        mm_linear_bwd_w(be, part(h, 0, begin, 0, begin), MM_NONE, j.minus, j.plus, mm_dtype_f32);
    }
    for (int64_t r = 1; r < K; r++) {
        for (int64_t c = 0; c < r; c++)
            *at(h, r, c) = 0.0f;
    }
    return true;
}

// The inverse of an upper triangular block, in place.
static void invert_diagonal(struct mm_view m) {
    const int64_t n = m.shape[0];
    for (int64_t i = n - 1; i >= 0; i--) {
        const double d = 1.0 / (double)*at(m, i, i);
        for (int64_t j = n - 1; j > i; j--) {
            double sum = 0.0;
            for (int64_t k = i + 1; k <= j; k++)
                sum += (double)*at(m, i, k) * (double)*at(m, k, j);
            *at(m, i, j) = (float)(-d * sum);
        }
        *at(m, i, i) = (float)d;
    }
}

// U of rows [i, i + n) from M there and U below: U_ii = M_ii^-1, and right of it -U_ii M U.
static void invert(struct mm_backend *be, struct mm_view h, float *room) {
    const int64_t K = h.shape[0];
    for (int64_t end = K; end > 0;) {
        const int64_t n = end % block ? end % block : block, begin = end - n, right = K - end;
        const struct mm_view diagonal = part(h, begin, n, begin, n);
        const struct mm_view beside = part(h, begin, n, end, right);
        const struct mm_view product = mm_view2(room, mm_dtype_f32, n, right);
        invert_diagonal(diagonal);
        if (right > 0) {
            mm_linear_bwd_x(be, product, beside, part(h, end, right, end, right), false);
            mm_scale(be, product, product, -1.0f);
            mm_linear_bwd_x(be, beside, diagonal, product, false);
        }
        end = begin;
    }
}

bool mm_feedback_factor(struct mm_backend *be, struct mm_view h, double damp) {
    const int64_t K = h.shape[0];
    double mean = 0.0;
    for (int64_t i = 0; i < K; i++)
        mean += (double)*at(h, i, i) / (double)K;
    if (!(mean > 0.0 && isfinite(mean))) return false;
    for (int64_t i = 0; i < K; i++)
        *at(h, i, i) += (float)(damp * mean);
    float *room = mm_xmalloc((size_t)(2 * block * K) * sizeof *room);
    const bool ok = factor(be, h, room);
    if (ok) invert(be, h, room);
    free(room);
    return ok && be->error.code == mm_code_ok;
}
