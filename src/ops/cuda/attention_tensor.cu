// Softmax attention forward by mma.sync, bf16, heads of up to 128: cards before Hopper, other head
// sizes, and pieces of few queries. A block has up to 64 rows of one key/value group, a row being a
// query of one of the group's heads, so that keys are read once for all its heads; a warp has 16 of
// them. 64 keys at a time come ahead of their use. Where rows are few, the keys are shared out over
// blocks and attention.cu merges the parts.
#include "ops/cuda/attention.cuh"

enum { n_warps = 4, block_rows = n_warps * 16, tile_keys = 64, n_threads = n_warps * 32 };

template <int D>
struct shared_of {
    __nv_bfloat16 q[block_rows * D], k[2][tile_keys * D], v[2][tile_keys * D];
};

template <int D>
struct walk {
    const struct mm_attention &o;
    struct shared_of<D> &sh;
    int g, lane, warp, c, row0;
    int query[2], head[2], low[2], high[2];  // of this thread's rows; keys [low, high) are seen
    float out[D / 8][4], top[2], sum[2];

    __device__ walk(const struct mm_attention &o_, struct shared_of<D> &sh_) : o(o_), sh(sh_) {
        g = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = lane % 4 * 2;
        row0 = (gridDim.x - 1 - blockIdx.x) * block_rows;  // the longest first
        for (int e = 0; e < 2; e++) {
            const int row = row0 + warp * 16 + lane / 4 + 8 * e;
            query[e] = row / o.ratio, head[e] = g * o.ratio + row % o.ratio;
            const bool real = query[e] < o.n_q;
            low[e] = real ? (int)mm_first_key(o, query[e]) : 0;
            high[e] = real ? (int)o.past + query[e] + 1 : 0;
            top[e] = -INFINITY, sum[e] = 0.0f;
        }
        for (int i = 0; i < D / 8; i++)
            for (int e = 0; e < 4; e++)
                out[i][e] = 0.0f;
    }

    __device__ static mm_tile_of<D> tile(const __nv_bfloat16 *p) {
        return mm_tile_of<D>{mm_shared_at(p)};
    }
    __device__ void load_queries() {
        const mm_tile_of<D> to = tile(sh.q);
        for (int e = threadIdx.x; e < block_rows * (D / 8); e += n_threads) {
            const int r = e / (D / 8), piece = e % (D / 8), i = (row0 + r) / o.ratio;
            const int h = g * o.ratio + (row0 + r) % o.ratio;
            const bool real = i < o.n_q && piece * 8 < o.dim;
            mm_copy16(to.at(r, piece), real ? o.q.p + i * o.q.ld + h * o.dim + piece * 8 : o.q.p,
                      real);
        }
    }
    __device__ void load_rows(const __nv_bfloat16 *to_, const struct mm_bf16_rows &x, int from) {
        const mm_tile_of<D> to = tile(to_);
        for (int e = threadIdx.x; e < tile_keys * (D / 8); e += n_threads) {
            const int r = e / (D / 8), piece = e % (D / 8);
            const bool real = from + r < o.n_k && piece * 8 < o.dim;
            mm_copy16(to.at(r, piece), real ? x.p + (from + r) * x.ld + g * o.dim + piece * 8 : x.p,
                      real);
        }
    }
    __device__ void load(int from, int stage) {
        load_rows(sh.k[stage], o.k, from);
        load_rows(sh.v[stage], o.v, from);
        mm_copies_close();
    }

    __device__ void scores(float (&s)[tile_keys / 8][4], int stage) const {
        const mm_tile_of<D> q = tile(sh.q), k = tile(sh.k[stage]);
#pragma unroll
        for (int i = 0; i < tile_keys / 8; i++)
            for (int e = 0; e < 4; e++)
                s[i][e] = 0.0f;
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            uint32_t a[4], b[4];
            q.left(a, warp * 16, d);
#pragma unroll
            for (int i = 0; i < tile_keys; i += 16) {
                k.right(b, i, d);
                mm_mma(s[i / 8], a, b[0], b[1]);
                mm_mma(s[i / 8 + 1], a, b[2], b[3]);
            }
        }
    }
    __device__ void hide(float (&s)[tile_keys / 8][4], int j0) const {
#pragma unroll
        for (int i = 0; i < tile_keys / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int j = j0 + 8 * i + c + e % 2;
                if (j < low[e / 2] || j >= high[e / 2]) s[i][e] = -INFINITY;
            }
    }
    __device__ void softmax(float (&s)[tile_keys / 8][4]) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float most = top[e];
