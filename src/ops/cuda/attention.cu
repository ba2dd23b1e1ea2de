// Causal softmax attention with grouped keys, never a T x T matrix. A warp has four query rows; 32
// keys at a time lie in shared memory, a lane has one of them for the scores and every 32nd column
// for the sums. Long caches with few queries are split over blocks and merged.
#include "ops/cuda/attention.cuh"

enum { warps = 8, rows_a_warp = 4, block_rows = warps * rows_a_warp, tile_keys = 32 };

struct attn {
    struct mm_mat q, k, v, y, dy;
    struct mm_mat lse, delta;  // (T, H)
    const int32_t *start;      // packed sequences; NULL: one, query i at position past + i
    int n_seqs, dim, ratio;
    int64_t past, n_q, n_k;
    int splits;
    float *part;  // (splits, n_q, H, dim + 2): sums, largest score, sum of exponentials
    int n_heads;
    float scale;
};

__device__ static int64_t first_key(const struct attn &o, int64_t i) {
    return o.start ? o.start[mm_seq_of(o.start, o.n_seqs, i)] : 0;
}

// 32 rows of x from `from`, one head's columns, into shared memory; rows past the end are zeros.
__device__ static void load_tile(float *to, const struct mm_mat &x, int64_t from, int64_t end,
                                 int64_t col, int dim, int ld) {
    for (int e = threadIdx.x; e < tile_keys * dim; e += warps * 32) {
        const int r = e / dim, c = e - r * dim;
        to[r * ld + c] = from + r < end ? x(from + r, col + c) : 0.0f;
    }
}

template <int NP>
static __global__ void attention_fwd(struct attn o) {
    extern __shared__ float shared[];
    const int dim = o.dim, ld = dim + 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float *kt = shared, *vt = kt + tile_keys * ld, *qs = vt + tile_keys * ld;
    const int h = blockIdx.y, g = h / o.ratio;
    const int64_t row0 = (int64_t)blockIdx.x * block_rows, mine = row0 + warp * rows_a_warp;
    for (int e = threadIdx.x; e < block_rows * dim; e += warps * 32) {
        const int r = e / dim, c = e - r * dim;
        qs[e] = row0 + r < o.n_q ? o.q(row0 + r, (int64_t)h * dim + c) * o.scale : 0.0f;
    }
    int64_t low[rows_a_warp], high[rows_a_warp];  // keys [low, high) of each row
    float top[rows_a_warp], sum[rows_a_warp], acc[rows_a_warp][NP];
    for (int r = 0; r < rows_a_warp; r++) {
        const bool real = mine + r < o.n_q;
        low[r] = real ? first_key(o, mine + r) : 0;
        high[r] = real ? o.past + mine + r + 1 : 0;
        top[r] = -INFINITY, sum[r] = 0.0f;
        for (int i = 0; i < NP; i++)
            acc[r][i] = 0.0f;
    }
    const int64_t last_row = row0 + block_rows < o.n_q ? row0 + block_rows : o.n_q;
    int64_t from = first_key(o, row0), end = o.past + last_row;
    if (o.splits > 1) {
        const int64_t n = (end - from + o.splits - 1) / o.splits;
        const int64_t whole = (n + tile_keys - 1) / tile_keys * tile_keys;
        from += whole * blockIdx.z;
        end = from + whole < end ? from + whole : end;
    }
    for (int64_t j0 = from; j0 < end; j0 += tile_keys) {
        __syncthreads();
        load_tile(kt, o.k, j0, end, (int64_t)g * dim, dim, ld);
        load_tile(vt, o.v, j0, end, (int64_t)g * dim, dim, ld);
        __syncthreads();
        float s[rows_a_warp] = {0.0f};
        for (int p = 0; p < dim; p++) {
            const float kv = kt[lane * ld + p];
            for (int r = 0; r < rows_a_warp; r++)
                s[r] += kv * qs[(warp * rows_a_warp + r) * dim + p];
        }
        for (int r = 0; r < rows_a_warp; r++) {
            const int64_t j = j0 + lane;
            const bool seen = j >= low[r] && j < high[r] && j < end;
            const float score = seen ? s[r] : -INFINITY;
            const float most = fmaxf(top[r], mm_warp_max(score));
            s[r] = seen ? expf(score - most) : 0.0f;
            const float keep = top[r] == most ? 1.0f : expf(top[r] - most);
            top[r] = most;
            sum[r] = sum[r] * keep + mm_warp_sum(s[r]);
            for (int i = 0; i < NP; i++)
                acc[r][i] *= keep;
        }
        for (int j = 0; j < tile_keys; j++) {
            float pj[rows_a_warp];
            for (int r = 0; r < rows_a_warp; r++)
                pj[r] = __shfl_sync(0xffffffffu, s[r], j);
            for (int i = 0; i < NP; i++) {
                const int c = lane + 32 * i;
                const float vv = c < dim ? vt[j * ld + c] : 0.0f;
                for (int r = 0; r < rows_a_warp; r++)
                    acc[r][i] += pj[r] * vv;
            }
        }
    }
    for (int r = 0; r < rows_a_warp && mine + r < o.n_q; r++) {
        if (o.splits > 1) {
            float *to =
                o.part + (((int64_t)blockIdx.z * o.n_q + mine + r) * o.n_heads + h) * (dim + 2);
            for (int i = 0; i < NP; i++)
                if (lane + 32 * i < dim) to[lane + 32 * i] = acc[r][i];
            if (lane == 0) to[dim] = top[r], to[dim + 1] = sum[r];
            continue;
        }
        for (int i = 0; i < NP; i++) {
            const int c = lane + 32 * i;
            if (c < dim) o.y(mine + r, (int64_t)h * dim + c) = acc[r][i] / sum[r];
        }
        if (o.lse && lane == 0) o.lse(mine + r, h) = top[r] + logf(sum[r]);
    }
}

