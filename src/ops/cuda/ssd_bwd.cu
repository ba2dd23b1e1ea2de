// Gradient of the chunked recurrence, start states zero. With E_ij = exp(L_i - L_j) for j <= i,
// e_i = exp(L_i), f_j = exp(L_last - L_j), S the state before a chunk, G = dL/dS after it:
//   M_ij = (q_i k_j) E_ij dt_j          B_ij = (dy_i v_j) E_ij dt_j
//   dv_j = sum_i M_ij dy_i + f_j dt_j G k_j + d dy_j
//   dq_i = sum_j B_ij k_j + e_i S^T dy_i
//   dk_j = sum_i B_ij q_i + f_j dt_j G^T v_j
//   G before = exp(L_last) G + sum_i e_i dy_i q_i^T
// The exponents' gradients are sums of U_ij = (q_i k_j) (dy_i v_j) E_ij over j < i: the diagonal
// would cancel and is left out.
#include "ops/cuda/ssd.cuh"
#include "ops/cuda/ssd_tensor.cuh"

struct bwd {
    struct mm_ssd_gpu o;
    struct mm_mat dy, dv, dk, dq, ddt;
    float *grads;                        // (chunks, H, P, N): G after each chunk
    float *m, *b;                        // (chunks, H, 64, 64)
    float *row, *col, *diag, *qs, *vgk;  // (T, H); qs = q . dq through the state, vgk = f k . G^T v
    float *part;                         // (T, H, tiles): before sums over column tiles
    float *gs, *skip, *da;               // (chunks, H): <G, S>, sum dy v, part of da_log
    int tiles;
};

__device__ static const float *cum_of(const struct mm_ssd_gpu &o, const struct mm_chunk &c, int h) {
    return o.cum + (int64_t)c.begin * o.heads + h;
}

// grads[c] = sum over i of e_i dy_i q_i^T
static __global__ void chunk_grads(struct bwd f) {
    __shared__ struct mm_tile_shared s;
    const struct mm_ssd_gpu &o = f.o;
    const int ci = blockIdx.x, h = blockIdx.y, tiles = (o.cols + 63) / 64;
    const int p0 = (int)blockIdx.z / tiles * 64, n0 = (int)blockIdx.z % tiles * 64;
    const struct mm_chunk c = o.chunks[ci];
    const float *cum = cum_of(o, c, h);
    struct mm_tile t;
    t.zero();
    mm_tile_add<false, false>(
        t, s, c.n,
        [&](int p, int i) {
            return p0 + p < o.rows ? expf(cum[(int64_t)i * o.heads]) *
                                         f.dy(c.begin + i, (int64_t)h * o.rows + p0 + p)
                                   : 0.0f;
        },
        [&](int i, int n) {
            return n0 + n < o.cols ? o.q(c.begin + i, (int64_t)h * o.cols + n0 + n) : 0.0f;
        });
    float *to = f.grads + o.state_at(ci, h);
    MM_TILE_EACH(i, j, p, n) {
        if (p0 + p < o.rows && n0 + n < o.cols) to[(int64_t)(p0 + p) * o.cols + n0 + n] = t.x[i][j];
    }
}

// Walks a sequence's chunks backwards: leaves in grads[c] the gradient of the state after chunk c.
static __global__ void pass_grads(struct bwd f) {
    const struct mm_ssd_gpu &o = f.o;
    const int s = blockIdx.z, h = blockIdx.y, e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= o.rows * o.cols) return;
    float x = 0.0f;
    for (int c = o.first_chunk[s + 1] - 1; c >= o.first_chunk[s]; c--) {
        const struct mm_chunk k = o.chunks[c];
        float *own = f.grads + o.state_at(c, h) + e;
        const float add = *own;
        *own = x;
        x = x * expf(o.cum[(int64_t)(k.begin + k.n - 1) * o.heads + h]) + add;
    }
}

