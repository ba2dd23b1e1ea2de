// The inner loops of the mixer, one set for each instruction set (mixer_avx2.c, mixer_avx512.c,
// mixer_neon.c compile the same kernel_*.h). conv.c, mixer_norm.c, ssd.c and ssd_bwd.c hold what is
// around them: views, threads, scratch, order of sums. Matrices are f32, row-major; `ld` is the
// distance of rows in elements. Kernel buffers are 64-byte aligned and padded to whole vectors with
// zeros.
#ifndef MM_OPS_CPU_MIXER_H
#define MM_OPS_CPU_MIXER_H

#include "ops/cpu/cpu.h"

// Which part of a product is there to compute. m, n, k as in mm_gemm.
enum mm_part {
    mm_part_full,
    mm_part_lower,    // only columns j <= i of row i of C are wanted
    mm_part_a_lower,  // A(i, k) = 0 for k > i
    mm_part_a_upper,  // A(i, k) = 0 for k < i
};

// C (m, n) = alpha C + A B with A(i, k) = a[i * a_row + k * a_col] (m, k) and B (k, n). n, ldb, ldc
// are multiples of the vector, b and c aligned. alpha = 0: C is not read. Zeros promised by `part`
// must be stored as zeros within 8 of the diagonal.
struct mm_gemm {
    float *c;
    const float *a, *b;
    int64_t ldc, a_row, a_col, ldb;
    int64_t m, n, k;
    float alpha;
    enum mm_part part;
};

// Logarithms of the decays of a chunk of n <= mm_ssd_chunk_max tokens, and what follows from them.
// L_i = l_0 + ... + l_i, kept as a sum of two floats: L_i - L_j is then good to one rounding.
enum { mm_ssd_chunk_max = 128 };
struct mm_decay {
    _Alignas(64) float hi[mm_ssd_chunk_max], lo[mm_ssd_chunk_max];
    _Alignas(64) float dt[mm_ssd_chunk_max];    // 0 from n on
    _Alignas(64) float in[mm_ssd_chunk_max];    // exp(L_i): of the chunk's first state in row i
    _Alignas(64) float left[mm_ssd_chunk_max];  // exp(L_last - L_j)
    _Alignas(64) float out[mm_ssd_chunk_max];   // dt_j left_j: of row j in the last state
    float total;                                // exp(L_last)
    int64_t n;
};

// Sums over a chunk that the gradient of the decays needs.
struct mm_decay_sums {
    _Alignas(64) float row[mm_ssd_chunk_max];   // sum_{j<i} U_ij dt_j
    _Alignas(64) float col[mm_ssd_chunk_max];   // sum_{i>j} U_ij
    _Alignas(64) float diag[mm_ssd_chunk_max];  // U_jj
};

// Chunks of the recurrence on operands laid out once for the heads that share a group's keys and
// values (ssd_groups.c). A thread works on one chunk of up to mm_ssd_chunk_max tokens at a time.
struct mm_chunk {
    int64_t P, N, heads;  // heads whose states are laid out at a time
    unsigned char *room;  // of mm_chunks.room_bytes, aligned to 64
    // Set by `keys`:
    int64_t n;  // tokens
    const float *v;
    int64_t ldv;
    unsigned float_mode;  // of the processor, between begin and end
    // Rows of P floats that will be wanted soon: asked for between products, each once.
    struct mm_ahead {
        const float *at;
        int64_t ld, rows;
    } ahead[4];
};
struct mm_chunks {
    size_t (*room_bytes)(int64_t P, int64_t N, int64_t heads);
    void (*begin)(struct mm_chunk *c), (*end)(struct mm_chunk *c);  // around the work of a thread
    // Tokens of k (n, N) and v (n, P), which must stay until the chunk is done.
    void (*keys)(struct mm_chunk *c, const float *k, int64_t ldk, const float *v, int64_t ldv,
                 int64_t n);
    // The state (N, lds) before a chunk, of the head that `outputs` calls `head`.
    void (*state)(struct mm_chunk *c, int64_t head, const float *state, int64_t lds);
    // y (n, P) of one head from q (n, N); with_state: its state counts, else it is zero.
    void (*outputs)(struct mm_chunk *c, int64_t head, bool with_state, float *y, int64_t ldy,
                    const float *q, int64_t ldq, const struct mm_decay *d, float skip);
    // state = alpha state + what the chunk adds. head >= 0: and as `state` does.
    void (*advance)(struct mm_chunk *c, int64_t head, float *state, int64_t lds, float alpha,
                    const struct mm_decay *d);
};

// Causal attention of n queries of the heads of one group: query i sees keys 0 .. past + i. y may
// not be q.
struct mm_attend {
    int64_t P, heads, n, past;
    const float *q;  // (n, heads, P), rows ldq apart
    const float *k, *v;
    float *y;
    float *lse;  // (n, heads), rows ldl apart, or NULL
    int64_t ldq, ldk, ldv, ldy, ldl;
    unsigned char *room;  // attend_room bytes, aligned to 64
};

