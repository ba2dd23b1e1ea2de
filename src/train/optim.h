// AdamW over the parameters that train: f32 masters and moments, whatever dtype the products use.
#ifndef MM_TRAIN_OPTIM_H
#define MM_TRAIN_OPTIM_H

#include "train/objective.h"
#include "train/recipe.h"

struct mm_slot {  // one parameter that trains
    int param;
    struct mm_view w;     // f32 master; the parameter's own memory where that is f32
    struct mm_view m, v;  // moments
};
struct mm_optim {
    struct mm_model *model;
    struct mm_stage_recipe recipe;
    int n;
    struct mm_slot *slots;
    void *block;
    size_t bytes;
    struct mm_view norm;  // (1) f32, sum of squares
};

// Gives each parameter that trains memory of its own in the model (it may have been shared with a
// teacher) and makes masters and zero moments.
enum mm_code mm_optim_init(struct mm_optim *o, struct mm_model *m, const struct mm_stage_recipe *r,
                           struct mm_error *err);
void mm_optim_deinit(struct mm_optim *o);
size_t mm_optim_plan(const struct mm_model *m, const struct mm_stage_recipe *r);  // bytes
size_t mm_optim_moment_bytes(const struct mm_optim *o);

// Clips the gradients' norm, updates masters, refreshes the model's copies. step counts from 0.
// *norm receives the gradient norm before clipping; a norm that is not finite is an error.
enum mm_code mm_optim_step(struct mm_optim *o, struct mm_grads *g, int64_t step, double *norm,
                           struct mm_error *err);

// After masters were overwritten (resume): refreshes the model's copies.
void mm_optim_publish(struct mm_optim *o);
// Masters, moments by name ("w.", "m.", "v." in front of the parameter's), for writing: *n tensors.
// A backend with host memory lends its own; else the values are copied to the host.
struct mm_st_tensor *mm_optim_tensors(const struct mm_optim *o, bool moments, int *n);
void mm_optim_tensors_free(const struct mm_optim *o, struct mm_st_tensor *t, int n);
// Takes masters (and moments) from a file: tensors that are not there keep their values.
enum mm_code mm_optim_load(struct mm_optim *o, const struct mm_st *st, bool moments,
                           struct mm_error *err);

#endif
