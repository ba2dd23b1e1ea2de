#include "train/optim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static size_t param_bytes(const struct mm_param *p) {
    return ((size_t)mm_view_count(p->w) * sizeof(float) + 63) / 64 * 64;
}

size_t mm_optim_plan(const struct mm_model *m, const struct mm_stage_recipe *r) {
    size_t bytes = 64;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        if (!mm_recipe_trains(r, p)) continue;
        bytes += param_bytes(p) * (p->w.dtype == mm_dtype_f32 ? 2 : 3);
    }
    return bytes;
}

enum mm_code mm_optim_init(struct mm_optim *o, struct mm_model *m, const struct mm_stage_recipe *r,
                           struct mm_error *err) {
    *o = (struct mm_optim){.model = m, .recipe = *r, .bytes = mm_optim_plan(m, r)};
    o->slots = mm_xcalloc((size_t)m->n_params, sizeof *o->slots);
    MM_TRY(m->be->alloc(m->be, o->bytes, &o->block, err));
    char *at = o->block;
    o->norm = mm_view1(at, mm_dtype_f32, 1);
    at += 64;
    for (int i = 0; i < m->n_params; i++) {
        struct mm_param *p = &m->params[i];
        if (!mm_recipe_trains(r, p)) continue;
        if (p->borrowed) MM_TRY(mm_model_own(m, i, err));
        struct mm_slot *s = &o->slots[o->n++];
        s->param = i;
        s->w = s->m = s->v = p->w;
        s->w.dtype = s->m.dtype = s->v.dtype = mm_dtype_f32;
        s->m.data = at, at += param_bytes(p);
        s->v.data = at, at += param_bytes(p);
        if (p->w.dtype != mm_dtype_f32) {
            s->w.data = at, at += param_bytes(p);
            mm_copy(m->be, s->w, p->w);
        }
    }
    return mm_backend_sync(m->be, err);
}

void mm_optim_deinit(struct mm_optim *o) {
    if (o->block) o->model->be->release(o->model->be, o->block, o->bytes);
    free(o->slots);
    *o = (struct mm_optim){0};
}

size_t mm_optim_moment_bytes(const struct mm_optim *o) {
    size_t bytes = 0;
    for (int i = 0; i < o->n; i++)
        bytes += 2 * param_bytes(&o->model->params[o->slots[i].param]);
    return bytes;
}

void mm_optim_publish(struct mm_optim *o) {
    for (int i = 0; i < o->n; i++) {
        const struct mm_view w = o->model->params[o->slots[i].param].w;
        if (w.data != o->slots[i].w.data) mm_copy(o->model->be, w, o->slots[i].w);
    }
}

enum mm_code mm_optim_step(struct mm_optim *o, struct mm_grads *g, int64_t step, double *norm,
                           struct mm_error *err) {
    struct mm_backend *be = o->model->be;
    const struct mm_stage_recipe *r = &o->recipe;
    mm_fill(be, o->norm, 0.0f);
    for (int i = 0; i < o->n; i++)
        mm_sum_squares(be, o->norm, g->of[o->slots[i].param]);
    float squares = 0.0f;
    be->download(be, &squares, o->norm.data, sizeof squares);
    MM_TRY(mm_backend_sync(be, err));
    *norm = sqrt((double)squares);
    if (!isfinite(*norm)) {
        return mm_fail(err, mm_code_input,
                       "step %lld: the gradient's norm is %s; lower the learning rate or check the "
                       "data",
                       (long long)step, isnan(*norm) ? "not a number" : "infinite");
    }
    struct mm_adamw h = {
        .lr = (float)mm_recipe_lr(r, step),
        .b1 = (float)r->b1,
        .b2 = (float)r->b2,
        .eps = (float)r->eps,
        .bias1 = (float)(1.0 - pow(r->b1, (double)(step + 1))),
        .bias2 = (float)(1.0 - pow(r->b2, (double)(step + 1))),
        .grad_scale = 1.0f,
    };
    if (r->clip > 0.0 && *norm > r->clip) h.grad_scale = (float)(r->clip / (*norm + 1e-6));
    for (int i = 0; i < o->n; i++) {
        const struct mm_slot *s = &o->slots[i];
        h.decay = o->model->params[s->param].decay ? (float)r->weight_decay : 0.0f;
        mm_adamw(be, s->w, s->m, s->v, g->of[s->param], h);
    }
    mm_optim_publish(o);
    return mm_backend_sync(be, err);
}

static const char kinds[3][4] = {"w.", "m.", "v."};

static struct mm_view part(const struct mm_slot *s, int kind) {
    return kind == 0 ? s->w : kind == 1 ? s->m : s->v;
}

struct mm_st_tensor *mm_optim_tensors(const struct mm_optim *o, bool moments, int *n) {
    struct mm_st_tensor *t = mm_xcalloc((size_t)o->n * 3 + 1, sizeof *t);
    *n = 0;
    for (int i = 0; i < o->n; i++) {
        const struct mm_slot *s = &o->slots[i];
        const struct mm_param *p = &o->model->params[s->param];
        for (int k = 0; k < (moments ? 3 : 1); k++) {
            const size_t bytes = (size_t)mm_view_count(s->w) * sizeof(float);
            void *values = part(s, k).data;
            if (!o->model->be->host_memory) {
                values = mm_xmalloc(bytes);
                o->model->be->download(o->model->be, values, part(s, k).data, bytes);
            }
            t[*n] = (struct mm_st_tensor){mm_xasprintf("%s%s", moments ? kinds[k] : "", p->name),
                                          mm_dtype_f32,
                                          p->n_axes,
                                          {0},
                                          values,
                                          bytes};
            memcpy(t[(*n)++].shape, p->shape, sizeof p->shape);
        }
    }
    return t;
}

void mm_optim_tensors_free(const struct mm_optim *o, struct mm_st_tensor *t, int n) {
    for (int i = 0; i < n; i++) {
        free((void *)(uintptr_t)t[i].name);
        if (!o->model->be->host_memory) free((void *)(uintptr_t)t[i].data);
    }
    free(t);
}

enum mm_code mm_optim_load(struct mm_optim *o, const struct mm_st *st, bool moments,
                           struct mm_error *err) {
    for (int i = 0; i < o->n; i++) {
        const struct mm_slot *s = &o->slots[i];
        const struct mm_param *p = &o->model->params[s->param];
        for (int k = 0; k < (moments ? 3 : 1); k++) {
            char name[128];
            snprintf(name, sizeof name, "%s%s", moments ? kinds[k] : "", p->name);
            const struct mm_st_tensor *t = mm_st_find(st, name);
            if (t == NULL && !moments) continue;
            const size_t bytes = (size_t)mm_view_count(s->w) * sizeof(float);
            if (t == NULL || t->dtype != mm_dtype_f32 || t->bytes != bytes) {
                return mm_fail(err, mm_code_input,
                               "%s: tensor '%s' is missing or not F32 of %zu bytes: not a "
                               "checkpoint of this run",
                               mm_st_path(st), name, bytes);
            }
            o->model->be->upload(o->model->be, part(s, k).data, t->data, bytes);
        }
    }
    mm_optim_publish(o);
    return mm_backend_sync(o->model->be, err);
}
