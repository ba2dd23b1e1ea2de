// The state-space recurrence in chunks of 64: states of the chunks by themselves, a pass over the
// chunks of a sequence, outputs. Sums and states in f32.
#include "ops/cuda/ssd.cuh"
#include "ops/cuda/ssd_tensor.cuh"

#include <stdlib.h>

bool mm_ssd_gpu_of(struct mm_backend *be, struct mm_ssd_gpu *o, struct mm_view v, struct mm_view k,
                   struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                   struct mm_segs segs) {
    *o = mm_ssd_gpu{};
    o->v = mm_mat_of(v), o->k = mm_mat_of(k), o->q = mm_mat_of(q), o->dt = mm_mat_of(dt);
    o->a_log = mm_cuda_vector(be, mm_cuda_slot_d, a_log);
    o->d = mm_cuda_vector(be, mm_cuda_slot_e, d);
    o->heads = (int)q.shape[1], o->groups = (int)v.shape[1];
    o->rows = (int)v.shape[2], o->cols = (int)k.shape[2];
    int64_t n_chunks = 0;
    for (int64_t s = 0; s < segs.n; s++)
        n_chunks += (segs.start[s + 1] - segs.start[s] + mm_ssd_q - 1) / mm_ssd_q;
    const size_t table = (size_t)n_chunks * sizeof(struct mm_chunk);
    const size_t firsts = (size_t)(segs.n + 1) * sizeof(int32_t);
    char *host = (char *)malloc(table + firsts);
    char *dev = (char *)mm_cuda_scratch(be, mm_cuda_slot_b, table + firsts);
    const int64_t cum = (q.shape[0] * o->heads + 31) / 32 * 32;
    const int64_t states = n_chunks * o->heads * o->rows * o->cols;
    o->cum = (float *)mm_cuda_scratch(be, mm_cuda_slot_c, (size_t)(cum + states) * sizeof(float));
    if (!host || !dev || !o->cum || be->error.code) {
        free(host);
        return false;
    }
    o->states = o->cum + cum;
    struct mm_chunk *c = (struct mm_chunk *)host;
    int32_t *first = (int32_t *)(host + table);
    int n = 0;
    for (int64_t s = 0; s < segs.n; s++) {
        first[s] = n;
        for (int32_t t = segs.start[s]; t < segs.start[s + 1]; t += mm_ssd_q) {
            const int32_t left = segs.start[s + 1] - t;
            c[n++] = mm_chunk{t, left < mm_ssd_q ? left : mm_ssd_q, (int32_t)s, t == segs.start[s]};
        }
    }
    first[segs.n] = n;
    // pageable memory: it has been read when the call returns
    mm_cuda_ok(
        be,
        cudaMemcpyAsync(dev, host, table + firsts, cudaMemcpyHostToDevice, mm_cuda_of(be)->stream),
        "copying the table of chunks");
    free(host);
    o->chunks = (const struct mm_chunk *)dev;
    o->first_chunk = (const int32_t *)(dev + table);
    o->n_chunks = n;
    return n > 0 && !be->error.code;
}

// One warp a (chunk, head).
static __global__ void cumulate(struct mm_ssd_gpu o) {
    const int i = (int)((blockIdx.x * blockDim.x + threadIdx.x) / 32), lane = threadIdx.x % 32;
    if (i >= o.n_chunks * o.heads) return;
    const struct mm_chunk c = o.chunks[i / o.heads];
    const int h = i % o.heads;
    const float rate = o.rate(h);
    float before = 0.0f;
    for (int t0 = 0; t0 < c.n; t0 += 32) {
        float x = t0 + lane < c.n ? -rate * o.dt(c.begin + t0 + lane, h) : 0.0f;
        for (int s = 1; s < 32; s *= 2) {
            const float y = __shfl_up_sync(0xffffffffu, x, s);
            if (lane >= s) x += y;
        }
        if (t0 + lane < c.n) o.cum[(int64_t)(c.begin + t0 + lane) * o.heads + h] = before + x;
        before += __shfl_sync(0xffffffffu, x, 31);
    }
}

