// How far the predictions of one model are from those of another on a data set: what a change of
// the weights (rounding them, say) did.
#ifndef MM_TRAIN_COMPARE_H
#define MM_TRAIN_COMPARE_H

#include "model/model.h"

struct mm_divergence {
    int64_t n;    // positions
    double kl;    // mean KL(softmax(is) || softmax(other)), nats
    double top1;  // share of positions where both hold the same token for the likeliest
};
struct mm_comparison {
    int64_t samples, skipped;
    struct mm_divergence answers;  // positions that predict a token of an answer
    struct mm_divergence all;
};

// `is` and `other` have the same config but for the weights' format. At most `samples` samples of
// the meta.json, in the order of `seed`; `folder` has the tokenizer. Polls mm_interrupted.
enum mm_code mm_compare(struct mm_comparison *c, struct mm_model *is, struct mm_model *other,
                        const char *folder, const char *meta, int64_t samples, uint64_t seed,
                        struct mm_error *err);

#endif
