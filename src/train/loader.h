// The stream of samples in order: the permutation of each epoch, and the threads that prepare
// samples ahead of their use in a bounded ring.
#ifndef MM_TRAIN_LOADER_H
#define MM_TRAIN_LOADER_H

#include "train/data_index.h"
#include "train/sample.h"

// One place of the stream, filled: a sample or the reason why there is none.
struct mm_loaded {
    int64_t epoch, index;  // its place
    int64_t sample_number;
    struct mm_sample sample;
    enum mm_code code;
    struct mm_error error;
    bool ready;
};

struct mm_loader;

// `env` and `index` must outlive the loader.
enum mm_code mm_loader_new(struct mm_loader **loader, const struct mm_sample_env *env,
                           const struct mm_data_index *index, struct mm_error *err);
void mm_loader_free(struct mm_loader *loader);  // stops the threads first; NULL is allowed

// The stream begins (again) at a place, index < n_samples.
enum mm_code mm_loader_start(struct mm_loader *loader, int64_t epoch, int64_t index,
                             struct mm_error *err);
// The next place, filled; valid until the next call of take, start or free.
enum mm_code mm_loader_take(struct mm_loader *loader, const struct mm_loaded **loaded,
                            struct mm_error *err);

int32_t mm_loader_slots(const struct mm_data_options *options);  // samples held at once
size_t mm_loader_fixed_bytes(const struct mm_loader *loader);    // the order and the ring itself

#endif
