// Gradient of softmax attention on Hopper, bf16, heads of 64 or 128. With P = exp(s - lse), delta =
// dy . y and dS = P (dy v^T - delta):  dv = P^T dy,  dk = dS^T q / sqrt(P),  dq = dS k / sqrt(P).
// Two kernels, each of which owns what it adds up, so that the order of sums is fixed: one has 128
// keys of a group and goes through the queries of its heads, with scores turned; one has 128
// queries of a head and goes through the keys. As in the forward, a thread of a third group has the
// copy engine bring tiles, and P and dS go to the next product in registers.
#include "ops/cuda/attention_hopper.cuh"

// Rows of a block, rows of a tile that passes by: queries, keys.
enum { own_rows = 128, pass_q = 64, pass_k = 128, n_threads = 384, stages = 2 };

struct maps {
    CUtensorMap own_a, own_b, pass_a, pass_b;  // k, v, q, dy; for dq: q, dy, k, v
};
template <int D, int ROWS>
struct shared_of {
    __nv_bfloat16 own_a[own_rows * D], own_b[own_rows * D];
    __nv_bfloat16 a[stages][ROWS * D], b[stages][ROWS * D];
    float lse[stages][ROWS], delta[stages][ROWS];
    uint64_t own_here, here[stages], free[stages];
};

#if MM_HOPPER

template <int D, int ROWS>
__device__ static void copy_tile(__nv_bfloat16 *to, const CUtensorMap *map, int head, int row,
                                 uint64_t *here) {
    for (int i = 0; i < D / 64; i++)
        mm_tile_copy(to + i * ROWS * 64, map, i * 64, head, row, here);
}

template <int D, int ROWS>
__device__ static void begin(struct shared_of<D, ROWS> &sh) {
    if (threadIdx.x == 0) {
        mm_barrier_init(&sh.own_here, 1);
        for (int i = 0; i < stages; i++) {
            mm_barrier_init(&sh.here[i], 1), mm_barrier_init(&sh.free[i], 256);
        }
        mm_barrier_inits_done();
    }
    __syncthreads();
}

// Every thread says so itself: what it read by itself, lse and delta, no other one knows.
__device__ static void done_with(uint64_t *free) {
    mm_barrier_arrive(free);
}

template <int D, int ROWS>
__device__ static void bring_own(struct shared_of<D, ROWS> &sh, const struct maps &m, int head,
                                 int row) {
    mm_barrier_expect(&sh.own_here, 2 * own_rows * D * 2);
    copy_tile<D, own_rows>(sh.own_a, &m.own_a, head, row, &sh.own_here);
    copy_tile<D, own_rows>(sh.own_b, &m.own_b, head, row, &sh.own_here);
}

// d = a b^T of the group's 64 rows of a tile of own_rows, and of a whole tile of ROWS.
template <int D, int ROWS>
__device__ static void score(float (&d)[ROWS / 2], const __nv_bfloat16 *own,
                             const __nv_bfloat16 *tile, int group) {
    const mm_shared_ptr a = mm_shared_at(own) + group * 64 * 128, b = mm_shared_at(tile);
    mm_wgmma_hold(d);
    mm_wgmma_begin();
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        mm_wgmma_ss(d, mm_wgmma_rows(a + i / 4 * own_rows * 128 + i % 4 * 32),
                    mm_wgmma_rows(b + i / 4 * ROWS * 128 + i % 4 * 32), i > 0);
    }
    mm_wgmma_end();
    mm_wgmma_hold(d);
}

// d += x tile, x (64, ROWS) in registers
template <int D, int ROWS>
__device__ static void add_product(float (&d)[D / 2], uint32_t (&x)[ROWS / 4],
                                   const __nv_bfloat16 *tile) {
    const mm_shared_ptr b = mm_shared_at(tile);
    mm_wgmma_hold(d);
    mm_wgmma_hold(x);
    mm_wgmma_begin();
#pragma unroll
    for (int i = 0; i < ROWS / 16; i++)
        mm_wgmma_rs(d, x + 4 * i, mm_wgmma_turned(b + i * 16 * 128, ROWS * 128));
    mm_wgmma_end();
    mm_wgmma_hold(d);
}

template <int N>
__device__ static void round_all(uint32_t (&to)[N], const float (&x)[2 * N]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        to[i] = mm_pair(x[2 * i], x[2 * i + 1]);
}

