// One stage of a run: batches in, steps out, checkpoints in between.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/memory.h"
#include "io/image.h"
#include "model/acts.h"
#include "train/run_internal.h"

struct stage {
    struct mm_run_context *c;
    int number;
    const struct mm_stage_recipe *recipe;
    struct mm_data *data;
    const struct mm_batch *batch;  // the next one; NULL: not read yet
    enum mm_code batch_code;       // of reading it
    struct mm_error batch_error;
    bool last;  // no batch follows
    struct mm_objective objective;
    struct mm_grad_memory grads;
    struct mm_optim optim;
    void *block;  // the step's device memory
    size_t block_bytes;
    struct mm_arena device, host;
};

struct mm_data_options mm_run_data_options(const struct mm_run_context *c, int stage,
                                           const struct mm_config *config) {
    const struct mm_recipe *r = &c->opt->recipe;
    return (struct mm_data_options){
        .image_size = (int32_t)config->image_size,
        .tokens_per_tile = (int32_t)mm_config_tile_tokens(config),
        .min_tiles = (int32_t)config->min_tiles,
        .max_tiles = (int32_t)(r->max_tiles ? r->max_tiles : config->max_tiles),
        .dynamic_tiling = config->dynamic_tiles,
        .thumbnail = config->thumbnail,
        .max_length = r->max_length,
        .micro_batch = (int32_t)r->stage[stage].batch,
        .n_workers = (int32_t)r->workers,
        .seed = r->seed,
    };
}

static bool want_grad(const struct mm_param *p, const void *arg) {
    return mm_recipe_trains(arg, p);
}

static double gib(size_t bytes) {
    return (double)bytes / 1073741824.0;
}

// What is held now, and what will be taken beside activations. On a host weights have been touched,
// gradients, moments and data not yet; on a device all is taken but what operations keep.
static void count_memory(const struct stage *s, size_t data, size_t *held, size_t *more) {
    struct mm_backend *be = s->c->be;
    *held = (size_t)mm_memory_used();
    *more = s->grads.bytes + mm_optim_moment_bytes(&s->optim) + data;
    if (be->host_memory) return;
    be->gauges->peak_reset(be);
    *held = (size_t)be->gauges->peak(be);
    *more = (size_t)mm_objective_scratch_room(be);
}

// Chooses recomputation, says what the stage will take, refuses what does not fit.
static enum mm_code plan_memory(struct stage *s, int64_t T, int64_t n_seqs, int64_t n_tiles,
                                struct mm_error *err) {
    struct mm_run_context *c = s->c;
    const enum mm_recompute choice = c->opt->recipe.recompute;
    const size_t data =
        mm_data_max_bytes(s->data) + mm_layout_host_bytes(&c->student, T, n_seqs, n_tiles);
    size_t held, more;
    count_memory(s, data, &held, &more);
    const size_t room = (size_t)c->be->available(c->be);
    s->objective.recompute = choice == mm_recompute_always;
    s->block_bytes = mm_objective_plan(&s->objective, &s->grads.grads, T, n_seqs, n_tiles);
    if (choice == mm_recompute_auto && s->objective.kind != mm_objective_kind_layerwise &&
        more + s->block_bytes > room) {
        s->objective.recompute = true;
        s->block_bytes = mm_objective_plan(&s->objective, &s->grads.grads, T, n_seqs, n_tiles);
    }
    if (more + s->block_bytes > room) {
        return mm_fail(err, mm_code_memory,
                       "this needs up to %.2f GiB more (activations of %lld tokens a micro-batch: "
                       "%.2f GiB) and %.2f GiB are free; lower 'batch' or 'max_length' in the "
                       "recipe%s",
                       gib(more + s->block_bytes), (long long)T, gib(s->block_bytes), gib(room),
                       s->objective.recompute ? "" : ", or allow 'recompute'");
    }
    const size_t planned = held + more + s->block_bytes;
    if ((int64_t)planned > c->planned_bytes) c->planned_bytes = (int64_t)planned;
    mm_info(
        "memory at most %.2f GiB: weights and what is open %.2f, gradients %.2f, moments %.2f, "
        "activations of up to %lld tokens %.2f%s, data %.2f",
        gib(planned), gib(held), gib(s->grads.bytes), gib(mm_optim_moment_bytes(&s->optim)),
        (long long)T, gib(s->block_bytes), s->objective.recompute ? " (recomputed)" : "",
        gib(data));
    return mm_code_ok;
}

