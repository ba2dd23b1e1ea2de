// Gradient of the recurrence on the tensor cores: the same walks with the operands in other places
// (ssd_walk.cuh). With S the state, G its gradient, U_ij as there: the gradient of log a_t is what
// crosses t, the sum of all contributions of tokens j < t to tokens i >= t:
//   after_t = <G, S> at the span's end + sum over s >= t in the span of
//             (what arrives at s from before) - (what leaves s for later)
//   ddt_t = what leaves t, by dt_t - exp(a_log) after_t
// Inside a chunk what arrives and what leaves are sums of the same U_ij and cancel exactly.
#include "ops/cuda/ssd_tensor.cuh"

struct finish {
    struct mm_ssd_plan p;
    const float *grads;                         // (spans, H, P, N): after each span
    const float *arrive, *leave;                // (H, T): through states; leave is by dt
    const float *row_col, *col_diag, *diag_vy;  // (H, T): inside chunks; diag_vy may be NULL
    float *da, *dd;                             // (spans, H)
};

enum { finish_threads = 256 };

// Sums of x over the threads from this one on; *all: over all.
__device__ static float suffix_sum(float x, float *all) {
    __shared__ float part[finish_threads / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int s = 1; s < 32; s *= 2) {
        const float y = __shfl_down_sync(0xffffffffu, x, s);
        if (lane + s < 32) x += y;
    }
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    float sum = 0.0f, after = 0.0f;
    for (int i = finish_threads / 32 - 1; i >= 0; i--) {
        if (i == warp) after = sum;
        sum += part[i];
    }
    *all = sum;
    return x + after;
}

static __global__ void finish_kernel(struct finish f, struct mm_mat ddt) {
    const struct mm_ssd_plan &p = f.p;
    const int c = blockIdx.y, h = blockIdx.x, size = p.rows * p.cols;
    const struct mm_span span = p.spans[c];
    const float rate = p.a_log ? expf(p.a_log[h]) : 0.0f;
    float carry = 0.0f;
    if (!span.last) {
        const float *g = f.grads + ((int64_t)c * p.heads + h) * size;
        const float *s = p.states + ((int64_t)(c + 1) * p.heads + h) * size;
        for (int e = threadIdx.x * 4; e < size; e += finish_threads * 4) {
            const float4 a = *(const float4 *)(g + e), b = *(const float4 *)(s + e);
            carry += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
        }
        carry = mm_block_sum(carry);
    }
    float da = 0.0f, dd = 0.0f;
    for (int end = span.n; end > 0; end -= finish_threads) {
        const int t = end - finish_threads + (int)threadIdx.x;
        const int64_t at = (int64_t)h * p.n_tokens + span.begin + t;
        const bool real = t >= 0;
        const float dt = real ? p.dt[at] : 0.0f, leave = real ? f.leave[at] : 0.0f;
        const float net = real ? f.arrive[at] + f.row_col[at] - leave * dt : 0.0f;
        float all;
        const float after = carry + suffix_sum(net, &all);
        carry += all;
        if (!real) continue;
        ddt(span.begin + t, h) = leave + f.col_diag[at] - rate * after;
        da -= after * rate * dt;
        if (f.diag_vy) dd += f.diag_vy[at];
    }
    da = mm_block_sum(da);
    dd = mm_block_sum(dd);
    if (threadIdx.x == 0) f.da[c * p.heads + h] = da, f.dd[c * p.heads + h] = dd;
}

// out (T, G, dim) = the sum over a group's heads of x (T, H, dim); a thread eight elements.
static __global__ void add_heads(__nv_bfloat16 *out, int64_t ld, const __nv_bfloat16 *x, int64_t n,
                                 int heads, int groups, int dim) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const int per = heads / groups, pieces = groups * dim / 8;
    const int64_t t = i / pieces;
    const int col = (int)(i - t * pieces) * 8, g = col / dim, p = col - g * dim;
    float sum[8] = {};
    for (int h = g * per; h < (g + 1) * per; h++) {
        const uint4 v = *(const uint4 *)(x + (t * heads + h) * dim + p);
        const uint32_t w[4] = {v.x, v.y, v.z, v.w};
        for (int k = 0; k < 4; k++)
            sum[2 * k] += mm_low(w[k]), sum[2 * k + 1] += mm_high(w[k]);
    }
    uint4 y;
    y.x = mm_pair(sum[0], sum[1]), y.y = mm_pair(sum[2], sum[3]);
    y.z = mm_pair(sum[4], sum[5]), y.w = mm_pair(sum[6], sum[7]);
    *(uint4 *)(out + t * ld + col) = y;
}

// A backward walk whose result belongs to the group: a head at a time, then their sum.
static void walk_group(struct mm_backend *be, const struct mm_ssd_plan *p, struct mm_walk w,
                       struct mm_view out, __nv_bfloat16 *heads, enum mm_walk_kind kind) {
    const int groups = (int)out.shape[1], dim = (int)out.shape[2];
    const bool direct = groups == p->heads;
    w.out = direct ? (__nv_bfloat16 *)out.data : heads;
    w.ld_out = direct ? out.ld : (int64_t)p->heads * dim;
    mm_ssd_walk(be, p, &w, true, kind);
    if (direct) return;
    const int64_t n = p->n_tokens * groups * dim / 8;
    MM_LAUNCH(be, add_heads, (unsigned)((n + 255) / 256), 256, 0, (__nv_bfloat16 *)out.data, out.ld,
              heads, n, p->heads, groups, dim);
}

