// A model folder opened for answering: weights, tokenizer, special ids, defaults, and the working
// memory that all its sessions share. An engine and its sessions belong to one thread at a time.
#ifndef MM_INFER_ENGINE_H
#define MM_INFER_ENGINE_H

#include "infer/piece.h"
#include "infer/sample.h"
#include "io/chat.h"
#include "model/model.h"

// What is asked of one answer.
struct mm_generation {
    int64_t max_new_tokens;  // at least 1; the closing <|im_end|> counts
    int64_t min_new_tokens;  // the answer does not end before; 0: may be empty
};

struct mm_session;
struct mm_engine {
    struct mm_backend *be;  // borrowed
    struct mm_model model;
    struct mm_tokenizer *tok;
    struct mm_chat_special special;
    int64_t tile_tokens;          // tokens of one tile
    int64_t longest_piece;        // bytes of the longest text a token stands for
    struct mm_generation answer;  // generation_config.json, else 1024 and 0
    struct mm_sampling sampling;  // generation_config.json, else greedy
    char hash[33];                // of the weights; made when first asked for
    struct mm_piece_memory memory;
    struct mm_stepper stepper;
    struct mm_sample_scratch scratch;
    struct mm_session **rows;  // (n_rows) whose last logits are in that row of the stepper; or NULL
    int64_t n_rows;
    int32_t *drawn;      // (mm_stepper_ahead, n_rows)
    uint64_t n_answers;  // that were begun
    float *pixels;       // (n_pixel_tiles, 3, S, S): the tiles of the piece being read
    int64_t n_pixel_tiles;
};

// Opens a model folder with its tokenizer. dtype: of the matrices in memory, or -1 as stored. A
// tokenizer that does not fit the model (ids beyond the vocabulary, another id for the picture
// token) is refused. The backend must outlive the engine.
enum mm_code mm_engine_open(struct mm_engine **e, struct mm_backend *be, const char *folder,
                            int dtype, struct mm_error *err);
void mm_engine_close(struct mm_engine *e);  // NULL is allowed; sessions must be gone
// Takes weights that are mapped into memory of this process and huge pages: see mm_map_copy.
enum mm_code mm_engine_copy_weights(struct mm_engine *e, struct mm_error *err);
// 128 bits over the weights as they lie in memory, as 32 hex digits: what a snapshot belongs to.
const char *mm_engine_hash(struct mm_engine *e);

#endif
