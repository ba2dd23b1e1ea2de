// What a run keeps on disk, and how it is read again.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "io/file.h"
#include "io/json.h"
#include "train/plot.h"
#include "train/run_internal.h"

char *mm_run_path(const struct mm_run_options *o, const char *name) {
    return mm_path_join(o->out, name);
}

enum mm_code mm_run_describe(const struct mm_run_context *c, json_t **out, struct mm_error *err) {
    const struct mm_run_options *o = c->opt;
    json_t *stages = json_array();
    for (int i = 1; i <= 3; i++) {
        if (o->stages[i]) json_array_append_new(stages, json_integer(i));
    }
    static const char *const inits[] = {"scratch", "inherit", "mimic"};
    *out = json_pack("{s:s, s:s, s:s?, s:s?, s:s?, s:s, s:s, s:o, s:s, s:s, s:i, s:o}", "format",
                     "mmamba-run-1", "kind", o->distill ? "distill" : "train", "model", o->model,
                     "config", o->config, "data", o->data, "model_hash", c->model_hash, "data_hash",
                     c->data_hash, "stages", stages, "keep", o->distill ? o->keep : "all", "init",
                     inits[o->init], "threads", mm_pool_size(c->be->pool), "recipe",
                     mm_recipe_json(&o->recipe));
    if (*out == NULL) return mm_fail(err, mm_code_memory, "%s: run.json was not made", o->out);
    return mm_code_ok;
}

