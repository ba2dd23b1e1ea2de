// The verb `probe grad`: a stage's loss and the gradient of every tensor of the mixers it looks at,
// in f32, for given token ids and pixels.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/probe_input.h"
#include "train/objective.h"

static const struct mm_opt opts[] = {
    {"--teacher", mm_opt_kind_string, "MODEL", "folder, or CONFIG.json:WEIGHTS.safetensors", NULL,
     0, 0, false},
    {"--stage", mm_opt_kind_int, "1|2|3", "which loss: layerwise new, layerwise whole, logits",
     NULL, 1, 3, false},
    {"--student", mm_opt_kind_string, "FILE",
     "safetensors with the student's tensors that differ from the carved start", NULL, 0, 0, false},
    {"--keep", mm_opt_kind_string, "KEEP", "blocks that stay attention", "none", 0, 0, false},
    {"--kl-reduction", mm_opt_kind_string, "batchmean|token|completion",
     "how stage 3 averages over positions", "batchmean", 0, 0, false},
    {"--input", mm_opt_kind_string, "FILE",
     "safetensors with input_ids, and pixel_values, and labels for 'completion'", NULL, 0, 0,
     false},
    {"--output", mm_opt_kind_string, "FILE", "safetensors to write", NULL, 0, 0, false},
    MM_CLI_COMMON,
};

// Stage 1 the new parameters, stages 2 and 3 every tensor of the mixers. (The published third stage
// leaves dt_bias and A_log_bias alone; their gradients are given all the same.)
static bool want(const struct mm_param *p, const void *arg) {
    const int stage = *(const int *)arg;
    return stage == 1 ? (p->stages & 1) != 0 : p->stages != 0;
}

static enum mm_code write_grads(const char *path, const struct mm_model *m,
                                const struct mm_grads *g, const struct mm_objective_result *r,
                                int stage, struct mm_error *err) {
    struct mm_st_tensor *t = mm_xcalloc((size_t)m->n_params + 2, sizeof *t);
    char(*names)[128] = mm_xcalloc((size_t)m->n_params, sizeof *names);
    float **values = mm_xcalloc((size_t)m->n_params, sizeof *values);
    float loss = (float)r->loss, mse[mm_max_blocks];
    int n = 0, n_mse = 0;
    for (int64_t i = 0; stage < 3 && i < m->n_blocks; i++) {
        if (r->layer_mse[i] >= 0.0) mse[n_mse++] = (float)r->layer_mse[i];
    }
    t[n++] = (struct mm_st_tensor){"loss", mm_dtype_f32, 1, {1}, &loss, sizeof loss};
    if (stage < 3) {
        t[n++] = (struct mm_st_tensor){"layer_mse", mm_dtype_f32, 1,
                                       {n_mse},     mse,          (size_t)n_mse * sizeof *mse};
    }
    for (int i = 0; i < m->n_params; i++) {
        if (g->of[i].data == NULL) continue;
        const struct mm_param *p = &m->params[i];
        const size_t bytes = (size_t)mm_view_count(p->w) * sizeof(float);
        values[i] = mm_xmalloc(bytes);
        m->be->download(m->be, values[i], g->of[i].data, bytes);
        snprintf(names[i], sizeof names[i], "grad.%s", p->name);
        t[n] = (struct mm_st_tensor){names[i], mm_dtype_f32, p->n_axes, {0}, values[i], bytes};
        memcpy(t[n++].shape, p->shape, sizeof p->shape);
    }
    enum mm_code code = mm_backend_sync(m->be, err);
    if (!code) code = mm_st_write(path, t, n, NULL, 0, err);
    for (int i = 0; i < m->n_params; i++)
        free(values[i]);
    free(values);
    free(names);
    free(t);
    return code;
}

static enum mm_code make_student(struct mm_model *student, const struct mm_model *teacher,
                                 const struct mm_args *args, struct mm_error *err) {
    bool keep[mm_max_blocks];
    MM_TRY(mm_keep_parse(mm_args_string(args, "--keep"), teacher->n_blocks, keep, err));
    MM_TRY(mm_model_carve(student, teacher, keep, mm_init_mimic, 0, err));
    const char *file = mm_args_string(args, "--student");
    if (file == NULL) return mm_code_ok;
    struct mm_st *st;
    MM_TRY(mm_st_open(&st, file, err));
    const enum mm_code code = mm_model_apply(student, st, false, err);
    mm_st_close(st);
    return code;
}