static void add_spans(struct mm_backend *be, struct mm_view out, const float *x, int n, int heads) {
    if (!out.data) return;
    mm_add_column_sums(be, mm_cuda_slot_g, (float *)out.data, 1, n, heads,
                       [=] __device__(int64_t c, int64_t h) { return x[c * heads + h]; });
}

struct room {
    float *grads, *totals, *arrive, *leave, *row_col, *col_diag, *diag_vy, *da, *dd;
    __nv_bfloat16 *heads;
};

static bool room_of(struct mm_backend *be, struct room *o, const struct mm_ssd_plan *p,
                    bool group) {
    const int64_t th = (p->n_tokens * p->heads + 31) / 32 * 32;
    const int64_t ch = (int64_t)p->n_spans * p->heads, most = p->rows > p->cols ? p->rows : p->cols;
    float *at = (float *)mm_cuda_scratch(
        be, mm_cuda_slot_f, (size_t)(ch * p->rows * p->cols + 5 * th + 3 * ch) * sizeof(float));
    o->heads = group ? (__nv_bfloat16 *)mm_cuda_scratch(
                           be, mm_cuda_slot_h,
                           (size_t)(p->n_tokens * p->heads * most) * sizeof(__nv_bfloat16))
                     : NULL;
    if (!at || be->error.code) return false;
    o->grads = at, at += ch * p->rows * p->cols;
    float **rows[] = {&o->arrive, &o->leave, &o->row_col, &o->col_diag, &o->diag_vy};
    for (float **r : rows)
        *r = at, at += th;
    o->totals = at, o->da = at + ch, o->dd = at + 2 * ch;
    return true;
}

bool mm_ssd_bwd_tensor(struct mm_backend *be, struct mm_view dv, struct mm_view dk,
                       struct mm_view dq, struct mm_view ddt, struct mm_view da_log,
                       struct mm_view dd, struct mm_view dy, struct mm_view v, struct mm_view k,
                       struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                       struct mm_segs segs) {
    const struct mm_view all[] = {dv, dk, dq, dy, v, k, q};
    for (const struct mm_view &x : all)
        if (!mm_ssd_tensor_takes(x)) return false;
    struct mm_ssd_plan p;
    struct room m;
    if (!mm_ssd_plan_of(be, &p, v, q, dt, a_log, d, segs, 1024)) return true;
    if (!room_of(be, &m, &p, dv.shape[1] != p.heads)) return true;
    const struct mm_walk_rows rv = mm_walk_rows_of(v, p.heads), rk = mm_walk_rows_of(k, p.heads),
                              rq = mm_walk_rows_of(q, p.heads), ry = mm_walk_rows_of(dy, p.heads);
    struct mm_walk s = mm_ssd_walk_of(&p), g = s;  // through S and through G
    s.k = rk, s.v = rv;
    g.states = m.grads, g.totals = m.totals, g.k = rq, g.v = ry;
    if (p.many) {
        mm_ssd_walk(be, &p, &s, false, mm_walk_exact);
        mm_ssd_walk(be, &p, &g, true, mm_walk_exact);
    }
    mm_ssd_pass(be, &p, p.states, p.totals, NULL, false);
    mm_ssd_pass(be, &p, m.grads, m.totals, NULL, true);

    struct mm_walk w = s;  // dq: S turned
    w.q = ry, w.k = rv, w.v = rk, w.x = rq;
    w.rows = p.cols, w.cols = p.rows, w.row_step = 1, w.col_step = p.cols;
    w.out = (__nv_bfloat16 *)dq.data, w.ld_out = dq.ld;
    w.dot = m.arrive, w.row_col = m.row_col, w.col_diag = m.col_diag;
    w.diag_qk = dd.data ? m.diag_vy : NULL;
    mm_ssd_walk(be, &p, &w, false, mm_walk_sums);

    w = g;  // dv
    w.q = rk, w.k = rq, w.v = ry, w.x = rv, w.dot = m.leave, w.skip = p.d;
    walk_group(be, &p, w, dv, m.heads, mm_walk_dot);

    w = g;  // dk: G turned
    w.q = rv, w.k = ry, w.v = rq;
    w.rows = p.cols, w.cols = p.rows, w.row_step = 1, w.col_step = p.cols;
    walk_group(be, &p, w, dk, m.heads, mm_walk_out);

    const struct finish f = {
        p,    m.grads, m.arrive, m.leave, m.row_col, m.col_diag, dd.data ? m.diag_vy : NULL,
        m.da, m.dd};
    MM_LAUNCH(be, finish_kernel, dim3((unsigned)p.heads, (unsigned)p.n_spans), finish_threads, 0, f,
              mm_mat_of(ddt));
    if (a_log.data) add_spans(be, da_log, m.da, p.n_spans, p.heads);
    add_spans(be, dd, m.dd, p.n_spans, p.heads);
    return true;
}
