// Model folders in: the released layout (stacked wvkqgdt, g_norm_swish_gate), the one of
// distillation checkpoints, and quantized models, read by mapping.
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/memory.h"
#include "io/file.h"

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
    return mm_code_ok;
}

// A tensor of weights for the view w of shape `shape`: numbers, or rows of a quantized format.
static enum mm_code check_weights(const struct mm_st *st, const struct mm_st_tensor *t,
                                  const struct mm_view *w, const int64_t *shape, int n_axes,
                                  struct mm_error *err) {
    if (mm_dtype_quantized(w->dtype)) {
        const int64_t rows[2] = {w->shape[0], mm_quant_row_bytes(w->dtype, mm_view_cols(*w))};
        if (t->dtype == mm_dtype_u8) return check_tensor(st, t, rows, 2, err);
        return mm_fail(err, mm_code_input,
                       "%s: tensor '%s' is %s, the config says that it is quantized (%s, stored "
                       "as U8)",
                       mm_st_path(st), t->name, mm_dtype_st_name(t->dtype),
                       mm_dtype_name(w->dtype));
    }
    MM_TRY(check_tensor(st, t, shape, n_axes, err));
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
    if (t->dtype == w.dtype || mm_dtype_quantized(w.dtype)) {
        m->be->upload(m->be, w.data, t->data, mm_view_bytes(w));
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

// What the forward does not use stays in the mapping wherever the backend computes: only code of
// the host looks at it.
static bool can_borrow(const struct mm_model *m, const struct mm_param *p,
                       const struct mm_st_tensor *t, enum mm_dtype want) {
    const bool quantized = mm_dtype_quantized(want);
    const size_t align = quantized ? mm_quant_align : mm_dtype_bytes(want);
    return (m->be->host_memory || !p->used) && (quantized || t->dtype == want) &&
           (uintptr_t)t->data % align == 0;
}

static enum mm_code missing(const struct mm_st *st, const char *name, struct mm_error *err) {
    return mm_fail(err, mm_code_input, "%s: tensor '%s' is missing", mm_st_path(st), name);
}

// A parameter or a stack of them, and where in the file it is.
struct place {
    int first, n;                   // parameters
    const struct mm_st_tensor *at;  // NULL: the parameters of the stack, each under its own name
    bool borrow;                    // used in the mapping, as it is stored
};

static enum mm_code find_stack(const struct mm_model *m, struct place *l, struct mm_error *err) {
    const struct mm_param *p = &m->params[l->first];
    char name[128];
    struct mm_view whole = p->w;
    while (l->first + l->n < m->n_params && p[l->n].stack == p->stack &&
           p[l->n].block == p->block) {
        whole.shape[0] += p[l->n++].shape[0];
    }
    l->at = mm_st_find(m->source, mm_param_released_name(p, name));
    if (l->at) {
        MM_TRY(check_weights(m->source, l->at, &whole, whole.shape, 2, err));
        l->borrow = can_borrow(m, p, l->at, p->w.dtype);
        return mm_code_ok;
    }
    for (int i = 0; i < l->n; i++) {
        const struct mm_st_tensor *t = mm_st_find(m->source, p[i].name);
        if (t == NULL || mm_model_quantized(m)) {
            return missing(m->source, i == 0 ? name : p[i].name, err);
        }
        MM_TRY(check_weights(m->source, t, &p[i].w, p[i].shape, p[i].n_axes, err));
    }
    return mm_code_ok;
}

static enum mm_code find_place(const struct mm_model *m, int first, struct place *l,
                               struct mm_error *err) {
    const struct mm_param *p = &m->params[first];
    *l = (struct place){.first = first, .n = 1};
    if (p->stack != mm_stack_none) return find_stack(m, l, err);
    char name[128];
    const char *released = mm_param_released_name(p, name);
    l->at = mm_st_find(m->source, p->name);
    if (l->at == NULL && released) l->at = mm_st_find(m->source, released);
    if (l->at == NULL) return missing(m->source, released ? released : p->name, err);
    MM_TRY(check_weights(m->source, l->at, &p->w, p->shape, p->n_axes, err));
    // what the forward does not use is carried along as it was stored
    l->borrow = can_borrow(m, p, l->at, p->used ? p->w.dtype : l->at->dtype);
    return mm_code_ok;
}

static enum mm_code load_place(struct mm_model *m, const struct place *l, struct mm_error *err) {
    struct mm_param *p = &m->params[l->first];
    if (l->borrow) {
        if (!p->used) p->w.dtype = l->at->dtype;
        mm_param_place(m, l->first, (void *)(uintptr_t)l->at->data, true);
        return mm_code_ok;
    }
    MM_TRY(mm_model_own(m, l->first, err));
    if (l->at) {
        put_tensor(m, p->stack == mm_stack_none ? p->w : mm_param_stack(m, p), l->at);
        return mm_code_ok;
    }
    for (int i = 0; i < l->n; i++)
        put_tensor(m, p[i].w, mm_st_find(m->source, p[i].name));
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
            known = mm_param_released_name(&m->params[j], released) && strcmp(released, name) == 0;
        }
        if (!known && unknown++ == 0) first = name;
    }
    if (unknown > 0) {
        mm_warn("%s: %d tensor%s not part of this model and ignored, the first is '%s'",
                mm_st_path(m->source), unknown, unknown == 1 ? " is" : "s are", first);
    }
}

