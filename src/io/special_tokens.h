// The tokens a folder adds to its SentencePiece model: their texts, ids, and where they stand in a
// text. Internal to src/io.
#ifndef MM_IO_SPECIAL_TOKENS_H
#define MM_IO_SPECIAL_TOKENS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "io/spm.h"

enum {
    mm_special_max_id = (1 << 24) - 1,
    mm_special_max_bytes = 8000,
    mm_special_max = 16384,  // tokens; the largest known vocabularies add a few thousand
};

struct mm_special {
    char *text;
    uint32_t len;
    int32_t id;
    bool special;         // dropped by a decode that skips special tokens
    bool lstrip, rstrip;  // swallows the white space before it, after it
    const char *source;   // the file that gave the id, for messages
};

struct mm_special_tokens {
    struct mm_special *items;  // (n), in order of the id
    int32_t n, cap;
    struct mm_prefix_dict by_text;  // value: index into items
    int32_t bos, eos, pad;          // ids, -1: none
    bool add_bos;                   // tokenizer_config.json's add_bos_token; true when not given
    int64_t max_length;             // its model_max_length; 0 when not given or absurdly large
};

// The folder's files, each NULL when absent. Owned here until mm_special_sources_deinit.
struct mm_special_sources {
    const char *where;  // the folder, for messages
    json_t *added, *config, *map;
};
enum mm_code mm_special_sources_load(struct mm_special_sources *s, const char *folder,
                                     struct mm_error *err);
// JSON text with numbers as reals: configs hold 10^30 for "no limit", more than an integer takes.
enum mm_code mm_special_parse(json_t **root, const char *text, size_t n, const char *what,
                              struct mm_error *err);
void mm_special_sources_deinit(struct mm_special_sources *s);

// Gathers all tokens and refuses what contradicts: one text with two ids, one id with two texts, a
// named token that nobody gives an id.
enum mm_code mm_special_init(struct mm_special_tokens *t, const struct mm_special_sources *s,
                             const struct mm_spm *m, struct mm_error *err);
void mm_special_deinit(struct mm_special_tokens *t);

const struct mm_special *mm_special_by_id(const struct mm_special_tokens *t, int32_t id);
const struct mm_special *mm_special_by_text(const struct mm_special_tokens *t, const char *text,
                                            size_t len);
// The first token that lies within text[at, n), the longest where several open; its place in
// *start. NULL: none.
const struct mm_special *mm_special_next(const struct mm_special_tokens *t, const char *text,
                                         size_t n, size_t at, size_t *start);

#endif
