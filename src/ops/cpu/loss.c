// Losses over rows of logits.
#include "ops/cpu/kernels.h"

struct loss_job {
    const struct mm_kernels *k;
    struct mm_view d, x, teacher;
    const float *weight;
    const int32_t *target;  // NULL: KL
    float *loss;
};

static void loss_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct loss_job *j = arg;
    const int64_t n = mm_view_cols(j->x);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        float *d = j->d.data ? mm_view_at(j->d, r, 0) : NULL;
        const float *x = mm_view_at(j->x, r, 0), w = j->weight[r];
        if (w == 0.0f) {  // whatever the logits hold
            j->loss[r] = 0.0f;
            if (d) memset(d, 0, (size_t)n * sizeof *d);
        } else if (j->target) {
            j->loss[r] = (float)((double)w * j->k->cross_entropy(d, x, j->target[r], w, n));
        } else {
            j->loss[r] = (float)((double)w * j->k->kl(d, x, mm_view_at(j->teacher, r, 0), w, n));
        }
    }
}

void mm_kl_cpu(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
               struct mm_view student, struct mm_view teacher, struct mm_view weight) {
    struct loss_job j = {.k = mm_kernels_of(be),
                         .d = dlogits,
                         .x = student,
                         .teacher = teacher,
                         .weight = weight.data,
                         .loss = loss.data};
    mm_parallel_for(be->pool, student.shape[0], 1 + 4096 / mm_view_cols(student), loss_rows, &j);
}

void mm_cross_entropy_cpu(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
                          struct mm_view logits, struct mm_view target, struct mm_view weight) {
    struct loss_job j = {.k = mm_kernels_of(be),
                         .d = dlogits,
                         .x = logits,
                         .weight = weight.data,
                         .target = target.data,
                         .loss = loss.data};
    mm_parallel_for(be->pool, logits.shape[0], 1 + 4096 / mm_view_cols(logits), loss_rows, &j);
}