// The host hands out pages it does not have, and kills whoever touches them: what has to be copied
// or converted is counted before anything is.
static enum mm_code check_memory(const struct mm_model *m, size_t bytes, struct mm_error *err) {
    const int64_t room = m->be->host_memory ? mm_memory_available() : m->be->available(m->be);
    if (bytes <= (size_t)room) return mm_code_ok;
    if (!m->be->host_memory) {
        return mm_fail(err, mm_code_memory,
                       "%s: the weights take %.2f GiB and %.2f GiB of the memory of %s are free",
                       m->path, (double)bytes / 1073741824.0, (double)room / 1073741824.0,
                       m->be->device);
    }
    return mm_fail(
        err, mm_code_memory,
        "%s: the weights take %.2f GiB in %s, which is not how they are stored, and %.2f "
        "GiB are free; `mmamba export --dtype %s` on a larger machine writes them so "
        "that they need no copy, or use them as they are stored",
        m->path, (double)bytes / 1073741824.0, mm_dtype_name(m->dtype), (double)room / 1073741824.0,
        mm_dtype_name(m->dtype));
}

static enum mm_code load_all(struct mm_model *m, struct mm_error *err) {
    struct place l;
    size_t bytes = 0;
    for (int i = 0; i < m->n_params; i += l.n) {
        MM_TRY(find_place(m, i, &l, err));
        if (!l.borrow) bytes += mm_param_place_bytes(m, i);
    }
    MM_TRY(check_memory(m, bytes, err));
    for (int i = 0; i < m->n_params; i += l.n) {
        MM_TRY(find_place(m, i, &l, err));
        MM_TRY(load_place(m, &l, err));
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
        // the output, or where that is quantized, the embeddings
        const struct mm_st_tensor *t = mm_st_find(st, "language_model.output.weight");
        if (mm_dtype_quantized(config.quant)) {
            t = mm_st_find(st, "embedding_model.llm_text_embeddings.weight");
        }
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
    MM_TRY(mm_model_refuse_quantized(m, "tensors of a checkpoint cannot be put into them", err));
    for (int i = 0; i < mm_st_count(st); i++) {
        const struct mm_st_tensor *t = mm_st_at(st, i);
        int found = mm_model_find(m, t->name);
        bool whole_stack = false;
        for (int j = 0; found < 0 && j < m->n_params; j++) {
            char name[128];
            if (mm_param_released_name(&m->params[j], name) && strcmp(name, t->name) == 0) {
                found = j;
                whole_stack = m->params[j].stack != mm_stack_none;
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
            w = mm_param_stack(m, p);
            MM_TRY(check_weights(st, t, &w, w.shape, 2, err));
        } else {
            MM_TRY(check_weights(st, t, &w, p->shape, p->n_axes, err));
        }
        put_tensor(m, w, t);
    }
    return mm_backend_sync(m->be, err);
}
