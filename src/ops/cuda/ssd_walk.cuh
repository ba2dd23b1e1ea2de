// The recurrence on the tensor cores. A block walks through a span of one sequence, a head at a
// time, in chunks of 64 tokens, and keeps the state in registers, in f32. Forward it makes
//   out_i = sum over j <= i of (q_i k_j) E_ij dt_j v_j + e_i S q_i + d v_i,   E_ij = exp(L_i - L_j)
//   S    := exp(L_last) S + sum over j of f_j dt_j v_j k_j^T
// with L the sums of log decays inside the chunk, e_i = exp(L_i), f_j = exp(L_last - L_j). With
// (q, k, v) = (q, k, v) that is y; with (dy, v, k) it is dq. Backwards it makes
//   out_j = sum over i >= j of (q_j k_i) E_ij dt_j v_i + f_j dt_j S q_j + d v_j
//   S    := exp(L_last) S + sum over i of e_i v_i k_i^T
// which with (k, q, dy) is dv and with (v, dy, q) dk. A warp has 16 rows of S and of out's columns.
#ifndef MM_OPS_CUDA_SSD_WALK_CUH
#define MM_OPS_CUDA_SSD_WALK_CUH

#include "ops/cuda/cuda.h"
#include "ops/cuda/tensor.cuh"

enum { mm_walk_q = 64 };  // tokens of a chunk
enum mm_walk_kind {
    mm_walk_state,  // S alone, from zero, to states
    mm_walk_exact,  // the same with operands in two halves each
    mm_walk_out,    // out
    mm_walk_dot,    // out, and x . the part of it that comes from S, without its dt; exact
    mm_walk_sums,   // that, and the sums of U_ij = (q_i k_j) (x_i v_j) E_ij around the diagonal
};

struct mm_span {
    int32_t begin, n, seq;
    int16_t first, last;  // of its sequence
};
struct mm_walk_rows {
    const __nv_bfloat16 *p;
    int64_t ld;
    int per, dim;  // heads that share columns; columns of a head
};
struct mm_walk {
    const struct mm_span *spans;
    const float *cum, *dt;  // (H, T); cum in units of log 2
    int64_t n_tokens;
    int heads, rows, cols;           // of S
    struct mm_walk_rows q, k, v, x;  // columns of q and k: cols, of v: rows; x as out
    float *states;                   // (spans, H, S): where walks begin, or what they add up
    float *totals;                   // (spans, H): log2 of the decay over a span
    int64_t row_step, col_step;      // of S in states: dq and dk see it turned
    float *end;                      // (sequences, H, S) or NULL: the state at the end
    __nv_bfloat16 *out;              // (T, H, rows)
    int64_t ld_out;
    const float *skip;  // d (H) or NULL
    float *dot;         // (H, T)
    float *row_col;     // (H, T): sum over j < t of U_tj dt_j - dt_t sum over i > t of U_it
    float *col_diag;    // (H, T): sum over i >= t of U_it
    float *diag_qk;     // (H, T): q_t k_t
};

// STAGES: 2 where the next chunk comes while this one is computed.
template <int D, int KIND, int STAGES>
struct mm_walk_shared {
    static constexpr int n_tiles = KIND <= mm_walk_exact ? 2 : KIND == mm_walk_sums ? 4 : 3;
    __nv_bfloat16 tiles[STAGES][n_tiles][mm_walk_q * D];  // k, v, q, x
    __nv_bfloat16 m[KIND <= mm_walk_exact ? 8 : mm_walk_q * mm_walk_q];
    float cum[STAGES][mm_walk_q], dt[STAGES][mm_walk_q];
    float out_scale[mm_walk_q], in_scale[mm_walk_q], dot_scale[mm_walk_q];
    float dot[D / 16][mm_walk_q];
    float row[2][mm_walk_q], col[4][mm_walk_q], diag[mm_walk_q];
};

template <int D, bool BACK, int KIND, int STAGES>
struct mm_walker {
    static constexpr int threads = D * 2, n_warps = D / 16, q_len = mm_walk_q;
    // What crosses a token is a difference of sums over S and over G, so that their roundings would
    // add up: what rounding leaves out of an operand is multiplied too.
    static constexpr bool exact = KIND != mm_walk_state && KIND != mm_walk_out;
    const struct mm_walk &o;
    struct mm_walk_shared<D, KIND, STAGES> &sh;
    struct mm_span span;
    int h, tid, lane, warp, r, c;  // r, c: see tensor.cuh
    int t0, n;                     // the chunk's tokens
    float s[D / 8][4];             // rows warp * 16.., all columns

