// SentencePiece tokenizer (tokenizer.model, BPE or unigram) with special tokens (added_tokens.json,
// tokenizer_config.json, special_tokens_map.json), as InternLM2 uses it. An open tokenizer is never
// written to: any number of threads may use it.
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
// From the bytes of a tokenizer.model and the text of an added_tokens.json (NULL: none). `what`
// names them in messages.
enum mm_code mm_tokenizer_open_memory(struct mm_tokenizer **t, const void *model, size_t n_model,
                                      const char *added, size_t n_added, const char *what,
                                      struct mm_error *err);
void mm_tokenizer_close(struct mm_tokenizer *t);  // NULL is allowed

int32_t mm_tokenizer_size(const struct mm_tokenizer *t);  // largest id + 1, special tokens included
int32_t mm_tokenizer_bos(const struct mm_tokenizer *t);   // -1 when there is none
int32_t mm_tokenizer_eos(const struct mm_tokenizer *t);   // -1 when there is none
int64_t mm_tokenizer_max_length(const struct mm_tokenizer *t);  // model_max_length; 0: none given
// The id of a special token by its text ("<|im_end|>"); -1 when there is none.
int32_t mm_tokenizer_special(const struct mm_tokenizer *t, const char *text);
bool mm_tokenizer_is_special(const struct mm_tokenizer *t, int32_t id);
// Fails unless every id is below vocab, the rows of the model's embedding. `where` (a model's
// folder) opens the sentence.
enum mm_code mm_tokenizer_check_vocab(const struct mm_tokenizer *t, int64_t vocab,
                                      const char *where, struct mm_error *err);

// Appends the ids of a text to *ids: special tokens split the text first, each piece between them
// is encoded by itself. with_bos puts BOS in front, unless the folder's add_bos_token is false.
// Nothing fails on content: as in SentencePiece a byte that is not UTF-8 counts as U+FFFD, and a
// character without a piece becomes its UTF-8 bytes' pieces (or the unknown token, in a model
// without byte pieces). A text must be shorter than 256 MB.
void mm_tokenizer_encode(const struct mm_tokenizer *t, const char *text, size_t n, bool with_bos,
                         struct mm_ids *ids);
// As encode, but special tokens' texts are treated as plain text, and no special token's id can
// come out: for what a user types.
void mm_tokenizer_encode_plain(const struct mm_tokenizer *t, const char *text, size_t n,
                               struct mm_ids *ids);
// One text in parts, some of them typed by a user: special tokens are only found in parts that are
// not plain, while pieces may run across parts. Without special tokens in plain parts the ids are
// those of encoding the whole text at once.
struct mm_text_part {
    const char *text;
    size_t n;
    bool plain;
};
void mm_tokenizer_encode_parts(const struct mm_tokenizer *t, const struct mm_text_part *parts,
                               int n_parts, bool with_bos, struct mm_ids *ids);

// Appends the text of ids. Ids that no token has are an error, and then *out is as before.
// skip_special drops special tokens. Bytes that form no character become U+FFFD.
enum mm_code mm_tokenizer_decode(const struct mm_tokenizer *t, const int32_t *ids, int64_t n,
                                 bool skip_special, struct mm_buf *out, struct mm_error *err);
// Text of one id inside a stream: may be a part of a UTF-8 sequence (base/utf8.h holds those back);
// first = it opens the text (the dummy prefix's space is dropped there). Nothing for an id that no
// token has.
void mm_tokenizer_piece(const struct mm_tokenizer *t, int32_t id, bool first, struct mm_buf *out);

// Copies the tokenizer's files into a model folder.
enum mm_code mm_tokenizer_copy_files(const char *from_folder, const char *to_folder,
                                     struct mm_error *err);

#endif
