// Model folders out: the released layout, written atomically.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/file.h"
#include "model/model.h"

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
        if (mm_param_released_name(p, name) == NULL) snprintf(name, 128, "%s", p->name);
        if (p->stack != mm_stack_none) {
            w = mm_param_stack(m, p);
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
    MM_TRY(mm_model_refuse_quantized(m, "the released layout has no place for them", err));
    MM_TRY(mm_folder_make(folder, err));
    const size_t cap = (size_t)m->n_params;
    struct saving s = {.m = m,
                       .tensors = mm_xcalloc(cap, sizeof *s.tensors),
                       .from = mm_xcalloc(cap, sizeof *s.from),
                       .names = mm_xcalloc(cap, sizeof *s.names)};
    collect_tensors(&s, dtype);
    const struct mm_st_source source = {write_converted, &s, false};
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