    __device__ mm_walker(const struct mm_walk &o_, struct mm_walk_shared<D, KIND, STAGES> &sh_)
        : o(o_), sh(sh_), span(o_.spans[blockIdx.y]) {
        h = blockIdx.x, tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
        r = lane / 4, c = lane % 4 * 2;
        for (int i = 0; i < D / 8; i++)
            for (int e = 0; e < 4; e++)
                s[i][e] = 0.0f;
    }

    __device__ mm_tile_of<D> tile(int stage, int which) const {
        return mm_tile_of<D>{mm_shared_at(sh.tiles[stage][which])};
    }
    __device__ int n_chunks() const {
        return (span.n + q_len - 1) / q_len;
    }
    __device__ void go_to(int i) {
        const int at = (BACK ? n_chunks() - 1 - i : i) * q_len;
        t0 = span.begin + at;
        n = span.n - at < q_len ? span.n - at : q_len;
    }

    __device__ void load_rows(mm_tile_of<D> to, const struct mm_walk_rows &x, int from,
                              int n_real) {
        const int piece = tid % (D / 8);
        int row = tid / (D / 8);
        const __nv_bfloat16 *src = x.p + (from + row) * x.ld + h / x.per * x.dim + piece * 8;
        mm_shared_ptr at = to.at(row, piece);
        if (piece * 8 >= x.dim) row = q_len;  // zeros
#pragma unroll 1
        for (int k = 0; k < q_len / 16; k++) {
            mm_copy16(at, row < n_real ? src : x.p, row < n_real);
            row += 16, src += 16 * x.ld, at += 16 * D * 2;
        }
    }
    // Begins the copies of chunk i.
    __device__ void load(int i, int stage) {
        const int at = (BACK ? n_chunks() - 1 - i : i) * q_len, from = span.begin + at;
        const int n_real = span.n - at < q_len ? span.n - at : q_len;
        load_rows(tile(stage, 0), o.k, from, n_real);
        load_rows(tile(stage, 1), o.v, from, n_real);
        if constexpr (KIND > mm_walk_exact) load_rows(tile(stage, 2), o.q, from, n_real);
        if constexpr (KIND == mm_walk_sums) load_rows(tile(stage, 3), o.x, from, n_real);
        if constexpr (KIND == mm_walk_dot) {  // read later, from the cache
            const int row = tid / 2, piece = tid % 2 * 64;
            if (row < n_real && piece < o.x.dim)
                mm_prefetch(o.x.p + (from + row) * o.x.ld + h / o.x.per * o.x.dim + piece);
        }
        for (int t = tid; t < q_len; t += threads) {
            const int64_t row = (int64_t)h * o.n_tokens + (t < n_real ? from + t : from);
            mm_copy4(mm_shared_at(&sh.cum[stage][t]), o.cum + row, t < n_real);
            mm_copy4(mm_shared_at(&sh.dt[stage][t]), o.dt + row, t < n_real);
        }
        mm_copies_close();
    }

    // The state at the place of element (2 e.., of tile i) of s; false outside.
    __device__ bool inside(int i, int e, int64_t *at) const {
        const int row = warp * 16 + r + e * 8, col = i * 8 + c;
        *at = row * o.row_step + col * o.col_step;
        return row < o.rows && col < o.cols;
    }
    __device__ float *state_of(float *all, int64_t which) const {
        return all + (which * o.heads + h) * o.rows * o.cols;
    }
    __device__ void read_state() {
        const float *from = state_of(o.states, blockIdx.y);
        for (int i = 0; i < D / 8; i++)
            for (int e = 0; e < 2; e++) {
                int64_t at;
                if (!inside(i, e, &at)) continue;
                s[i][2 * e] = from[at], s[i][2 * e + 1] = from[at + o.col_step];
            }
    }
    __device__ void write_state(float *to) const {
        for (int i = 0; i < D / 8; i++)
            for (int e = 0; e < 2; e++) {
                int64_t at;
                if (!inside(i, e, &at)) continue;
                to[at] = s[i][2 * e], to[at + o.col_step] = s[i][2 * e + 1];
            }
    }

    // Of a difference of sums, which rounding may leave above 0 where they are huge.
    __device__ static float decay(float log2) {
        return mm_exp2(fminf(log2, 0.0f));
    }