// One block a (query, head): the parts of its keys into one.
static __global__ void attention_merge(struct attn o) {
    const int64_t i = blockIdx.x;
    const int h = blockIdx.y, dim = o.dim;
    float top = -INFINITY, sum = 0.0f;
    for (int s = 0; s < o.splits; s++)
        top = fmaxf(top, o.part[((s * o.n_q + i) * o.n_heads + h) * (dim + 2) + dim]);
    for (int s = 0; s < o.splits; s++) {
        const float *p = o.part + ((s * o.n_q + i) * o.n_heads + h) * (dim + 2);
        if (p[dim + 1] > 0.0f) sum += p[dim + 1] * expf(p[dim] - top);
    }
    for (int c = threadIdx.x; c < dim; c += blockDim.x) {
        float out = 0.0f;
        for (int s = 0; s < o.splits; s++) {
            const float *p = o.part + ((s * o.n_q + i) * o.n_heads + h) * (dim + 2);
            if (p[dim + 1] > 0.0f) out += p[c] * expf(p[dim] - top);
        }
        o.y(i, (int64_t)h * dim + c) = out / sum;
    }
}

// Shared memory beyond 48 KiB must be asked for, a kernel at a time.
template <class K>
static bool grant(struct mm_backend *be, K kernel, size_t bytes) {
    return mm_cuda_ok(
        be, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        "asking for shared memory for attention heads of this size");
}

template <int NP>
static void launch_fwd(struct mm_backend *be, const struct attn &o) {
    const size_t bytes = (size_t)(2 * tile_keys * (o.dim + 1) + block_rows * o.dim) * sizeof(float);
    if (!grant(be, attention_fwd<NP>, bytes)) return;
    const dim3 grid((unsigned)((o.n_q + block_rows - 1) / block_rows), (unsigned)o.n_heads,
                    (unsigned)o.splits);
    MM_LAUNCH(be, attention_fwd<NP>, grid, warps * 32, bytes, o);
}

