// One line of a jsonl file -> token ids, which of them are answers, and the tiles of its pictures.
#ifndef MM_TRAIN_SAMPLE_H
#define MM_TRAIN_SAMPLE_H

#include "base/buf.h"
#include "base/rng.h"
#include "io/chat.h"
#include "io/image.h"
#include "train/data.h"

// How a picture's path becomes pixels: mm_image_open, or something else in a test.
typedef enum mm_code mm_picture_fn(struct mm_image *im, const char *path, struct mm_error *err);

// What all samples share; read-only once made, so threads may share it.
struct mm_sample_env {
    const struct mm_tokenizer *tokenizer;
    struct mm_data_options options;  // .system is not used after init
    struct mm_chat_special special;
    struct mm_ids opening;        // BOS and the system turn
    struct mm_ids answer_marker;  // "<|im_start|>assistant\n"
    size_t answer_marker_bytes;   // of the text behind <|im_start|>
    mm_picture_fn *picture;
};
enum mm_code mm_sample_env_init(struct mm_sample_env *env, const struct mm_tokenizer *tokenizer,
                                const char *tokenizer_folder, const struct mm_data_options *options,
                                struct mm_error *err);
void mm_sample_env_deinit(struct mm_sample_env *env);

// What the samples of one data set share.
struct mm_sample_source {
    const char *root;   // folder of its pictures
    int32_t max_tiles;  // of one picture
    bool augment;       // tiles go through JPEG at a random quality
};

struct mm_sample {
    struct mm_ids ids;    // (T)
    struct mm_buf learn;  // (T) bytes: 1 where the token is part of an answer or closes one
    int32_t n_tiles;
    uint8_t *tiles;      // (n_tiles, S, S, 3)
    size_t tiles_cap;    // bytes behind tiles
    struct mm_buf turn;  // scratch
};

enum { mm_sample_max_line = 16 << 20 };  // bytes of a line; an answer that long is no sample

// Tokens as the chat template gives them for the whole conversation; roles come from the position
// of a turn (even: user). Learned are the assistant's texts and the <|im_end|> behind them.
// `rng` is for data_augment. On failure *s holds nothing of use and may be filled again; the
// sentence says why, without naming file and line. mm_code_memory is no fault of the sample.
enum mm_code mm_sample_read(struct mm_sample *s, const struct mm_sample_env *env,
                            const struct mm_sample_source *source, struct mm_rng rng,
                            const char *line, size_t n, struct mm_error *err);
void mm_sample_free(struct mm_sample *s);

#endif