// states[c] = sum over j of exp(L_last - L_j) dt_j v_j k_j^T: what the chunk adds by itself.
static __global__ void chunk_states(struct mm_ssd_gpu o) {
    __shared__ struct mm_tile_shared s;
    const int ci = blockIdx.x, h = blockIdx.y, g = h / (o.heads / o.groups);
    const int tiles = (o.cols + 63) / 64, p0 = (int)blockIdx.z / tiles * 64,
              n0 = (int)blockIdx.z % tiles * 64;
    const struct mm_chunk c = o.chunks[ci];
    const float *cum = o.cum + (int64_t)c.begin * o.heads + h;
    const float last = cum[(int64_t)(c.n - 1) * o.heads];
    struct mm_tile t;
    t.zero();
    mm_tile_add<false, false>(
        t, s, c.n,
        [&](int i, int j) {
            if (p0 + i >= o.rows) return 0.0f;
            return expf(last - cum[(int64_t)j * o.heads]) * o.dt(c.begin + j, h) *
                   o.v(c.begin + j, (int64_t)g * o.rows + p0 + i);
        },
        [&](int j, int n) {
            return n0 + n < o.cols ? o.k(c.begin + j, (int64_t)g * o.cols + n0 + n) : 0.0f;
        });
    float *to = o.states + o.state_at(ci, h);
    MM_TILE_EACH(i, j, r, n) {
        if (p0 + r < o.rows && n0 + n < o.cols) to[(int64_t)(p0 + r) * o.cols + n0 + n] = t.x[i][j];
    }
}

// Walks the chunks of a sequence: leaves in states[c] the state before chunk c.
static __global__ void pass_states(struct mm_ssd_gpu o, float *state) {
    const int s = blockIdx.z, h = blockIdx.y, e = blockIdx.x * blockDim.x + threadIdx.x;
    const int size = o.rows * o.cols;
    if (e >= size) return;
    float *at = state ? state + ((int64_t)s * o.heads + h) * size + e : NULL;
    float x = at ? *at : 0.0f;
    for (int c = o.first_chunk[s]; c < o.first_chunk[s + 1]; c++) {
        const struct mm_chunk k = o.chunks[c];
        float *own = o.states + o.state_at(c, h) + e;
        const float add = *own;
        *own = x;
        x = x * expf(o.cum[(int64_t)(k.begin + k.n - 1) * o.heads + h]) + add;
    }
    if (at) *at = x;
}

static int tiles_of(int n) {
    return (n + 63) / 64;
}

void mm_ssd_gpu_states(struct mm_backend *be, const struct mm_ssd_gpu *o, float *state,
                       int n_seqs) {
    const int warps = o->n_chunks * o->heads;
    MM_LAUNCH(be, cumulate, (unsigned)((warps + 7) / 8), 256, 0, *o);
    MM_LAUNCH(be, chunk_states,
              dim3((unsigned)o->n_chunks, (unsigned)o->heads,
                   (unsigned)(tiles_of(o->rows) * tiles_of(o->cols))),
              mm_ssd_threads, 0, *o);
    MM_LAUNCH(
        be, pass_states,
        dim3((unsigned)((o->rows * o->cols + 255) / 256), (unsigned)o->heads, (unsigned)n_seqs),
        256, 0, *o, state);
}