// M, B, the sums of U, dy . v, and <G, S>
static __global__ void chunk_matrices(struct bwd f) {
    __shared__ struct mm_tile_shared s;
    __shared__ float u[64][65];
    const struct mm_ssd_gpu &o = f.o;
    const int ci = blockIdx.x, h = blockIdx.y, g = h / (o.heads / o.groups);
    const struct mm_chunk c = o.chunks[ci];
    const float *cum = cum_of(o, c, h);
    struct mm_tile qk, dv;
    qk.zero(), dv.zero();
    mm_tile_add<true, true>(
        qk, s, o.cols,
        [&](int i, int n) { return i < c.n ? o.q(c.begin + i, (int64_t)h * o.cols + n) : 0.0f; },
        [&](int n, int j) { return j < c.n ? o.k(c.begin + j, (int64_t)g * o.cols + n) : 0.0f; });
    mm_tile_add<true, true>(
        dv, s, o.rows,
        [&](int i, int p) { return i < c.n ? f.dy(c.begin + i, (int64_t)h * o.rows + p) : 0.0f; },
        [&](int p, int j) { return j < c.n ? o.v(c.begin + j, (int64_t)g * o.rows + p) : 0.0f; });
    float *m = f.m + ((int64_t)ci * o.heads + h) * 4096,
          *b = f.b + ((int64_t)ci * o.heads + h) * 4096;
    float skip = 0.0f;
    MM_TILE_EACH(i, j, r, k) {
        const bool in = k <= r && r < c.n;
        const float e = in ? expf(cum[(int64_t)r * o.heads] - cum[(int64_t)k * o.heads]) : 0.0f;
        const float dt = in ? o.dt(c.begin + k, h) : 0.0f;
        m[r * 64 + k] = qk.x[i][j] * e * dt;
        b[r * 64 + k] = dv.x[i][j] * e * dt;
        u[r][k] = qk.x[i][j] * dv.x[i][j] * e;
        if (r == k && r < c.n) skip += dv.x[i][j];
    }
    skip = mm_block_sum(skip);  // its barriers also cover u
    const int t = threadIdx.x;
    if (t < c.n) {
        const int64_t at = (int64_t)(c.begin + t) * o.heads + h;
        float row = 0.0f, col = 0.0f;
        for (int k = 0; k < t; k++)
            row += u[t][k] * o.dt(c.begin + k, h);
        for (int r = t + 1; r < c.n; r++)
            col += u[r][t];
        f.row[at] = row, f.col[at] = col, f.diag[at] = u[t][t];
    }
    float gs = 0.0f;
    const float *grad = f.grads + o.state_at(ci, h), *state = o.states + o.state_at(ci, h);
    for (int e = t; e < o.rows * o.cols; e += blockDim.x)
        gs += grad[e] * state[e];
    gs = mm_block_sum(gs);
    if (t == 0) f.gs[(int64_t)ci * o.heads + h] = gs, f.skip[(int64_t)ci * o.heads + h] = skip;
}

// Adds up a row of a tile over the 16 threads that share it and writes it to part[row][h][tile].
__device__ static void row_sums(const struct bwd &f, const float *sum, const struct mm_chunk &c,
                                int h, int tile) {
    for (int i = 0; i < 4; i++) {
        float x = sum[i];
        for (int k = 8; k > 0; k >>= 1)
            x += __shfl_xor_sync(0xffffffffu, x, k);
        const int r = (int)threadIdx.x / 16 * 4 + i;
        if (threadIdx.x % 16 == 0 && r < c.n) {
            f.part[((int64_t)(c.begin + r) * f.o.heads + h) * f.tiles + tile] = x;
        }
    }
}

static __global__ void chunk_dq(struct bwd f) {
    __shared__ struct mm_tile_shared s;
    const struct mm_ssd_gpu &o = f.o;
    const int ci = blockIdx.x, h = blockIdx.y, g = h / (o.heads / o.groups), n0 = blockIdx.z * 64;
    const struct mm_chunk c = o.chunks[ci];
    const float *cum = cum_of(o, c, h), *state = o.states + o.state_at(ci, h);
    const float *b = f.b + ((int64_t)ci * o.heads + h) * 4096;
    struct mm_tile t;
    t.zero();
    if (!c.first) {
        mm_tile_add<true, false>(
            t, s, o.rows,
            [&](int i, int p) {
                return i < c.n ? expf(cum[(int64_t)i * o.heads]) *
                                     f.dy(c.begin + i, (int64_t)h * o.rows + p)
                               : 0.0f;
            },
            [&](int p, int n) {
                return n0 + n < o.cols ? state[(int64_t)p * o.cols + n0 + n] : 0.0f;
            });
    }
    float sum[4] = {0.0f};
    MM_TILE_EACH(i, j, r, n) {
        if (r < c.n && n0 + n < o.cols) {
            sum[i] += t.x[i][j] * o.q(c.begin + r, (int64_t)h * o.cols + n0 + n);
        }
    }
    row_sums(f, sum, c, h, blockIdx.z);
    mm_tile_add<true, false>(
        t, s, c.n, [&](int i, int j) { return b[i * 64 + j]; },
        [&](int j, int n) {
            return n0 + n < o.cols ? o.k(c.begin + j, (int64_t)g * o.cols + n0 + n) : 0.0f;
        });
    MM_TILE_EACH(i, j, r, n) {
        if (r < c.n && n0 + n < o.cols) f.dq(c.begin + r, (int64_t)h * o.cols + n0 + n) = t.x[i][j];
    }
}