// Paths may change (a run folder can be moved); what they lead to may not.
static enum mm_code compare(const json_t *was, const json_t *now, const char *path,
                            struct mm_error *err) {
    static const char *const keys[] = {"kind", "model_hash", "data_hash", "stages",
                                       "keep", "init",       "recipe"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *a = json_object_get(was, keys[i]), *b = json_object_get(now, keys[i]);
        if (a && json_equal(a, b)) continue;
        char *x = a ? json_dumps(a, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        char *y = json_dumps(b, JSON_COMPACT | JSON_ENCODE_ANY);
        mm_fail(err, mm_code_input,
                "%s: this run was started with another '%s' (then %.200s, now %.200s); give the "
                "same options with --resume, or another folder",
                path, keys[i], x ? x : "nothing", y ? y : "nothing");
        free(x);
        free(y);
        return mm_code_input;
    }
    const int64_t a = json_integer_value(json_object_get(was, "threads"));
    const int64_t b = json_integer_value(json_object_get(now, "threads"));
    if (a != b) {
        mm_warn(
            "%s: the run was started with %lld threads and goes on with %lld: results may "
            "differ in the last bits",
            path, (long long)a, (long long)b);
    }
    return mm_code_ok;
}

enum mm_code mm_run_begin_folder(struct mm_run_context *c, struct mm_error *err) {
    const struct mm_run_options *o = c->opt;
    MM_TRY(mm_folder_make(o->out, err));
    json_t *now, *was = NULL;
    MM_TRY(mm_run_describe(c, &now, err));
    char *path = mm_run_path(o, "run.json");
    enum mm_code code = mm_code_ok;
    const bool exists = mm_path_exists(path);
    if (o->resume && !exists) {
        code = mm_fail(err, mm_code_input, "%s: there is no run to resume (no run.json)", o->out);
    } else if (!o->resume && exists) {
        code = mm_fail(err, mm_code_input,
                       "%s: holds a run already; --resume goes on with it, another folder starts "
                       "anew",
                       o->out);
    } else if (o->resume) {
        code = mm_json_load(&was, path, err);
        if (!code) code = compare(was, now, path, err);
    } else {
        code = mm_json_write_file(now, path, err);
    }
    json_decref(now);
    json_decref(was);
    free(path);
    return code;
}

// ---- checkpoint ---------------------------------------------------------------------------------

static const char at_key[] = "run";

static json_t *at_json(const struct mm_checkpoint *a) {
    return json_pack("{s:i, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I}", "stage", a->stage,
                     "step", (json_int_t)a->step, "total_steps", (json_int_t)a->total_steps,
                     "tokens", (json_int_t)a->tokens, "seconds", a->seconds, "loss", a->loss,
                     "epoch", (json_int_t)a->cursor.epoch, "index", (json_int_t)a->cursor.index,
                     "skipped", (json_int_t)a->cursor.skipped, "log_bytes",
                     (json_int_t)a->log_bytes);
}

static enum mm_code at_parse(struct mm_checkpoint *a, const char *text, const char *what,
                             struct mm_error *err) {
    json_t *o;
    MM_TRY(mm_json_parse(&o, text, strlen(text), what, err));
    int64_t stage = 0;
    const int64_t max = INT64_MAX;
    enum mm_code code = mm_json_int(o, "stage", 0, mm_run_done, true, &stage, what, err);
    if (!code) code = mm_json_int(o, "step", 0, max, true, &a->step, what, err);
    if (!code) code = mm_json_int(o, "total_steps", 0, max, true, &a->total_steps, what, err);
    if (!code) code = mm_json_int(o, "tokens", 0, max, true, &a->tokens, what, err);
    if (!code) code = mm_json_float(o, "seconds", 0, 1e18, true, &a->seconds, what, err);
    if (!code) code = mm_json_float(o, "loss", -1e300, 1e300, true, &a->loss, what, err);
    if (!code) code = mm_json_int(o, "epoch", 0, max, true, &a->cursor.epoch, what, err);
    if (!code) code = mm_json_int(o, "index", 0, max, true, &a->cursor.index, what, err);
    if (!code) code = mm_json_int(o, "skipped", 0, max, true, &a->cursor.skipped, what, err);
    if (!code) code = mm_json_int(o, "log_bytes", 0, max, true, &a->log_bytes, what, err);
    a->stage = (int)stage;
    json_decref(o);
    return code;
}

static enum mm_code open_checkpoint(struct mm_st **st, struct mm_run_context *c,
                                    struct mm_checkpoint *at, struct mm_error *err) {
    char *path = mm_run_path(c->opt, "checkpoint.safetensors");
    enum mm_code code = mm_st_open(st, path, err);
    if (!code) {
        const char *text = mm_st_metadata(*st, at_key);
        code = text ? at_parse(at, text, path, err)
                    : mm_fail(err, mm_code_input, "%s: not a checkpoint of a run", path);
        if (code) mm_st_close(*st);
    }
    free(path);
    return code;
}

enum mm_code mm_run_load_checkpoint(struct mm_run_context *c, struct mm_error *err) {
    char *path = mm_run_path(c->opt, "checkpoint.safetensors");
    const bool exists = mm_path_exists(path);
    free(path);
    if (!exists) return mm_code_ok;  // killed before the first one: from the start
    struct mm_st *st;
    MM_TRY(open_checkpoint(&st, c, &c->at, err));
    mm_st_close(st);
    return mm_code_ok;
}

char *mm_run_previous_stage(const struct mm_run_options *o, int stage) {
    for (int i = stage - 1; i >= 1; i--) {
        if (!o->stages[i]) continue;
        char name[64];
        snprintf(name, sizeof name, "stage%d.safetensors", i);
        return mm_run_path(o, name);
    }
    return NULL;
}

enum mm_code mm_run_restore(struct mm_run_context *c, struct mm_optim *o, struct mm_error *err) {
    struct mm_st *st;
    char *previous = c->opt->distill ? mm_run_previous_stage(c->opt, c->at.stage) : NULL;
    if (previous) {  // its f32 values, where the model's copies are rounded
        enum mm_code code = mm_st_open(&st, previous, err);
        if (!code) {
            code = mm_optim_load(o, st, false, err);
            mm_st_close(st);
        }
        free(previous);
        if (code) return code;
    }
    if (c->at.step == 0) return mm_code_ok;
    struct mm_checkpoint at;
    MM_TRY(open_checkpoint(&st, c, &at, err));
    const enum mm_code code = mm_optim_load(o, st, true, err);
    mm_st_close(st);
    return code;
}

// loss.png; a run does not fail for want of its picture.
static void draw_log(const struct mm_run_context *c) {
    char *log = mm_run_path(c->opt, "log.jsonl"), *png = mm_run_path(c->opt, "loss.png");
    struct mm_error err;
    if (mm_plot_loss(log, png, &err)) mm_warn("%s", err.text);
    free(png);
    free(log);
}

enum mm_code mm_run_save_checkpoint(struct mm_run_context *c, const struct mm_optim *o,
                                    struct mm_error *err) {
    if (c->log) {
        if (fflush(c->log) != 0) return mm_fail_errno(err, "%s/log.jsonl", c->opt->out);
        c->at.log_bytes = ftell(c->log);
    }
    if (c->at.total_steps > 0) draw_log(c);  // first, so that a finished run has its picture
    int n = 0;
    struct mm_st_tensor *tensors = o ? mm_optim_tensors(o, true, &n) : NULL;
    json_t *at = at_json(&c->at);
    char *text = json_dumps(at, JSON_COMPACT | JSON_REAL_PRECISION(17));
    const struct mm_st_meta meta = {at_key, text};
    char *path = mm_run_path(c->opt, "checkpoint.safetensors");
    const enum mm_code code = mm_st_write(path, tensors, n, &meta, 1, err);
    free(path);
    free(text);
    json_decref(at);
    if (o) mm_optim_tensors_free(o, tensors, n);
    return code;
}

static bool is_master(const struct mm_optim *o, int param) {
    for (int i = 0; i < o->n; i++) {
        if (o->slots[i].param == param) return true;
    }
    return false;
}

enum mm_code mm_run_save_stage(struct mm_run_context *c, int stage, const struct mm_optim *o,
                               struct mm_error *err) {
    if (stage == 0) return mm_code_ok;  // supervised: the model folder is the result
    const struct mm_model *m = &c->student;
    int n = 0, n_masters;
    struct mm_st_tensor *masters = mm_optim_tensors(o, false, &n_masters);
    struct mm_st_tensor *all = mm_xcalloc((size_t)m->n_params + 1, sizeof *all);
    float **values = mm_xcalloc((size_t)m->n_params, sizeof *values);
    memcpy(all, masters, (size_t)n_masters * sizeof *all);
    n = n_masters;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        if (p->borrowed || is_master(o, i)) continue;
        const size_t bytes = (size_t)mm_view_count(p->w) * sizeof(float);
        values[i] = mm_xmalloc(bytes);
        mm_param_get(m, p->w, values[i]);
        all[n] = (struct mm_st_tensor){p->name, mm_dtype_f32, p->n_axes, {0}, values[i], bytes};
        memcpy(all[n++].shape, p->shape, sizeof p->shape);
    }
    char name[64];
    snprintf(name, sizeof name, "stage%d.safetensors", stage);
    char *path = mm_run_path(c->opt, name);
    const enum mm_code code = mm_st_write(path, all, n, NULL, 0, err);
    free(path);
    for (int i = 0; i < m->n_params; i++)
        free(values[i]);
    free(values);
    free(all);
    mm_optim_tensors_free(o, masters, n_masters);
    return code;
}