// y_i = sum over j <= i of (q_i k_j) exp(L_i - L_j) dt_j v_j + exp(L_i) S q_i + d v_i
static __global__ void chunk_outputs(struct mm_ssd_gpu o, struct mm_mat y) {
    __shared__ struct mm_tile_shared s;
    __shared__ float m[64][65];
    const int ci = blockIdx.x, h = blockIdx.y, g = h / (o.heads / o.groups), p0 = blockIdx.z * 64;
    const struct mm_chunk c = o.chunks[ci];
    const float *cum = o.cum + (int64_t)c.begin * o.heads + h;
    struct mm_tile t;
    t.zero();
    mm_tile_add<true, true>(
        t, s, o.cols,
        [&](int i, int n) { return i < c.n ? o.q(c.begin + i, (int64_t)h * o.cols + n) : 0.0f; },
        [&](int n, int j) { return j < c.n ? o.k(c.begin + j, (int64_t)g * o.cols + n) : 0.0f; });
    MM_TILE_EACH(i, j, r, k) {
        m[r][k] = k <= r && r < c.n
                      ? t.x[i][j] * expf(cum[(int64_t)r * o.heads] - cum[(int64_t)k * o.heads]) *
                            o.dt(c.begin + k, h)
                      : 0.0f;
    }
    __syncthreads();
    t.zero();
    const float *state = o.states + o.state_at(ci, h);
    mm_tile_add<true, true>(
        t, s, o.cols,
        [&](int i, int n) {
            return i < c.n
                       ? expf(cum[(int64_t)i * o.heads]) * o.q(c.begin + i, (int64_t)h * o.cols + n)
                       : 0.0f;
        },
        [&](int n, int p) {
            return p0 + p < o.rows ? state[(int64_t)(p0 + p) * o.cols + n] : 0.0f;
        });
    mm_tile_add<true, false>(
        t, s, c.n, [&](int i, int j) { return m[i][j]; },
        [&](int j, int p) {
            return p0 + p < o.rows ? o.v(c.begin + j, (int64_t)g * o.rows + p0 + p) : 0.0f;
        });
    const float skip = o.d ? o.d[h] : 0.0f;
    MM_TILE_EACH(i, j, r, p) {
        if (r < c.n && p0 + p < o.rows) {
            y(c.begin + r, (int64_t)h * o.rows + p0 + p) =
                t.x[i][j] + skip * o.v(c.begin + r, (int64_t)g * o.rows + p0 + p);
        }
    }
}

void mm_ssd_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                     struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                     struct mm_view state, struct mm_segs segs) {
    if (q.shape[0] == 0 || mm_ssd_fwd_tensor(be, y, v, k, q, dt, a_log, d, state, segs)) return;
    struct mm_ssd_gpu o;
    if (!mm_ssd_gpu_of(be, &o, v, k, q, dt, a_log, d, segs)) return;
    mm_ssd_gpu_states(be, &o, (float *)state.data, (int)segs.n);
    MM_LAUNCH(be, chunk_outputs,
              dim3((unsigned)o.n_chunks, (unsigned)o.heads, (unsigned)tiles_of(o.rows)),
              mm_ssd_threads, 0, o, mm_mat_of(y));
}

// A warp a row of a state: S = a S + dt v k^T, y = S q + d v.
static __global__ void step(struct mm_ssd_gpu o, struct mm_mat y, float *state, int n_seqs) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= (int64_t)n_seqs * o.heads * o.rows) return;
    const int lane = threadIdx.x % 32, p = (int)(i % o.rows), h = (int)(i / o.rows % o.heads);
    const int64_t s = i / o.rows / o.heads;
    const int g = h / (o.heads / o.groups);
    const float dt = o.dt(s, h), decay = expf(-o.rate(h) * dt);
    const float v = o.v(s, (int64_t)g * o.rows + p);
    float *row = state ? state + i * o.cols : NULL, sum = 0.0f;
    for (int n = lane; n < o.cols; n += 32) {
        const float x = (row ? row[n] * decay : 0.0f) + dt * v * o.k(s, (int64_t)g * o.cols + n);
        if (row) row[n] = x;
        sum += x * o.q(s, (int64_t)h * o.cols + n);
    }
    sum = mm_warp_sum(sum);
    if (lane == 0) y(s, (int64_t)h * o.rows + p) = sum + (o.d ? o.d[h] * v : 0.0f);
}

void mm_ssd_step_cuda(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                      struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                      struct mm_view state) {
    if (q.shape[0] == 0) return;
    struct mm_ssd_gpu o = {};
    o.v = mm_mat_of(v), o.k = mm_mat_of(k), o.q = mm_mat_of(q), o.dt = mm_mat_of(dt);
    o.a_log = mm_cuda_vector(be, mm_cuda_slot_d, a_log);
    o.d = mm_cuda_vector(be, mm_cuda_slot_e, d);
    o.heads = (int)q.shape[1], o.groups = (int)v.shape[1];
    o.rows = (int)v.shape[2], o.cols = (int)k.shape[2];
    const int64_t warps = q.shape[0] * o.heads * o.rows;
    MM_LAUNCH(be, step, (unsigned)((warps + 7) / 8), 256, 0, o, mm_mat_of(y), (float *)state.data,
              (int)q.shape[0]);
}