static void forward(struct mm_backend *be, const struct attn &o) {
    if (o.dim <= 32) {
        launch_fwd<1>(be, o);
    } else if (o.dim <= 64) {
        launch_fwd<2>(be, o);
    } else if (o.dim <= 128) {
        launch_fwd<4>(be, o);
    } else {
        launch_fwd<8>(be, o);
    }
}

// The operands as the kernels on the tensor cores take them; false when they do not.
static bool half_attention_of(struct mm_attention *o, struct mm_view y, struct mm_view q,
                              struct mm_view k, struct mm_view v) {
    if (!mm_attention_takes(q) || !mm_attention_takes(k) || !mm_attention_takes(v) ||
        !mm_attention_takes(y)) {
        return false;
    }
    *o = mm_attention{};
    o->q = mm_bf16_rows_of(q), o->k = mm_bf16_rows_of(k), o->v = mm_bf16_rows_of(v);
    o->y = mm_bf16_rows_of(y);
    o->dim = (int)q.shape[2], o->n_heads = (int)q.shape[1];
    o->ratio = (int)(q.shape[1] / k.shape[1]);
    o->n_q = q.shape[0], o->n_k = k.shape[0], o->splits = 1;
    o->scale = 1.0f / sqrtf((float)o->dim);
    o->scale_log2 = o->scale * 1.4426950408889634f;
    return true;
}

static struct attn attn_of(struct mm_view q, struct mm_view k, struct mm_view v) {
    struct attn o = {};
    o.q = mm_mat_of(q), o.k = mm_mat_of(k), o.v = mm_mat_of(v);
    o.dim = (int)q.shape[2], o.n_heads = (int)q.shape[1], o.ratio = (int)(q.shape[1] / k.shape[1]);
    o.n_q = q.shape[0], o.n_k = k.shape[0], o.splits = 1;
    o.scale = 1.0f / sqrtf((float)o.dim);
    return o;
}

void mm_attention_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view lse,
                           struct mm_view q, struct mm_view k, struct mm_view v,
                           struct mm_segs segs) {
    if (q.shape[0] == 0) return;
    struct mm_attention half;
    if (half_attention_of(&half, y, q, k, v)) {
        half.start = segs.dev, half.n_seqs = (int)segs.n;
        half.lse = (float *)lse.data, half.ld_lse = lse.ld;
        if (!mm_attention_fwd_hopper(be, &half, q, k, v)) mm_attention_fwd_tensor(be, &half);
        return;
    }
    struct attn o = attn_of(q, k, v);
    o.y = mm_mat_of(y), o.lse = mm_mat_of(lse);
    o.start = segs.dev, o.n_seqs = (int)segs.n;
    forward(be, o);
}

// Into how many parts the keys of few queries are cut, so that all multiprocessors have some.
static bool split_keys(struct mm_backend *be, struct attn *o, int64_t blocks) {
    int64_t splits = 264 / blocks;
    const int64_t most = (o->n_k + 255) / 256;
    if (splits > most) splits = most;
    if (splits < 2) return true;
    o->splits = (int)splits;
    o->part = (float *)mm_cuda_scratch(
        be, mm_cuda_slot_a, (size_t)(splits * o->n_q * o->n_heads * (o->dim + 2)) * sizeof(float));
    return o->part != NULL;
}

void mm_attention_step_cuda(struct mm_backend *be, struct mm_view y, struct mm_view q,
                            struct mm_view k, struct mm_view v, int64_t past) {
    if (q.shape[0] == 0) return;
    struct attn o = attn_of(q, k, v);
    o.y = mm_mat_of(y), o.past = past;
    struct mm_attention half;
    if (half_attention_of(&half, y, q, k, v)) {
        half.past = past;
        if (q.shape[0] >= 128 && mm_attention_fwd_hopper(be, &half, q, k, v)) return;
        if (!split_keys(be, &o, (o.n_q * o.ratio + 63) / 64 * (o.n_heads / o.ratio))) return;
        half.splits = o.splits, half.part = o.part;
        mm_attention_fwd_tensor(be, &half);
    } else {
        if (!split_keys(be, &o, (o.n_q + block_rows - 1) / block_rows * o.n_heads)) return;
        forward(be, o);
    }
    if (o.splits > 1) {
        const dim3 grid((unsigned)o.n_q, (unsigned)o.n_heads);
        MM_LAUNCH(be, attention_merge, grid, 128, 0, o);
    }
}