#pragma unroll
            for (int i = 0; i < tile_keys / 8; i++)
                most = fmaxf(most, fmaxf(s[i][2 * e], s[i][2 * e + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            const float shift = most == -INFINITY ? 0.0f : most * o.scale_log2;
            const float keep = mm_exp2(top[e] * o.scale_log2 - shift);
            top[e] = most, sum[e] *= keep;
#pragma unroll
            for (int i = 0; i < tile_keys / 8; i++)
#pragma unroll
                for (int f = 0; f < 2; f++) {
                    float &x = s[i][2 * e + f];
                    x = mm_exp2(x * o.scale_log2 - shift);
                    sum[e] += x;
                }
#pragma unroll
            for (int i = 0; i < D / 8; i++)
                out[i][2 * e] *= keep, out[i][2 * e + 1] *= keep;
        }
    }
    __device__ void values(const float (&s)[tile_keys / 8][4], int stage) {
        const mm_tile_of<D> v = tile(sh.v[stage]);
#pragma unroll
        for (int j = 0; j < tile_keys; j += 16) {
            const float *lo = s[j / 8], *hi = s[j / 8 + 1];
            const uint32_t a[4] = {mm_pair(lo[0], lo[1]), mm_pair(lo[2], lo[3]),
                                   mm_pair(hi[0], hi[1]), mm_pair(hi[2], hi[3])};
#pragma unroll
            for (int d = 0; d < D; d += 16) {
                uint32_t b[4];
                v.right_turned(b, d, j);
                mm_mma(out[d / 8], a, b[0], b[1]);
                mm_mma(out[d / 8 + 1], a, b[2], b[3]);
            }
        }
    }

    __device__ void run(int from, int end) {
        if (from < end) load(from, 0);
        for (int j = from, n = 0; j < end; j += tile_keys, n++) {
            mm_copies_wait<0>();
            __syncthreads();
            if (j + tile_keys < end) load(j + tile_keys, (n + 1) % 2);
            float s[tile_keys / 8][4];
            scores(s, n % 2);
            const int last = max(low[0], low[1]), first = min(high[0], high[1]);
            if (j < last || j + tile_keys > first) hide(s, j);
            softmax(s);
            values(s, n % 2);
        }
        mm_copies_wait<0>();
    }

    __device__ void write() {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float all = sum[e];
            all += __shfl_xor_sync(0xffffffffu, all, 1);
            all += __shfl_xor_sync(0xffffffffu, all, 2);
            if (query[e] >= o.n_q) continue;
            const int64_t at = (int64_t)query[e] * o.n_heads + head[e];
            if (o.splits > 1) {
                float *to = o.part + (blockIdx.z * o.n_q * o.n_heads + at) * (o.dim + 2);
                for (int i = 0; i < D / 8; i++) {
                    if (8 * i >= o.dim) break;
                    to[8 * i + c] = out[i][2 * e], to[8 * i + c + 1] = out[i][2 * e + 1];
                }
                if (c == 0) to[o.dim] = top[e] * o.scale, to[o.dim + 1] = all;
                continue;
            }
            __nv_bfloat16 *to = o.y.p + query[e] * o.y.ld + head[e] * o.dim + c;
            const float scale = 1.0f / all;
#pragma unroll
            for (int i = 0; i < D / 8; i++)
                if (8 * i < o.dim) {
                    *(uint32_t *)(to + 8 * i) =
                        mm_pair(out[i][2 * e] * scale, out[i][2 * e + 1] * scale);
                }
            if (o.lse && c == 0) {
                o.lse[query[e] * o.ld_lse + head[e]] = top[e] * o.scale + logf(all);
            }
        }
    }
};

template <int D>
__global__ void __launch_bounds__(n_threads, D == 128 ? 2 : 4)
    attention_tensor(const struct mm_attention o) {
    MM_DYNAMIC_SHARED(shared);
    walk<D> w(o, *(struct shared_of<D> *)shared);
    const int first = w.row0 / o.ratio, after = (w.row0 + block_rows - 1) / o.ratio + 1;
    int from = (int)mm_first_key(o, first);
    int end = (int)o.past + (after < o.n_q ? after : (int)o.n_q);
    if (o.splits > 1) {  // whole tiles
        const int n = (end - from + o.splits - 1) / o.splits;
        const int whole = (n + tile_keys - 1) / tile_keys * tile_keys;
        from += whole * (int)blockIdx.z;
        end = from + whole < end ? from + whole : end;
    }
    w.load_queries();
    w.run(from, end);
    w.write();
}

template <int D>
static void launch(struct mm_backend *be, const struct mm_attention &o) {
    auto kernel = attention_tensor<D>;
    const size_t bytes = sizeof(struct shared_of<D>);
    if (!mm_cuda_ok(
            be,
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            "asking for shared memory for attention")) {
        return;
    }
    const dim3 grid((unsigned)((o.n_q * o.ratio + block_rows - 1) / block_rows),
                    (unsigned)(o.n_heads / o.ratio), (unsigned)o.splits);
    MM_LAUNCH(be, kernel, grid, n_threads, bytes, o);
}

void mm_attention_fwd_tensor(struct mm_backend *be, const struct mm_attention *o) {
    if (o->dim <= 32) {
        launch<32>(be, *o);
    } else if (o->dim <= 64) {
        launch<64>(be, *o);
    } else {
        launch<128>(be, *o);
    }
}
