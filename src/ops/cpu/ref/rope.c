// Plain reference: unpacking wqkv's output and rotating queries and keys.
#include <math.h>
#include "ops/cpu/ref/ref.h"

// One head of P elements at column `from` of x to column `to` of y. turn = 0 copies, 1 rotates,
// -1 rotates back. Angles in double: a position may be large.
static void turn_head(struct mm_view y, int64_t to, struct mm_view x, int64_t from, int64_t row,
                      int64_t head_dim, int turn, double where, double base) {
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const double angle = where * pow(base, -2.0 * (double)i / (double)head_dim);
        const double c = turn ? cos(angle) : 1.0, s = turn * sin(angle);
        const double a = (double)ref_get(x, row, from + i);
        const double b = (double)ref_get(x, row, from + half + i);
        ref_put(y, row, to + i, (float)(a * c - b * s));
        ref_put(y, row, to + half + i, (float)(b * c + a * s));
    }
}

void mm_qkv_rope_fwd_ref(struct mm_backend *be, struct mm_view q, struct mm_view k,
                         struct mm_view v, struct mm_view qkv, struct mm_view pos, float base,
                         float pos_scale) {
    (void)be;
    const int64_t p_dim = q.shape[2], g_dim = k.shape[1], ratio = q.shape[1] / g_dim;
    for (int64_t t = 0; t < q.shape[0]; t++) {
        const double where = (double)ref_int(pos, t) * (double)pos_scale;
        for (int64_t g = 0; g < g_dim; g++) {
            const int64_t at = g * (ratio + 2) * p_dim;
            for (int64_t j = 0; j < ratio; j++) {
                turn_head(q, (g * ratio + j) * p_dim, qkv, at + j * p_dim, t, p_dim, 1, where,
                          (double)base);
            }
            turn_head(k, g * p_dim, qkv, at + ratio * p_dim, t, p_dim, 1, where, (double)base);
            turn_head(v, g * p_dim, qkv, at + (ratio + 1) * p_dim, t, p_dim, 0, where,
                      (double)base);
        }
    }
}

void mm_qkv_rope_bwd_ref(struct mm_backend *be, struct mm_view dqkv, struct mm_view dq,
                         struct mm_view dk, struct mm_view dv, struct mm_view pos, float base,
                         float pos_scale) {
    (void)be;
    const int64_t p_dim = dq.shape[2], g_dim = dk.shape[1], ratio = dq.shape[1] / g_dim;
    for (int64_t t = 0; t < dq.shape[0]; t++) {
        const double where = (double)ref_int(pos, t) * (double)pos_scale;
        for (int64_t g = 0; g < g_dim; g++) {
            const int64_t at = g * (ratio + 2) * p_dim;
            for (int64_t j = 0; j < ratio; j++) {
                turn_head(dqkv, at + j * p_dim, dq, (g * ratio + j) * p_dim, t, p_dim, -1, where,
                          (double)base);
            }
            turn_head(dqkv, at + ratio * p_dim, dk, g * p_dim, t, p_dim, -1, where, (double)base);
            turn_head(dqkv, at + (ratio + 1) * p_dim, dv, g * p_dim, t, p_dim, 0, where,
                      (double)base);
        }
    }
}
