// How much one prompt and one step are, in operations and bytes: what `bench` divides by. Counted
// from shapes, the same for every backend.
#ifndef MM_BENCH_COUNTS_H
#define MM_BENCH_COUNTS_H

#include "model/model.h"

// Bytes that one decoding step must move for `batch` sequences of `context` tokens: every weight of
// the blocks, the last norm and the output once, each state read and written, each cache read.
// Rows of the table of embeddings, activations and logits are left out.
int64_t mm_bench_step_bytes(const struct mm_model *m, int64_t context, int64_t batch);

// Operations (2 a multiplication with its addition) of reading `text` tokens and `tiles` tiles from
// the start, up to the logits of the last token: the products with weights, and the two products of
// kept attention. The recurrence, norms and convolutions are left out.
double mm_bench_prefill_ops(const struct mm_model *m, int64_t text, int64_t tiles);

// Multiplications of one row of a stream with the matrices of a block.
double mm_bench_block_weights(const struct mm_model *m, const struct mm_block *b);

// What the mixers are called: "linear", "hybrid", "attention".
const char *mm_bench_mixers(const struct mm_config *c);
// Of the big matrices.
enum mm_dtype mm_bench_dtype(const struct mm_model *m);

#endif
