// Samples of a meta.json for programs that look at a model and do not train it: one sample at a
// time, in a fixed order, as layout and pixels.
#ifndef MM_TRAIN_FEED_H
#define MM_TRAIN_FEED_H

#include "model/model.h"
#include "train/data.h"

struct mm_feed {
    struct mm_model *model;  // whose config says what the samples look like
    const char *meta;
    struct mm_tokenizer *tokenizer;
    struct mm_data *data;
    int64_t n_samples, taken;
    struct mm_arena host, device;  // device: emptied before every sample
    void *block;
    size_t block_bytes;
    float *pixels;
};
struct mm_feed_sample {
    struct mm_layout layout;
    struct mm_view pixels;   // (n_tiles, 3, S, S)
    const int32_t *targets;  // (T): what a position has to predict where that is an answer, or -100
};

// Computes on one sample with the arena as it is left by the feed. Also called once with shapes
// only, on a backend that does nothing, to learn how large the arena has to be: then
// mm_backend_is_dry(model->be), and nothing may be read.
typedef void mm_feed_fn(void *arg, const struct mm_feed_sample *s, struct mm_arena *arena);

// `samples` of the stream, or all of an epoch where there are fewer. `folder` has the tokenizer.
// `others` (NULL-terminated, or NULL) are models that fn computes with beside `model`.
enum mm_code mm_feed_open(struct mm_feed *f, struct mm_model *model, struct mm_model *const *others,
                          const char *folder, const char *meta, int64_t samples, uint64_t seed,
                          mm_feed_fn *fn, void *arg, struct mm_error *err);
// Calls fn with the next sample.
enum mm_code mm_feed_step(struct mm_feed *f, mm_feed_fn *fn, void *arg, struct mm_error *err);
void mm_feed_close(struct mm_feed *f);

#endif
