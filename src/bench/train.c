#include "bench/train.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/rng.h"
#include "bench/ceilings.h"
#include "bench/counts.h"
#include "train/optim.h"
#include "train/recipe.h"

enum { most_steps = 64 };

// ---- what a step needs --------------------------------------------------------------------------

static double blocks_ops(const struct mm_model *m, double T) {
    double ops = 0.0;
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const struct mm_block *b = &m->blocks[i];
        ops += 2.0 * T * mm_bench_block_weights(m, b);
        if (b->mixer == mm_mixer_mha) {
            ops += 4.0 * (double)(b->stack->H * b->stack->P) * T * (T + 1.0) / 2.0;
        }
    }
    return ops;
}

// The stacked projections of the student's mixers.
static double projections_ops(const struct mm_model *m, double T) {
    double ops = 0.0;
    for (int64_t i = 0; i < m->n_blocks; i++)
        ops += 2.0 * T * (double)mm_view_count(m->blocks[i].wvkqgdt);
    return ops;
}

static double trained_ops(const struct mm_model *m, const struct mm_stage_recipe *r, double T) {
    double ops = 0.0;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        if (p->matrix && p->used && mm_recipe_trains(r, p)) {
            ops += 2.0 * T * (double)mm_view_count(p->w);
        }
    }
    return ops;
}

double mm_bench_training_ops(const struct mm_model *teacher, const struct mm_model *student,
                             int stage, int64_t tokens) {
    struct mm_recipe recipe;
    mm_recipe_defaults(&recipe);
    const double T = (double)tokens;
    const double ops = blocks_ops(teacher, T) + trained_ops(student, &recipe.stage[stage], T);
    if (stage < 3) return ops + projections_ops(student, T);
    const double head = 2.0 * T * (double)mm_view_count(mm_model_w(student, mm_role_output));
    return ops + 2.0 * blocks_ops(student, T) + 3.0 * head;
}

// ---- steps --------------------------------------------------------------------------------------

struct trainer {
    struct mm_bench_training *row;
    struct mm_model *teacher, student;
    const struct mm_stage_recipe *recipe;
    struct mm_objective objective;
    struct mm_grad_memory grads;
    struct mm_optim optim;
    struct mm_arena device, host;
    void *block;
    int32_t *ids, *targets;
};

static bool want_grad(const struct mm_param *p, const void *arg) {
    return mm_recipe_trains(arg, p);
}

static void make_sample(struct trainer *t, uint64_t seed) {
    const struct mm_config *c = &t->student.config;
    const uint64_t stream = mm_rng_stream("bench/training");
    const int64_t n = t->row->tokens;
    t->ids = mm_xmalloc((size_t)n * sizeof *t->ids);
    t->targets = mm_xmalloc((size_t)n * sizeof *t->targets);
    for (int64_t i = 0; i < n; i++) {
        uint32_t id = mm_rng_u32_at(seed, stream, (uint64_t)i) % (uint32_t)c->V;
        if ((int64_t)id == c->img_context_id) id = id ? id - 1 : 1;
        t->ids[i] = (int32_t)id;
        if (i > 0) t->targets[i - 1] = (int32_t)id;
    }
    t->targets[n - 1] = -100;
}

static enum mm_code set_up(struct trainer *t, uint64_t seed, struct mm_error *err) {
    struct mm_bench_training *row = t->row;
    struct mm_backend *be = t->teacher->be;
    const bool keep[mm_max_blocks] = {false};
    be->gauges->peak_reset(be);
    MM_TRY(mm_model_carve(&t->student, t->teacher, keep, mm_init_mimic, seed, err));
    MM_TRY(mm_optim_init(&t->optim, &t->student, t->recipe, err));
    MM_TRY(mm_grad_memory_init(&t->grads, &t->student, want_grad, t->recipe, err));
    t->objective = (struct mm_objective){
        .kind = row->stage == 3 ? mm_objective_kind_kl : mm_objective_kind_layerwise,
        .teacher = t->teacher,
        .student = &t->student,
        .reduction = mm_kl_reduction_token,
        .scale = 1.0,
    };
    size_t bytes = mm_objective_plan(&t->objective, &t->grads.grads, row->tokens, 1, 0);
    const int64_t room = be->available(be) - mm_objective_scratch_room(be);
    if ((int64_t)bytes > room && row->stage == 3) {
        t->objective.recompute = true;
        bytes = mm_objective_plan(&t->objective, &t->grads.grads, row->tokens, 1, 0);
    }
    if ((int64_t)bytes > room) {
        return mm_fail(err, mm_code_memory,
                       "stage %d with samples of %lld tokens needs %.2f GiB for activations and "
                       "%.2f GiB are free",
                       row->stage, (long long)row->tokens, (double)bytes / 1073741824.0,
                       (double)room / 1073741824.0);
    }
    row->recompute = t->objective.recompute;
    row->plan_bytes = (int64_t)bytes;
    row->state_bytes = (int64_t)(t->grads.bytes + t->optim.bytes);
    row->ops = mm_bench_training_ops(t->teacher, &t->student, row->stage, row->tokens);
    MM_TRY(be->alloc(be, bytes, &t->block, err));
    mm_arena_init_over(&t->device, t->block, bytes);
    make_sample(t, seed);
    return mm_arena_init(&t->host, mm_layout_host_bytes(&t->student, row->tokens, 1, 0), err);
}

