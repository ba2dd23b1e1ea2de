// What the inputs of a model's linear layers look like on real samples, X^T X of each, for rounding
// that passes its errors on to weights that can make up for them (model/feedback.h).
#ifndef MM_TRAIN_CALIBRATE_H
#define MM_TRAIN_CALIBRATE_H

#include "model/model.h"

struct mm_calibration {
    struct mm_model *model;
    const char *folder, *meta;
    int64_t samples;
    uint64_t seed;
    int64_t taken, skipped, tokens;  // of one pass over the samples
    int64_t begin, end;              // blocks that are in memory now; block L is the output head
    struct mm_layer_inputs *blocks;  // (end - begin)
};

// Nothing is read yet. At most `samples` samples of the meta.json in the order of `seed`; `folder`
// has the tokenizer.
void mm_calibration_init(struct mm_calibration *c, struct mm_model *m, const char *folder,
                         const char *meta, int64_t samples, uint64_t seed);
// For struct mm_quantize. Runs the model over the samples for as many blocks at once as fit into
// half of the free memory; parameters are to be asked for in their order.
enum mm_code mm_calibration_feedback(void *calibration, const struct mm_param *p,
                                     struct mm_feedback *f, struct mm_error *err);
void mm_calibration_drop(struct mm_calibration *c);  // gives the memory back; the counts stay

#endif
