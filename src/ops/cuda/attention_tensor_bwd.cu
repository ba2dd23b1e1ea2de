// Gradient of softmax attention by mma.sync, bf16, heads of up to 128: cards before Hopper and
// other head sizes. The formulas and the two kernels are those of attention_hopper_bwd.cu, here
// made of one template: a block owns 64 keys of a group and goes through the queries of its heads,
// or owns 64 queries of a head and goes through keys. A warp has 16 of the block's rows.
#include "ops/cuda/attention.cuh"

enum { n_warps = 4, own_rows = n_warps * 16, pass_rows = 32, n_threads = n_warps * 32 };

// One warp a (row, head); zeros for rows that fill up the last tile.
static __global__ void prepare(struct mm_attention o, struct mm_attention_sums out) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= out.ld * o.n_heads) return;
    const int lane = threadIdx.x % 32, h = (int)(i % o.n_heads);
    const int64_t t = i / o.n_heads;
    if (t >= o.n_q) {
        if (lane == 0) out.delta[h * out.ld + t] = out.lse[h * out.ld + t] = 0.0f;
        return;
    }
    float sum = 0.0f;
    for (int p = lane * 2; p < o.dim; p += 64) {
        const uint32_t a = *(const uint32_t *)(o.dy.p + t * o.dy.ld + h * o.dim + p);
        const uint32_t b = *(const uint32_t *)(o.y.p + t * o.y.ld + h * o.dim + p);
        sum += mm_low(a) * mm_low(b) + mm_high(a) * mm_high(b);
    }
    sum = mm_warp_sum(sum);
    if (lane) return;
    out.delta[h * out.ld + t] = sum;
    out.lse[h * out.ld + t] = o.lse[t * o.ld_lse + h] * 1.4426950408889634f;
}

bool mm_attention_prepare(struct mm_backend *be, const struct mm_attention *o,
                          struct mm_attention_sums *s) {
    s->ld = (o->n_q + 127) / 128 * 128 + 64;
    s->lse = (float *)mm_cuda_scratch(be, mm_cuda_slot_a,
                                      (size_t)(2 * s->ld * o->n_heads) * sizeof(float));
    if (!s->lse) return false;
    s->delta = s->lse + s->ld * o->n_heads;
    const int64_t warps = s->ld * o->n_heads;
    MM_LAUNCH(be, prepare, (unsigned)((warps + 7) / 8), 256, 0, *o, *s);
    return true;
}

template <int D>
struct shared_of {
    __nv_bfloat16 own_a[own_rows * D], own_b[own_rows * D];
    __nv_bfloat16 a[2][pass_rows * D], b[2][pass_rows * D];
    float lse[2][pass_rows], delta[2][pass_rows];
};

// KEYS: own are k, v and pass are q, dy; else own are q, dy and pass are k, v.
template <int D, bool KEYS>
struct pass {
    const struct mm_attention &o;
    const struct mm_attention_sums &sums;
    struct shared_of<D> &sh;
    int warp, lane, r, c, first, head;
    int row[2], low[2], high[2];  // of this thread's rows; columns [low, high) count
    float lse[2], delta[2];       // of a query
    float acc_a[D / 8][4], acc_b[KEYS ? D / 8 : 1][4];

    __device__ pass(const struct mm_attention &o_, const struct mm_attention_sums &sums_,
                    struct shared_of<D> &sh_)
        : o(o_), sums(sums_), sh(sh_) {
        warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2;
        // the longest first
        first = (int)(KEYS ? blockIdx.y : gridDim.y - 1 - blockIdx.y) * own_rows;
        head = blockIdx.x;
        for (int e = 0; e < 2; e++) {
            row[e] = first + warp * 16 + r + 8 * e;
            const bool real = row[e] < o.n_q;
            if (KEYS) {
                low[e] = row[e];
                high[e] = real ? o.start[mm_seq_of(o.start, o.n_seqs, row[e]) + 1] : 0;
            } else {
                low[e] = real ? (int)mm_first_key(o, row[e]) : 0;
                high[e] = real ? row[e] + 1 : 0;
                lse[e] = real ? sums.lse[head * sums.ld + row[e]] : 0.0f;
                delta[e] = real ? sums.delta[head * sums.ld + row[e]] : 0.0f;
            }
        }
        for (int i = 0; i < D / 8; i++)
            for (int e = 0; e < 4; e++) {
                acc_a[i][e] = 0.0f;
                if (KEYS) acc_b[i][e] = 0.0f;
            }
    }

