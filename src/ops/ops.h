// THE contract between the model and the machine. src/model, src/train and src/infer compute only
// by calling the mm_* functions below; a backend is one table of the same operations. The
// functions check their operands (ops/check.c: a wrong shape is a bug and asserts) and call the
// backend's slot.
//
// Letters: T tokens of all packed sequences, S sequences, D hidden, H query heads, G key/value
// heads, P head size, F feed-forward size, V vocabulary, N state size (= P), K convolution width,
// C = (2G+H)P convolution channels. Row-major, last axis fastest.
//
// Conventions
// - Activations and their gradients are f32, or, where backend->activations says so, either f32 or
//   bf16, each operand by itself; arithmetic and sums are f32 all the same. States, statistics
//   (rinv, lse, stats), dt, losses and gradients of weights are f32 always. Weights are f32, bf16
//   or f16. A product with a bf16 weight may round its other operand to bf16; it always
//   accumulates in f32. A product with an f32 or f16 weight computes in f32. The weight of
//   linear_fwd may also be quantized, q8 or q4: a dense view of (N, K) rows as base/quant.h lays
//   them out, which also says what the product is; rows of bf16 are taken as they are, not as
//   codes.
// - *_fwd overwrites its outputs. *_bwd overwrites activation gradients and ADDS to weight
//   gradients (f32). Where an operand may be NULL (view.data == NULL) the comment says so.
// - Operands do not overlap unless the comment says they may.
// - Errors of the device are sticky: they are kept in backend->error, later operations do
//   nothing, and mm_backend_sync returns them.
#ifndef MM_OPS_OPS_H
#define MM_OPS_OPS_H

#include "base/status.h"
#include "base/threads.h"
#include "ops/step.h"
#include "ops/view.h"

// Packed sequences: rows start[s] .. start[s+1] - 1 of a T-row tensor are sequence s.
struct mm_segs {
    int64_t n;             // S
    const int32_t *start;  // (S + 1) in host memory; start[0] = 0, start[S] = T
    const int32_t *dev;    // the same in the backend's memory (equal to start on the CPU)
};

struct mm_backend;
struct mm_draw;        // ops/draw.h
struct mm_draw_stops;  // ops/draw.h

