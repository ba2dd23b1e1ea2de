// Owns: the settings of a draw, and one from logits in host memory.
#include "infer/sample.h"

#include <assert.h>
#include <stdlib.h>

#include "base/buf.h"

enum mm_code mm_sampling_check(const struct mm_sampling *how, const char *what,
                               struct mm_error *err) {
    const struct {
        const char *name;
        double value, min, max;
    } wanted[] = {{"temperature", how->temperature, 0.0, 100.0},
                  {"top_k", (double)how->top_k, 0.0, 1e9},
                  {"top_p", how->top_p, 0.0, 1.0},
                  {"min_p", how->min_p, 0.0, 1.0},
                  {"repetition_penalty", how->repetition_penalty, 0.01, 100.0}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (!(wanted[i].value >= wanted[i].min && wanted[i].value <= wanted[i].max)) {
            return mm_fail(err, mm_code_input, "%s: '%s' is %g, must be %g to %g", what,
                           wanted[i].name, wanted[i].value, wanted[i].min, wanted[i].max);
        }
    }
    return mm_code_ok;
}

void mm_sample_scratch_init(struct mm_sample_scratch *s, int64_t V) {
    s->V = V;
    s->room.l = mm_xmalloc((size_t)V * sizeof *s->room.l);
    s->room.w = mm_xmalloc((size_t)V * sizeof *s->room.w);
    s->room.order = mm_xmalloc((size_t)V * sizeof *s->room.order);
    s->seen = mm_xcalloc((size_t)(V + 31) / 32, sizeof *s->seen);
}

void mm_sample_scratch_deinit(struct mm_sample_scratch *s) {
    free(s->room.l);
    free(s->room.w);
    free(s->room.order);
    free(s->seen);
    *s = (struct mm_sample_scratch){0};
}

struct mm_draw mm_sampling_draw(const struct mm_sampling *how, struct mm_rng *rng,
                                const int32_t *banned, int n_banned) {
    assert(n_banned <= 2);
    return (struct mm_draw){
        .temperature = how->temperature,
        .top_k = how->top_k,
        .top_p = how->top_p,
        .min_p = how->min_p,
        .penalty = how->repetition_penalty,
        .bits = how->temperature == 0.0 ? 0 : mm_rng_u64(rng),
        .banned = {n_banned > 0 ? banned[0] : -1, n_banned > 1 ? banned[1] : -1}};
}

int32_t mm_sample(struct mm_sample_scratch *s, const float *logits, const struct mm_sampling *how,
                  struct mm_rng *rng, const int32_t *answer, int64_t n_answer,
                  const int32_t *banned, int n_banned) {
    struct mm_rng next = {0};
    if (rng) next = *rng;
    const struct mm_draw d = mm_sampling_draw(how, &next, banned, n_banned);
    const bool some = how->repetition_penalty != 1.0;
    for (int64_t i = 0; some && i < n_answer; i++) {
        if (answer[i] < s->V) s->seen[answer[i] / 32] |= (uint32_t)1 << answer[i] % 32;
    }
    const int32_t id = mm_draw_row(&d, logits, s->V, some ? s->seen : NULL, &s->room);
    for (int64_t i = 0; some && i < n_answer; i++) {
        if (answer[i] < s->V) s->seen[answer[i] / 32] = 0;
    }
    if (rng && id >= 0) *rng = next;
    return id;
}
