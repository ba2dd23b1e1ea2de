// Settings of a draw, and one from logits in host memory. Sessions draw where the logits are, by
// the operation draw_tokens; both give the same token (ops/draw.h).
#ifndef MM_INFER_SAMPLE_H
#define MM_INFER_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"
#include "ops/draw.h"

struct mm_sampling {
    double temperature;         // 0: the largest logit; the settings below but the last are unused
    int64_t top_k;              // 0: off
    double top_p;               // 1: off
    double min_p;               // 0: off
    double repetition_penalty;  // 1: off; over the tokens of the answer being written
};
#define MM_SAMPLING_GREEDY ((struct mm_sampling){0.0, 0, 1.0, 0.0, 1.0})

// "temperature is 3e9, must be in [0, 100]" and the like; `what` says where the settings are from.
enum mm_code mm_sampling_check(const struct mm_sampling *how, const char *what,
                               struct mm_error *err);

struct mm_sample_scratch {
    int64_t V;
    struct mm_draw_room room;
    uint32_t *seen;  // a bit for each of V; all zero between calls
};
void mm_sample_scratch_init(struct mm_sample_scratch *s, int64_t V);
void mm_sample_scratch_deinit(struct mm_sample_scratch *s);

// One draw as the operation takes it. One 64-bit number of *rng a call, none when greedy. banned:
// two at most.
struct mm_draw mm_sampling_draw(const struct mm_sampling *how, struct mm_rng *rng,
                                const int32_t *banned, int n_banned);

// Draws a token. `answer` holds the n_answer tokens of the answer so far; `banned` ids never come,
// two at most. Ties go to the lower id, so top_k keeps exactly k. -1: no logit is finite; *rng is
// then as it was. Deterministic: the same logits, settings and rng give the same token.
int32_t mm_sample(struct mm_sample_scratch *s, const float *logits, const struct mm_sampling *how,
                  struct mm_rng *rng, const int32_t *answer, int64_t n_answer,
                  const int32_t *banned, int n_banned);

#endif