// One slot an operation; the same names and operands as the mm_* functions below, which say what
// each computes. Every slot of every backend is filled; a test walks the table.
// clang-format off
#define MM_OPS_TABLE(X)                                                                            \
    /* ---- moving rows and elements ---- */                                                       \
    X(fill, (struct mm_backend * be, struct mm_view y, float value), (be, y, value))               \
    X(copy, (struct mm_backend * be, struct mm_view y, struct mm_view x), (be, y, x))              \
    X(add, (struct mm_backend * be, struct mm_view y, struct mm_view a, struct mm_view b),         \
      (be, y, a, b))                                                                               \
    X(scale, (struct mm_backend * be, struct mm_view y, struct mm_view x, float s), (be, y, x, s)) \
    X(embed_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view table,                  \
                  struct mm_view ids), (be, y, table, ids))                                        \
    X(embed_bwd, (struct mm_backend * be, struct mm_view dtable, struct mm_view dy,                \
                  struct mm_view ids), (be, dtable, dy, ids))                                      \
    X(gather_rows, (struct mm_backend * be, struct mm_view y, struct mm_view x,                    \
                    struct mm_view idx), (be, y, x, idx))                                          \
    X(scatter_rows, (struct mm_backend * be, struct mm_view y, struct mm_view x,                   \
                     struct mm_view idx), (be, y, x, idx))                                         \
    X(argmax, (struct mm_backend * be, struct mm_view y, struct mm_view x, struct mm_view banned), \
      (be, y, x, banned))                                                                          \
    X(draw_tokens, (struct mm_backend * be, struct mm_view y, struct mm_view logits,               \
                    struct mm_view seen, struct mm_view stopped, struct mm_view kept,              \
                    const struct mm_draw *how, const struct mm_draw_stops *stops),                 \
      (be, y, logits, seen, stopped, kept, how, stops))                                            \
    /* ---- pictures ---- */                                                                       \
    X(normalize, (struct mm_backend * be, struct mm_view y, struct mm_view rgb,                    \
                  struct mm_view table), (be, y, rgb, table))                                      \
    X(patchify, (struct mm_backend * be, struct mm_view y, struct mm_view pixels, int64_t patch),  \
      (be, y, pixels, patch))                                                                      \
    X(add_position_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view x,               \
                         struct mm_view e), (be, y, x, e))                                         \
    X(add_position_bwd, (struct mm_backend * be, struct mm_view de, struct mm_view dy),            \
      (be, de, dy))                                                                                \
    X(pixel_shuffle_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view x,              \
                          int64_t grid), (be, y, x, grid))                                         \
    X(pixel_shuffle_bwd, (struct mm_backend * be, struct mm_view dx, struct mm_view dy,            \
                          int64_t grid), (be, dx, dy, grid))                                       \
    /* ---- dense ---- */                                                                          \
    X(linear_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view x, struct mm_view w,   \
                   struct mm_view bias), (be, y, x, w, bias))                                      \
    X(linear_add_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view x,                 \
                       struct mm_view w, struct mm_view add), (be, y, x, w, add))                  \
    X(linear_bwd_x, (struct mm_backend * be, struct mm_view dx, struct mm_view dy,                 \
                     struct mm_view w, bool accumulate), (be, dx, dy, w, accumulate))              \
    X(linear_bwd_w, (struct mm_backend * be, struct mm_view dw, struct mm_view dbias,              \
                     struct mm_view dy, struct mm_view x, enum mm_dtype product),                  \
      (be, dw, dbias, dy, x, product))                                                             \
    /* ---- pointwise and norms ---- */                                                            \
    X(rmsnorm_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view rinv,                 \
                    struct mm_view x, struct mm_view w, float eps), (be, y, rinv, x, w, eps))      \
    X(rmsnorm_bwd, (struct mm_backend * be, struct mm_view dx, struct mm_view dw,                  \
                    struct mm_view dy, struct mm_view x, struct mm_view w, struct mm_view rinv),   \
      (be, dx, dw, dy, x, w, rinv))                                                                \
    X(l2norm_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view rinv,                  \
                   struct mm_view x), (be, y, rinv, x))                                            \
    X(l2norm_bwd, (struct mm_backend * be, struct mm_view dx, struct mm_view dy,                   \
                   struct mm_view y, struct mm_view rinv), (be, dx, dy, y, rinv))                  \
    X(swiglu_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view a, struct mm_view b),  \
      (be, y, a, b))                                                                               \
    X(swiglu_bwd, (struct mm_backend * be, struct mm_view da, struct mm_view db,                   \
                   struct mm_view dy, struct mm_view a, struct mm_view b), (be, da, db, dy, a, b)) \
    X(ffn_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view x, struct mm_view h,      \
                struct mm_view w1, struct mm_view w3, struct mm_view w2),                          \
      (be, y, x, h, w1, w3, w2))                                                                   \
    X(gelu_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view x), (be, y, x))          \
    X(gelu_bwd, (struct mm_backend * be, struct mm_view dx, struct mm_view dy, struct mm_view x),  \
      (be, dx, dy, x))                                                                             \
    /* ---- softmax attention ---- */                                                              \
    X(qkv_rope_fwd, (struct mm_backend * be, struct mm_view q, struct mm_view k,                   \
                     struct mm_view v, struct mm_view qkv, struct mm_view pos, float base,         \
                     float pos_scale), (be, q, k, v, qkv, pos, base, pos_scale))                   \
    X(qkv_rope_bwd, (struct mm_backend * be, struct mm_view dqkv, struct mm_view dq,               \
                     struct mm_view dk, struct mm_view dv, struct mm_view pos, float base,         \
                     float pos_scale), (be, dqkv, dq, dk, dv, pos, base, pos_scale))               \
    X(attention_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view lse,                \
                      struct mm_view q, struct mm_view k, struct mm_view v, struct mm_segs segs),  \
      (be, y, lse, q, k, v, segs))                                                                 \
    X(attention_bwd, (struct mm_backend * be, struct mm_view dq, struct mm_view dk,                \
                      struct mm_view dv, struct mm_view dy, struct mm_view y, struct mm_view lse,  \
                      struct mm_view q, struct mm_view k, struct mm_view v, struct mm_segs segs),  \
      (be, dq, dk, dv, dy, y, lse, q, k, v, segs))                                                 \
    X(attention_step, (struct mm_backend * be, struct mm_view y, struct mm_view q,                 \
                       struct mm_view k, struct mm_view v, int64_t past), (be, y, q, k, v, past))  \
    /* ---- the Mamba-2 mixer ---- */                                                              \
    X(conv_silu_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view x,                  \
                      struct mm_view w, struct mm_view bias, struct mm_view state,                 \
                      struct mm_segs segs), (be, y, x, w, bias, state, segs))                      \
    X(conv_silu_bwd, (struct mm_backend * be, struct mm_view dx, struct mm_view dw,                \
                      struct mm_view dbias, struct mm_view dy, struct mm_view x,                   \
                      struct mm_view w, struct mm_view bias, struct mm_segs segs),                 \
      (be, dx, dw, dbias, dy, x, w, bias, segs))                                                   \
    X(conv_silu_step, (struct mm_backend * be, struct mm_view y, struct mm_view x,                 \
                       struct mm_view w, struct mm_view bias, struct mm_view state),               \
      (be, y, x, w, bias, state))                                                                  \
    X(head_norm_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view stats,              \
                      struct mm_view x, struct mm_view w, struct mm_view bias, float eps),         \
      (be, y, stats, x, w, bias, eps))                                                             \
    X(head_norm_bwd, (struct mm_backend * be, struct mm_view dx, struct mm_view dw,                \
                      struct mm_view dbias, struct mm_view dy, struct mm_view x,                   \
                      struct mm_view w, struct mm_view stats), (be, dx, dw, dbias, dy, x, w, stats)) \
    X(softplus_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view x,                   \
                     struct mm_view bias), (be, y, x, bias))                                       \
    X(softplus_bwd, (struct mm_backend * be, struct mm_view dx, struct mm_view dbias,              \
                     struct mm_view dy, struct mm_view x, struct mm_view bias),                    \
      (be, dx, dbias, dy, x, bias))                                                                \
    X(ssd_fwd, (struct mm_backend * be, struct mm_view y, struct mm_view v, struct mm_view k,      \
                struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,       \
                struct mm_view state, struct mm_segs segs),                                        \
      (be, y, v, k, q, dt, a_log, d, state, segs))                                                 \
    X(ssd_bwd, (struct mm_backend * be, struct mm_view dv, struct mm_view dk, struct mm_view dq,   \
                struct mm_view ddt, struct mm_view da_log, struct mm_view dd, struct mm_view dy,   \
                struct mm_view v, struct mm_view k, struct mm_view q, struct mm_view dt,           \
                struct mm_view a_log, struct mm_view d, struct mm_segs segs),                      \
      (be, dv, dk, dq, ddt, da_log, dd, dy, v, k, q, dt, a_log, d, segs))                          \
    X(ssd_step, (struct mm_backend * be, struct mm_view y, struct mm_view v, struct mm_view k,     \
                 struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,      \
                 struct mm_view state), (be, y, v, k, q, dt, a_log, d, state))                     \
    X(gated_norm_fwd, (struct mm_backend * be, struct mm_view o, struct mm_view rinv,              \
                       struct mm_view y, struct mm_view g, struct mm_view w, float eps),           \
      (be, o, rinv, y, g, w, eps))                                                                 \
    X(gated_norm_bwd, (struct mm_backend * be, struct mm_view dy, struct mm_view dg,               \
                       struct mm_view dw, struct mm_view d_o, struct mm_view y, struct mm_view g,  \
                       struct mm_view w, struct mm_view rinv),                                     \
      (be, dy, dg, dw, d_o, y, g, w, rinv))                                                        \
    X(decode_step, (struct mm_backend * be, const struct mm_step *step), (be, step))               \
    /* ---- losses and optimizer ---- */                                                           \
    X(mse, (struct mm_backend * be, struct mm_view loss, struct mm_view dy, struct mm_view y,      \
            struct mm_view target, float scale), (be, loss, dy, y, target, scale))                 \
    X(kl, (struct mm_backend * be, struct mm_view loss, struct mm_view dlogits,                    \
           struct mm_view student, struct mm_view teacher, struct mm_view weight),                 \
      (be, loss, dlogits, student, teacher, weight))                                               \
    X(cross_entropy, (struct mm_backend * be, struct mm_view loss, struct mm_view dlogits,         \
                      struct mm_view logits, struct mm_view target, struct mm_view weight),        \
      (be, loss, dlogits, logits, target, weight))                                                 \
    X(sum_squares, (struct mm_backend * be, struct mm_view sum, struct mm_view x), (be, sum, x))   \
    X(adamw, (struct mm_backend * be, struct mm_view w, struct mm_view m, struct mm_view v,        \
              struct mm_view g, struct mm_adamw h), (be, w, m, v, g, h))