template <int D>
__device__ static void write_rows(const struct mm_bf16_rows &to, const float (&x)[D / 2], int row,
                                  int64_t n_rows, int head, float scale) {
    const int c = threadIdx.x % 4 * 2;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        if (row + 8 * e >= n_rows) continue;
        __nv_bfloat16 *at = to.p + (row + 8 * e) * to.ld + head * D + c;
#pragma unroll
        for (int i = 0; i < D / 8; i++)
            *(uint32_t *)(at + 8 * i) =
                mm_pair(x[4 * i + 2 * e] * scale, x[4 * i + 2 * e + 1] * scale);
    }
}

// The first row of this thread among the block's.
__device__ static int own_row() {
    return (int)threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
}

// ---- dk and dv ----

// All heads of the group, for each the queries from i0 on.
template <int D>
__device__ static void bring_queries(const struct mm_attention &o, const struct maps &m,
                                     const struct mm_attention_sums &s,
                                     struct shared_of<D, pass_q> &sh, int g, int i0, int n_tiles) {
    for (int k = 0; k < n_tiles * o.ratio; k++) {
        const int at = k % stages, h = g * o.ratio + k / n_tiles, i = i0 + k % n_tiles * pass_q;
        if (k >= stages) mm_barrier_wait(&sh.free[at], (k / stages - 1) & 1);
        mm_barrier_expect(&sh.here[at], 2 * pass_q * D * 2 + 2 * pass_q * 4);
        copy_tile<D, pass_q>(sh.a[at], &m.pass_a, h, i, &sh.here[at]);
        copy_tile<D, pass_q>(sh.b[at], &m.pass_b, h, i, &sh.here[at]);
        mm_bulk_copy(sh.lse[at], s.lse + h * s.ld + i, pass_q * 4, &sh.here[at]);
        mm_bulk_copy(sh.delta[at], s.delta + h * s.ld + i, pass_q * 4, &sh.here[at]);
    }
}

template <int D>
__device__ static void run_keys(const struct mm_attention &o, struct shared_of<D, pass_q> &sh,
                                int j0, int g, int i0, int n_tiles) {
    const int group = threadIdx.x / 128, c = threadIdx.x % 4 * 2, row = j0 + own_row();
    int stop[2];  // queries [key, stop) see the key
    for (int e = 0; e < 2; e++) {
        const int j = row + 8 * e;
        stop[e] = j < o.n_k ? o.start[mm_seq_of(o.start, o.n_seqs, j) + 1] : 0;
    }
    // the first key's sequence ends first
    const int inside = o.start[mm_seq_of(o.start, o.n_seqs, j0) + 1];
    float dk[D / 2] = {}, dv[D / 2] = {}, s[pass_q / 2], dp[pass_q / 2];
    uint32_t p[pass_q / 4], ds[pass_q / 4];
    mm_barrier_wait(&sh.own_here, 0);
    for (int k = 0; k < n_tiles * o.ratio; k++) {
        const int at = k % stages, i = i0 + k % n_tiles * pass_q;
        mm_barrier_wait(&sh.here[at], k / stages & 1);
        score<D, pass_q>(s, sh.own_a, sh.a[at], group);
        mm_wgmma_wait<1>();  // the products before: their registers are free for dp
        mm_wgmma_hold(dk);
        mm_wgmma_hold(dv);
        mm_wgmma_hold(p);
        mm_wgmma_hold(ds);
        if (k > 0) done_with(&sh.free[(k - 1) % stages]);
        score<D, pass_q>(dp, sh.own_b, sh.b[at], group);
        mm_wgmma_wait<1>();
        mm_wgmma_hold(s);
        const bool edge = i < j0 + own_rows - 1 || i + pass_q > inside || j0 + own_rows > o.n_k;
#pragma unroll
        for (int x = 0; x < pass_q / 2; x++) {
            const int col = x / 4 * 8 + c + x % 2, e = x / 2 % 2;
            s[x] = mm_exp2(s[x] * o.scale_log2 - sh.lse[at][col]);
            if (edge && (i + col < row + 8 * e || i + col >= stop[e])) s[x] = 0.0f;
        }
        round_all(p, s);
        mm_wgmma_wait<0>();
        mm_wgmma_hold(dp);
#pragma unroll
        for (int x = 0; x < pass_q / 2; x++) {
            const int col = x / 4 * 8 + c + x % 2;
            dp[x] = s[x] == 0.0f ? 0.0f : s[x] * (dp[x] - sh.delta[at][col]);
        }
        round_all(ds, dp);
        add_product<D, pass_q>(dv, p, sh.b[at]);
        add_product<D, pass_q>(dk, ds, sh.a[at]);
    }
    mm_wgmma_wait<0>();
    mm_wgmma_hold(dk);
    mm_wgmma_hold(dv);
    write_rows<D>(o.dk, dk, row, o.n_k, g, o.scale);
    write_rows<D>(o.dv, dv, row, o.n_k, g, 1.0f);
}

