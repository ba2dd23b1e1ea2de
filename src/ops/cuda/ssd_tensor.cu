// The recurrence forward on the tensor cores. A sequence is cut into spans, about two for every
// multiprocessor: walks over all of them at once say what each adds to the state, a pass adds that
// up to the states at their beginnings, and walks from there make the outputs. The states that go
// through memory are one a span, not one a chunk.
#include "ops/cuda/ssd_tensor.cuh"

#include <stdlib.h>

// A warp a (chunk, head): sums of log2 decays inside the chunk, and dt, a head's tokens in a row.
static __global__ void decays(struct mm_ssd_plan p, struct mm_mat dt) {
    const int lane = threadIdx.x % 32, h = blockIdx.y * 8 + (int)threadIdx.x / 32;
    const struct mm_span span = p.spans[blockIdx.x];
    const int at = blockIdx.z * mm_walk_q;
    if (h >= p.heads || at >= span.n) return;
    const float rate = p.a_log ? expf(p.a_log[h]) * 1.4426950408889634f : 0.0f;
    float before = 0.0f;
    for (int t = at + lane; t < at + mm_walk_q; t += 32) {
        const float step = t < span.n ? (float)dt(span.begin + t, h) : 0.0f;
        float x = fmaxf(-rate * step, -2e36f);  // 64 of them are still finite
        for (int s = 1; s < 32; s *= 2) {
            const float y = __shfl_up_sync(0xffffffffu, x, s);
            if (lane >= s) x += y;
        }
        if (t < span.n) {
            const int64_t to = (int64_t)h * p.n_tokens + span.begin + t;
            p.cum[to] = before + x;
            p.dt[to] = step;
        }
        before += __shfl_sync(0xffffffffu, x, 31);
    }
}

static int64_t count_spans(struct mm_segs segs, int64_t length) {
    int64_t n = 0;
    for (int64_t s = 0; s < segs.n; s++)
        n += (segs.start[s + 1] - segs.start[s] + length - 1) / length;
    return n;
}

// Long enough that about two spans meet on a multiprocessor, whole chunks.
static int64_t span_length(int sms, int64_t tokens, int64_t heads, int64_t longest) {
    int64_t n = tokens * heads / (2 * sms);
    n = (n + mm_walk_q - 1) / mm_walk_q * mm_walk_q;
    return n > longest ? longest : n < 2 * mm_walk_q ? 2 * mm_walk_q : n;
}

static void fill_spans(struct mm_ssd_plan *p, struct mm_span *spans, int32_t *first,
                       struct mm_segs segs, int64_t length) {
    int n = 0;
    for (int64_t s = 0; s < segs.n; s++) {
        const int32_t begin = segs.start[s], end = segs.start[s + 1];
        first[s] = n;
        for (int32_t t = begin; t < end; t += (int32_t)length) {
            const int32_t left = end - t, len = left < length ? left : (int32_t)length;
            spans[n++] = mm_span{t, len, (int32_t)s, t == begin, len == left};
            const int chunks = (len + mm_walk_q - 1) / mm_walk_q;
            if (chunks > p->most_chunks) p->most_chunks = chunks;
            if (len < left) p->many = true;
        }
    }
    first[segs.n] = n;
}