// clang-format on

// One AdamW update (Loshchilov & Hutter 2019, as in PyTorch):
//   g' = g * grad_scale;  m = b1 m + (1-b1) g';  v = b2 v + (1-b2) g'^2
//   w = w - lr * decay * w;  w = w - lr * (m / bias1) / (sqrt(v / bias2) + eps)
// bias1 = 1 - b1^step, bias2 = 1 - b2^step. All views f32, one shape; w, m, v updated in place.
struct mm_adamw {
    float lr, b1, b2, eps, decay, bias1, bias2, grad_scale;
};

#define MM_OPS_SLOT(name, params, args) void(*name) params;
struct mm_ops {
    MM_OPS_TABLE(MM_OPS_SLOT)
};
#undef MM_OPS_SLOT

// What a device can do when nothing is in the way: the ceilings that `bench` holds its rows to, and
// the most memory that was taken.
enum mm_ceiling {
    mm_ceiling_read,  // of memory, bytes a second
    mm_ceiling_f32,   // products: operations a second, a multiplication and its addition are two
    mm_ceiling_bf16,
    mm_ceiling_int8,
    mm_ceiling_count,
};
struct mm_gauges {
    // Measures one for about `seconds`, with all threads or the whole device: the best of several
    // windows. *how says what ran ("AMX tiles").
    enum mm_code (*ceiling)(struct mm_backend *, enum mm_ceiling which, double seconds,
                            double *rate, const char **how, struct mm_error *err);
    // The most memory held at once since the last reset: the process's on a CPU, the device's
    // otherwise. peak_reset is false where the count cannot be started anew.
    bool (*peak_reset)(struct mm_backend *);
    int64_t (*peak)(struct mm_backend *);
};