// ---- backward: for query i and key j, p = exp(s - lse), delta = dy . y:
//   ds = p (dy . v - delta) / sqrt(P);  dq += ds k;  dk += ds q;  dv += p dy

// A warp has four queries; keys pass by.
template <int NP>
static __global__ void attention_bwd_q(struct attn o, struct mm_mat dq) {
    extern __shared__ float shared[];
    const int dim = o.dim, ld = dim + 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float *kt = shared, *vt = kt + tile_keys * ld, *qs = vt + tile_keys * ld;
    float *ds = qs + block_rows * dim;
    const int h = blockIdx.y, g = h / o.ratio;
    const int64_t row0 = (int64_t)blockIdx.x * block_rows, mine = row0 + warp * rows_a_warp;
    for (int e = threadIdx.x; e < block_rows * dim; e += warps * 32) {
        const int r = e / dim, c = e - r * dim;
        const bool real = row0 + r < o.n_q;
        qs[e] = real ? o.q(row0 + r, (int64_t)h * dim + c) : 0.0f;
        ds[e] = real ? o.dy(row0 + r, (int64_t)h * dim + c) : 0.0f;
    }
    int64_t low[rows_a_warp];
    float lse[rows_a_warp], delta[rows_a_warp], acc[rows_a_warp][NP];
    for (int r = 0; r < rows_a_warp; r++) {
        const bool real = mine + r < o.n_q;
        low[r] = real ? first_key(o, mine + r) : INT64_MAX;
        lse[r] = real ? o.lse(mine + r, h) : 0.0f;
        delta[r] = real ? o.delta(mine + r, h) : 0.0f;
        for (int i = 0; i < NP; i++)
            acc[r][i] = 0.0f;
    }
    const int64_t end = row0 + block_rows < o.n_q ? row0 + block_rows : o.n_q;
    for (int64_t j0 = first_key(o, row0); j0 < end; j0 += tile_keys) {
        __syncthreads();
        load_tile(kt, o.k, j0, end, (int64_t)g * dim, dim, ld);
        load_tile(vt, o.v, j0, end, (int64_t)g * dim, dim, ld);
        __syncthreads();
        float s[rows_a_warp] = {0.0f}, dp[rows_a_warp] = {0.0f};
        for (int p = 0; p < dim; p++) {
            const float kv = kt[lane * ld + p], vv = vt[lane * ld + p];
            for (int r = 0; r < rows_a_warp; r++) {
                s[r] += kv * qs[(warp * rows_a_warp + r) * dim + p];
                dp[r] += vv * ds[(warp * rows_a_warp + r) * dim + p];
            }
        }
        for (int r = 0; r < rows_a_warp; r++) {
            const int64_t j = j0 + lane;
            const bool seen = j >= low[r] && j <= mine + r;
            s[r] = seen ? expf(s[r] * o.scale - lse[r]) * (dp[r] - delta[r]) * o.scale : 0.0f;
        }
        for (int j = 0; j < tile_keys; j++) {
            float dj[rows_a_warp];
            for (int r = 0; r < rows_a_warp; r++)
                dj[r] = __shfl_sync(0xffffffffu, s[r], j);
            for (int i = 0; i < NP; i++) {
                const int c = lane + 32 * i;
                const float kv = c < dim ? kt[j * ld + c] : 0.0f;
                for (int r = 0; r < rows_a_warp; r++)
                    acc[r][i] += dj[r] * kv;
            }
        }
    }
    for (int r = 0; r < rows_a_warp && mine + r < o.n_q; r++) {
        for (int i = 0; i < NP; i++) {
            const int c = lane + 32 * i;
            if (c < dim) dq(mine + r, (int64_t)h * dim + c) = acc[r][i];
        }
    }
}