    __device__ void scales(int stage) {
        const float total = sh.cum[stage][n - 1];
        for (int t = tid; t < q_len; t += threads) {
            const bool real = t < n;
            const float e = real ? mm_exp2(sh.cum[stage][t]) : 0.0f;
            const float f = real ? decay(total - sh.cum[stage][t]) : 0.0f;
            const float fd = real ? f * sh.dt[stage][t] : 0.0f;
            sh.in_scale[t] = BACK ? e : fd;
            if constexpr (KIND > mm_walk_exact) sh.out_scale[t] = BACK ? fd : e;
            if constexpr (KIND >= mm_walk_dot) sh.dot_scale[t] = BACK ? f : e;
        }
    }

    __device__ float weight(int stage, int out, int in, float *e) const {
        const bool seen = BACK ? in >= out && in < n : in <= out && out < n;
        const float *cum = sh.cum[stage];
        *e = seen ? decay(BACK ? cum[in] - cum[out] : cum[out] - cum[in]) : 0.0f;
        return seen ? *e * sh.dt[stage][BACK ? out : in] : 0.0f;
    }

    // m (out, in) = (q_out k_in) E dt, rounded; a warp has 16 rows of it.
    __device__ void products(int stage) {
        constexpr int cols = n_warps == 8 ? 32 : 64, pairs = cols / 16;
        const mm_tile_of<q_len> m{mm_shared_at(sh.m)};
        const int c0 = n_warps == 8 ? warp / 4 * 32 : 0;
        for (int r0 = warp % 4 * 16; r0 < q_len; r0 += (n_warps < 4 ? n_warps : 4) * 16) {
            float acc[2 * pairs][4] = {}, xv[KIND == mm_walk_sums ? 2 * pairs : 1][4] = {};
#pragma unroll
            for (int k = 0; k < D; k += 16) {
                uint32_t a[4], b[4], ax[4];
                tile(stage, 2).left(a, r0, k);
                if constexpr (KIND == mm_walk_sums) tile(stage, 3).left(ax, r0, k);
#pragma unroll
                for (int p = 0; p < pairs; p++) {
                    const int at = c0 + 16 * p;
                    if (BACK ? at + 15 < r0 : at > r0 + 15) continue;
                    tile(stage, 0).right(b, at, k);
                    mm_mma(acc[2 * p], a, b[0], b[1]);
                    mm_mma(acc[2 * p + 1], a, b[2], b[3]);
                    if constexpr (KIND == mm_walk_sums) {
                        tile(stage, 1).right(b, at, k);
                        mm_mma(xv[2 * p], ax, b[0], b[1]);
                        mm_mma(xv[2 * p + 1], ax, b[2], b[3]);
                    }
                }
            }
            float row[2] = {0.0f, 0.0f};
#pragma unroll
            for (int i = 0; i < 2 * pairs; i++) {
                float col[2] = {0.0f, 0.0f};
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float w[2];
#pragma unroll
                    for (int f = 0; f < 2; f++) {
                        const int out = r0 + r + 8 * e, in = c0 + 8 * i + c + f;
                        const float x = acc[i][2 * e + f];
                        float e_ij;
                        w[f] = weight(stage, out, in, &e_ij);
                        if constexpr (KIND == mm_walk_sums) {
                            const float u = x * xv[i][2 * e + f] * e_ij;
                            if (in == out) {
                                sh.diag[in] = u;
                                if (o.diag_qk && in < n) {
                                    o.diag_qk[(int64_t)h * o.n_tokens + t0 + in] = x;
                                }
                            } else {
                                row[e] += x * xv[i][2 * e + f] * w[f];
                                col[f] += u;
                            }
                        }
                        w[f] *= x;
                    }
                    const int out = r0 + r + 8 * e, in = c0 + 8 * i + c;
                    mm_store(m.at(out, in / 8) + in % 8 * 2, mm_pair(w[0], w[1]));
                }
                if constexpr (KIND == mm_walk_sums) put_columns(col, r0 / 16, c0 + 8 * i + c);
            }
            if constexpr (KIND == mm_walk_sums) put_rows(row, c0 / 32, r0);
        }
    }
    __device__ void put_columns(const float (&x)[2], int strip, int at) {
        for (int f = 0; f < 2; f++) {
            float sum = x[f];
            for (int k = 4; k < 32; k *= 2)
                sum += __shfl_xor_sync(0xffffffffu, sum, k);
            if (r == 0) sh.col[strip][at + f] = sum;
        }
    }
    __device__ void put_rows(const float (&x)[2], int strip, int r0) {
        for (int e = 0; e < 2; e++) {
            float sum = x[e];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            if (c == 0) {
                sh.row[strip][r0 + r + 8 * e] = sum;
                if (n_warps < 8) sh.row[1][r0 + r + 8 * e] = 0.0f;
            }
        }
    }
    // The sums of the chunk in one order, after a barrier.
    __device__ void write_sums(int stage) const {
        for (int t = tid; t < n; t += threads) {
            const int64_t at = (int64_t)h * o.n_tokens + t0 + t;
            float col = 0.0f;
            for (int i = 0; i < 4; i++)
                col += sh.col[i][t];
            o.row_col[at] = sh.row[0][t] + sh.row[1][t] - sh.dt[stage][t] * col;
            o.col_diag[at] = col + sh.diag[t];
        }
    }
    __device__ void write_dots() const {  // of the chunk before; after a barrier
        for (int t = tid; t < n; t += threads) {
            float sum = 0.0f;
            for (int i = 0; i < n_warps; i++)
                sum += sh.dot[i][t];
            o.dot[(int64_t)h * o.n_tokens + t0 + t] = sum;
        }
    }

    // The warp's columns of x, 8 tokens from `first`.
    __device__ void read_x(uint32_t (&x)[2], int stage, int first) const {
        const int t = first + r, col = warp * 16 + c;
        if constexpr (KIND == mm_walk_sums) {
            const mm_tile_of<D> from = tile(stage, 3);
            x[0] = mm_read(from.at(t, col / 8) + c * 2);
            x[1] = mm_read(from.at(t, col / 8 + 1) + c * 2);
        } else {
            const __nv_bfloat16 *from = o.x.p + (t0 + t) * o.x.ld + h / o.x.per * o.x.dim + col;
            x[0] = t < n && col < o.rows ? *(const uint32_t *)from : 0;
            x[1] = t < n && col + 8 < o.rows ? *(const uint32_t *)(from + 8) : 0;
        }
    }
    // x . (the warp's part of S q) of 8 tokens from `first`
    __device__ void dots(const float (&acc)[4], const uint32_t (&x)[2], int first) {
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < 2; e++) {  // only bf16 can be turned: what it leaves out by itself
            const float a = acc[2 * e], b = acc[2 * e + 1];
            const uint32_t most = mm_pair(a, b);
            const uint32_t rest = mm_turn(mm_pair(a - mm_low(most), b - mm_high(most)));
            const uint32_t turned = mm_turn(most);
            sum += (mm_low(turned) + mm_low(rest)) * mm_low(x[e]) +
                   (mm_high(turned) + mm_high(rest)) * mm_high(x[e]);
        }
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (c == 0) sh.dot[warp][first + r] = sum * sh.dot_scale[first + r];
    }
    __device__ void write_out(const float (&acc)[4], int first) const {
        const uint32_t low = mm_turn(mm_pair(acc[0], acc[1])),
                       high = mm_turn(mm_pair(acc[2], acc[3]));
        const int t = first + r, col = warp * 16 + c;
        if (t >= n) return;
        __nv_bfloat16 *to = o.out + (int64_t)(t0 + t) * o.ld_out + h * o.rows + col;
        if (col < o.rows) *(uint32_t *)to = low;
        if (col + 8 < o.rows) *(uint32_t *)(to + 8) = high;
    }

    // Columns warp * 16.. of out, turned. All 64 tokens at once: a rounded piece of S is used and
    // forgotten.
    __device__ void outputs(int stage) {
        float acc[8][4] = {};
#pragma unroll
        for (int k = 0; k < D; k += 16) {
            const float *lo = s[k / 8], *hi = s[k / 8 + 1];
            const uint32_t a[4] = {mm_pair(lo[0], lo[1]), mm_pair(lo[2], lo[3]),
                                   mm_pair(hi[0], hi[1]), mm_pair(hi[2], hi[3])};
            uint32_t rest[4];
            if constexpr (KIND >= mm_walk_dot) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float *x = e < 2 ? lo + 2 * e : hi + 2 * (e - 2);
                    rest[e] = mm_pair(x[0] - mm_low(a[e]), x[1] - mm_high(a[e]));
                }
            }