static enum mm_code compute(struct mm_objective *o, const struct mm_probe_input *in, int stage,
                            const char *output, struct mm_error *err) {
    struct mm_grad_memory g;
    MM_TRY(mm_grad_memory_init(&g, o->student, want, &stage, err));
    struct mm_probe_batch b = {0};
    const size_t bytes = mm_objective_plan(o, &g.grads, in->B * in->T, in->B, in->n_tiles);
    enum mm_code code = mm_probe_batch_make(&b, o->student, in, bytes, err);
    if (!code) {
        const struct mm_objective_input input = {b.layout, b.pixels, in->targets, in->B};
        struct mm_objective_result r;
        code = mm_objective_run(o, &input, &g.grads, &b.device, &r, err);
        if (!code) code = write_grads(output, o->student, &g.grads, &r, stage, err);
    }
    mm_probe_batch_deinit(&b);
    mm_grad_memory_deinit(&g);
    return code;
}

static enum mm_code check_args(const struct mm_args *args, struct mm_error *err) {
    static const char *const required[] = {"--teacher", "--stage", "--input", "--output"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (!mm_args_given(args, required[i])) {
            return mm_fail(err, mm_code_usage, "probe grad: %s is missing", required[i]);
        }
    }
    if (mm_args_int(args, "--stage") != 3) {
        MM_TRY(mm_args_refuse(args, "--kl-reduction", "only stage 3 has a KL divergence", err));
    }
    if (mm_kl_reduction_parse(mm_args_string(args, "--kl-reduction")) < 0) {
        return mm_fail(err, mm_code_usage,
                       "probe grad: --kl-reduction is '%s', wanted batchmean, token or completion",
                       mm_args_string(args, "--kl-reduction"));
    }
    return mm_args_refuse(args, "--json", "the answer is a file", err);
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    MM_TRY(check_args(args, err));
    const int stage = (int)mm_args_int(args, "--stage");
    struct mm_backend *be = NULL;
    struct mm_model teacher = {0}, student = {0};
    struct mm_probe_input in = {0};
    enum mm_code code = mm_cli_backend_reference(&be, args, err);
    if (!code) {
        code = mm_model_load(&teacher, be, mm_args_string(args, "--teacher"), mm_dtype_f32, err);
    }
    if (!code) code = mm_model_refuse_quantized(&teacher, "they have no gradients", err);
    if (!code) code = make_student(&student, &teacher, args, err);
    if (!code) {
        code = mm_probe_input_read(&in, mm_args_string(args, "--input"), &teacher.config, err);
    }
    struct mm_objective o = {
        .kind = stage == 3 ? mm_objective_kind_kl : mm_objective_kind_layerwise,
        .teacher = &teacher,
        .student = &student,
        .reduction =
            (enum mm_kl_reduction)mm_kl_reduction_parse(mm_args_string(args, "--kl-reduction")),
        .scale = 1.0,
    };
    if (!code && o.kind == mm_objective_kind_kl && o.reduction == mm_kl_reduction_completion &&
        in.targets == NULL) {
        code =
            mm_fail(err, mm_code_input,
                    "%s: --kl-reduction completion needs a tensor 'labels' in the input", in.path);
    }
    if (!code) code = compute(&o, &in, stage, mm_args_string(args, "--output"), err);
    mm_probe_input_deinit(&in);
    if (student.be) mm_model_deinit(&student);
    if (teacher.be) mm_model_deinit(&teacher);
    if (be) mm_backend_close(be);
    return code;
}

int mm_cmd_probe_grad(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code = mm_cli_parse(
        &args, opts, "mmamba probe grad --teacher MODEL --stage 1|2|3 --input IN --output OUT",
        "Writes the loss of a stage and grad.<name> for the mixers' tensors, computed in f32.",
        argc, argv, &done, &err);
    if (!code && !done) code = run(args, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
