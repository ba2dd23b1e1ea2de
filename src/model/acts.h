// Activations of a model on memory taken from an arena, in the dtypes that it has them in.
#ifndef MM_MODEL_ACTS_H
#define MM_MODEL_ACTS_H

#include "model/model.h"
#include "ops/take.h"

// (rows, cols) and (rows, b, c). The residual stream, to which every block adds, is rounded like
// the rest, as the published model has it: with a stream of f32 the logits of the golden models
// are 1.5% from those of f32 activations, with one of bf16 2% (root mean square), and a long prompt
// takes 5% longer.
static inline struct mm_view mm_acts2(const struct mm_model *m, struct mm_arena *a, int64_t rows,
                                      int64_t cols) {
    return mm_take_as2(a, mm_model_act(m), rows, cols);
}
static inline struct mm_view mm_acts3(const struct mm_model *m, struct mm_arena *a, int64_t rows,
                                      int64_t b, int64_t c) {
    return mm_take_as3(a, mm_model_act(m), rows, b, c);
}
#endif