struct mm_mixer_kernels {
    int64_t lanes;       // floats of a vector
    int64_t long_chunk;  // tokens of a chunk of a long sequence, measured
    // NULL: attention is made of `gemm` and the rest.
    void (*attend)(const struct mm_attend *a);
    size_t (*attend_room)(int64_t P, int64_t heads, int64_t n);
    const struct mm_chunks *chunks;  // NULL: ssd_fwd is made of `gemm` and the rest
    void (*gemm)(const struct mm_gemm *g);
    // dst (cols, ld) = src (rows, cols)^T, zero up to ld.
    void (*transpose)(float *dst, int64_t ld, const float *src, int64_t ld_src, int64_t rows,
                      int64_t cols);
    // dst (rows, ld) = scale[row] src (rows, cols), zero up to ld; scale NULL: 1.
    void (*pack)(float *dst, int64_t ld, const float *src, int64_t ld_src, const float *scale,
                 int64_t rows, int64_t cols);
    // in, left, out and total of a chunk from hi, lo, dt and n.
    void (*decay)(struct mm_decay *d);
    // a_ij -> a_ij exp(L_i - L_j) dt_j for j <= i, 0 for j > i.
    void (*mask)(float *a, int64_t ld, const struct mm_decay *d);
    // The same for a and b, and the sums of U_ij = a_ij b_ij exp(L_i - L_j), a and b before.
    void (*mask_bwd)(float *a, float *b, int64_t ld, const struct mm_decay *d,
                     struct mm_decay_sums *sums);
    // sum_i a[i] b[i]; any n, any alignment.
    float (*dot)(const float *a, const float *b, int64_t n);
    // kept[i] and carry[i] become carry[i] and alpha carry[i] + kept[i].
    void (*scan)(float *carry, float *kept, float alpha, int64_t n);
    // One token of one head on state (P, N): S = a S + dt v k^T, y = S q + d v.
    void (*step)(float *y, float *state, const float *v, const float *k, const float *q, float a,
                 float dt, float d, int64_t n_rows, int64_t n_cols);

    // n channels of one token; x[j] the row that tap j reads; w (K, ldw), tap by tap.
    void (*conv_fwd)(float *y, const float *const *x, const float *w, int64_t ldw,
                     const float *bias, int64_t width, int64_t n);
    // dz = dy silu'(z); and, unless dw is NULL, dw (K, n) += dz x[j], db += dz. n <= 256.
    void (*conv_bwd)(float *dz, float *dw, float *db, const float *dy, const float *const *x,
                     const float *w, int64_t ldw, const float *bias, int64_t width, int64_t n);
    // dx = sum_j w[j] dz[j].
    void (*conv_dx)(float *dx, const float *const *dz, const float *w, int64_t ldw, int64_t width,
                    int64_t n);

    // One token of n_heads heads of P = dim elements each.
    void (*head_norm_fwd)(float *y, float *stats, const float *x, const float *w, const float *bias,
                          float eps, int64_t n_heads, int64_t dim);
    void (*head_norm_bwd)(float *dx, float *dw, float *dbias, const float *dy, const float *x,
                          const float *w, const float *stats, int64_t n_heads, int64_t dim);
    void (*gated_norm_fwd)(float *o, float *rinv, const float *y, const float *g, const float *w,
                           float eps, int64_t n_heads, int64_t dim);
    void (*gated_norm_bwd)(float *dy, float *dg, float *dw, const float *d_o, const float *y,
                           const float *g, const float *w, const float *rinv, int64_t n_heads,
                           int64_t dim);
    void (*softplus_fwd)(float *y, const float *x, const float *bias, int64_t n);
    void (*softplus_bwd)(float *dx, float *dbias, const float *dy, const float *x,
                         const float *bias, int64_t n);
};

void mm_gemm_amx(const struct mm_gemm *g);  // gemm_amx.c: f32 by three bf16 products
// rows_amx.c
void mm_conv_fwd_rounded(float *y, const float *const *x, const float *w, int64_t ldw,
                         const float *bias, int64_t width, int64_t n);
void mm_gated_norm_fwd_rounded(float *o, float *rinv, const float *y, const float *g,
                               const float *w, float eps, int64_t n_heads, int64_t dim);
// attend_amx.c
size_t mm_attend_room_halves(int64_t P, int64_t heads, int64_t n);
void mm_attend_halves(const struct mm_attend *a);
void mm_attend_rounded(const struct mm_attend *a);
// chunk_amx.c: products of halves, and of operands rounded to bf16.
extern const struct mm_chunks mm_chunks_halves, mm_chunks_rounded;
extern const struct mm_mixer_kernels mm_mixer_avx2, mm_mixer_avx512, mm_mixer_amx, mm_mixer_neon;
extern const struct mm_mixer_kernels mm_mixer_amx_rounded;
const struct mm_mixer_kernels *mm_mixer_kernels(
    const struct mm_backend *be);  // isa_x86.c, isa_arm.c

// Sums over rows that do not depend on the number of threads: the rows are cut into blocks by
// their number alone, each block has its own partial sum, and these are added in order.
struct mm_blocks {
    int64_t n_rows, rows, n;  // rows of a block (the last may have fewer), number of blocks
};
struct mm_blocks mm_blocks_of(int64_t n_rows);
// dst[i] += sum_b partial[b * ld + i] for i < n.
void mm_blocks_add(float *dst, const float *partial, int64_t ld, int64_t n_blocks, int64_t n);

#endif