    __device__ static mm_tile_of<D> tile(const __nv_bfloat16 *p) {
        return mm_tile_of<D>{mm_shared_at(p)};
    }
    __device__ void load_rows(const __nv_bfloat16 *to_, const struct mm_bf16_rows &x, int h,
                              int from, int rows) {
        const mm_tile_of<D> to = tile(to_);
        for (int e = threadIdx.x; e < rows * (D / 8); e += n_threads) {
            const int i = e / (D / 8), piece = e % (D / 8);
            const bool real = from + i < o.n_q && piece * 8 < o.dim;
            mm_copy16(to.at(i, piece), real ? x.p + (from + i) * x.ld + h * o.dim + piece * 8 : x.p,
                      real);
        }
    }
    __device__ void load(int h, int from, int stage) {
        load_rows(sh.a[stage], KEYS ? o.q : o.k, KEYS ? h : h / o.ratio, from, pass_rows);
        load_rows(sh.b[stage], KEYS ? o.dy : o.v, KEYS ? h : h / o.ratio, from, pass_rows);
        if (KEYS && threadIdx.x < 2 * pass_rows) {
            const int i = threadIdx.x % pass_rows;
            const bool real = from + i < o.n_q;
            const int64_t at = h * sums.ld + (real ? from + i : 0);
            const bool which = threadIdx.x < pass_rows;
            mm_copy4(mm_shared_at(which ? &sh.lse[stage][i] : &sh.delta[stage][i]),
                     (which ? sums.lse : sums.delta) + at, real);
        }
        mm_copies_close();
    }

    // 16 own rows by the rows of a tile
    __device__ void score(float (&s)[pass_rows / 8][4], const __nv_bfloat16 *own,
                          const __nv_bfloat16 *other) const {
        const mm_tile_of<D> x = tile(own), y = tile(other);
#pragma unroll
        for (int i = 0; i < pass_rows / 8; i++)
            for (int e = 0; e < 4; e++)
                s[i][e] = 0.0f;
#pragma unroll
        for (int d = 0; d < D; d += 16) {
            uint32_t a[4], b[4];
            x.left(a, warp * 16, d);
#pragma unroll
            for (int i = 0; i < pass_rows; i += 16) {
                y.right(b, i, d);
                mm_mma(s[i / 8], a, b[0], b[1]);
                mm_mma(s[i / 8 + 1], a, b[2], b[3]);
            }
        }
    }
    // acc += s tile
    __device__ void add(float (&acc)[D / 8][4], const float (&s)[pass_rows / 8][4],
                        const __nv_bfloat16 *other) const {
        const mm_tile_of<D> y = tile(other);
#pragma unroll
        for (int j = 0; j < pass_rows; j += 16) {
            const float *lo = s[j / 8], *hi = s[j / 8 + 1];
            const uint32_t a[4] = {mm_pair(lo[0], lo[1]), mm_pair(lo[2], lo[3]),
                                   mm_pair(hi[0], hi[1]), mm_pair(hi[2], hi[3])};
#pragma unroll
            for (int d = 0; d < D; d += 16) {
                uint32_t b[4];
                y.right_turned(b, d, j);
                mm_mma(acc[d / 8], a, b[0], b[1]);
                mm_mma(acc[d / 8 + 1], a, b[2], b[3]);
            }
        }
    }

