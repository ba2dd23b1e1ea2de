// SentencePiece BPE tokenizer (tokenizer.model) with special tokens (added_tokens.json,
// tokenizer_config.json, special_tokens_map.json), as InternLM2 uses it.
#ifndef MM_IO_TOKENIZER_H
#define MM_IO_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

struct mm_tokenizer;

struct mm_ids {
    int32_t *data;
    int64_t n, cap;
};
void mm_ids_add(struct mm_ids *ids, int32_t id);
void mm_ids_free(struct mm_ids *ids);

enum mm_code mm_tokenizer_open(struct mm_tokenizer **t, const char *folder, struct mm_error *err);
void mm_tokenizer_close(struct mm_tokenizer *t);

int32_t mm_tokenizer_size(const struct mm_tokenizer *t);  // largest id + 1, special tokens included
int32_t mm_tokenizer_bos(const struct mm_tokenizer *t);
int32_t mm_tokenizer_eos(const struct mm_tokenizer *t);
int64_t mm_tokenizer_max_length(const struct mm_tokenizer *t);  // model_max_length; 0: none given
// The id of a special token by its text ("<|im_end|>"); -1 when there is none.
int32_t mm_tokenizer_special(const struct mm_tokenizer *t, const char *text);

// Appends the ids of a text to *ids: special tokens split the text first, each piece between them
// is encoded by itself. with_bos puts BOS in front. Bytes that are not UTF-8 are taken as byte
// fallback pieces; nothing fails on content.
void mm_tokenizer_encode(const struct mm_tokenizer *t, const char *text, size_t n, bool with_bos,
                         struct mm_ids *ids);
// As encode, but special tokens' texts are treated as plain text: for what a user types.
void mm_tokenizer_encode_plain(const struct mm_tokenizer *t, const char *text, size_t n,
                               struct mm_ids *ids);
// Appends the text of ids. Out-of-range ids are an error. skip_special drops special tokens.
enum mm_code mm_tokenizer_decode(const struct mm_tokenizer *t, const int32_t *ids, int64_t n,
                                 bool skip_special, struct mm_buf *out, struct mm_error *err);
// Text of one id inside a stream: may be a part of a UTF-8 sequence; first = it opens the text
// (the dummy prefix's space is dropped there).
void mm_tokenizer_piece(const struct mm_tokenizer *t, int32_t id, bool first, struct mm_buf *out);

// Copies the tokenizer's files into a model folder.
enum mm_code mm_tokenizer_copy_files(const char *from_folder, const char *to_folder,
                                     struct mm_error *err);

#endif
