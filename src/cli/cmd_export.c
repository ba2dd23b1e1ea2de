// The verb `export`: what a run made, or any model, as a folder in the released layout.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/model_out.h"
#include "io/file.h"
#include "model/model.h"
#include "train/run.h"

static const struct mm_opt opts[] = {
    {"--dtype", mm_opt_kind_string, "bf16|f16|f32",
     "of the written weights (default: as the model came)", NULL, 0, 0, false},
    {"--stage", mm_opt_kind_int, "N",
     "of a distillation: the student after this stage (default: the run's result)", NULL, 1, 3,
     false},
    MM_CLI_COMMON,
};

struct source {
    struct mm_model teacher, model;  // teacher: owns what the model shares with it, or empty
    char *assets;
    enum mm_dtype dtype;  // as it came
};

static enum mm_code open_source(struct source *s, struct mm_backend *be, const struct mm_args *args,
                                struct mm_error *err) {
    const char *path = mm_args_positional(args, 0);
    if (!mm_run_is_folder(path)) {
        MM_TRY(mm_args_refuse(args, "--stage", "this is a model, not a run", err));
        MM_TRY(mm_model_load(&s->model, be, path, -1, err));
        s->assets = mm_model_folder(path);
        s->dtype = s->model.dtype;
        return mm_code_ok;
    }
    const bool staged = mm_args_given(args, "--stage");
    const int stage = staged ? (int)mm_args_int(args, "--stage") : 0;
    MM_TRY(mm_run_open_model(&s->model, &s->teacher, &s->assets, path, stage, be, err));
    // what is not a finished result is put together in f32; the config says how the model came
    char *result = mm_path_join(path, "model");
    const bool finished = !staged && mm_path_is_folder(result);
    free(result);
    const char *as = s->model.config.torch_dtype;
    s->dtype = finished                     ? s->model.dtype
               : strcmp(as, "float32") == 0 ? mm_dtype_f32
               : strcmp(as, "float16") == 0 ? mm_dtype_f16
                                            : mm_dtype_bf16;
    return mm_code_ok;
}

// f16 ends at 65504: a weight beyond it would be written as infinity.
static enum mm_code check_range(const struct mm_model *m, struct mm_error *err) {
    enum mm_code code = mm_code_ok;
    for (int i = 0; i < m->n_params && !code; i++) {
        const struct mm_param *p = &m->params[i];
        const int64_t n = mm_view_count(p->w);
        if (p->w.dtype == mm_dtype_f16) continue;
        float *x = mm_xmalloc((size_t)n * sizeof *x);
        mm_param_get(m, p->w, x);
        for (int64_t j = 0; j < n && !code; j++) {
            if (!isfinite(x[j]) || fabsf(x[j]) < 65520.0f) continue;
            code = mm_fail(err, mm_code_input,
                           "%s: tensor '%s' holds %g, and f16 ends at 65504; --dtype bf16 or f32 "
                           "can hold it",
                           m->path, p->name, (double)x[j]);
        }
        free(x);
    }
    return code;
}

static enum mm_code write_model(const struct source *s, enum mm_dtype dtype,
                                const struct mm_args *args, struct mm_error *err) {
    const char *folder = mm_args_positional(args, 1);
    struct mm_model_out out;
    if (mm_run_is_folder(folder)) {
        return mm_fail(err, mm_code_usage, "%s: holds a run; the model needs another folder",
                       folder);
    }
    if (dtype == mm_dtype_f16) MM_TRY(check_range(&s->model, err));
    MM_TRY(mm_model_out_begin(&out, folder, s->assets, err));
    const enum mm_code code = mm_model_save(&s->model, out.stage, dtype, s->assets, err);
    return mm_model_out_end(&out, code, err);
}

static void report(const struct source *s, enum mm_dtype dtype, const struct mm_args *args) {
    const long long parameters = (long long)mm_model_n_parameters(&s->model);
    if (mm_args_flag(args, "--json")) {
        printf("{\"parameters\": %lld, \"dtype\": \"%s\"}\n", parameters, mm_dtype_name(dtype));
    } else {
        mm_info("%s: %lld parameters, %s", mm_args_positional(args, 1), parameters,
                mm_dtype_name(dtype));
    }
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    if (mm_args_n_positional(args) != 2) {
        return mm_fail(err, mm_code_usage, "export: wanted RUN or MODEL, and OUT, got %d arguments",
                       mm_args_n_positional(args));
    }
    const char *text = mm_args_string(args, "--dtype");
    const int parsed = text ? mm_dtype_parse(text) : -1;
    if (text && parsed != mm_dtype_bf16 && parsed != mm_dtype_f16 && parsed != mm_dtype_f32) {
        return mm_fail(err, mm_code_usage, "export: --dtype is '%s', wanted bf16, f16 or f32",
                       text);
    }
    struct source s = {0};
    struct mm_backend *be;
    MM_TRY(mm_cli_backend(&be, args, err));
    enum mm_code code = open_source(&s, be, args, err);
    const enum mm_dtype dtype = text ? (enum mm_dtype)parsed : s.dtype;
    if (!code) code = write_model(&s, dtype, args, err);
    if (!code) report(&s, dtype, args);
    if (s.model.be) mm_model_deinit(&s.model);
    if (s.teacher.be) mm_model_deinit(&s.teacher);
    free(s.assets);
    mm_backend_close(be);
    return code;
}

int mm_cmd_export(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code =
        mm_cli_parse(&args, opts, "mmamba export RUN|MODEL OUT [OPTION]...",
                     "Writes a model folder in the released layout, which the published PyTorch "
                     "code loads.",
                     argc, argv, &done, &err);
    if (!code && !done) code = run(args, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
