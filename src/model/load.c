// Model folders in and out: the released layout (stacked wvkqgdt, g_norm_swish_gate) and the one
// of distillation checkpoints, read by mapping and written atomically.
#include "model/model.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "io/file.h"

static bool is_stacked(enum mm_role role) {
    return role >= mm_role_v_proj && role <= mm_role_in_proj;
}

// The name in a released checkpoint where it differs: written to out, else NULL.
static const char *released_name(const struct mm_param *p, char out[128]) {
    const char *from, *to;
    if (is_stacked(p->role)) {
        from = strrchr(p->name, '.') ? strstr(p->name, ".attention.") : NULL;
        to = ".attention.wvkqgdt.weight";
    } else if (p->role == mm_role_g_norm) {
        from = strstr(p->name, ".attention.");
        to = ".attention.g_norm_swish_gate.weight";
    } else {
        return NULL;
    }
    assert(from);
    snprintf(out, 128, "%.*s%s", (int)(from - p->name), p->name, to);
    return out;
}

static void shape_text(char *out, size_t cap, const int64_t *shape, int n) {
    size_t used = (size_t)snprintf(out, cap, "(");
    for (int i = 0; i < n && used < cap; i++) {
        used +=
            (size_t)snprintf(out + used, cap - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    }
    if (used < cap) snprintf(out + used, cap - used, ")");
}

static enum mm_code check_tensor(const struct mm_st *st, const struct mm_st_tensor *t,
                                 const int64_t *shape, int n_axes, struct mm_error *err) {
    bool same = t->n_axes == n_axes;
    for (int i = 0; same && i < n_axes; i++)
        same = t->shape[i] == shape[i];
    if (!same) {
        char seen[128], wanted[128];
        shape_text(seen, sizeof seen, t->shape, t->n_axes);
        shape_text(wanted, sizeof wanted, shape, n_axes);
        return mm_fail(err, mm_code_input, "%s: tensor '%s' has shape %s, the config wants %s",
                       mm_st_path(st), t->name, seen, wanted);
    }
    if (t->dtype != mm_dtype_f32 && t->dtype != mm_dtype_bf16 && t->dtype != mm_dtype_f16) {
        return mm_fail(err, mm_code_input, "%s: tensor '%s' is %s; weights are F32, F16 or BF16",
                       mm_st_path(st), t->name, mm_dtype_st_name(t->dtype));
    }
    return mm_code_ok;
}

// Values of a tensor into a parameter's memory, converted a slice at a time.
static void put_tensor(struct mm_model *m, struct mm_view w, const struct mm_st_tensor *t) {
    enum { slice = 1 << 18 };
    const int64_t n = mm_view_count(w);
    const size_t from = mm_dtype_bytes(t->dtype), to = mm_dtype_bytes(w.dtype);
    if (t->dtype == w.dtype) {
        m->be->upload(m->be, w.data, t->data, (size_t)n * to);
        return;
    }
    char *raw = mm_xmalloc(slice * 4), *half = mm_xmalloc(slice * 4);
    float *values = mm_xmalloc(slice * sizeof *values);
    for (int64_t i = 0; i < n; i += slice) {
        const int64_t count = n - i < slice ? n - i : slice;
        memcpy(raw, (const char *)t->data + (size_t)i * from, (size_t)count * from);
        mm_to_f32(values, raw, t->dtype, count);
        const void *src = values;
        if (w.dtype != mm_dtype_f32) {
            mm_from_f32(half, w.dtype, values, count);
            src = half;
        }
        m->be->upload(m->be, (char *)w.data + (size_t)i * to, src, (size_t)count * to);
    }
    free(raw);
    free(half);
    free(values);
}

static bool can_borrow(const struct mm_model *m, const struct mm_st_tensor *t, enum mm_dtype want) {
    return m->be->host_memory && t->dtype == want && (uintptr_t)t->data % mm_dtype_bytes(want) == 0;
}

static enum mm_code missing(const struct mm_st *st, const char *name, struct mm_error *err) {
    return mm_fail(err, mm_code_input, "%s: tensor '%s' is missing", mm_st_path(st), name);
}

// The five stacked parameters of one block: one wvkqgdt tensor, or five.
static enum mm_code load_stacked(struct mm_model *m, int first, struct mm_error *err) {
    struct mm_param *p = &m->params[first];
    struct mm_block *b = &m->blocks[p->block];
    const int64_t D = b->stack->D;
    int64_t Z = 0;
    for (int i = 0; i < 5; i++)
        Z += m->params[first + i].shape[0];
    char name[128];
    const struct mm_st_tensor *t = mm_st_find(m->source, released_name(p, name));
    if (t) {
        MM_TRY(check_tensor(m->source, t, (const int64_t[]){Z, D}, 2, err));
        if (can_borrow(m, t, m->dtype)) {
            mm_block_stack_at(m, p->block, (void *)(uintptr_t)t->data);
            for (int i = 0; i < 5; i++)
                m->params[first + i].borrowed = true;
            return mm_code_ok;
        }
        MM_TRY(mm_model_own(m, first, err));
        put_tensor(m, b->wvkqgdt, t);
        return mm_code_ok;
    }
    for (int i = 0; i < 5; i++) {
        const struct mm_param *q = &m->params[first + i];
        const struct mm_st_tensor *s = mm_st_find(m->source, q->name);
        if (s == NULL) return missing(m->source, i == 0 ? name : q->name, err);
        MM_TRY(check_tensor(m->source, s, q->shape, q->n_axes, err));
    }
    MM_TRY(mm_model_own(m, first, err));
    for (int i = 0; i < 5; i++) {
        put_tensor(m, m->params[first + i].w, mm_st_find(m->source, m->params[first + i].name));
    }
    return mm_code_ok;
}

static enum mm_code load_param(struct mm_model *m, int i, struct mm_error *err) {
    struct mm_param *p = &m->params[i];
    const struct mm_st_tensor *t = mm_st_find(m->source, p->name);
    char name[128];
    if (t == NULL && released_name(p, name)) t = mm_st_find(m->source, name);
    if (t == NULL) return missing(m->source, released_name(p, name) ? name : p->name, err);
    MM_TRY(check_tensor(m->source, t, p->shape, p->n_axes, err));
    if (!p->used || can_borrow(m, t, p->w.dtype)) {
        // what the forward does not use is carried along as it was stored
        if (m->be->host_memory && (uintptr_t)t->data % mm_dtype_bytes(t->dtype) == 0) {
            p->w.dtype = t->dtype;
            p->w.data = (void *)(uintptr_t)t->data;
            p->borrowed = true;
            return mm_code_ok;
        }
    }
    MM_TRY(mm_model_own(m, i, err));
    put_tensor(m, p->w, t);
    return mm_code_ok;
}

// Tensors of the file that the model does not know: told, not an error, since published folders
// carry buffers such as rotary tables.
static void tell_unknown(const struct mm_model *m) {
    int unknown = 0;
    const char *first = NULL;
    for (int i = 0; i < mm_st_count(m->source); i++) {
        const char *name = mm_st_at(m->source, i)->name;
        bool known = mm_model_find(m, name) >= 0 || strstr(name, "rotary_emb.inv_freq");
        char released[128];
        for (int j = 0; !known && j < m->n_params; j++) {
            known = released_name(&m->params[j], released) && strcmp(released, name) == 0;
        }
        if (!known && unknown++ == 0) first = name;
    }
    if (unknown > 0) {
        mm_warn("%s: %d tensor%s not part of this model and ignored, the first is '%s'",
                mm_st_path(m->source), unknown, unknown == 1 ? " is" : "s are", first);
    }
}

static enum mm_code load_all(struct mm_model *m, struct mm_error *err) {
    for (int i = 0; i < m->n_params; i++) {
        if (m->params[i].role == mm_role_v_proj) {
            MM_TRY(load_stacked(m, i, err));
            i += 4;
        } else {
            MM_TRY(load_param(m, i, err));
        }
    }
    tell_unknown(m);
    return mm_backend_sync(m->be, err);
}

static enum mm_code open_source(struct mm_st **st, struct mm_config *config, const char *path,
                                struct mm_error *err) {
    const char *colon = strstr(path, ".json:");
    if (colon) {
        char *config_path = mm_xasprintf("%.*s.json", (int)(colon - path), path);
        enum mm_code code = mm_config_read(config, config_path, err);
        free(config_path);
        if (code) return code;
        code = mm_st_open(st, colon + strlen(".json:"), err);
        if (code) mm_config_deinit(config);
        return code;
    }
    if (!mm_path_is_folder(path)) {
        return mm_fail(err, mm_code_input,
                       "%s: not a model folder (wanted: a folder with config.json and "
                       "model.safetensors, or CONFIG.json:WEIGHTS.safetensors)",
                       path);
    }
    char *config_path = mm_path_join(path, "config.json");
    enum mm_code code = mm_config_read(config, config_path, err);
    free(config_path);
    if (code) return code;
    code = mm_st_open_folder(st, path, err);
    if (code) mm_config_deinit(config);
    return code;
}

enum mm_code mm_model_load(struct mm_model *m, struct mm_backend *be, const char *path, int dtype,
                           struct mm_error *err) {
    *m = (struct mm_model){0};
    struct mm_config config = {0};
    struct mm_st *st = NULL;
    MM_TRY(open_source(&st, &config, path, err));
    enum mm_dtype want = mm_dtype_f32;
    if (dtype >= 0) {
        want = (enum mm_dtype)dtype;
    } else {
        const struct mm_st_tensor *t = mm_st_find(st, "language_model.output.weight");
        if (t && (t->dtype == mm_dtype_bf16 || t->dtype == mm_dtype_f16)) want = t->dtype;
    }
    mm_model_init(m, &config, be, want);
    mm_config_deinit(&config);
    m->source = st;
    snprintf(m->path, sizeof m->path, "%s", path);
    const enum mm_code code = load_all(m, err);
    if (code) mm_model_deinit(m);
    return code;
}

enum mm_code mm_model_apply(struct mm_model *m, const struct mm_st *st, bool others,
                            struct mm_error *err) {
    for (int i = 0; i < mm_st_count(st); i++) {
        const struct mm_st_tensor *t = mm_st_at(st, i);
        int found = mm_model_find(m, t->name);
        bool whole_stack = false;
        for (int j = 0; found < 0 && j < m->n_params; j++) {
            char name[128];
            if (released_name(&m->params[j], name) && strcmp(name, t->name) == 0) {
                found = j;
                whole_stack = is_stacked(m->params[j].role);
            }
        }
        if (found < 0 && others) continue;
        if (found < 0) {
            return mm_fail(err, mm_code_input, "%s: tensor '%s' is not part of this model",
                           mm_st_path(st), t->name);
        }
        struct mm_param *p = &m->params[found];
        struct mm_view w = p->w;
        if (p->borrowed) MM_TRY(mm_model_own(m, found, err));
        w = p->w;
        if (whole_stack) {
            w = m->blocks[p->block].wvkqgdt;
            MM_TRY(check_tensor(st, t, w.shape, 2, err));
        } else {
            MM_TRY(check_tensor(st, t, p->shape, p->n_axes, err));
        }
        put_tensor(m, w, t);
    }
    return mm_backend_sync(m->be, err);
}

// ---- writing ------------------------------------------------------------------------------------

// What is to be written: a tensor that is not in memory as it will be in the file is converted a
// slice at a time while it is written, so that nothing is held twice.
struct saving {
    const struct mm_model *m;
    struct mm_st_tensor *tensors;
    struct mm_view *from;
    char (*names)[128];
    int n;
};

static void collect_tensors(struct saving *s, enum mm_dtype dtype) {
    const struct mm_model *m = s->m;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        struct mm_view w = p->w;
        char *name = s->names[s->n];
        struct mm_st_tensor *t = &s->tensors[s->n];
        *t = (struct mm_st_tensor){.name = name, .dtype = dtype, .n_axes = p->n_axes};
        memcpy(t->shape, p->shape, sizeof p->shape);
        if (released_name(p, name) == NULL) snprintf(name, 128, "%s", p->name);
        if (is_stacked(p->role)) {
            w = m->blocks[p->block].wvkqgdt;
            t->shape[0] = w.shape[0];
            i += 4;
        }
        t->bytes = (size_t)mm_view_count(w) * mm_dtype_bytes(dtype);
        if (w.dtype == dtype && m->be->host_memory) t->data = w.data;
        s->from[s->n++] = w;
    }
}