// The heads of a group one after the other: dk is their sum.
static __global__ void chunk_dk(struct bwd f) {
    __shared__ struct mm_tile_shared s;
    const struct mm_ssd_gpu &o = f.o;
    const int ci = blockIdx.x, g = blockIdx.y, per = o.heads / o.groups, n0 = blockIdx.z * 64;
    const struct mm_chunk c = o.chunks[ci];
    struct mm_tile total;
    total.zero();
    for (int h = g * per; h < (g + 1) * per; h++) {
        const float *cum = cum_of(o, c, h), *grad = f.grads + o.state_at(ci, h);
        const float last = cum[(int64_t)(c.n - 1) * o.heads];
        const float *b = f.b + ((int64_t)ci * o.heads + h) * 4096;
        struct mm_tile t;
        t.zero();
        mm_tile_add<true, false>(
            t, s, o.rows,
            [&](int j, int p) {
                return j < c.n ? expf(last - cum[(int64_t)j * o.heads]) *
                                     o.v(c.begin + j, (int64_t)g * o.rows + p)
                               : 0.0f;
            },
            [&](int p, int n) {
                return n0 + n < o.cols ? grad[(int64_t)p * o.cols + n0 + n] : 0.0f;
            });
        float sum[4] = {0.0f};
        MM_TILE_EACH(i, j, r, n) {
            if (r >= c.n || n0 + n >= o.cols) continue;
            sum[i] += t.x[i][j] * o.k(c.begin + r, (int64_t)g * o.cols + n0 + n);
            total.x[i][j] += t.x[i][j] * o.dt(c.begin + r, h);
        }
        row_sums(f, sum, c, h, blockIdx.z);
        mm_tile_add<false, false>(
            total, s, c.n, [&](int j, int i) { return b[i * 64 + j]; },
            [&](int i, int n) {
                return n0 + n < o.cols ? o.q(c.begin + i, (int64_t)h * o.cols + n0 + n) : 0.0f;
            });
    }
    MM_TILE_EACH(i, j, r, n) {
        if (r < c.n && n0 + n < o.cols) {
            f.dk(c.begin + r, (int64_t)g * o.cols + n0 + n) = total.x[i][j];
        }
    }
}

static __global__ void chunk_dv(struct bwd f) {
    __shared__ struct mm_tile_shared s;
    const struct mm_ssd_gpu &o = f.o;
    const int ci = blockIdx.x, g = blockIdx.y, per = o.heads / o.groups, p0 = blockIdx.z * 64;
    const struct mm_chunk c = o.chunks[ci];
    struct mm_tile t;
    t.zero();
    for (int h = g * per; h < (g + 1) * per; h++) {
        const float *cum = cum_of(o, c, h), *grad = f.grads + o.state_at(ci, h);
        const float last = cum[(int64_t)(c.n - 1) * o.heads];
        const float *m = f.m + ((int64_t)ci * o.heads + h) * 4096;
        mm_tile_add<true, true>(
            t, s, o.cols,
            [&](int j, int n) {
                return j < c.n ? expf(last - cum[(int64_t)j * o.heads]) * o.dt(c.begin + j, h) *
                                     o.k(c.begin + j, (int64_t)g * o.cols + n)
                               : 0.0f;
            },
            [&](int n, int p) {
                return p0 + p < o.rows ? grad[(int64_t)(p0 + p) * o.cols + n] : 0.0f;
            });
        mm_tile_add<false, false>(
            t, s, c.n, [&](int j, int i) { return m[i * 64 + j]; },
            [&](int i, int p) {
                return p0 + p < o.rows ? f.dy(c.begin + i, (int64_t)h * o.rows + p0 + p) : 0.0f;
            });
        const float skip = o.d ? o.d[h] : 0.0f;
        MM_TILE_EACH(i, j, r, p) {
            if (r < c.n && p0 + p < o.rows) {
                t.x[i][j] += skip * f.dy(c.begin + r, (int64_t)h * o.rows + p0 + p);
            }
        }
    }
    MM_TILE_EACH(i, j, r, p) {
        if (r < c.n && p0 + p < o.rows) {
            f.dv(c.begin + r, (int64_t)g * o.rows + p0 + p) = t.x[i][j];
        }
    }
}

static __global__ void add_tiles(float *out, const float *part, int64_t n, int tiles) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float s = 0.0f;
    for (int k = 0; k < tiles; k++)
        s += part[i * tiles + k];
    out[i] = s;
}