static enum mm_code open_stage(struct stage *s, struct mm_error *err) {
    struct mm_run_context *c = s->c;
    MM_TRY(mm_recipe_check_names(s->recipe, &c->student, err));
    const struct mm_data_options d = mm_run_data_options(c, s->number, &c->student.config);
    MM_TRY(mm_data_open(&s->data, c->opt->data, c->tokenizer, c->assets, &d, err));
    MM_TRY(mm_data_seek(s->data, &c->at.cursor, err));
    MM_TRY(mm_optim_init(&s->optim, &c->student, s->recipe, err));
    if (s->optim.n == 0) {
        return mm_fail(err, mm_code_input, "recipe: stage %d trains no tensor of this model",
                       s->number);
    }
    MM_TRY(mm_grad_memory_init(&s->grads, &c->student, want_grad, s->recipe, err));
    s->objective = (struct mm_objective){
        .kind = s->number == 0   ? mm_objective_kind_supervised
                : s->number == 3 ? mm_objective_kind_kl
                                 : mm_objective_kind_layerwise,
        .teacher = c->has_teacher ? &c->teacher : NULL,
        .student = &c->student,
        .reduction = s->recipe->kl_reduction,
        .scale = 1.0 / (double)s->recipe->accumulate,
    };
    const int64_t T = mm_data_max_tokens(&d), tiles = mm_data_max_tiles(&d);
    MM_TRY(plan_memory(s, T, d.micro_batch, tiles, err));
    MM_TRY(c->be->alloc(c->be, s->block_bytes, &s->block, err));
    mm_arena_init_over(&s->device, s->block, s->block_bytes);
    return mm_arena_init(&s->host, mm_layout_host_bytes(&c->student, T, d.micro_batch, tiles), err);
}

static void close_stage(struct stage *s) {
    mm_arena_deinit(&s->host);
    if (s->block) s->c->be->release(s->c->be, s->block, s->block_bytes);
    mm_grad_memory_deinit(&s->grads);
    mm_optim_deinit(&s->optim);
    mm_data_close(s->data);
}

// Ids that stand for special embeddings have no row in the output: no answer can hold one.
static enum mm_code check_targets(const struct stage *s, const struct mm_batch *b,
                                  struct mm_error *err) {
    const int64_t V = s->c->student.config.V;
    for (int64_t t = 0; t < b->n_tokens; t++) {
        if (b->targets[t] < V) continue;
        return mm_fail(err, mm_code_input,
                       "%s: an answer holds token id %d, which the model, with %lld outputs, could "
                       "never say",
                       s->c->opt->data, (int)b->targets[t], (long long)V);
    }
    return mm_code_ok;
}

// Pixels go to the device as bytes, a quarter of what they become there.
static void unpack(struct stage *s, struct mm_view pixels, const uint8_t *rgb, size_t bytes) {
    struct mm_backend *be = s->c->be;
    float table[3][256];
    mm_tiles_table(table);
    const size_t mark = mm_arena_mark(&s->device);
    const struct mm_view values = mm_take2(&s->device, 3, 256);
    const struct mm_view from = mm_view4(mm_arena_take(&s->device, bytes), mm_dtype_u8,
                                         pixels.shape[0], pixels.shape[2], pixels.shape[2], 3);
    be->upload(be, values.data, table, sizeof table);
    be->upload(be, from.data, rgb, bytes);
    mm_normalize(be, pixels, from, values);
    mm_arena_release(&s->device, mark);
}

// The next batch is put together while the device computes. Not behind the last step: what cannot
// be used there is nobody's loss.
static void read_ahead(void *arg) {
    struct stage *s = arg;
    if (s->last) return;
    s->batch_code = mm_data_next(s->data, &s->batch, &s->batch_error);
}

static enum mm_code next_batch(struct stage *s, const struct mm_batch **b, struct mm_error *err) {
    if (!s->batch && !s->batch_code) {
        s->batch_code = mm_data_next(s->data, &s->batch, &s->batch_error);
    }
    *b = s->batch;
    const enum mm_code code = s->batch_code;
    if (code) *err = s->batch_error;
    s->batch = NULL;
    s->batch_code = mm_code_ok;
    return code;
}

// One micro-batch: forward, backward, gradients added.
static enum mm_code micro_step(struct stage *s, struct mm_objective_result *r, int64_t *tokens,
                               struct mm_error *err) {
    struct mm_run_context *c = s->c;
    const struct mm_batch *b;
    MM_TRY(next_batch(s, &b, err));
    MM_TRY(check_targets(s, b, err));
    const int64_t S = c->student.config.image_size;
    mm_arena_release(&s->device, 0);
    mm_arena_release(&s->host, 0);
    struct mm_objective_input in = {.targets = b->targets, .n_seqs = b->n_seqs};
    MM_TRY(mm_layout_make(&in.layout, &c->student, &s->host, &s->device, b->ids, b->start,
                          b->n_seqs, b->n_tiles, 0, 0, c->opt->data, err));
    const size_t bytes = (size_t)(b->n_tiles * 3 * S * S);
    in.pixels = mm_view4(mm_arena_take(&s->device, bytes * sizeof(float)), mm_dtype_f32, b->n_tiles,
                         3, S, S);
    if (bytes > 0) unpack(s, in.pixels, b->tiles, bytes);
    *tokens += b->n_tokens;
    c->at.cursor = b->cursor;
    return mm_objective_run(&s->objective, &in, &s->grads.grads, &s->device, r, err);
}