// ---- dq ----

template <int D>
__device__ static void bring_keys(const struct maps &m, struct shared_of<D, pass_k> &sh, int g,
                                  int from, int n_tiles) {
    for (int k = 0; k < n_tiles; k++) {
        const int at = k % stages, j = from + k * pass_k;
        if (k >= stages) mm_barrier_wait(&sh.free[at], (k / stages - 1) & 1);
        mm_barrier_expect(&sh.here[at], 2 * pass_k * D * 2);
        copy_tile<D, pass_k>(sh.a[at], &m.pass_a, g, j, &sh.here[at]);
        copy_tile<D, pass_k>(sh.b[at], &m.pass_b, g, j, &sh.here[at]);
    }
}

template <int D>
__device__ static void run_queries(const struct mm_attention &o,
                                   const struct mm_attention_sums &sum,
                                   struct shared_of<D, pass_k> &sh, int i0, int h, int from,
                                   int n_tiles, int low_last) {
    const int group = threadIdx.x / 128, c = threadIdx.x % 4 * 2, row = i0 + own_row();
    int low[2], high[2];
    float lse[2], delta[2];
    for (int e = 0; e < 2; e++) {
        const int i = row + 8 * e;
        const bool real = i < o.n_q;
        low[e] = real ? (int)mm_first_key(o, i) : 0, high[e] = real ? i + 1 : 0;
        lse[e] = real ? sum.lse[h * sum.ld + i] : 0.0f;
        delta[e] = real ? sum.delta[h * sum.ld + i] : 0.0f;
    }
    float dq[D / 2] = {}, s[pass_k / 2], dp[pass_k / 2];
    uint32_t ds[pass_k / 4];
    mm_barrier_wait(&sh.own_here, 0);
    for (int k = 0; k < n_tiles; k++) {
        const int at = k % stages, j = from + k * pass_k;
        mm_barrier_wait(&sh.here[at], k / stages & 1);
        score<D, pass_k>(s, sh.own_a, sh.a[at], group);
        mm_wgmma_wait<1>();  // the product before: its registers are free for dp
        mm_wgmma_hold(dq);
        mm_wgmma_hold(ds);
        if (k > 0) done_with(&sh.free[(k - 1) % stages]);
        score<D, pass_k>(dp, sh.own_b, sh.b[at], group);
        mm_wgmma_wait<1>();
        mm_wgmma_hold(s);
        const bool edge = j + pass_k > i0 + group * 64 + 1 || j < low_last;
#pragma unroll
        for (int x = 0; x < pass_k / 2; x++) {
            const int col = j + x / 4 * 8 + c + x % 2, e = x / 2 % 2;
            s[x] = mm_exp2(s[x] * o.scale_log2 - lse[e]);
            if (edge && (col < low[e] || col >= high[e])) s[x] = 0.0f;
        }
        mm_wgmma_wait<0>();
        mm_wgmma_hold(dp);
#pragma unroll
        for (int x = 0; x < pass_k / 2; x++)
            dp[x] = s[x] == 0.0f ? 0.0f : s[x] * (dp[x] - delta[x / 2 % 2]);
        round_all(ds, dp);
        add_product<D, pass_k>(dq, ds, sh.a[at]);
    }
    mm_wgmma_wait<0>();
    mm_wgmma_hold(dq);
    write_rows<D>(o.dq, dq, row, o.n_q, h, o.scale);
}

#endif

