// Unpacking wqkv's output and rotating queries and keys. Angles in double: positions reach a
// million. A thread has one pair of one position and turns it in every head.
#include "ops/cuda/cuda.h"

struct rope {
    struct mm_mat q, k, v, qkv;
    const int32_t *pos;
    int half, groups, ratio;
    float base, pos_scale;
};

static __device__ void angle_of(const struct rope &o, int64_t t, int64_t i, float *c, float *s) {
    const double where = (double)o.pos[t] * (double)o.pos_scale;
    double sd, cd;
    sincos(where * pow((double)o.base, -(double)i / (double)o.half), &sd, &cd);
    *c = (float)cd, *s = (float)sd;
}

static __device__ void turn(const struct mm_mat &y, int64_t to, const struct mm_mat &x,
                            int64_t from, int64_t t, int64_t i, int half, float c, float s) {
    const float a = x(t, from + i), b = x(t, from + half + i);
    y(t, to + i) = a * c - b * s;
    y(t, to + half + i) = b * c + a * s;
}

void mm_qkv_rope_fwd_cuda(struct mm_backend *be, struct mm_view q, struct mm_view k,
                          struct mm_view v, struct mm_view qkv, struct mm_view pos, float base,
                          float pos_scale) {
    const struct rope o = {mm_mat_of(q),
                           mm_mat_of(k),
                           mm_mat_of(v),
                           mm_mat_of(qkv),
                           (const int32_t *)pos.data,
                           (int)(q.shape[2] / 2),
                           (int)k.shape[1],
                           (int)(q.shape[1] / k.shape[1]),
                           base,
                           pos_scale};
    mm_each(be, q.shape[0], o.half, [=] __device__(int64_t t, int64_t i) {
        float c, s;
        angle_of(o, t, i, &c, &s);
        const int64_t dim = 2 * o.half;
        for (int g = 0; g < o.groups; g++) {
            const int64_t at = (int64_t)g * (o.ratio + 2) * dim;
            for (int j = 0; j < o.ratio; j++)
                turn(o.q, (g * o.ratio + j) * dim, o.qkv, at + j * dim, t, i, o.half, c, s);
            turn(o.k, g * dim, o.qkv, at + o.ratio * dim, t, i, o.half, c, s);
            turn(o.v, g * dim, o.qkv, at + (o.ratio + 1) * dim, t, i, o.half, 1.0f, 0.0f);
        }
    });
}

void mm_qkv_rope_bwd_cuda(struct mm_backend *be, struct mm_view dqkv, struct mm_view dq,
                          struct mm_view dk, struct mm_view dv, struct mm_view pos, float base,
                          float pos_scale) {
    const struct rope o = {mm_mat_of(dq),
                           mm_mat_of(dk),
                           mm_mat_of(dv),
                           mm_mat_of(dqkv),
                           (const int32_t *)pos.data,
                           (int)(dq.shape[2] / 2),
                           (int)dk.shape[1],
                           (int)(dq.shape[1] / dk.shape[1]),
                           base,
                           pos_scale};
    mm_each(be, dq.shape[0], o.half, [=] __device__(int64_t t, int64_t i) {
        float c, s;
        angle_of(o, t, i, &c, &s);
        const int64_t dim = 2 * o.half;
        for (int g = 0; g < o.groups; g++) {
            const int64_t at = (int64_t)g * (o.ratio + 2) * dim;
            for (int j = 0; j < o.ratio; j++)
                turn(o.qkv, at + j * dim, o.q, (g * o.ratio + j) * dim, t, i, o.half, c, -s);
            turn(o.qkv, at + o.ratio * dim, o.k, g * dim, t, i, o.half, c, -s);
            turn(o.qkv, at + (o.ratio + 1) * dim, o.v, g * dim, t, i, o.half, 1.0f, 0.0f);
        }
    });
}