bool mm_ssd_plan_of(struct mm_backend *be, struct mm_ssd_plan *p, struct mm_view v,
                    struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                    struct mm_segs segs, int64_t longest) {
    *p = mm_ssd_plan{};
    p->heads = (int)q.shape[1], p->rows = (int)v.shape[2], p->cols = (int)q.shape[2];
    p->n_tokens = q.shape[0], p->n_seqs = (int)segs.n;
    p->a_log = mm_cuda_vector(be, mm_cuda_slot_d, a_log);
    p->d = mm_cuda_vector(be, mm_cuda_slot_e, d);
    const int64_t length = span_length(mm_cuda_of(be)->sms, p->n_tokens, p->heads, longest);
    p->n_spans = (int)count_spans(segs, length);
    const size_t table = (size_t)p->n_spans * sizeof(struct mm_span);
    const size_t bytes = table + (size_t)(segs.n + 1) * sizeof(int32_t);
    const int64_t per_head = (p->n_tokens * p->heads + 31) / 32 * 32;
    const int64_t states = (int64_t)p->n_spans * p->heads * p->rows * p->cols;
    char *host = (char *)malloc(bytes);
    char *dev = (char *)mm_cuda_scratch(be, mm_cuda_slot_b, bytes);
    p->cum = (float *)mm_cuda_scratch(
        be, mm_cuda_slot_c,
        (size_t)(2 * per_head + states + p->n_spans * p->heads) * sizeof(float));
    if (!host || !dev || !p->cum || be->error.code) {
        free(host);
        return false;
    }
    p->dt = p->cum + per_head, p->states = p->dt + per_head, p->totals = p->states + states;
    fill_spans(p, (struct mm_span *)host, (int32_t *)(host + table), segs, length);
    // pageable memory: it has been read when the call returns
    mm_cuda_ok(be,
               cudaMemcpyAsync(dev, host, bytes, cudaMemcpyHostToDevice, mm_cuda_of(be)->stream),
               "copying the table of spans");
    free(host);
    p->spans = (const struct mm_span *)dev, p->first_span = (const int32_t *)(dev + table);
    const dim3 grid((unsigned)p->n_spans, (unsigned)(p->heads + 7) / 8, (unsigned)p->most_chunks);
    if (p->n_spans) MM_LAUNCH(be, decays, grid, 256, 0, *p, mm_mat_of(dt));
    return p->n_spans > 0 && !be->error.code;
}

struct mm_walk mm_ssd_walk_of(const struct mm_ssd_plan *p) {
    struct mm_walk w = {};
    w.spans = p->spans, w.cum = p->cum, w.dt = p->dt;
    w.n_tokens = p->n_tokens, w.heads = p->heads;
    w.rows = p->rows, w.cols = p->cols;
    w.states = p->states, w.totals = p->totals;
    w.row_step = p->cols, w.col_step = 1;
    return w;
}