static enum mm_code step(struct trainer *t, int64_t number, double *loss, struct mm_error *err) {
    const int32_t start[2] = {0, (int32_t)t->row->tokens};
    const int64_t S = t->student.config.image_size;
    struct mm_objective_input in = {.targets = t->targets, .n_seqs = 1};
    struct mm_objective_result r;
    double norm;
    mm_arena_release(&t->device, 0);
    mm_arena_release(&t->host, 0);
    mm_grad_memory_zero(&t->grads);
    MM_TRY(mm_layout_make(&in.layout, &t->student, &t->host, &t->device, t->ids, start, 1, 0, 0, 0,
                          "bench", err));
    in.pixels = mm_view4(NULL, mm_dtype_f32, 0, 3, S, S);
    MM_TRY(mm_objective_run(&t->objective, &in, &t->grads.grads, &t->device, &r, err));
    *loss = r.loss;
    return mm_optim_step(&t->optim, &t->grads.grads, number, &norm, err);
}

static enum mm_code measure(struct trainer *t, struct mm_error *err) {
    double took[most_steps];
    struct mm_bench_training *row = t->row;
    MM_TRY(step(t, 0, &row->first_loss, err));  // operations find their memory
    for (int i = 0; i < row->n_steps; i++) {
        if (mm_interrupted()) return mm_fail(err, mm_code_interrupted, "interrupted");
        const double from = mm_now();
        MM_TRY(step(t, i + 1, &row->last_loss, err));
        took[i] = mm_now() - from;
    }
    row->step_s = mm_bench_median(took, row->n_steps);
    row->peak_bytes = t->teacher->be->gauges->peak(t->teacher->be);
    return mm_code_ok;
}

enum mm_code mm_bench_train(struct mm_bench_training *row, struct mm_model *teacher, int stage,
                            int64_t T, int n_steps, uint64_t seed, struct mm_error *err) {
    struct mm_recipe recipe;
    mm_recipe_defaults(&recipe);
    *row = (struct mm_bench_training){
        .stage = stage, .tokens = T, .n_steps = n_steps < most_steps ? n_steps : most_steps};
    // few steps: no warming up, so that the loss can be seen to fall
    recipe.stage[stage].warmup = 0;
    struct trainer t = {.row = row, .teacher = teacher, .recipe = &recipe.stage[stage]};
    enum mm_code code = set_up(&t, seed, err);
    if (!code) code = measure(&t, err);
    mm_arena_deinit(&t.host);
    if (t.block) teacher->be->release(teacher->be, t.block, (size_t)row->plan_bytes);
    if (t.grads.be) mm_grad_memory_deinit(&t.grads);
    if (t.optim.model) mm_optim_deinit(&t.optim);
    if (t.student.be) mm_model_deinit(&t.student);
    free(t.ids);
    free(t.targets);
    return code;
}

// ---- report -------------------------------------------------------------------------------------

void mm_bench_training_table(const struct mm_bench_training *rows, int n, double product,
                             struct mm_buf *out) {
    mm_buf_adds(out,
                "stage  tokens    step, s     tok/s   GFLOP/s of peak       loss, first and last"
                "   MiB: activations  training   peak\n");
    for (int i = 0; i < n; i++) {
        const struct mm_bench_training *r = &rows[i];
        const double rate = r->ops / r->step_s;
        mm_buf_addf(out,
                    "%5d %7lld %10.4f %9.1f %9.0f  %5.1f%% %12.5g %12.5g %12.0f%s %10.0f %6.0f\n",
                    r->stage, (long long)r->tokens, r->step_s, (double)r->tokens / r->step_s,
                    rate * 1e-9, 100.0 * rate / product, r->first_loss, r->last_loss,
                    (double)r->plan_bytes / 1048576.0, r->recompute ? " (again)" : "",
                    (double)r->state_bytes / 1048576.0, (double)r->peak_bytes / 1048576.0);
    }
}

json_t *mm_bench_training_json(const struct mm_bench_training *rows, int n, double product) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        const struct mm_bench_training *r = &rows[i];
        json_array_append_new(
            list,
            json_pack("{s:i, s:I, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:b, s:I, s:I, s:I}", "stage",
                      r->stage, "tokens", (json_int_t)r->tokens, "steps", r->n_steps, "step_s",
                      r->step_s, "tok_s", (double)r->tokens / r->step_s, "ops", r->ops,
                      "fraction_of_product", r->ops / r->step_s / product, "first_loss",
                      r->first_loss, "last_loss", r->last_loss, "recompute", (int)r->recompute,
                      "activation_bytes", (json_int_t)r->plan_bytes, "training_bytes",
                      (json_int_t)r->state_bytes, "peak_bytes", (json_int_t)r->peak_bytes));
    }
    return list;
}
