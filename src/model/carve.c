// Carving a Mamba-2 student out of a Transformer (docs/MODEL.md section 3): output projections and
// everything outside the mixers stay the teacher's, in the teacher's memory; the mixers start from
// the teacher's queries, keys and values, or from nothing.
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"

int mm_init_parse(const char *text) {
    static const char *const names[] = {"scratch", "inherit", "mimic"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) return i;
    }
    return -1;
}

static void fill(float *x, int64_t n, float value) {
    for (int64_t i = 0; i < n; i++)
        x[i] = value;
}

static void fill_uniform(float *x, int64_t n, double a, struct mm_rng *r) {
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)mm_rng_uniform(r, -a, a);
}

// Rows of wqkv, packed a group at a time (H/G query heads, a key head, a value head), to the rows
// of q, k and v.
static void unpack_qkv(float *v, float *k, float *q, const float *wqkv,
                       const struct mm_stack_config *s) {
    const int64_t per = s->H / s->G, head = s->P * s->D;
    for (int64_t g = 0; g < s->G; g++) {
        const float *group = wqkv + g * (per + 2) * head;
        memcpy(q + g * per * head, group, (size_t)(per * head) * sizeof *q);
        memcpy(k + g * head, group + per * head, (size_t)head * sizeof *k);
        memcpy(v + g * head, group + (per + 1) * head, (size_t)head * sizeof *v);
    }
}

// Start values of one new parameter (section 3).
static void start_values(float *x, const struct mm_param *p, const struct mm_stack_config *s,
                         enum mm_init init, uint64_t seed) {
    const int64_t n = mm_view_count(p->w);
    struct mm_rng r = mm_rng_make(seed, mm_rng_stream(p->name));
    const bool mimic = init == mm_init_mimic;
    const double D = (double)s->D;
    switch (p->role) {
        case mm_role_q_proj:
        case mm_role_k_proj:
        case mm_role_v_proj:
            fill_uniform(x, n, 1.0 / sqrt(D), &r);
            break;
        case mm_role_g_proj:  // Xavier-uniform, gain 2^-2.5
            fill_uniform(x, n, pow(2.0, -2.5) * sqrt(6.0 / (D + (double)(s->H * s->P))), &r);
            break;
        case mm_role_in_proj:
            if (mimic) {
                fill(x, n, 0.0f);
            } else {
                fill_uniform(x, n, 1.0 / sqrt(D), &r);
            }
            break;
        case mm_role_conv_w:
            if (mimic) {  // passes the present token through
                for (int64_t i = 0; i < n; i++)
                    x[i] = i % s->K == s->K - 1 ? 1.0f : 0.0f;
                break;
            }
            fill_uniform(x, n, 1.0 / sqrt((double)s->K), &r);
            break;
        case mm_role_conv_b:
            if (mimic) {
                fill(x, n, 0.0f);
            } else {
                fill_uniform(x, n, 1.0 / sqrt((double)s->K), &r);
            }
            break;
        case mm_role_dt_bias:
            fill(x, n, 0.0f);
            for (int64_t i = 0; mimic && i < n; i++) {
                const double dt = exp(mm_rng_uniform(&r, log(0.001), log(0.1)));
                x[i] = (float)(dt + log(-expm1(-dt)));  // inverse softplus
            }
            break;
        case mm_role_A_log:
            for (int64_t i = 0; i < n; i++) {
                x[i] = mimic ? 1.0f : (float)log(mm_rng_uniform(&r, 1.0, 16.0));
            }
            break;
        case mm_role_q_norm_b:
        case mm_role_k_norm_b:
            fill(x, n, 0.0f);
            break;
        default:  // g_norm, D, weights of the q and k norms
            fill(x, n, 1.0f);
            break;
    }
}

// New values for the mixer parameters of block i.
static void start_block(struct mm_model *student, const struct mm_model *teacher, int64_t i,
                        enum mm_init init, uint64_t seed) {
    const struct mm_block *b = &student->blocks[i];
    const struct mm_stack_config *s = b->stack;
    const size_t qkv_count = (size_t)((s->H + 2 * s->G) * s->P * s->D);
    float *v = mm_xmalloc(qkv_count * sizeof *v);
    float *k = v + s->G * s->P * s->D, *q = k + s->G * s->P * s->D;
    if (init != mm_init_scratch) {
        float *wqkv = mm_xmalloc(qkv_count * sizeof *wqkv);
        mm_param_get(teacher, mm_block_w(teacher, &teacher->blocks[i], mm_role_wqkv), wqkv);
        unpack_qkv(v, k, q, wqkv, s);
        free(wqkv);
    }
    for (int r = mm_role_v_proj; r <= mm_role_g_norm; r++) {
        if (b->p[r] < 0) continue;
        const struct mm_param *p = &student->params[b->p[r]];
        if (init != mm_init_scratch && r <= mm_role_q_proj) {
            mm_param_put(student, p->w, r == mm_role_v_proj ? v : r == mm_role_k_proj ? k : q);
            continue;
        }
        float *x = mm_xmalloc((size_t)mm_view_count(p->w) * sizeof *x);
        start_values(x, p, s, init, seed);
        mm_param_put(student, p->w, x);
        free(x);
    }
    free(v);
}

enum mm_code mm_model_carve(struct mm_model *student, const struct mm_model *teacher,
                            const bool *keep, enum mm_init init, uint64_t seed,
                            struct mm_error *err) {
    *student = (struct mm_model){0};
    MM_TRY(mm_model_refuse_quantized(teacher, "a student starts from exact ones", err));
    for (int64_t i = 0; i < teacher->n_blocks; i++) {
        if (teacher->blocks[i].mixer != mm_mixer_mha) {
            return mm_fail(err, mm_code_input,
                           "%s: block %lld is already a Mamba-2 block; a teacher has attention in "
                           "every block",
                           teacher->path, (long long)i);
        }
    }
    struct mm_config config = {0};
    MM_TRY(mm_config_student(&config, &teacher->config, keep, err));
    mm_model_init(student, &config, teacher->be, teacher->dtype);
    mm_config_deinit(&config);
    snprintf(student->path, sizeof student->path, "%s", teacher->path);
    for (int i = 0; i < student->n_params; i++) {
        struct mm_param *p = &student->params[i];
        int from = -1;
        if (p->block < 0) {
            from = teacher->global[p->role];
        } else if (teacher->blocks[p->block].p[p->role] >= 0) {
            from = teacher->blocks[p->block].p[p->role];
        }
        if (from >= 0) {
            p->w = teacher->params[from].w;
            p->borrowed = true;
        }
    }
    enum mm_code code = mm_model_alloc(student, err);
    for (int64_t i = 0; !code && i < student->n_blocks; i++) {
        if (student->blocks[i].mixer == mm_mixer_mamba2) {
            start_block(student, teacher, i, init, seed);
        }
    }
    if (code) mm_model_deinit(student);
    return code ? code : mm_backend_sync(student->be, err);
}