// A Mamba-2 mixer between its two projections, without a backward: conv_silu_fwd of v, k and q,
// softplus_fwd of dt, ssd_fwd, gated_norm_fwd, each as it is described below.
struct mm_mamba2 {
    int64_t G, H, P;   // N = P
    struct mm_view z;  // (T, 2GP + 2HP + H) strided: v, k, q, g, dt
    struct mm_view conv_w, conv_b, dt_bias;
    struct mm_view a_log, d, norm_w;  // d and norm_w may be NULL
    float eps;
    struct mm_view conv, S;  // states, as the operations take them
    struct mm_segs segs;
};

// Memory in n parts of one size that grow where they lie: nothing of it moves or is copied.
struct mm_parts {
    int64_t n;           // set by the owner, all else zero at first
    void *at;            // of part 0; each next part begins `room` bytes on
    size_t room, bytes;  // of a part: its addresses, and how many of them have memory (zeroed)
    void *impl;          // the backend's own
};

struct mm_backend {
    const struct mm_ops *ops;
    const struct mm_gauges *gauges;
    const char *name;       // "cpu", "cuda"
    char device[128];       // for people: processor or card
    struct mm_pool *pool;   // host threads; operations and host code may use it
    struct mm_error error;  // first failure; sticky
    void *impl;             // the backend's own
    size_t scratch_bytes;   // private memory of the operations, grown on first use of a size
    // What attention and the recurrence may do in products of activations with each other. The
    // caller may change it at any time. f32: sums of f32 products. bf16, for models whose weights
    // have no more: sums of products that are within 2^-15 of their magnitude.
    enum mm_dtype product;
    // What the activations of a model whose weights are bf16 or quantized should be: f32, or bf16
    // where the operations take either. A caller may set it to f32 before it opens a model.
    enum mm_dtype activations;
    // Set by who wants answers only: a training must compute with and without a backward to come
    // the same. With product bf16, ssd_fwd and attention (of more than a few queries) may then
    // round to bf16 what they multiply, once before each product, as the published kernels do: v,
    // k, q, v times its step and decay, the masked scores, a copy of the state before a chunk; the
    // weights of a softmax. A term is then within 2^-7.9 of its magnitude (two roundings of 2^-9).
    // Sums and the state that is carried from chunk to chunk stay f32. The silu before and after
    // the recurrence is within 2^-13 of itself.
    bool scan_rounds;
    // o (T, H, P) of a whole mixer in one pass over its operands. False, and nothing done: the
    // backend has no such pass for these operands, or none at all (NULL). Call mm_mamba2_fwd.
    bool (*mamba2_fwd)(struct mm_backend *, struct mm_view o, const struct mm_mamba2 *m);

