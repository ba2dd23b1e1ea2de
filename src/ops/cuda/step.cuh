// A token step on the GPU: what the host writes down once for a model (a list of tasks), what
// changes from token to token (the arguments of the launch), and the pieces of shared memory.
//
// One kernel walks through all tasks of a token, one block on every multiprocessor, and meets at a
// barrier where a task needs what others wrote. Weights do not wait for barriers: every lane has a
// queue of its own in shared memory (step_queue.cuh) that runs ahead through the list, so the
// memory is busy while the blocks meet.
#ifndef MM_OPS_CUDA_STEP_CUH
#define MM_OPS_CUDA_STEP_CUH

#include "ops/cuda/cuda.h"

enum {
    mm_step_warps = 16,
    mm_step_threads = 32 * mm_step_warps,
    mm_step_cols = 8,           // sequences of one walk: the columns of a tensor-core product
    mm_step_slot = 2048 + 128,  // bytes of a queue's slot a warp: codes, then scales
    mm_step_most_ahead = 10,
};

enum mm_step_kind {
    mm_step_kind_product,
    mm_step_kind_mamba2,
    mm_step_kind_attention,
    mm_step_kind_merge,
    mm_step_kind_l2norm,
    mm_step_kind_hidden,
};
// What a product multiplies, and what becomes of its sums.
enum mm_step_from { mm_step_from_norm, mm_step_from_gated, mm_step_from_heads, mm_step_from_ffn };
enum mm_step_to {
    mm_step_to_mixer,  // of a Mamba-2 block: convolution, gate, softplus
    mm_step_to_z,      // of an attention block: as it is
    mm_step_to_x,      // added to the residual
    mm_step_to_ffn,    // silu(w1 u) * (w3 u)
    mm_step_to_logits,
};

// A matrix as the queues see it. With w3, a tile of 16 rows is 8 of w and the same 8 of w3.
struct mm_step_matrix {
    const char *w, *w3;
    int64_t pitch;  // bytes from row to row
    int type, rows, k, tiles;
    int first;                      // the multiprocessor that has tile 0
    int slot_k, per_warp, n_slots;  // k of a slot; slots of a row a warp, and in all
    int code_bytes, blocks;         // of a quantized row
};

struct mm_step_ahead {
    const char *p;
    int64_t bytes;
};

struct mm_step_task {
    int kind, sync;  // sync: all blocks meet after it
    struct mm_step_matrix m;
    int from, to, row0;  // row0: of the first row within the mixer's projection
    int block, stack;
    int H, G, P, F, conv_k;
    float eps;
    const float *norm;  // (D), or of heads (P)
    const float *conv_w, *conv_b, *dt_bias, *a_log, *d;
    const float *q_norm_w, *q_norm_b, *k_norm_w, *k_norm_b;
    int n_ahead, state_ahead;  // vectors and states that the next tasks read: brought to the L2
    struct mm_step_ahead ahead[mm_step_most_ahead];
};

struct mm_step_state {
    float *S, *conv;
    void *k, *v;
};

struct mm_step_at {
    int past[2];
    float base[2];
};

// The arguments of one launch.
struct mm_step_args {
    const struct mm_step_task *tasks;
    const struct mm_step_matrix *matrices;  // of the products, in their order
    const struct mm_step_state *states;     // (blocks, cols)
    int n_tasks, n_matrices, n, D, splits;
    int half_cache;  // keys and values are bf16
    float *x, *hidden, *logits;
    int64_t x_ld, hidden_ld, logits_ld;
    // rows of the sequences, work_ld floats apart
    float *z, *gate, *dt, *y, *ffn;
    int64_t z_ld, y_ld, ffn_ld, dt_ld;
    float *part;       // (n, H, splits, P + 2)
    float2 *rope;      // (n, 2, 128): cosine and sine
    int rope_half[2];  // 0: no attention in this stack
    float rope_scale[2];
    unsigned *meet, meet_base;
    struct mm_step_at at[mm_step_cols];
};

struct mm_step_shared {
    float red[2][mm_step_warps][128];
    float sums[mm_step_warps][mm_step_cols];
    char staged[mm_step_warps][mm_step_slot];       // step_product.cuh
    struct mm_step_matrix bringing[mm_step_warps];  // of each warp's queue
    struct mm_step_task task[2];
    struct mm_step_args args;
};

// Slots of a queue that fit the device; 0: too few for this way.
int mm_step_slots(struct mm_backend *be);
// weights: q4 where any matrix is, else q8 where any is, else bf16.
bool mm_step_launch(struct mm_backend *be, const struct mm_step_args *a, int blocks, int slots,
                    enum mm_dtype weights);

#endif
