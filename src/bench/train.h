// Rows of `bench --train`: how fast a stage of distillation goes with made-up samples of one
// length, and what memory it takes. Knows a teacher and its backend.
#ifndef MM_BENCH_TRAIN_H
#define MM_BENCH_TRAIN_H

#include <jansson.h>

#include "base/buf.h"
#include "model/model.h"

struct mm_bench_training {
    int stage;       // 1 to 3
    int64_t tokens;  // of the one sample of a step
    int n_steps;     // that were measured
    double step_s;   // median: forward, backward, and one AdamW update
    double ops;      // that a step needs at least, as counted
    double first_loss, last_loss;
    bool recompute;       // activations were computed again
    int64_t plan_bytes;   // of activations, as planned before the first step
    int64_t state_bytes;  // gradients, masters and moments
    int64_t peak_bytes;   // all of it, weights included
};

// Operations (2 a multiplication with its addition) of one sample of T tokens: products with
// weights and of softmax attention, forward by teacher and student, backward to activations where
// gradients must go, and to the weights that train. What is computed twice counts once; the
// recurrence, norms and losses are left out.
double mm_bench_training_ops(const struct mm_model *teacher, const struct mm_model *student,
                             int stage, int64_t T);

// Carves a student without attention, sets up the stage by the published recipe, and takes steps on
// one made-up sample of text: one to begin with and `n_steps` that are measured. mm_code_memory:
// it does not fit, *err says why.
enum mm_code mm_bench_train(struct mm_bench_training *row, struct mm_model *teacher, int stage,
                            int64_t T, int n_steps, uint64_t seed, struct mm_error *err);

// `product`: the ceiling, operations a second.
void mm_bench_training_table(const struct mm_bench_training *rows, int n, double product,
                             struct mm_buf *out);
json_t *mm_bench_training_json(const struct mm_bench_training *rows, int n, double product);

#endif
