// What is minimised, and its gradients: the layerwise loss of stages 1 and 2, the KL divergence of
// stage 3 (docs/MODEL.md section 4), and cross-entropy for supervised training.
#ifndef MM_TRAIN_OBJECTIVE_H
#define MM_TRAIN_OBJECTIVE_H

#include "model/model.h"

enum mm_objective_kind {
    mm_objective_kind_layerwise,   // 1000 * mean over converted blocks of MSE(o, attention output)
    mm_objective_kind_kl,          // KL(teacher || student) of the logits, temperature 1
    mm_objective_kind_supervised,  // mean cross-entropy of the answers' tokens
};

enum mm_kl_reduction {
    mm_kl_reduction_batchmean,   // sum over all positions / sequences: the published code
    mm_kl_reduction_token,       // mean over all positions
    mm_kl_reduction_completion,  // mean over the positions that predict an answer
};
int mm_kl_reduction_parse(const char *text);  // -1 when unknown
const char *mm_kl_reduction_name(enum mm_kl_reduction r);

struct mm_objective {
    enum mm_objective_kind kind;
    struct mm_model *teacher;  // NULL when supervised
    struct mm_model *student;
    enum mm_kl_reduction reduction;
    bool recompute;  // activations of the student's blocks are computed again
    double scale;    // of the gradients and the loss: 1 / accumulation steps
    // Called once in each run, when all of it has been given to the device and nothing of the input
    // is needed on the host any more: what else the host has to do. May be NULL.
    void (*meanwhile)(void *arg);
    void *meanwhile_arg;
};

struct mm_objective_input {
    struct mm_layout layout;
    struct mm_view pixels;   // (n_tiles, 3, S, S) f32
    const int32_t *targets;  // (T) on the host: what each position predicts, or -100; may be
                             // NULL where the objective counts all positions
    int64_t n_seqs;
};

struct mm_objective_result {
    double loss;                      // not scaled
    int64_t n_positions;              // that counted
    double operations;                // that had to be done: objective.c says which count
    double layer_mse[mm_max_blocks];  // layerwise; -1 for blocks that are not converted
};

// Runs forward and backward, adding to the gradients that are wanted. The arena is one planned by
// mm_objective_plan; it is left as it was found.
enum mm_code mm_objective_run(const struct mm_objective *o, const struct mm_objective_input *in,
                              struct mm_grads *g, struct mm_arena *arena,
                              struct mm_objective_result *r, struct mm_error *err);

// Bytes of device memory for one run on an input of T short tokens in n_seqs sequences with
// n_tiles tiles, its layout and pixels included.
size_t mm_objective_plan(const struct mm_objective *o, struct mm_grads *g, int64_t T,
                         int64_t n_seqs, int64_t n_tiles);

// Beside the plan: what the operations of a device take for themselves on first use, at most.
static inline int64_t mm_objective_scratch_room(const struct mm_backend *be) {
    return be->host_memory ? 0 : (int64_t)2 << 30;
}

// Grads of all parameters for which want(param, arg) is true, zeroed, in one block of the device.
struct mm_grad_memory {
    struct mm_backend *be;
    struct mm_grads grads;
    void *block;
    size_t bytes;
};
enum mm_code mm_grad_memory_init(struct mm_grad_memory *g, const struct mm_model *m,
                                 bool (*want)(const struct mm_param *p, const void *arg),
                                 const void *arg, struct mm_error *err);
void mm_grad_memory_zero(struct mm_grad_memory *g);
void mm_grad_memory_deinit(struct mm_grad_memory *g);

#endif