static enum mm_code log_step(struct stage *s, double loss, double norm, int64_t tokens,
                             int64_t positions, double seconds, const double *layer_mse,
                             struct mm_error *err) {
    struct mm_run_context *c = s->c;
    json_t *line = json_pack(
        "{s:i, s:I, s:f, s:f, s:f, s:I, s:I, s:f, s:I, s:I, s:f}", "stage", s->number, "step",
        (json_int_t)c->at.step, "loss", loss, "lr", mm_recipe_lr(s->recipe, c->at.step - 1),
        "grad_norm", norm, "tokens", (json_int_t)tokens, "positions", (json_int_t)positions,
        "tokens_per_s", (double)tokens / seconds, "epoch", (json_int_t)c->at.cursor.epoch,
        "skipped_samples", (json_int_t)c->at.cursor.skipped, "seconds", c->at.seconds);
    if (layer_mse) {
        json_t *list = json_array();
        for (int64_t i = 0; i < c->student.n_blocks; i++) {
            json_array_append_new(list, layer_mse[i] < 0 ? json_null() : json_real(layer_mse[i]));
        }
        json_object_set_new(line, "layer_mse", list);
    }
    return mm_run_write_log(c, line, err);
}

// One optimizer step: `accumulate` micro-batches.
static enum mm_code full_step(struct stage *s, double *loss, struct mm_error *err) {
    struct mm_run_context *c = s->c;
    const double started = mm_now();
    double layer_mse[mm_max_blocks] = {0};
    int64_t tokens = 0, positions = 0;
    double operations = 0.0;
    *loss = 0.0;
    mm_grad_memory_zero(&s->grads);
    const struct mm_data_cursor before = c->at.cursor;
    for (int64_t i = 0; i < s->recipe->accumulate; i++) {
        struct mm_objective_result r;
        s->last = c->at.step + 1 == s->recipe->steps && i + 1 == s->recipe->accumulate;
        const enum mm_code code = micro_step(s, &r, &tokens, err);
        if (code) {
            c->at.cursor = before;  // the step did not happen
            return code;
        }
        *loss += r.loss / (double)s->recipe->accumulate;
        positions += r.n_positions;
        operations += r.operations;
        for (int64_t b = 0; b < c->student.n_blocks; b++) {
            layer_mse[b] += r.layer_mse[b] / (double)s->recipe->accumulate;
        }
    }
    double norm;
    MM_TRY(mm_optim_step(&s->optim, &s->grads.grads, c->at.step, &norm, err));
    const double seconds = mm_now() - started;
    c->at.step++;
    c->at.total_steps++;
    c->at.tokens += tokens;
    c->at.seconds += seconds;
    c->operations += operations, c->seconds += seconds;
    c->at.loss = *loss;
    const bool layerwise = s->objective.kind == mm_objective_kind_layerwise;
    return log_step(s, *loss, norm, tokens, positions, seconds, layerwise ? layer_mse : NULL, err);
}

static enum mm_code train_stage(struct stage *s, struct mm_error *err) {
    static const char *const names[] = {"train", "stage 1", "stage 2", "stage 3"};
    struct mm_run_context *c = s->c;
    struct mm_progress p;
    s->objective.meanwhile = read_ahead;
    s->objective.meanwhile_arg = s;
    mm_progress_begin(&p, names[s->number], "step", s->recipe->steps, c->at.step);
    double smooth = 0.0;
    enum mm_code code = mm_code_ok;
    while (!code && c->at.step < s->recipe->steps) {
        double loss;
        code = full_step(s, &loss, err);
        if (code == mm_code_interrupted || (!code && mm_interrupted())) {
            // a step that was cut short left nothing behind but gradients
            mm_progress_end(&p);
            MM_TRY(mm_run_save_checkpoint(c, &s->optim, err));
            return mm_fail(err, mm_code_interrupted,
                           "interrupted at step %lld of %s; --resume goes on from there",
                           (long long)c->at.step, names[s->number]);
        }
        if (code) break;
        smooth = smooth == 0.0 ? loss : 0.95 * smooth + 0.05 * loss;
        char note[64];
        snprintf(note, sizeof note, "loss %.4g", smooth);
        mm_progress_update(&p, c->at.step, note);
        if (c->at.step % c->opt->recipe.checkpoint_every == 0 && c->at.step < s->recipe->steps) {
            code = mm_run_save_checkpoint(c, &s->optim, err);
        }
    }
    mm_progress_end(&p);
    return code;
}

enum mm_code mm_run_stage(struct mm_run_context *c, int stage, struct mm_error *err) {
    struct stage s = {.c = c, .number = stage, .recipe = &c->opt->recipe.stage[stage]};
    enum mm_code code = open_stage(&s, err);
    if (!code) code = mm_run_restore(c, &s.optim, err);
    if (!code) code = train_stage(&s, err);
    if (!code) code = mm_run_save_stage(c, stage, &s.optim, err);
    close_stage(&s);
    return code;
}
