// What the inputs of a model's linear layers look like on real samples: the mean square of each
// input, by which rounding weighs the errors of the weights that meet it.
#ifndef MM_TRAIN_CALIBRATE_H
#define MM_TRAIN_CALIBRATE_H

#include "model/model.h"

struct mm_calibration {
    int64_t samples, skipped, tokens;
    int64_t n_blocks;
    struct mm_input_squares *blocks;  // (L) and one more: the output head
};

// Gathers over at most `samples` samples of the meta.json in the order of `seed`; `folder` has the
// tokenizer.
enum mm_code mm_calibrate(struct mm_calibration *c, struct mm_model *m, const char *folder,
                          const char *meta, int64_t samples, uint64_t seed, struct mm_error *err);
void mm_calibration_deinit(struct mm_calibration *c);
// (K) of a parameter, or NULL where nothing was gathered (the vision entry): for struct
// mm_quantize.
const float *mm_calibration_of(void *calibration, const struct mm_param *p);

#endif
