// The rows that the kernels of a token step of many sequences hand on, in the backend's scratch,
// and where the sequences' states are.
#ifndef MM_OPS_CUDA_STEP_MANY_ROWS_CUH
#define MM_OPS_CUDA_STEP_MANY_ROWS_CUH

#include "ops/cuda/step_many.cuh"
#include "ops/cuda/step_many_hopper.cuh"

enum { mm_many_pairs = 64 };  // of a head, turned by its position

struct mm_many_at {
    int past[2];
    float base[2];
};

// Keys of one piece: of a sequence's own length only, so that its sums do not depend on others.
// An eighth, but 256 to 1024, and no more than 64 pieces.
__host__ __device__ inline int mm_many_piece(int n) {
    const int eighth = (n + 511) / 512 * 64, least = (n + 4095) / 4096 * 64;
    const int p = eighth < 256 ? 256 : eighth < 1024 ? eighth : 1024;
    return p > least ? p : least;
}
__host__ __device__ inline int mm_many_pieces(int n) {
    return (n + mm_many_piece(n) - 1) / mm_many_piece(n);
}

struct mm_many_rows {
    int64_t n, padded;
    bool early;  // kernels begin while the one before them ends (Hopper)
    bool quantized;
    float *x, *logits, *part;
    float *a, *b;  // (padded, f_cols) u w1^T and u w3^T; a: or s before it is codes
    // What the mixer's projections returned: (z_parts, padded, z_cols), and where gates and dt are
    // apart, theirs: (gates_parts, padded, gates_cols)
    float *z, *gates;
    float *sums;    // (x_parts, padded, D) of a product that x still lacks
    float *ss;      // (padded, tiles of x), where products make norms themselves
    unsigned *met;  // of those products that are still to come: a word a tile each
    // Bytes from there on that begin as zeros: these words, and after them all scales of codes, of
    // which nobody writes those between n and padded that a product reads.
    int64_t zeros;
    struct mm_many_norm_before before;  // what u still lacks
    int z_parts, gates_parts, x_parts;
    struct mm_many_operand u, o, s;  // a normed x, and what wo and w2 meet, in every form there is
    float2 *rope;
    struct mm_many_at *at;
    struct mm_many_state *states;
    const int32_t *stopped;  // (n) of the sequences; NULL: none has
    int64_t z_cols, gates_cols, o_cols, f_cols, logit_cols;
    int most_z_parts, most_gates_parts, most_x_parts, x_tiles;
    int pieces[2];  // of the longest cache of each stack
};

// Whether some weights are quantized; rows that such a step, or another, computes at a time.
bool mm_many_has_codes(const struct mm_step *s);
int64_t mm_many_padded(const struct mm_step *s, bool codes);
// Into how many parts our own products cut this one; 0: it is left to cuBLASLt.
int mm_many_own_parts(struct mm_backend *be, const struct mm_many_rows *r, struct mm_view w);
// Lays the rows out, clears what products count in, and tells the device where the states are.
bool mm_many_rows_begin(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s,
                        int64_t padded);

#endif
