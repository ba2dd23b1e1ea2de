// The input file of `probe forward` and `probe grad`, and its packed form in a backend's memory.
#ifndef MM_CLI_PROBE_INPUT_H
#define MM_CLI_PROBE_INPUT_H

#include "model/model.h"

struct mm_probe_input {
    const char *path;
    int64_t B, T;     // input_ids (B, T)
    int64_t T_embed;  // rows of a sequence in the embedding stack
    int64_t n_tiles;
    int32_t *ids;      // (B, T)
    int32_t *targets;  // (B, T): `labels` of the file shifted by one, -100 elsewhere; or NULL
    float *pixels;     // (n_tiles, 3, S, S)
    int32_t *start;    // (B + 1)
};
enum mm_code mm_probe_input_read(struct mm_probe_input *in, const char *path,
                                 const struct mm_config *config, struct mm_error *err);
void mm_probe_input_deinit(struct mm_probe_input *in);

struct mm_probe_batch {
    struct mm_backend *be;
    struct mm_layout layout;
    struct mm_view pixels;
    struct mm_arena host, device;  // device: `bytes` in all, the input taken out of it
    void *block;
    size_t bytes;
};
enum mm_code mm_probe_batch_make(struct mm_probe_batch *b, struct mm_model *m,
                                 const struct mm_probe_input *in, size_t bytes,
                                 struct mm_error *err);
void mm_probe_batch_deinit(struct mm_probe_batch *b);

#endif
