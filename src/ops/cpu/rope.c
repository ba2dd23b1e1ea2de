// Unpacking wqkv's output and rotating queries and keys.
#include <math.h>
#include "ops/cpu/kernels.h"

struct rope_job {
    const struct mm_kernels *k;
    struct mm_view q, key, v, qkv;
    const int32_t *pos;
    const double *freq;  // (P/2)
    float *tables;       // (threads, 2 * padded)
    int64_t padded;      // floats of a thread's cosines
    double pos_scale;
    bool back;
};

static void rope_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct rope_job *j = arg;
    const int64_t p_dim = j->q.shape[2], half = p_dim / 2, g_dim = j->key.shape[1];
    const int64_t ratio = j->q.shape[1] / g_dim;
    float *cosines = j->tables + 2 * thread * j->padded, *sines = cosines + j->padded;
    for (int64_t t = begin; t < end; t++) {
        j->k->angles(cosines, sines, (double)j->pos[t] * j->pos_scale, j->freq, half);
        for (int64_t g = 0; g < g_dim; g++) {
            float *packed = mm_view_at(j->qkv, t, g * (ratio + 2) * p_dim);
            float *v = mm_view_at(j->v, t, g * p_dim);
            for (int64_t h = 0; h <= ratio; h++, packed += p_dim) {
                float *head = h < ratio ? mm_view_at(j->q, t, (g * ratio + h) * p_dim)
                                        : mm_view_at(j->key, t, g * p_dim);
                j->k->turn(j->back ? packed : head, j->back ? head : packed, cosines, sines,
                           j->back ? -1.0f : 1.0f, half);
            }
            memcpy(j->back ? packed : v, j->back ? v : packed, (size_t)p_dim * sizeof *v);
        }
    }
}

static void rope(struct mm_backend *be, struct rope_job *j, float base) {
    const int64_t p_dim = j->q.shape[2], half = p_dim / 2;
    double *freq = mm_cpu_scratch(be, mm_scratch_a, (size_t)half * sizeof *freq);
    j->padded = (half + 31) / 32 * 32;
    const size_t floats = 2 * (size_t)(mm_pool_size(be->pool) * j->padded);
    j->tables = mm_cpu_scratch(be, mm_scratch_b, floats * sizeof *j->tables);
    if (!freq || !j->tables) return;
    for (int64_t i = 0; i < half; i++) {
        freq[i] = pow((double)base, -2.0 * (double)i / (double)p_dim);
    }
    j->freq = freq;
    j->k = mm_kernels_of(be);
    mm_parallel_for(be->pool, j->q.shape[0], 1 + 8192 / mm_view_cols(j->qkv), rope_rows, j);
}

void mm_qkv_rope_fwd_cpu(struct mm_backend *be, struct mm_view q, struct mm_view k,
                         struct mm_view v, struct mm_view qkv, struct mm_view pos, float base,
                         float pos_scale) {
    struct rope_job j = {
        .q = q, .key = k, .v = v, .qkv = qkv, .pos = pos.data, .pos_scale = (double)pos_scale};
    rope(be, &j, base);
}

void mm_qkv_rope_bwd_cpu(struct mm_backend *be, struct mm_view dqkv, struct mm_view dq,
                         struct mm_view dk, struct mm_view dv, struct mm_view pos, float base,
                         float pos_scale) {
    struct rope_job j = {.q = dq,
                         .key = dk,
                         .v = dv,
                         .qkv = dqkv,
                         .pos = pos.data,
                         .pos_scale = (double)pos_scale,
                         .back = true};
    rope(be, &j, base);
}