// From the sums over a chunk to ddt and the chunk's part of da_log: one thread a (chunk, head).
static __global__ void finish(struct bwd f) {
    const struct mm_ssd_gpu &o = f.o;
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= o.n_chunks * o.heads) return;
    const int h = i % o.heads;
    const struct mm_chunk c = o.chunks[i / o.heads];
    const float *cum = cum_of(o, c, h), rate = o.rate(h);
    const float total = cum[(int64_t)(c.n - 1) * o.heads];
    float last = expf(total) * f.gs[i];
    for (int t = 0; t < c.n; t++) {
        const int64_t at = (int64_t)(c.begin + t) * o.heads + h;
        last += f.vgk[at] * o.dt(c.begin + t, h);
    }
    float after = last, da = 0.0f;
    for (int t = c.n - 1; t >= 0; t--) {
        const int64_t at = (int64_t)(c.begin + t) * o.heads + h;
        const float dt = o.dt(c.begin + t, h);
        const float vgk = f.vgk[at];
        after += f.qs[at] - vgk * dt + f.row[at] - dt * f.col[at];
        f.ddt(c.begin + t, h) = vgk + f.col[at] + f.diag[at] - rate * after;
        da -= after * rate * dt;
    }
    f.da[i] = da;
}

// out[h] += sum over chunks of x[c][h]
static void add_chunks(struct mm_backend *be, struct mm_view out, const float *x, int n_chunks,
                       int heads) {
    if (!out.data) return;
    mm_add_column_sums(be, mm_cuda_slot_g, (float *)out.data, 1, n_chunks, heads,
                       [=] __device__(int64_t c, int64_t h) { return x[c * heads + h]; });
}

void mm_ssd_bwd_cuda(struct mm_backend *be, struct mm_view dv, struct mm_view dk, struct mm_view dq,
                     struct mm_view ddt, struct mm_view da_log, struct mm_view dd,
                     struct mm_view dy, struct mm_view v, struct mm_view k, struct mm_view q,
                     struct mm_view dt, struct mm_view a_log, struct mm_view d,
                     struct mm_segs segs) {
    if (q.shape[0] == 0 ||
        mm_ssd_bwd_tensor(be, dv, dk, dq, ddt, da_log, dd, dy, v, k, q, dt, a_log, d, segs)) {
        return;
    }
    struct bwd f = {};
    struct mm_ssd_gpu &o = f.o;
    if (!mm_ssd_gpu_of(be, &o, v, k, q, dt, a_log, d, segs)) return;
    f.dy = mm_mat_of(dy), f.dv = mm_mat_of(dv), f.dk = mm_mat_of(dk), f.dq = mm_mat_of(dq);
    f.ddt = mm_mat_of(ddt);
    const int64_t ch = (int64_t)o.n_chunks * o.heads, th = q.shape[0] * o.heads;
    const int tn = (o.cols + 63) / 64, tp = (o.rows + 63) / 64;
    f.tiles = tn;
    const int64_t floats = ch * o.rows * o.cols + 2 * ch * 4096 + th * (5 + tn) + 3 * ch;
    float *at = (float *)mm_cuda_scratch(be, mm_cuda_slot_f, (size_t)floats * sizeof(float));
    if (!at) return;
    f.grads = at, at += ch * o.rows * o.cols;
    f.m = at, at += ch * 4096;
    f.b = at, at += ch * 4096;
    float **rows[] = {&f.row, &f.col, &f.diag, &f.qs, &f.vgk};
    for (float **r : rows)
        *r = at, at += th;
    f.part = at, at += th * tn;
    f.gs = at, at += ch;
    f.skip = at, at += ch;
    f.da = at;
    mm_ssd_gpu_states(be, &o, NULL, (int)segs.n);
    const unsigned n = (unsigned)o.n_chunks, H = (unsigned)o.heads, G = (unsigned)o.groups;
    MM_LAUNCH(be, chunk_grads, dim3(n, H, (unsigned)(tp * tn)), mm_ssd_threads, 0, f);
    MM_LAUNCH(be, pass_grads, dim3((unsigned)((o.rows * o.cols + 255) / 256), H, (unsigned)segs.n),
              256, 0, f);
    MM_LAUNCH(be, chunk_matrices, dim3(n, H), mm_ssd_threads, 0, f);
    const unsigned sums = (unsigned)((th + 255) / 256);
    MM_LAUNCH(be, chunk_dq, dim3(n, H, (unsigned)tn), mm_ssd_threads, 0, f);
    MM_LAUNCH(be, add_tiles, sums, 256, 0, f.qs, f.part, th, tn);
    MM_LAUNCH(be, chunk_dk, dim3(n, G, (unsigned)tn), mm_ssd_threads, 0, f);
    MM_LAUNCH(be, add_tiles, sums, 256, 0, f.vgk, f.part, th, tn);
    MM_LAUNCH(be, chunk_dv, dim3(n, G, (unsigned)tp), mm_ssd_threads, 0, f);
    MM_LAUNCH(be, finish, (unsigned)((ch + 127) / 128), 128, 0, f);
    if (a_log.data) add_chunks(be, da_log, f.da, o.n_chunks, o.heads);
    add_chunks(be, dd, f.skip, o.n_chunks, o.heads);
}
