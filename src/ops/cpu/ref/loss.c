// Plain reference: losses and their gradients.
#include <math.h>
#include "ops/cpu/ref/ref.h"

void mm_mse_ref(struct mm_backend *be, struct mm_view loss, struct mm_view dy, struct mm_view y,
                struct mm_view target, float scale) {
    (void)be;
    double sum = 0.0;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++) {
            const double d = (double)ref_get(y, r, c) - (double)ref_get(target, r, c);
            sum += d * d;
            if (dy.data) ref_put(dy, r, c, (float)(2.0 * (double)scale * d));
        }
    }
    ref_put(loss, 0, 0, (float)((double)ref_get(loss, 0, 0) + (double)scale * sum));
}

// log of the sum of exponentials of a row
static double log_sum(struct mm_view x, int64_t row) {
    double top = -HUGE_VAL, sum = 0.0;
    for (int64_t c = 0; c < mm_view_cols(x); c++)
        top = fmax(top, (double)ref_get(x, row, c));
    for (int64_t c = 0; c < mm_view_cols(x); c++)
        sum += exp((double)ref_get(x, row, c) - top);
    return top + log(sum);
}

static void zero_row(struct mm_view x, int64_t row) {
    for (int64_t c = 0; x.data && c < mm_view_cols(x); c++)
        ref_put(x, row, c, 0.0f);
}

// A row of weight 0 gives zeros whatever its logits hold.
void mm_kl_ref(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
               struct mm_view student, struct mm_view teacher, struct mm_view weight) {
    (void)be;
    for (int64_t r = 0; r < student.shape[0]; r++) {
        const double w = (double)ref_get(weight, r, 0);
        ref_put(loss, r, 0, 0.0f);
        if (w == 0.0) {
            zero_row(dlogits, r);
            continue;
        }
        const double ls = log_sum(student, r), lt = log_sum(teacher, r);
        double sum = 0.0;
        for (int64_t c = 0; c < mm_view_cols(student); c++) {
            const double log_q = (double)ref_get(student, r, c) - ls;
            const double log_p = (double)ref_get(teacher, r, c) - lt;
            const double p = exp(log_p);
            if (p > 0.0) sum += p * (log_p - log_q);
            if (dlogits.data) ref_put(dlogits, r, c, (float)(w * (exp(log_q) - p)));
        }
        ref_put(loss, r, 0, (float)(w * sum));
    }
}

void mm_cross_entropy_ref(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
                          struct mm_view logits, struct mm_view target, struct mm_view weight) {
    (void)be;
    for (int64_t r = 0; r < logits.shape[0]; r++) {
        const double w = (double)ref_get(weight, r, 0);
        ref_put(loss, r, 0, 0.0f);
        if (w == 0.0) {
            zero_row(dlogits, r);
            continue;
        }
        const int64_t right = ref_int(target, r);
        const double ls = log_sum(logits, r);
        ref_put(loss, r, 0, (float)(w * (ls - (double)ref_get(logits, r, right))));
        for (int64_t c = 0; dlogits.data && c < mm_view_cols(logits); c++) {
            const double p = exp((double)ref_get(logits, r, c) - ls);
            ref_put(dlogits, r, c, (float)(w * (p - (c == right ? 1.0 : 0.0))));
        }
    }
}
