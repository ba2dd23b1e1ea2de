// A recipe: everything about a training run that is a choice. Defaults are the published values
// (docs/MODEL.md section 4); a JSON file changes what it names; unknown names are refused.
#ifndef MM_TRAIN_RECIPE_H
#define MM_TRAIN_RECIPE_H

#include <jansson.h>
#include "train/objective.h"

enum { mm_recipe_max_train = 32 };

struct mm_stage_recipe {
    double lr;                      // of the stable part of the schedule
    int64_t warmup, stable, decay;  // steps: linear up, constant, cosine down to 0
    int64_t steps;                  // where the stage ends, wherever the schedule is
    int64_t batch;                  // samples of a micro-batch
    int64_t accumulate;             // micro-batches of a step
    double clip;                    // of the gradient norm; 0: none
    double weight_decay, b1, b2, eps;
    char train[mm_recipe_max_train][96];  // which tensors: dot-separated parts of their names
    int n_train;
    enum mm_kl_reduction kl_reduction;  // stage 3
};

enum mm_recompute { mm_recompute_auto, mm_recompute_always, mm_recompute_never };

struct mm_recipe {
    struct mm_stage_recipe stage[4];  // [0]: supervised; [1..3]: distillation
    enum mm_dtype compute;            // f32 or bf16: of weights and products; moments are f32
    int64_t max_length;               // tokens of a sample; longer ones are skipped
    int64_t max_tiles;                // of a picture; 0: the model's max_dynamic_patch
    uint64_t seed;                    // of carving, of random weights, of the data's order
    enum mm_recompute recompute;
    int64_t checkpoint_every;  // steps
    int64_t workers;           // threads that prepare samples
};

void mm_recipe_defaults(struct mm_recipe *r);
enum mm_code mm_recipe_read(struct mm_recipe *r, const char *path, struct mm_error *err);
json_t *mm_recipe_json(const struct mm_recipe *r);  // all of it, as read by mm_recipe_read
// Changes the number of steps of a stage and its schedule in proportion.
void mm_recipe_set_steps(struct mm_recipe *r, int stage, int64_t steps);
// Learning rate of step `step` (0 is the first).
double mm_recipe_lr(const struct mm_stage_recipe *s, int64_t step);
// Whether a stage trains a parameter. "all" matches everything the forward uses.
bool mm_recipe_trains(const struct mm_stage_recipe *s, const struct mm_param *p);
// Every entry of `train` must match something.
enum mm_code mm_recipe_check_names(const struct mm_stage_recipe *s, const struct mm_model *m,
                                   struct mm_error *err);

#endif
