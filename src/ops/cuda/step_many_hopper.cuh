// Products of a token step of up to 128 sequences on Hopper.
#ifndef MM_OPS_CUDA_STEP_MANY_HOPPER_CUH
#define MM_OPS_CUDA_STEP_MANY_HOPPER_CUH

#include "ops/cuda/step_many_launch.cuh"

enum { mm_many_hopper_rows = 128 };

// A norm between two products is made by both. The first, which adds to the residual stream, leaves
// u = x * w of the norm and of every row the sum of squares over each of its tiles of 128 columns.
struct mm_many_norm_after {
    float *x;  // (n, rows of w) what the product is added to; NULL: it is left in `out`
    struct mm_many_operand u;  // (n, rows of w)
    const float *w;            // (rows of w) of the norm
    float *ss;                 // (n, tiles)
    unsigned *met;             // (tiles) zero, and only this product's
};
// The second multiplies the sums of row r, whose operand u is, by rsqrt(sum of ss / cols + eps).
struct mm_many_norm_before {
    const float *ss;  // (n, tiles); NULL: x is what it should be
    int tiles, cols;
    float eps;
};

// A product out = x w^T of a step, or its parts: k is cut into `parts`, and their sums are left to
// who reads them. Parts and the order of every sum depend on the sizes of w only.
struct mm_many_product {
    struct mm_view w, w3;          // (rows, K) bf16, q8 or q4; w3 given: silu(x w^T) * (x w3^T)
    struct mm_many_operand x;      // (padded, K) in w's form
    int64_t n, padded;             // rows that are wanted, and that are there
    float *out;                    // (parts, n, out_ld); of w3 instead
    struct mm_many_operand gated;  // (n, rows) in w's form
    float *gated_sums;             // ... of codes: (n, rows) before they are
    unsigned *gated_met;           // ... and (rows / 128) zero, and only this product's
    int64_t out_ld, part;          // part: from one part to the next
    struct mm_many_ahead ahead;
    struct mm_many_norm_before before;
    struct mm_many_norm_after after;  // given only where mm_many_hopper_meets
};

// Into how many parts a product of these sizes is cut on this device, at most mm_many_most_parts;
// 0: it cannot be taken here. K of quantized weights is a multiple of 128 (q8) or 256 (q4).
enum { mm_many_most_parts = 8 };
int mm_many_hopper_parts(struct mm_backend *be, struct mm_view w, int64_t padded);
// Whether the product can make its part of a norm, and the tiles whose squares it then leaves.
bool mm_many_hopper_meets(struct mm_backend *be, struct mm_view w, int64_t padded);
int mm_many_hopper_tiles(struct mm_view w);
void mm_many_hopper(struct mm_backend *be, const struct mm_many_product *p, int parts);
// A product of q8 and one of bf16 in one launch, where neither meets a norm after it: into how many
// parts they are cut then; false: they cannot be. By the sizes only. (With q4 one launch is slower
// for few sequences: docs/PERFORMANCE.md.)
bool mm_many_hopper_split(struct mm_backend *be, struct mm_view codes, struct mm_view halves,
                          int64_t padded, int parts[2]);
void mm_many_hopper_two(struct mm_backend *be, const struct mm_many_product *codes,
                        const struct mm_many_product *halves, const int parts[2]);

// Bytes from one row of a matrix to the next, and of a row's weights or codes.
int64_t mm_many_row_bytes(struct mm_view w);
int64_t mm_many_code_bytes(struct mm_view w);

#endif