#pragma unroll
            for (int p = 0; p < 4; p++) {
                uint32_t b[4];
                tile(stage, 2).right(b, 16 * p, k);
                mm_mma(acc[2 * p], a, b[0], b[1]);
                mm_mma(acc[2 * p + 1], a, b[2], b[3]);
                if constexpr (KIND >= mm_walk_dot) {
                    mm_mma(acc[2 * p], rest, b[0], b[1]);
                    mm_mma(acc[2 * p + 1], rest, b[2], b[3]);
                }
            }
        }
        if constexpr (KIND >= mm_walk_dot) {
            uint32_t x[8][2];  // asked for all at once
#pragma unroll
            for (int i = 0; i < 8; i++)
                read_x(x[i], stage, 8 * i);
#pragma unroll
            for (int i = 0; i < 8; i++)
                dots(acc[i], x[i], 8 * i);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float2 w = *(const float2 *)&sh.out_scale[8 * i + c];
            acc[i][0] *= w.x, acc[i][1] *= w.y, acc[i][2] *= w.x, acc[i][3] *= w.y;
        }
        const float d = o.skip ? o.skip[h] : 0.0f;
        const mm_tile_of<q_len> m{mm_shared_at(sh.m)};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t a[4], b[4];
            tile(stage, 1).left_turned(a, warp * 16, k * 16);
