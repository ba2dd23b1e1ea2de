// From logits to a token: the order is that of the published generate(): repetition penalty,
// banned tokens, temperature, top-k, top-p, min-p, draw.
#ifndef MM_INFER_SAMPLE_H
#define MM_INFER_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"

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
    float *l;        // (V) logits after penalty and bans
    int32_t *order;  // (V) candidates, a heap
    uint8_t *seen;   // (V) all zero between calls
};
void mm_sample_scratch_init(struct mm_sample_scratch *s, int64_t V);
void mm_sample_scratch_deinit(struct mm_sample_scratch *s);

// Draws a token. `answer` holds the n_answer tokens of the answer so far; `banned` ids never come.
// Ties go to the lower id, so top_k keeps exactly k. One 64-bit number of *rng a call, none when
// greedy. -1: no logit is finite. Deterministic: the same logits, settings and rng give the same
// token.
int32_t mm_sample(struct mm_sample_scratch *s, const float *logits, const struct mm_sampling *how,
                  struct mm_rng *rng, const int32_t *answer, int64_t n_answer,
                  const int32_t *banned, int n_banned);

#endif