    int64_t piece_tokens;  // of a prompt, that are best read at a time
    // Token steps that are best begun before the host looks at what the first of them drew: where
    // it computes beside the host, so that it need not wait for the host. 0, 1: none is.
    int steps_ahead;

    // Memory of the device. alloc gives zeroed memory; copies take bytes.
    enum mm_code (*alloc)(struct mm_backend *, size_t bytes, void **out, struct mm_error *err);
    void (*release)(struct mm_backend *, void *p, size_t bytes);
    void (*upload)(struct mm_backend *, void *dst, const void *host, size_t bytes);
    void (*download)(struct mm_backend *, void *host, const void *src, size_t bytes);
    void (*move)(struct mm_backend *, void *dst, const void *src, size_t bytes);
    enum mm_code (*sync)(struct mm_backend *, struct mm_error *err);  // waits; returns be->error
    int64_t (*available)(struct mm_backend *);  // bytes that alloc could still give
    // Gives each part at least `bytes`, or fails and changes nothing. NULL: the backend's memory
    // cannot grow; use alloc and move.
    enum mm_code (*grow)(struct mm_backend *, struct mm_parts *p, size_t bytes,
                         struct mm_error *err);
    void (*release_parts)(struct mm_backend *, struct mm_parts *p);
    void (*close)(struct mm_backend *);
    bool host_memory;  // device pointers can be read by the host (CPU): uploads may be skipped
};

// n_threads 0: all this process may use. The environment variable MMAMBA_ISA names an
// instruction set ("plain", "avx2", "avx512", ...): a wrong name is an error that lists them.
enum mm_code mm_backend_open_cpu(struct mm_backend **be, int n_threads, struct mm_error *err);
// An NVIDIA GPU, counted from 0, by the plug-in that `make cuda` builds; n_threads are the host's.
// Fails with a sentence where there is no plug-in, driver or GPU.
enum mm_code mm_backend_open_cuda(struct mm_backend **be, int device, int n_threads,
                                  struct mm_error *err);
// By the name that people give it: "auto" and "cpu", "cuda" (the first GPU), "cuda:N".
enum mm_code mm_backend_open(struct mm_backend **be, const char *name, int n_threads,
                             struct mm_error *err);
// One line a GPU, its fields separated by tabs: number, name, bytes of memory, bytes free,
// multiprocessors, compute capability.
enum mm_code mm_backend_list_cuda(char *out, size_t n, int *count, struct mm_error *err);
void mm_backend_close(struct mm_backend *be);
// Waits for everything and returns the first error of any operation since the backend was opened.
enum mm_code mm_backend_sync(struct mm_backend *be, struct mm_error *err);

#define MM_OPS_DECLARE(name, params, args) void mm_##name params;
MM_OPS_TABLE(MM_OPS_DECLARE)
#undef MM_OPS_DECLARE

