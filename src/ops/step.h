// One token of each of some sequences, from the embedded row to the logits, as one operation: what
// the machine may then do in one go (threads that meet instead of loops that start, weights read
// once for all sequences). The model describes itself once; the states and rows change a step.
//
// For every block, with x the row of a sequence, as docs/MODEL.md has it:
//     u = rmsnorm(x);  o = mixer(u, state);  x += wo o
//     h = rmsnorm(x);  x += w2 (silu(w1 h) * w3 h)
// and at the end hidden = rmsnorm(x), logits = output hidden. The results of one sequence do not
// depend on the others, to the bit; on a GPU not on which they are, and on their number only where
// it passes four or eight and from sixteen on a power of two (ops/cuda/step_many.cuh).
#ifndef MM_OPS_STEP_H
#define MM_OPS_STEP_H

#include "ops/view.h"

// What a block remembers of one sequence.
struct mm_block_state {
    struct mm_view S;     // (1, H, P, N) f32             Mamba-2
    struct mm_view conv;  // (1, K-1, C) f32              Mamba-2; NULL when K = 1
    struct mm_view k, v;  // (cap, G, P): keys and values  attention; only these grow; f32, or bf16
                          // where backend->activations is
};

struct mm_step_block {
    bool attention;      // softmax attention; else Mamba-2
    int stack;           // 0 or 1: which of a sequence's positions counts
    int64_t H, G, P, F;  // N = P
    float eps;
    float pos_scale;                          // of the rotary angles
    struct mm_view attention_norm, ffn_norm;  // (D)
    // The mixer's projection of u, rows of one or two matrices on top of each other:
    //   Mamba-2 (2GP + 2HP + H, D): v, k, q, g, dt.   attention ((H+2G)P, D): packed as
    //   qkv_rope_fwd
    // says. in[1] NULL: all of it is in in[0].
    struct mm_view in[2];
    struct mm_view wo, w1, w3, w2;  // (D, HP), (F, D), (F, D), (D, F)
    // Mamba-2; NULL where the model has none
    struct mm_view conv_w, conv_b;                          // (C, K), (C)
    struct mm_view dt_bias, a_log, d;                       // (H)
    struct mm_view q_norm_w, q_norm_b, k_norm_w, k_norm_b;  // (P)
    struct mm_view g_norm;                                  // (P)
};

struct mm_step_seq {
    struct mm_block_state *blocks;  // (n_blocks); attention: room for one row more
    int64_t past[2];                // rows before this one, of each stack
    float rope_base[2];
};

struct mm_step {
    const struct mm_step_block *blocks;
    int64_t n_blocks;
    int64_t l2_before;  // rows are divided by their L2 norm before this block; -1: before none
    struct mm_view norm;
    float eps;
    const struct mm_step_seq *seqs;
    int64_t n_seqs;
    struct mm_view x;               // (n, D) f32; overwritten
    struct mm_view hidden;          // (n, D) f32
    struct mm_view output, logits;  // (V, D), (n, V) f32; both NULL: no logits
    // (n) i32 in the backend's memory, not 0: the sequence has stopped. Its states stay as they
    // are, and what its rows of hidden and logits hold after is not specified. NULL: none has.
    struct mm_view stopped;
};

#endif