static enum mm_code write_converted(void *arg, int i, struct mm_st_sink *to, struct mm_error *err) {
    enum { slice = 1 << 18 };
    const struct saving *s = arg;
    const struct mm_view w = s->from[i];
    const enum mm_dtype dtype = s->tensors[i].dtype;
    const int64_t n = mm_view_count(w);
    const size_t each = mm_dtype_bytes(dtype);
    float *values = mm_xmalloc(slice * sizeof *values);
    char *half = mm_xmalloc(slice * sizeof(float));
    enum mm_code code = mm_code_ok;
    for (int64_t at = 0; at < n && !code; at += slice) {
        const int64_t count = n - at < slice ? n - at : slice;
        char *first = (char *)w.data + (size_t)at * mm_dtype_bytes(w.dtype);
        mm_param_get(s->m, mm_view1(first, w.dtype, count), values);
        if (dtype != mm_dtype_f32) mm_from_f32(half, dtype, values, count);
        code = mm_backend_sync(s->m->be, err);
        if (!code)
            code = mm_st_put(to, dtype == mm_dtype_f32 ? (void *)values : half,
                             (size_t)count * each, err);
    }
    free(half);
    free(values);
    return code;
}

enum mm_code mm_model_save(const struct mm_model *m, const char *folder, enum mm_dtype dtype,
                           const char *assets_from, struct mm_error *err) {
    MM_TRY(mm_folder_make(folder, err));
    const size_t cap = (size_t)m->n_params;
    struct saving s = {.m = m,
                       .tensors = mm_xcalloc(cap, sizeof *s.tensors),
                       .from = mm_xcalloc(cap, sizeof *s.from),
                       .names = mm_xcalloc(cap, sizeof *s.names)};
    collect_tensors(&s, dtype);
    const struct mm_st_source source = {write_converted, &s};
    struct mm_config config = {0};
    enum mm_code code = mm_config_copy(&config, &m->config, err);
    if (!code) {
        mm_config_set_dtype(&config, dtype == mm_dtype_f32    ? "float32"
                                     : dtype == mm_dtype_bf16 ? "bfloat16"
                                                              : "float16");
        code = mm_st_write_folder(folder, s.tensors, s.n, &source, (size_t)5 << 30, err);
    }
    if (!code) {
        char *path = mm_path_join(folder, "config.json");
        code = mm_config_write(&config, path, err);
        free(path);
    }
    if (!code && assets_from && mm_path_is_folder(assets_from)) {
        code = mm_model_copy_assets(assets_from, folder, &config, err);
    }
    mm_config_deinit(&config);
    free(s.names);
    free(s.from);
    free(s.tensors);
    return code;
}
