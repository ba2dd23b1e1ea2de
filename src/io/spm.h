// A SentencePiece model as the tokenizer uses it: the pieces and flags read from tokenizer.model
// (spm_model.c), the normalizer (spm_normalize.c) and the two encoders (spm_bpe.c, spm_unigram.c).
// Internal to src/io; the rest of the program sees io/tokenizer.h.
#ifndef MM_IO_SPM_H
#define MM_IO_SPM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"
#include "io/prefix_dict.h"
#include "io/tokenizer.h"

#define MM_SPM_SPACE "\xE2\x96\x81"  // U+2581, what a space is written as inside pieces

enum {
    mm_spm_max_pieces = 1 << 22,
    mm_spm_max_piece_bytes = 8000,  // SentencePiece's own limit
};

enum mm_spm_type {  // ModelProto.SentencePiece.Type
    mm_spm_type_normal = 1,
    mm_spm_type_unknown,
    mm_spm_type_control,
    mm_spm_type_user_defined,
    mm_spm_type_unused,
    mm_spm_type_byte,
};

enum mm_spm_algorithm { mm_spm_algorithm_unigram = 1, mm_spm_algorithm_bpe = 2 };

struct mm_spm_piece {
    const char *text;  // in the model's bytes, not zero-terminated
    uint32_t len;
    float score;
    enum mm_spm_type type;
};

struct mm_spm_hash {  // open addressing over piece texts; the empty slot is -1
    int32_t *slots;   // (mask + 1) ids
    uint32_t mask;
};

struct mm_spm {
    char *bytes;  // a copy of the file; texts point into it
    struct mm_spm_piece *pieces;
    int32_t n, cap;
    uint32_t longest;              // bytes of the longest piece
    float min_score, max_score;    // over the normal pieces
    struct mm_spm_hash text_ids;   // normal, user-defined and unused pieces: what text can become
    struct mm_spm_hash other_ids;  // unknown, control and byte pieces
    struct mm_prefix_dict user;    // user-defined pieces
    struct mm_prefix_dict text;    // as text_ids; unigram models only

    enum mm_spm_algorithm algorithm;  // trainer_spec
    bool byte_fallback, space_is_suffix;
    const char *unk_surface, *bos_text, *eos_text, *pad_text;  // not zero-terminated
    uint32_t unk_surface_len, bos_len, eos_len, pad_len;
    int32_t unk, byte_ids[256];

    bool add_dummy_prefix, remove_extra_spaces, escape_spaces;  // normalizer_spec
    const char *trie;                                           // Darts double array, or NULL
    uint32_t n_trie;                                            // units of 4 bytes
    const char *replacements;                                   // zero-terminated strings
    uint32_t n_replacements;                                    // bytes, the last one 0
};

// Copies the bytes. `what` names them in messages.
enum mm_code mm_spm_init(struct mm_spm *m, const void *bytes, size_t n, const char *what,
                         struct mm_error *err);
void mm_spm_deinit(struct mm_spm *m);

// The id of a text-like piece, or -1.
int32_t mm_spm_find_text(const struct mm_spm *m, const char *text, size_t len);
// The id of any piece; unknown, control and byte pieces go first as in SentencePiece; -1: none.
int32_t mm_spm_find(const struct mm_spm *m, const char *text, size_t len);

// Pieces that must not come out of a text, by id: NULL, or (n) flags.
typedef const unsigned char *mm_spm_barred;

// Appends the normalized text to *out: rules of the charsmap, spaces, the dummy prefix.
void mm_spm_normalize(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                      struct mm_buf *out);
// Appends the ids of a text: normalized, cut into pieces, unknown characters as bytes where the
// model has them, else a run of them as one unknown piece.
void mm_spm_encode(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                   struct mm_ids *ids);

// One piece found in a normalized text; id -1 for an unknown character.
void mm_spm_emit(const struct mm_spm *m, const char *text, size_t len, int32_t id,
                 bool *after_unknown, struct mm_ids *ids);
void mm_spm_encode_bpe(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                       struct mm_ids *ids);
void mm_spm_encode_unigram(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                           struct mm_ids *ids);

// Length of the longest user-defined piece that opens text[0, n), else 0.
size_t mm_spm_match_user(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred);
// Bytes of the next character by its lead byte alone, at most n: how SentencePiece steps.
size_t mm_spm_char_bytes(const char *text, size_t n);

#endif
