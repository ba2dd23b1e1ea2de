// Reference of the state-space recurrence (MODEL.md section 2), token by token, states in double:
//   S_t = a_t S_{t-1} + dt_t v_t k_t^T,   a_t = exp(-exp(a_log) dt_t),   y_t = S_t q_t + d v_t
// and of its gradient. With G_t = dL/dS_t = dy_t q_t^T + a_{t+1} G_{t+1}:
//   dq_t = S_t^T dy_t        dv_t = dt_t G_t k_t + d dy_t        dk_t = dt_t G_t^T v_t
//   dl_t = a_t <G_t, S_{t-1}>, l_t = -exp(a_log) dt_t being the logarithm of a_t
//   ddt_t = v_t^T G_t k_t - exp(a_log) dl_t      da_log = sum_t dl_t l_t      dd = sum_t dy_t v_t
#include <math.h>
#include <string.h>
#include "ops/cpu/cpu.h"
#include "ops/cpu/ref/mixer.h"

// One query head of the operands; `h` its number, `g` its group's.
struct head {
    struct mm_view v, k, q, dt;
    int64_t h, g, n_rows, n_cols;  // state (P, N)
    double rate;                   // exp(a_log), 0 without decay
    double d;
};

static struct head head_of(struct mm_view v, struct mm_view k, struct mm_view q, struct mm_view dt,
                           struct mm_view a_log, struct mm_view d, int64_t h) {
    const int64_t per_group = q.shape[1] / v.shape[1];
    return (struct head){.v = v,
                         .k = k,
                         .q = q,
                         .dt = dt,
                         .h = h,
                         .g = h / per_group,
                         .n_rows = v.shape[2],
                         .n_cols = k.shape[2],
                         .rate = a_log.data ? exp(mm_ref_get(a_log, h, 0)) : 0.0,
                         .d = mm_ref_get(d, h, 0)};
}

static double v_at(const struct head *e, int64_t t, int64_t i) {
    return mm_ref_get(e->v, t, e->g * e->n_rows + i);
}
static double k_at(const struct head *e, int64_t t, int64_t j) {
    return mm_ref_get(e->k, t, e->g * e->n_cols + j);
}
static double q_at(const struct head *e, int64_t t, int64_t j) {
    return mm_ref_get(e->q, t, e->h * e->n_cols + j);
}

// to = a_t from + dt_t v_t k_t^T; `to` may be `from`.
static void advance(const struct head *e, double *to, const double *from, int64_t t) {
    const double dt = mm_ref_get(e->dt, t, e->h), a = exp(-e->rate * dt);
    for (int64_t i = 0; i < e->n_rows; i++) {
        for (int64_t j = 0; j < e->n_cols; j++) {
            to[i * e->n_cols + j] =
                a * from[i * e->n_cols + j] + dt * v_at(e, t, i) * k_at(e, t, j);
        }
    }
}

// Rows [begin, end) of one head; `state` goes along.
static void run(const struct head *e, struct mm_view y, double *state, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
        advance(e, state, state, t);
        for (int64_t i = 0; i < e->n_rows; i++) {
            double sum = e->d * v_at(e, t, i);
            for (int64_t j = 0; j < e->n_cols; j++) {
                sum += state[i * e->n_cols + j] * q_at(e, t, j);
            }
            *mm_ref_f32(y, t, e->h * e->n_rows + i) = (float)sum;
        }
    }
}

static void run_all(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                    struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                    struct mm_view state, int64_t n_seqs, const int32_t *start) {
    const int64_t size = v.shape[2] * k.shape[2];
    double *s_t = mm_cpu_scratch(be, mm_scratch_a, (size_t)size * sizeof *s_t);
    if (!s_t) return;
    for (int64_t s = 0; s < n_seqs; s++) {
        for (int64_t h = 0; h < q.shape[1]; h++) {
            const struct head e = head_of(v, k, q, dt, a_log, d, h);
            for (int64_t i = 0; i < size; i++) {
                s_t[i] = mm_ref_get(state, s, h * size + i);
            }
            run(&e, y, s_t, start ? start[s] : s, start ? start[s + 1] : s + 1);
            for (int64_t i = 0; state.data && i < size; i++) {
                *mm_ref_f32(state, s, h * size + i) = (float)s_t[i];
            }
        }
    }
}

void mm_ssd_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                    struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                    struct mm_view state, struct mm_segs segs) {
    run_all(be, y, v, k, q, dt, a_log, d, state, segs.n, segs.start);
}

void mm_ssd_step_ref(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                     struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                     struct mm_view state) {
    run_all(be, y, v, k, q, dt, a_log, d, state, q.shape[0], NULL);
}

// ---- backward ----

// The states of a sequence are kept every `every` tokens and recomputed in between, so that the
// reference can also be used on long sequences.
enum { every = 64 };

struct grads {
    struct mm_view dv, dk, dq, ddt, dy;
    bool first_of_group;  // overwrites dv and dk; the group's other heads add
    double da_log, dd;    // sums
};

static void add_to(struct mm_view x, int64_t t, int64_t col, double value, bool overwrite) {
    float *at = mm_ref_f32(x, t, col);
    *at = (float)(overwrite ? value : (double)*at + value);
}

