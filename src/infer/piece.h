// One sequence, a piece at a time, against a carried state: how prompts of any length are read in
// constant memory, and how tokens are decoded.
#ifndef MM_INFER_PIECE_H
#define MM_INFER_PIECE_H

#include "model/model.h"

// The end of the piece that starts at `from`: about `want` tokens, at least one. A tile's tokens
// are one unit and are never split, so a piece may be longer than wanted by less than a tile.
// `from` must not lie inside a tile. *tiles receives the tiles of the piece.
int64_t mm_piece_end(const struct mm_config *c, const int32_t *ids, int64_t n, int64_t from,
                     int64_t want, int64_t *tiles);

// Bytes of device memory for a forward of n_tokens short tokens in n_seqs sequences, without a
// backward, layout, pixels and n_logits rows of logits included. The state is not.
size_t mm_piece_plan(struct mm_model *m, int64_t n_tokens, int64_t n_seqs, int64_t n_tiles,
                     int64_t n_logits, bool with_state);

// Working memory for pieces of up to n_tokens with n_tiles tiles; grows when needed.
struct mm_piece_memory {
    struct mm_arena device, host;
    struct mm_backend *be;
    void *block;
    size_t block_bytes;
    int64_t n_tokens, n_tiles, n_logits;
};
enum mm_code mm_piece_memory_reserve(struct mm_piece_memory *p, struct mm_model *m,
                                     int64_t n_tokens, int64_t n_tiles, int64_t n_logits,
                                     struct mm_error *err);
void mm_piece_memory_deinit(struct mm_piece_memory *p);

// Feeds ids[0..n) (whole tiles) with their pixels (n_tiles, 3, S, S) f32 on the host to the state.
// Afterwards hidden rows, after the final norm, are in *hidden: with a tap all n, else as many at
// the end as logits were reserved for, at least one. Device memory that the next call reuses.
// `what` names the input for messages.
enum mm_code mm_piece_run(struct mm_piece_memory *p, struct mm_model *m, struct mm_state *state,
                          const int32_t *ids, int64_t n, const float *pixels, int64_t n_tiles,
                          const struct mm_tap *tap, struct mm_view *hidden, const char *what,
                          struct mm_error *err);
// Logits (n, V) of the last n rows of hidden, to the host.
enum mm_code mm_piece_logits(struct mm_piece_memory *p, struct mm_model *m, struct mm_view hidden,
                             int64_t n, float *logits, struct mm_error *err);

#endif