bool mm_mamba2_fwd(struct mm_backend *be, struct mm_view o, const struct mm_mamba2 *m);

// What each computes. `rows` are axis 0. "strided" means ld may exceed the row's elements; every
// 2- and 3-axis activation operand may be strided unless it says dense.
//
// fill          y = value. Any float dtype; y may be strided.
// copy          y = x with conversion between float dtypes (f32, bf16, f16); strided. Same shape.
// add           y = a + b; dtypes may differ. y may be a or b.
// scale         y = x * s. y may be x.
// embed_fwd     y[t] = table[ids[t]]; ids (T) i32; ids[t] < 0 gives a row of zeros.
// embed_bwd     dtable[ids[t]] += dy[t] for ids[t] >= 0, in the order of t (deterministic).
// gather_rows   y[i] = x[idx[i]];  idx (n) i32, in range.   y (n, cols)
// scatter_rows  y[idx[i]] = x[i];  idx without repeats; other rows of y keep their values.
// argmax        y (rows) i32 = the column of the largest of x (rows, cols), the first of those
//               that are alike; a column in banned (n) i32 or NULL does not count. -1 where it is
//               not finite.
// draw_tokens   y (n) i32 = a token of each row of logits (n, V) f32, drawn as how[0 .. n - 1], in
//               host memory, says: see ops/draw.h, which also says why it is the same everywhere.
//               -1 where the largest logit is not finite. seen (n, ceil(V / 32)) i32 or NULL: a bit
//               for each token that the penalty holds for; where a row's penalty is not 1 the
//               drawn token's is set. stopped (n) i32 or NULL: of a row where it is not 0, y
//               becomes -1 and nothing else changes; where a draw ends the sequence (mm_draw_ends
//               of how and stops, NULL: no such ids) it becomes 1, and kept (n, V) f32, or NULL,
//               gets the row of logits, which later steps overwrite.
//
// normalize     y (n, 3, S, S) dense f32 = table[c][rgb] for rgb (n, S, S, 3) dense u8; table
//               (3, 256) dense f32 is what each value of a channel becomes (mm_tiles_table).
// patchify      pixels (n, 3, S, S) dense f32 -> y (n * (S/patch)^2, 3 * patch^2): row-major over
//               patches; a row holds channel, then row, then column: the order of the (D, 3, p, p)
//               convolution weight, so that patch embedding is linear_fwd with that weight.
// add_position  y[n * R + r] = x[n * R + r] + e[r]; e (R, D); y may be x.  bwd: de[r] += sum_n dy.
// pixel_shuffle x (n * grid^2, D) -> y (n * (grid/2)^2, 4 D), downsample ratio 1/2, as MODEL.md
//               section 1 (InternVL's ps v2): a permutation. bwd: the inverse.
//
// linear_fwd    y (T, N) = x (T, K) w (N, K)^T + bias (N) or NULL. w may be strided (ld >= K).
//               T = 1 is the matrix-vector product of decoding.
// linear_add_fwd y = x w^T + add (T, N): a product onto a residual stream. `add` is another view.
// linear_bwd_x  dx (T, K) = dy (T, N) w (N, K), added to dx when `accumulate`.
// linear_bwd_w  dw (N, K) f32 += dy (T, N)^T x (T, K); dbias (N) or NULL += sum_t dy. `product`
//               f32 or bf16: bf16 rounds both operands.
//
// rmsnorm_fwd   y = x * rinv * w, rinv (rows) = 1 / sqrt(mean(x^2) + eps), NULL when no backward
//               follows. y may be x.
// rmsnorm_bwd   dx, and dw (D) += (NULL: not wanted). dx may be dy.
// l2norm        y = x / ||x||_2 a row; rinv (rows) = 1 / ||x||.  bwd: dx may be dy.
// swiglu        y = silu(a) * b; y may be a or b.  bwd overwrites da, db; da may be a, db may be b
//               (same storage).
// ffn_fwd       y (T,D) = x + (silu(h w1^T) * (h w3^T)) w2^T: the feed-forward half of a block,
//               with no gradient to follow. w1, w3 (F,D), w2 (D,F) as linear_fwd takes them, all
//               of one type; y may be x, not h.
// gelu          y = x * Phi(x), the erf form.
//
// qkv_rope_fwd  qkv (T, (H+2G)P) packed a key/value group at a time: H/G query heads, one key
//               head, one value head. -> q (T,H,P), k (T,G,P), v (T,G,P) with q and k rotated
//               (pairs i, i + P/2; angle pos[t] * pos_scale * base^(-2i/P)); pos (T) i32.
//               k and v may be strided or be rows of a cache.
// qkv_rope_bwd  the inverse: dqkv from dq, dk, dv.
// attention_fwd y (T,H,P) = causal softmax(q k^T / sqrt(P)) v inside each sequence; lse (T,H) f32
//               log-sum-exp, NULL when no backward follows. Never a T x T matrix.
// attention_bwd dq, dk, dv.
// attention_step y (n,H,P): query i of n attends to keys 0 .. past+i of k, v (past+n, G, P): a
//               piece of one sequence against its cache (which already holds the new rows).
//
// conv_silu_fwd y (T,C) = silu(bias + sum_j w[:, j] x[t-K+1+j]) inside each sequence; x strided;
//               w (C, K) f32; state (S, K-1, C) f32 or NULL: the rows before the first, oldest
//               first, read then overwritten with the last K-1 rows. NULL means zeros before.
// conv_silu_bwd dx (strided), dw +=, dbias += (both may be NULL together); start states zero.
// conv_silu_step rows are S sequences of one token each: x (S,C), y (S,C), state (S,K-1,C).
// head_norm     LayerNorm over P: x (T,H,P) -> y; w, bias (P); stats (T,H,2) mean and rinv or
//               NULL. y may be x. (use_qknorm)  bwd: dx may be dy; dw +=, dbias += or NULL.
// softplus_fwd  y (T,H) = softplus(x (T,H) strided + bias (H)).
// softplus_bwd  dx (strided) = dy * sigmoid(x + bias); dbias += or NULL.
// ssd_fwd       the recurrence of MODEL.md section 2, in chunks (any T):
//                   S_t = exp(-exp(a_log[h]) dt[t,h]) S_{t-1} + dt[t,h] v_t k_t^T
//                   y_t = S_t q_t + d[h] v_t
//               v (T,G,P), k (T,G,N), q (T,H,N), y (T,H,P), strided; query head h uses group
//               h / (H/G); dt (T,H) f32; a_log (H) f32 or NULL (no decay); d (H) or NULL;
//               state (S,H,P,N) f32: read at the start, overwritten with the end; NULL: zeros,
//               and the end is not wanted.
// ssd_bwd       dv, dk, dq (strided), ddt (T,H); da_log +=, dd += (NULL: not wanted). Start
//               states are zero. Recomputes chunk states itself.
// ssd_step      rows are S sequences of one token each; state (S,H,P,N) updated in place.
// gated_norm    o (T,H,P) = y * rinv * w (P) * silu(g (T,H*P) strided); rinv (T,H) =
//               1/sqrt(mean_P(y^2) + eps), NULL when no backward follows. w NULL: no norm
//               (use_gnorm off): o = y * silu(g).
// gated_norm_bwd dy (may be d_o), dg (strided), dw += (NULL: not wanted).
// decode_step   one token of each of some sequences through all blocks: see ops/step.h.
//
// mse           loss (1) f32 += scale * sum (y - target)^2; dy = 2 scale (y - target), or NULL.
// kl            loss (rows) f32 = weight[r] * KL(softmax(teacher[r]) || softmax(student[r]));
//               dlogits = weight[r] * (softmax(student) - softmax(teacher)), NULL: not wanted;
//               dlogits may be student. weight (rows) f32.
// cross_entropy loss (rows) = -weight[r] * log softmax(logits[r])[target[r]]; dlogits likewise, may
//               be logits; target (rows) i32, rows with weight 0 may hold -100.
// sum_squares   sum (1) f32 += sum x^2, accumulated in double, fixed order.
// adamw         see struct mm_adamw.

#endif