template <int D, bool BACK, int KIND, int STAGES>
static void launch_stages(struct mm_backend *be, const struct mm_ssd_plan *p,
                          const struct mm_walk &w) {
    auto walk = mm_walk_kernel<D, BACK, KIND, STAGES>;
    const size_t bytes = sizeof(struct mm_walk_shared<D, KIND, STAGES>);
    if (!mm_cuda_ok(
            be, cudaFuncSetAttribute(walk, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            "asking for shared memory for the recurrence")) {
        return;
    }
    const dim3 grid((unsigned)p->heads, (unsigned)p->n_spans);
    MM_LAUNCH(be, walk, grid, D * 2, bytes, w);
}

template <int D, bool BACK, int KIND>
static void launch(struct mm_backend *be, const struct mm_ssd_plan *p, const struct mm_walk &w) {
    if constexpr (KIND == mm_walk_sums) {
        launch_stages<D, BACK, KIND, 1>(be, p, w);
    } else {
        constexpr size_t bytes = sizeof(struct mm_walk_shared<D, KIND, 2>);
        if constexpr (bytes > 96 * 1024) {
            if (mm_cuda_of(be)->shared_most < bytes) {
                launch_stages<D, BACK, KIND, 1>(be, p, w);
                return;
            }
        }
        launch_stages<D, BACK, KIND, 2>(be, p, w);
    }
}

template <int D>
static void launch_kind(struct mm_backend *be, const struct mm_ssd_plan *p, const struct mm_walk &w,
                        bool back, enum mm_walk_kind kind) {
    if (kind == mm_walk_state) {
        launch<D, false, mm_walk_state>(be, p, w);
    } else if (kind == mm_walk_exact) {
        back ? launch<D, true, mm_walk_exact>(be, p, w) : launch<D, false, mm_walk_exact>(be, p, w);
    } else if (kind == mm_walk_out) {
        back ? launch<D, true, mm_walk_out>(be, p, w) : launch<D, false, mm_walk_out>(be, p, w);
    } else if (kind == mm_walk_dot) {
        launch<D, true, mm_walk_dot>(be, p, w);
    } else {
        launch<D, false, mm_walk_sums>(be, p, w);
    }
}

void mm_ssd_walk(struct mm_backend *be, const struct mm_ssd_plan *p, const struct mm_walk *w,
                 bool back, enum mm_walk_kind kind) {
    const int most = p->rows > p->cols ? p->rows : p->cols;
    if (most <= 32) {
        launch_kind<32>(be, p, *w, back, kind);
    } else if (most <= 64) {
        launch_kind<64>(be, p, *w, back, kind);
    } else {
        launch_kind<128>(be, p, *w, back, kind);
    }
}

// A thread four elements of a state of a (head, sequence), through its spans in order.
static __global__ void pass_spans(struct mm_ssd_plan p, float *states, const float *totals,
                                  const float *begin, bool back) {
    const int s = blockIdx.z, h = blockIdx.y, size = p.rows * p.cols;
    const int e = (int)(blockIdx.x * blockDim.x + threadIdx.x) * 4;
    const int first = p.first_span[s], n = p.first_span[s + 1] - first;
    if (e >= size || n == 0) return;
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (begin) x = *(const float4 *)(begin + ((int64_t)s * p.heads + h) * size + e);
    const int step = back ? -1 : 1;
    int64_t at = (int64_t)(back ? first + n - 1 : first) * p.heads + h;
    float4 add = n > 1 ? *(const float4 *)(states + at * size + e) : x;
    for (int i = 0; i < n; i++, at += step * p.heads) {
        // the next is asked for before this one is written; of the last nothing is added to
        float4 next = add;
        float keep = 0.0f;
        if (i + 1 < n) keep = exp2f(totals[at]);
        if (i + 2 < n) next = *(const float4 *)(states + (at + step * p.heads) * size + e);
        *(float4 *)(states + at * size + e) = x;
        x = make_float4(x.x * keep + add.x, x.y * keep + add.y, x.z * keep + add.z,
                        x.w * keep + add.w);
        add = next;
    }
}

void mm_ssd_pass(struct mm_backend *be, const struct mm_ssd_plan *p, float *states,
                 const float *totals, const float *begin, bool back) {
    const dim3 grid((unsigned)((p->rows * p->cols / 4 + 255) / 256), (unsigned)p->heads,
                    (unsigned)p->n_seqs);
    MM_LAUNCH(be, pass_spans, grid, 256, 0, *p, states, totals, begin, back);
}

bool mm_ssd_fwd_tensor(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                       struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                       struct mm_view state, struct mm_segs segs) {
    if (!mm_ssd_tensor_takes(v) || !mm_ssd_tensor_takes(k) || !mm_ssd_tensor_takes(q) ||
        !mm_ssd_tensor_takes(y)) {
        return false;
    }
    struct mm_ssd_plan p;
    if (!mm_ssd_plan_of(be, &p, v, q, dt, a_log, d, segs, 2048)) return true;
    struct mm_walk w = mm_ssd_walk_of(&p);
    w.q = mm_walk_rows_of(q, p.heads), w.k = mm_walk_rows_of(k, p.heads);
    w.v = mm_walk_rows_of(v, p.heads);
    w.out = (__nv_bfloat16 *)y.data, w.ld_out = y.ld;
    w.skip = p.d, w.end = (float *)state.data;
    if (p.many) mm_ssd_walk(be, &p, &w, false, mm_walk_state);
    mm_ssd_pass(be, &p, p.states, p.totals, (const float *)state.data, false);
    mm_ssd_walk(be, &p, &w, false, mm_walk_out);
    return true;
}
