// Plain reference: causal softmax attention with grouped keys, a query row at a time.
#include <math.h>
#include <string.h>
#include "ops/cpu/ref/ref.h"

static double dot(struct mm_view a, int64_t row_a, int64_t col_a, struct mm_view b, int64_t row_b,
                  int64_t col_b, int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)ref_get(a, row_a, col_a + i) * (double)ref_get(b, row_b, col_b + i);
    }
    return sum;
}

// y[row, head] = softmax(q[row, head] . k[first..last, group] / sqrt(P)) v; returns log-sum-exp.
static double attend(struct mm_view y, struct mm_view q, struct mm_view k, struct mm_view v,
                     int64_t row, int64_t head, int64_t first, int64_t last, double *score) {
    const int64_t p_dim = q.shape[2], at = head / (q.shape[1] / k.shape[1]) * p_dim;
    double top = -HUGE_VAL, sum = 0.0;
    for (int64_t j = first; j <= last; j++) {
        score[j - first] = dot(q, row, head * p_dim, k, j, at, p_dim) / sqrt((double)p_dim);
        top = fmax(top, score[j - first]);
    }
    for (int64_t j = first; j <= last; j++) {
        score[j - first] = exp(score[j - first] - top);
        sum += score[j - first];
    }
    for (int64_t c = 0; c < p_dim; c++) {
        double out = 0.0;
        for (int64_t j = first; j <= last; j++) {
            out += score[j - first] * (double)ref_get(v, j, at + c);
        }
        ref_put(y, row, head * p_dim + c, (float)(out / sum));
    }
    return top + log(sum);
}

void mm_attention_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view lse,
                          struct mm_view q, struct mm_view k, struct mm_view v,
                          struct mm_segs segs) {
    double *score = mm_cpu_scratch(be, mm_scratch_a, (size_t)q.shape[0] * sizeof *score);
    if (!score) return;
    for (int64_t s = 0; s < segs.n; s++) {
        for (int64_t i = segs.start[s]; i < segs.start[s + 1]; i++) {
            for (int64_t h = 0; h < q.shape[1]; h++) {
                const double l = attend(y, q, k, v, i, h, segs.start[s], i, score);
                if (lse.data) ref_put(lse, i, h, (float)l);
            }
        }
    }
}

void mm_attention_step_ref(struct mm_backend *be, struct mm_view y, struct mm_view q,
                           struct mm_view k, struct mm_view v, int64_t past) {
    double *score = mm_cpu_scratch(be, mm_scratch_a, (size_t)k.shape[0] * sizeof *score);
    if (!score) return;
    for (int64_t i = 0; i < q.shape[0]; i++) {
        for (int64_t h = 0; h < q.shape[1]; h++)
            attend(y, q, k, v, i, h, 0, past + i, score);
    }
}

// For query i and key j of one sequence, with p = exp(s - lse), delta = dy . y:
//   ds = p (dy . v - delta) / sqrt(P);  dq += ds k;  dk += ds q;  dv += p dy
void mm_attention_bwd_ref(struct mm_backend *be, struct mm_view dq, struct mm_view dk,
                          struct mm_view dv, struct mm_view dy, struct mm_view y,
                          struct mm_view lse, struct mm_view q, struct mm_view k, struct mm_view v,
                          struct mm_segs segs) {
    const int64_t rows = q.shape[0], h_dim = q.shape[1], p_dim = q.shape[2], g_dim = k.shape[1];
    const int64_t nq = rows * h_dim * p_dim, nk = rows * g_dim * p_dim;
    const double scale = 1.0 / sqrt((double)p_dim);
    double *sq = mm_cpu_scratch(be, mm_scratch_a, (size_t)(nq + 2 * nk) * sizeof *sq);
    if (!sq) return;
    double *sk = sq + nq, *sv = sk + nk;  // sums of dq, dk, dv
    memset(sq, 0, (size_t)(nq + 2 * nk) * sizeof *sq);
    for (int64_t s = 0; s < segs.n; s++) {
        const int64_t first = segs.start[s], end = segs.start[s + 1];
        for (int64_t h = 0; h < h_dim; h++) {
            const int64_t g = h / (h_dim / g_dim), hc = h * p_dim, gc = g * p_dim;
            for (int64_t i = first; i < end; i++) {
                const double delta = dot(dy, i, hc, y, i, hc, p_dim);
                for (int64_t j = first; j <= i; j++) {
                    const double score = dot(q, i, hc, k, j, gc, p_dim) * scale;
                    const double p = exp(score - (double)ref_get(lse, i, h));
                    const double ds = p * (dot(dy, i, hc, v, j, gc, p_dim) - delta) * scale;
                    for (int64_t c = 0; c < p_dim; c++) {
                        sq[i * h_dim * p_dim + hc + c] += ds * (double)ref_get(k, j, gc + c);
                        sk[j * g_dim * p_dim + gc + c] += ds * (double)ref_get(q, i, hc + c);
                        sv[j * g_dim * p_dim + gc + c] += p * (double)ref_get(dy, i, hc + c);
                    }
                }
            }
        }
    }
    for (int64_t t = 0; t < rows; t++) {
        for (int64_t c = 0; c < h_dim * p_dim; c++) {
            ref_put(dq, t, c, (float)sq[t * h_dim * p_dim + c]);
        }
        for (int64_t c = 0; c < g_dim * p_dim; c++) {
            ref_put(dk, t, c, (float)sk[t * g_dim * p_dim + c]);
            ref_put(dv, t, c, (float)sv[t * g_dim * p_dim + c]);
        }
    }
}