// A warp has four keys of a group; the queries of the group's heads pass by, in one order.
template <int NP>
static __global__ void attention_bwd_kv(struct attn o, struct mm_mat dk, struct mm_mat dv) {
    extern __shared__ float shared[];
    const int dim = o.dim, ld = dim + 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float *qt = shared, *dt = qt + tile_keys * ld, *ks = dt + tile_keys * ld;
    float *vs = ks + block_rows * dim;
    const int g = blockIdx.y;
    const int64_t row0 = (int64_t)blockIdx.x * block_rows, mine = row0 + warp * rows_a_warp;
    for (int e = threadIdx.x; e < block_rows * dim; e += warps * 32) {
        const int r = e / dim, c = e - r * dim;
        const bool real = row0 + r < o.n_k;
        ks[e] = real ? o.k(row0 + r, (int64_t)g * dim + c) : 0.0f;
        vs[e] = real ? o.v(row0 + r, (int64_t)g * dim + c) : 0.0f;
    }
    int64_t stop[rows_a_warp];  // queries [key, stop) see the key
    float acc_k[rows_a_warp][NP], acc_v[rows_a_warp][NP];
    for (int r = 0; r < rows_a_warp; r++) {
        stop[r] = mine + r < o.n_k ? o.start[mm_seq_of(o.start, o.n_seqs, mine + r) + 1] : 0;
        for (int i = 0; i < NP; i++)
            acc_k[r][i] = acc_v[r][i] = 0.0f;
    }
    const int64_t last = row0 + block_rows < o.n_k ? row0 + block_rows : o.n_k;
    const int64_t end = o.start[mm_seq_of(o.start, o.n_seqs, last - 1) + 1];
    for (int h = g * o.ratio; h < (g + 1) * o.ratio; h++) {
        for (int64_t i0 = row0; i0 < end; i0 += tile_keys) {
            __syncthreads();
            load_tile(qt, o.q, i0, end, (int64_t)h * dim, dim, ld);
            load_tile(dt, o.dy, i0, end, (int64_t)h * dim, dim, ld);
            __syncthreads();
            const int64_t i = i0 + lane;
            const float lse = i < end ? o.lse(i, h) : 0.0f, delta = i < end ? o.delta(i, h) : 0.0f;
            float s[rows_a_warp] = {0.0f}, dp[rows_a_warp] = {0.0f};
            for (int p = 0; p < dim; p++) {
                const float qv = qt[lane * ld + p], dv1 = dt[lane * ld + p];
                for (int r = 0; r < rows_a_warp; r++) {
                    s[r] += qv * ks[(warp * rows_a_warp + r) * dim + p];
                    dp[r] += dv1 * vs[(warp * rows_a_warp + r) * dim + p];
                }
            }
            for (int r = 0; r < rows_a_warp; r++) {
                const bool seen = i >= mine + r && i < stop[r];
                const float p = seen ? expf(s[r] * o.scale - lse) : 0.0f;
                s[r] = p;
                dp[r] = seen ? p * (dp[r] - delta) * o.scale : 0.0f;
            }
            for (int j = 0; j < tile_keys; j++) {
                float pj[rows_a_warp], dj[rows_a_warp];
                for (int r = 0; r < rows_a_warp; r++) {
                    pj[r] = __shfl_sync(0xffffffffu, s[r], j);
                    dj[r] = __shfl_sync(0xffffffffu, dp[r], j);
                }
                for (int n = 0; n < NP; n++) {
                    const int c = lane + 32 * n;
                    const float qv = c < dim ? qt[j * ld + c] : 0.0f;
                    const float dv1 = c < dim ? dt[j * ld + c] : 0.0f;
                    for (int r = 0; r < rows_a_warp; r++) {
                        acc_k[r][n] += dj[r] * qv;
                        acc_v[r][n] += pj[r] * dv1;
                    }
                }
            }
        }
    }
    for (int r = 0; r < rows_a_warp && mine + r < o.n_k; r++) {
        for (int n = 0; n < NP; n++) {
            const int c = lane + 32 * n;
            if (c >= dim) continue;
            dk(mine + r, (int64_t)g * dim + c) = acc_k[r][n];
            dv(mine + r, (int64_t)g * dim + c) = acc_v[r][n];
        }
    }
}