#pragma unroll
            for (int p = 0; p < 4; p++) {
                if (BACK ? k < p : k > p) continue;
                m.right(b, 16 * p, k * 16);
                mm_mma(acc[2 * p], a, b[0], b[1]);
                mm_mma(acc[2 * p + 1], a, b[2], b[3]);
            }
            if (o.skip) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float *x = &acc[2 * k + e / 2][e % 2 * 2];
                    x[0] += d * mm_low(a[e]), x[1] += d * mm_high(a[e]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            write_out(acc[i], 8 * i);
    }

    __device__ void advance(int stage) {
        const float keep = mm_exp2(sh.cum[stage][n - 1]);
#pragma unroll
        for (int i = 0; i < D / 8; i++)
            for (int e = 0; e < 4; e++)
                s[i][e] *= keep;
#pragma unroll
        for (int k = 0; k < q_len; k += 16) {
            uint32_t a[4], b[4], rest[4];
            tile(stage, 1).left_turned(a, warp * 16, k);
            const float2 lo = *(const float2 *)&sh.in_scale[k + c];
            const float2 hi = *(const float2 *)&sh.in_scale[k + 8 + c];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float2 w = e < 2 ? lo : hi;
                const float x = mm_low(a[e]) * w.x, y = mm_high(a[e]) * w.y;
                a[e] = mm_pair(x, y);
                if constexpr (exact) rest[e] = mm_pair(x - mm_low(a[e]), y - mm_high(a[e]));
            }
#pragma unroll
            for (int i = 0; i < D; i += 16) {
                tile(stage, 0).right_turned(b, i, k);
                mm_mma(s[i / 8], a, b[0], b[1]);
                mm_mma(s[i / 8 + 1], a, b[2], b[3]);
                if constexpr (exact) {
                    mm_mma(s[i / 8], rest, b[0], b[1]);
                    mm_mma(s[i / 8 + 1], rest, b[2], b[3]);
                }
            }
        }
    }

    __device__ void walk() {
        const int chunks = n_chunks();
        float total = 0.0f;
        load(0, 0);
        if constexpr (KIND > mm_walk_exact) read_state();
        for (int i = 0; i < chunks; i++) {
            const int stage = STAGES == 2 ? i % 2 : 0;
            mm_copies_wait<0>();
            __syncthreads();
            if constexpr (KIND >= mm_walk_dot) {
                if (i > 0) write_dots();
            }
            go_to(i);
            if (STAGES == 2 && i + 1 < chunks) load(i + 1, 1 - stage);
            scales(stage);
            if constexpr (KIND > mm_walk_exact) products(stage);
            __syncthreads();
            if constexpr (KIND == mm_walk_sums) write_sums(stage);
            if constexpr (KIND > mm_walk_exact) outputs(stage);
            total += sh.cum[stage][n - 1];
            advance(stage);
            if (STAGES == 1) {
                __syncthreads();
                if (i + 1 < chunks) load(i + 1, 0);
            }
        }
        if constexpr (KIND >= mm_walk_dot) {
            __syncthreads();
            write_dots();
        }
        if constexpr (KIND <= mm_walk_exact) {
            write_state(state_of(o.states, blockIdx.y));
            if (tid == 0) o.totals[blockIdx.y * o.heads + h] = total;
        } else if (!BACK && o.end && span.last) {
            write_state(state_of(o.end, span.seq));
        }
    }
};

template <int D, bool BACK, int KIND, int STAGES>
__global__ void __launch_bounds__(D * 2, D == 128 ? 2 : 4) mm_walk_kernel(const struct mm_walk o) {
    MM_DYNAMIC_SHARED(shared);
    struct mm_walk_shared<D, KIND, STAGES> &sh = *(struct mm_walk_shared<D, KIND, STAGES> *)shared;
    mm_walker<D, BACK, KIND, STAGES> w(o, sh);
    // The last span's own state is added to nothing.
    if (KIND <= mm_walk_exact && (BACK ? w.span.first : w.span.last)) return;
    w.walk();
}

#endif
