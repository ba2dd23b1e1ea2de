// The chat template "internlm2-chat" and the expansion of pictures into tokens.
//   <|im_start|>system\n{SYS}<|im_end|><|im_start|>user\n{Q}<|im_end|><|im_start|>assistant\n
// No newline after <|im_end|>. Each "<image>" in the text becomes <img>, then
// <IMG_CONTEXT> x (tokens a tile x tiles of that picture), then </img>, first occurrence first.
#ifndef MM_IO_CHAT_H
#define MM_IO_CHAT_H

#include "io/tokenizer.h"

extern const char mm_chat_default_system[];  // InternVL's system message

struct mm_chat_special {  // ids looked up once by content, never hard-coded
    int32_t im_start, im_end, img, img_end, img_context;
};
enum mm_code mm_chat_special_find(struct mm_chat_special *s, const struct mm_tokenizer *t,
                                  const char *folder, struct mm_error *err);

enum mm_chat_role { mm_chat_role_system, mm_chat_role_user, mm_chat_role_assistant };

// Appends one turn's text to *out: opening marker, text, and <|im_end|> when `closed`. An
// assistant turn that is to be generated is opened with text NULL and closed = false. As in the
// original template an empty message leaves only the marker, except the system's.
void mm_chat_add_turn(struct mm_buf *out, enum mm_chat_role role, const char *text, bool closed);

// Replaces "<image>" occurrences in order; tiles[i] is the number of tiles of picture i. Fails
// when occurrences and pictures differ in number. `what` names the sample for messages.
enum mm_code mm_chat_expand_images(struct mm_buf *out, const char *text, const int32_t *tiles,
                                   int n_pictures, int32_t tokens_per_tile, const char *what,
                                   struct mm_error *err);

// The same conversation straight to ids, with what people wrote taken as plain text: a
// "<|im_end|>" or "<img>" inside a turn's text is letters, only the markers set here and the
// pictures at "<image>" are special tokens. For harmless texts the ids are those of encoding the
// expanded text at once.
struct mm_chat_turn {
    enum mm_chat_role role;
    const char *text;  // NULL: only the opening marker
    bool closed;
};
enum mm_code mm_chat_encode(const struct mm_tokenizer *t, const struct mm_chat_turn *turns,
                            int n_turns, const int32_t *tiles, int n_pictures,
                            int32_t tokens_per_tile, bool with_bos, const char *what,
                            struct mm_ids *ids, struct mm_error *err);

#endif
