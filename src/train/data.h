// Training data in InternVL's format: a meta JSON that names picture folders and jsonl files,
// read as an endless stream of packed micro-batches in an order fixed by a seed.
//
//   meta    {name: {root, annotation, repeat_time, data_augment, max_dynamic_patch}, ...}
//   sample  {"image": path or [paths] or absent, "conversations": [{"from", "value"}, ...]}
//
// The stream is the concatenation of epochs; each is a permutation of all samples (repeats
// counted) that depends on (seed, epoch) alone. Batches run over the end of an epoch: each holds
// exactly `micro_batch` samples. A sample that cannot be used is skipped with a warning that
// names file, line and reason, and counted; an epoch without one good sample is an error.
// What a batch holds does not depend on the number of workers.
#ifndef MM_TRAIN_DATA_H
#define MM_TRAIN_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "io/tokenizer.h"

struct mm_data_options {
    int32_t image_size;       // S, side of a tile in pixels
    int32_t tokens_per_tile;  // N, <IMG_CONTEXT> tokens a tile
    int32_t min_tiles;        // of a picture, without the thumbnail
    int32_t max_tiles;        // max_dynamic_patch of the meta JSON wins; lists of pictures share it
    bool dynamic_tiling;      // false: every picture is one tile
    bool thumbnail;           // one more tile when a picture has several
    int64_t max_length;       // tokens of a sample, BOS included; longer ones are skipped
    int32_t micro_batch;      // samples a batch
    int32_t n_workers;        // background threads; 0: batches are made by mm_data_next itself
    uint64_t seed;            // of the order and of data_augment
    const char *system;       // system message; NULL: the template's
};

// A place in the stream: `index` samples of epoch `epoch` have been taken or skipped.
struct mm_data_cursor {
    int64_t epoch, index;
    int64_t skipped;  // samples skipped since the start of the stream
};

// Sequences end to end without padding. Sequence i is [start[i], start[i + 1]); targets[t] is the
// token that position t has to predict (ids[t + 1] of the same sequence) where that token belongs
// to an answer or closes one, else -100. So targets[t] >= 0 is also the completion mask.
struct mm_batch {
    int32_t n_seqs;                // micro_batch
    int64_t n_tokens;              // T
    int64_t n_targets;             // targets >= 0; 0 when no sample of the batch has an answer
    int64_t n_tiles;               // 0 when every sample is text only
    const int32_t *start;          // (n_seqs + 1), start[n_seqs] = T
    const int32_t *ids;            // (T), <IMG_CONTEXT> x N x tiles for a picture
    const int32_t *targets;        // (T)
    const int32_t *tiles_of_seq;   // (n_seqs), thumbnails included; they add up to n_tiles
    const uint8_t *tiles;          // (n_tiles, S, S, 3), in the order of the <IMG_CONTEXT> runs
    struct mm_data_cursor cursor;  // after this batch: seeking there goes on with the next one
};

struct mm_data;

// Reads the meta JSON, indexes and hashes every jsonl. The tokenizer must outlive *data;
// `tokenizer_folder` is for messages. A relative root or annotation is looked for beside the meta
// file, then in the current folder. data_augment: each tile goes through JPEG at a quality of
// 75..100 drawn by (seed, epoch, index), as in InternVL.
enum mm_code mm_data_open(struct mm_data **data, const char *meta_path,
                          const struct mm_tokenizer *tokenizer, const char *tokenizer_folder,
                          const struct mm_data_options *options, struct mm_error *err);
void mm_data_close(struct mm_data *data);  // at any time; NULL is allowed

int64_t mm_data_samples(const struct mm_data *data);  // of an epoch, repeats counted
// XXH3-128 over what the stream is made of: the meta's entries, names, sizes and content of the
// jsonl files. A checkpoint keeps it, so that a run is not resumed on other data.
void mm_data_hash(const struct mm_data *data, uint8_t hash[16]);

// The next batch. *batch and all it points to stay valid until the next call, seek or close.
// mm_code_interrupted after SIGINT or SIGTERM.
enum mm_code mm_data_next(struct mm_data *data, const struct mm_batch **batch,
                          struct mm_error *err);
// Goes to a cursor: the next batch is the one that followed the batch with that cursor.
enum mm_code mm_data_seek(struct mm_data *data, const struct mm_data_cursor *cursor,
                          struct mm_error *err);
struct mm_data_cursor mm_data_tell(const struct mm_data *data);  // the last batch's, or the seek's

// Planning. A batch is never larger than this; tiles are bounded because each takes N tokens.
int64_t mm_data_max_tokens(const struct mm_data_options *options);  // T of a batch
int64_t mm_data_max_tiles(const struct mm_data_options *options);   // n_tiles of a batch
// Bytes that the index, the order, the queue and the batch may come to hold in all. Beside them
// each thread that makes samples has one line and one decoded picture at a time.
size_t mm_data_max_bytes(const struct mm_data *data);

#endif