// Token t, with S_{t-1}, S_t, and grad = a_{t+1} G_{t+1}, which becomes a_t G_t.
static void token_bwd(const struct head *e, struct grads *o, const double *before,
                      const double *after, double *grad, int64_t t) {
    const int64_t n_rows = e->n_rows, n_cols = e->n_cols;
    const double dt = mm_ref_get(e->dt, t, e->h), a = exp(-e->rate * dt);
    double dl = 0.0, direct = 0.0;
    for (int64_t i = 0; i < n_rows; i++) {
        const double dy = mm_ref_get(o->dy, t, e->h * n_rows + i);
        double gk = 0.0;
        for (int64_t j = 0; j < n_cols; j++) {
            double *g = grad + i * n_cols + j;
            *g += dy * q_at(e, t, j);
            gk += *g * k_at(e, t, j);
            dl += a * *g * before[i * n_cols + j];
        }
        direct += gk * v_at(e, t, i);
        add_to(o->dv, t, e->g * n_rows + i, dt * gk + e->d * dy, o->first_of_group);
        o->dd += dy * v_at(e, t, i);
    }
    for (int64_t j = 0; j < n_cols; j++) {
        double dq = 0.0, gv = 0.0;
        for (int64_t i = 0; i < n_rows; i++) {
            dq += after[i * n_cols + j] * mm_ref_get(o->dy, t, e->h * n_rows + i);
            gv += grad[i * n_cols + j] * v_at(e, t, i);
            grad[i * n_cols + j] *= a;
        }
        *mm_ref_f32(o->dq, t, e->h * n_cols + j) = (float)dq;
        add_to(o->dk, t, e->g * n_cols + j, dt * gv, o->first_of_group);
    }
    *mm_ref_f32(o->ddt, t, e->h) = (float)(direct - e->rate * dl);
    o->da_log += dl * -e->rate * dt;
}

// One sequence of one head. kept (ceil(T / every) + 1, P, N): the states before tokens 0, every,
// 2 every, ...; block (every + 1, P, N); grad (P, N).
static void sequence_bwd(const struct head *e, struct grads *o, double *kept, double *block,
                         double *grad, int64_t first, int64_t end) {
    const int64_t size = e->n_rows * e->n_cols, n_tokens = end - first;
    const int64_t n_blocks = (n_tokens + every - 1) / every;
    memset(kept, 0, (size_t)size * sizeof *kept);
    memset(grad, 0, (size_t)size * sizeof *grad);
    for (int64_t b = 0; b < n_blocks; b++) {
        double *next = kept + (b + 1) * size;
        memcpy(next, kept + b * size, (size_t)size * sizeof *next);
        for (int64_t t = b * every; t < (b + 1) * every && t < n_tokens; t++) {
            advance(e, next, next, first + t);
        }
    }
    for (int64_t b = n_blocks - 1; b >= 0; b--) {
        const int64_t t0 = b * every, t1 = t0 + every < n_tokens ? t0 + every : n_tokens;
        memcpy(block, kept + b * size, (size_t)size * sizeof *block);
        for (int64_t t = t0; t < t1; t++) {
            advance(e, block + (t - t0 + 1) * size, block + (t - t0) * size, first + t);
        }
        for (int64_t t = t1 - 1; t >= t0; t--) {
            token_bwd(e, o, block + (t - t0) * size, block + (t - t0 + 1) * size, grad, first + t);
        }
    }
}

void mm_ssd_bwd_ref(struct mm_backend *be, struct mm_view dv, struct mm_view dk, struct mm_view dq,
                    struct mm_view ddt, struct mm_view da_log, struct mm_view dd, struct mm_view dy,
                    struct mm_view v, struct mm_view k, struct mm_view q, struct mm_view dt,
                    struct mm_view a_log, struct mm_view d, struct mm_segs segs) {
    const int64_t size = v.shape[2] * k.shape[2], per_group = q.shape[1] / v.shape[1];
    int64_t longest = 0;
    for (int64_t s = 0; s < segs.n; s++) {
        const int64_t n = segs.start[s + 1] - segs.start[s];
        longest = n > longest ? n : longest;
    }
    const int64_t n_kept = (longest + every - 1) / every + 1;
    double *kept =
        mm_cpu_scratch(be, mm_scratch_a, (size_t)((n_kept + every + 2) * size) * sizeof *kept);
    if (!kept) return;
    double *block = kept + n_kept * size, *grad = block + (every + 1) * size;
    for (int64_t h = 0; h < q.shape[1]; h++) {
        const struct head e = head_of(v, k, q, dt, a_log, d, h);
        struct grads o = {dv, dk, dq, ddt, dy, h % per_group == 0, 0.0, 0.0};
        for (int64_t s = 0; s < segs.n; s++) {
            sequence_bwd(&e, &o, kept, block, grad, segs.start[s], segs.start[s + 1]);
        }
        if (da_log.data && a_log.data) *mm_ref_f32(da_log, h, 0) += (float)o.da_log;
        if (dd.data) *mm_ref_f32(dd, h, 0) += (float)o.dd;
    }
}