    __device__ void step(int from, int stage) {
        float s[pass_rows / 8][4], dp[pass_rows / 8][4];
        score(s, sh.own_a, sh.a[stage]);
#pragma unroll
        for (int i = 0; i < pass_rows / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int at = 8 * i + c + e % 2, col = from + at;
                const bool seen = col >= low[e / 2] && col < high[e / 2];
                const float shift = KEYS ? sh.lse[stage][at] : lse[e / 2];
                s[i][e] = seen ? mm_exp2(s[i][e] * o.scale_log2 - shift) : 0.0f;
            }
        if constexpr (KEYS) add(acc_b, s, sh.b[stage]);
        score(dp, sh.own_b, sh.b[stage]);
#pragma unroll
        for (int i = 0; i < pass_rows / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float d = KEYS ? sh.delta[stage][8 * i + c + e % 2] : delta[e / 2];
                dp[i][e] = s[i][e] * (dp[i][e] - d);
            }
        add(acc_a, dp, sh.a[stage]);
    }

    __device__ void run() {
        const int last = (first + own_rows < o.n_q ? first + own_rows : (int)o.n_q) - 1;
        const int from = KEYS ? first : (int)mm_first_key(o, first);
        const int end = KEYS ? o.start[mm_seq_of(o.start, o.n_seqs, last) + 1] : last + 1;
        const int tiles = (end - from + pass_rows - 1) / pass_rows, heads = KEYS ? o.ratio : 1;
        const int h0 = KEYS ? head * o.ratio : head;
        load_rows(sh.own_a, KEYS ? o.k : o.q, head, first, own_rows);
        load_rows(sh.own_b, KEYS ? o.v : o.dy, head, first, own_rows);
        load(h0, from, 0);
        for (int n = 0; n < tiles * heads; n++) {
            mm_copies_wait<0>();
            __syncthreads();
            if (n + 1 < tiles * heads) {
                load(h0 + (n + 1) / tiles, from + (n + 1) % tiles * pass_rows, (n + 1) % 2);
            }
            step(from + n % tiles * pass_rows, n % 2);
        }
        write(KEYS ? o.dk : o.dq, acc_a, o.scale);
        if constexpr (KEYS) write(o.dv, acc_b, 1.0f);
    }
    __device__ void write(const struct mm_bf16_rows &to, const float (&acc)[D / 8][4],
                          float scale) const {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            if (row[e] >= o.n_q) continue;
            __nv_bfloat16 *at = to.p + row[e] * to.ld + head * o.dim + c;
#pragma unroll
            for (int i = 0; i < D / 8; i++)
                if (8 * i < o.dim) {
                    *(uint32_t *)(at + 8 * i) =
                        mm_pair(acc[i][2 * e] * scale, acc[i][2 * e + 1] * scale);
                }
        }
    }
};

template <int D, bool KEYS>
__global__ void __launch_bounds__(n_threads, 2)
    attention_tensor_bwd(const struct mm_attention o, const struct mm_attention_sums sums) {
    MM_DYNAMIC_SHARED(shared);
    pass<D, KEYS> p(o, sums, *(struct shared_of<D> *)shared);
    p.run();
}

template <int D, bool KEYS>
static void launch(struct mm_backend *be, const struct mm_attention &o,
                   const struct mm_attention_sums &sums) {
    auto kernel = attention_tensor_bwd<D, KEYS>;
    const size_t bytes = sizeof(struct shared_of<D>);
    if (!mm_cuda_ok(
            be,
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            "asking for shared memory for attention's gradient")) {
        return;
    }
    const dim3 grid((unsigned)(KEYS ? o.n_heads / o.ratio : o.n_heads),
                    (unsigned)((o.n_q + own_rows - 1) / own_rows));
    MM_LAUNCH(be, kernel, grid, n_threads, bytes, o, sums);
}

template <int D>
static void both(struct mm_backend *be, const struct mm_attention &o,
                 const struct mm_attention_sums &sums) {
    launch<D, true>(be, o, sums);
    launch<D, false>(be, o, sums);
}

void mm_attention_bwd_tensor(struct mm_backend *be, const struct mm_attention *o) {
    struct mm_attention_sums sums;
    if (!mm_attention_prepare(be, o, &sums)) return;
    if (o->dim <= 32) {
        both<32>(be, *o, sums);
    } else if (o->dim <= 64) {
        both<64>(be, *o, sums);
    } else {
        both<128>(be, *o, sums);
    }
}
