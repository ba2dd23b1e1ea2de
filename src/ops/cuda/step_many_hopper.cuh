// Products of a token step of up to 128 sequences on Hopper.
#ifndef MM_OPS_CUDA_STEP_MANY_HOPPER_CUH
#define MM_OPS_CUDA_STEP_MANY_HOPPER_CUH

#include "ops/cuda/step_many_launch.cuh"

enum { mm_many_hopper_rows = 128 };

// A product out = x w^T of a step, or its parts: k is cut into `parts`, and their sums are left to
// who reads them. Parts and the order of every sum depend on the sizes of w only.
struct mm_many_product {
    struct mm_view w, w3;    // (rows, K) bf16; w3 given: silu(x w^T) * (x w3^T)
    const __nv_bfloat16 *x;  // (padded, K) dense
    int64_t n, padded;       // rows that are wanted, and that are there
    float *out;              // (parts, n, out_ld); of w3 NULL, and
    __nv_bfloat16 *gated;    // (n, rows)
    int64_t out_ld, part;    // part: from one part to the next
    struct mm_many_ahead ahead;
    struct mm_many_ahead_states states;
};

// Into how many parts a product of these sizes is cut on this device, at most mm_many_most_parts;
// 0: it cannot be taken here.
enum { mm_many_most_parts = 8 };
int mm_many_hopper_parts(struct mm_backend *be, struct mm_view w, int64_t padded);
void mm_many_hopper(struct mm_backend *be, const struct mm_many_product *p, int parts);

#endif