// ---- log ----------------------------------------------------------------------------------------

enum mm_code mm_run_open_log(struct mm_run_context *c, struct mm_error *err) {
    char *path = mm_run_path(c->opt, "log.jsonl");
    c->log = fopen(path, c->opt->resume ? "r+" : "w");
    if (c->log == NULL && c->opt->resume && errno == ENOENT) c->log = fopen(path, "w");
    enum mm_code code = mm_code_ok;
    if (c->log == NULL) {
        code = mm_fail_errno(err, "%s", path);
    } else if (c->opt->resume) {  // lines after the checkpoint will be written again
        fseek(c->log, 0, SEEK_END);
        if (ftell(c->log) > c->at.log_bytes &&
            ftruncate(fileno(c->log), (off_t)c->at.log_bytes) != 0) {
            code = mm_fail_errno(err, "%s", path);
        }
        fseek(c->log, 0, SEEK_END);
    }
    free(path);
    return code;
}

enum mm_code mm_run_write_log(struct mm_run_context *c, json_t *line, struct mm_error *err) {
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    const bool bad = text == NULL || fprintf(c->log, "%s\n", text) < 0 || fflush(c->log) != 0;
    free(text);
    json_decref(line);
    return bad ? mm_fail_errno(err, "%s/log.jsonl", c->opt->out) : mm_code_ok;
}