template <int NP>
static void launch_bwd(struct mm_backend *be, const struct attn &o, struct mm_mat dq,
                       struct mm_mat dk, struct mm_mat dv, int n_groups) {
    const size_t bytes =
        (size_t)(2 * tile_keys * (o.dim + 1) + 2 * block_rows * o.dim) * sizeof(float);
    if (!grant(be, attention_bwd_q<NP>, bytes) || !grant(be, attention_bwd_kv<NP>, bytes)) return;
    const unsigned blocks = (unsigned)((o.n_q + block_rows - 1) / block_rows);
    MM_LAUNCH(be, attention_bwd_q<NP>, dim3(blocks, (unsigned)o.n_heads), warps * 32, bytes, o, dq);
    MM_LAUNCH(be, attention_bwd_kv<NP>, dim3(blocks, (unsigned)n_groups), warps * 32, bytes, o, dk,
              dv);
}

void mm_attention_bwd_cuda(struct mm_backend *be, struct mm_view dq, struct mm_view dk,
                           struct mm_view dv, struct mm_view dy, struct mm_view y,
                           struct mm_view lse, struct mm_view q, struct mm_view k, struct mm_view v,
                           struct mm_segs segs) {
    if (q.shape[0] == 0) return;
    struct mm_attention half;
    if (mm_attention_takes(dy) && mm_attention_takes(dq) && mm_attention_takes(dk) &&
        mm_attention_takes(dv) && half_attention_of(&half, y, q, k, v)) {
        half.dy = mm_bf16_rows_of(dy), half.dq = mm_bf16_rows_of(dq);
        half.dk = mm_bf16_rows_of(dk), half.dv = mm_bf16_rows_of(dv);
        half.start = segs.dev, half.n_seqs = (int)segs.n;
        half.lse = (float *)lse.data, half.ld_lse = lse.ld;
        if (!mm_attention_bwd_hopper(be, &half, dy, q, k, v)) mm_attention_bwd_tensor(be, &half);
        return;
    }
    struct attn o = attn_of(q, k, v);
    o.dy = mm_mat_of(dy), o.y = mm_mat_of(y), o.lse = mm_mat_of(lse);
    o.start = segs.dev, o.n_seqs = (int)segs.n;
    float *delta =
        (float *)mm_cuda_scratch(be, mm_cuda_slot_a, (size_t)(o.n_q * o.n_heads) * sizeof(float));
    if (!delta) return;
    o.delta = mm_mat_f32(delta, o.n_heads);
    const struct attn k1 = o;
    mm_each(be, o.n_q, o.n_heads, [=] __device__(int64_t t, int64_t h) {
        float sum = 0.0f;
        for (int p = 0; p < k1.dim; p++)
            sum += k1.dy(t, h * k1.dim + p) * k1.y(t, h * k1.dim + p);
        k1.delta(t, h) = sum;
    });
    const struct mm_mat dqm = mm_mat_of(dq), dkm = mm_mat_of(dk), dvm = mm_mat_of(dv);
    const int groups = (int)k.shape[1];
    if (o.dim <= 32) {
        launch_bwd<1>(be, o, dqm, dkm, dvm, groups);
    } else if (o.dim <= 64) {
        launch_bwd<2>(be, o, dqm, dkm, dvm, groups);
    } else if (o.dim <= 128) {
        launch_bwd<4>(be, o, dqm, dkm, dvm, groups);
    } else {
        launch_bwd<8>(be, o, dqm, dkm, dvm, groups);
    }
}