template <int D>
__global__ void __launch_bounds__(n_threads, 1)
    bwd_keys(const struct mm_attention o, const struct mm_attention_sums sum,
             const __grid_constant__ struct maps m) {
#if MM_HOPPER
    MM_DYNAMIC_SHARED(shared);
    struct shared_of<D, pass_q> &sh = *(struct shared_of<D, pass_q> *)shared;
    const int g = blockIdx.x, j0 = blockIdx.y * own_rows;  // the first have the most queries
    const int last = j0 + own_rows < o.n_k ? j0 + own_rows - 1 : (int)o.n_k - 1;
    const int end = o.start[mm_seq_of(o.start, o.n_seqs, last) + 1];
    const int n_tiles = (end - j0 + pass_q - 1) / pass_q;
    begin<D, pass_q>(sh);
    if (threadIdx.x / 128 == 2) {
        mm_registers_less<24>();
        if (threadIdx.x % 128 == 0) {
            bring_own<D, pass_q>(sh, m, g, j0);
            bring_queries<D>(o, m, sum, sh, g, j0, n_tiles);
        }
    } else {
        mm_registers_more<240>();
        run_keys<D>(o, sh, j0, g, j0, n_tiles);
    }
#endif
}

template <int D>
__global__ void __launch_bounds__(n_threads, 1)
    bwd_queries(const struct mm_attention o, const struct mm_attention_sums sum,
                const __grid_constant__ struct maps m) {
#if MM_HOPPER
    MM_DYNAMIC_SHARED(shared);
    struct shared_of<D, pass_k> &sh = *(struct shared_of<D, pass_k> *)shared;
    const int h = blockIdx.x, i0 = (int)(gridDim.y - 1 - blockIdx.y) * own_rows;
    const int last = i0 + own_rows < o.n_q ? i0 + own_rows - 1 : (int)o.n_q - 1;
    const int from = (int)mm_first_key(o, i0), n_tiles = (last - from + pass_k) / pass_k;
    begin<D, pass_k>(sh);
    if (threadIdx.x / 128 == 2) {
        mm_registers_less<24>();
        if (threadIdx.x % 128 == 0) {
            bring_own<D, pass_k>(sh, m, h, i0);
            bring_keys<D>(m, sh, h / o.ratio, from, n_tiles);
        }
    } else {
        mm_registers_more<240>();
        run_queries<D>(o, sum, sh, i0, h, from, n_tiles, (int)mm_first_key(o, last));
    }
#endif
}

template <class K, class... A>
static void launch(struct mm_backend *be, K kernel, int64_t heads, int64_t rows, size_t bytes,
                   A... args) {
    if (!mm_cuda_ok(
            be,
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            "asking for shared memory for attention's gradient")) {
        return;
    }
    const dim3 grid((unsigned)heads, (unsigned)((rows + own_rows - 1) / own_rows));
    MM_LAUNCH(be, kernel, grid, n_threads, bytes, args...);
}

template <int D>
static void backward(struct mm_backend *be, const struct mm_attention &o,
                     const struct mm_attention_sums &sum, const struct maps &keys,
                     const struct maps &queries) {
    launch(be, bwd_keys<D>, o.n_heads / o.ratio, o.n_k, sizeof(struct shared_of<D, pass_q>), o, sum,
           keys);
    launch(be, bwd_queries<D>, o.n_heads, o.n_q, sizeof(struct shared_of<D, pass_k>), o, sum,
           queries);
}

bool mm_attention_bwd_hopper(struct mm_backend *be, const struct mm_attention *o, struct mm_view dy,
                             struct mm_view q, struct mm_view k, struct mm_view v) {
    if ((o->dim != 64 && o->dim != 128) || !mm_hopper_here(be)) return false;
    struct maps keys, queries;
    if (!mm_tile_map_of(&keys.own_a, k, own_rows) || !mm_tile_map_of(&keys.own_b, v, own_rows) ||
        !mm_tile_map_of(&keys.pass_a, q, pass_q) || !mm_tile_map_of(&keys.pass_b, dy, pass_q) ||
        !mm_tile_map_of(&queries.own_a, q, own_rows) ||
        !mm_tile_map_of(&queries.own_b, dy, own_rows) ||
        !mm_tile_map_of(&queries.pass_a, k, pass_k) ||
        !mm_tile_map_of(&queries.pass_b, v, pass_k)) {
        return false;
    }
    struct mm_attention_sums sum;
    if (!mm_attention_prepare(be, o, &sum)) return true;
    if (o->dim == 64) {
        backward<64>(be, *o, sum, keys, queries);
    } else {
        backward<128>(be, *o, sum, keys, queries);
    }
    return true;
}
