// The text of an answer while it is written: whole characters only, no special tokens, no white
// space at either end (as the published chat() strips it), so what was shown in parts is exactly
// the text at the end.
#ifndef MM_INFER_ANSWER_H
#define MM_INFER_ANSWER_H

#include "base/utf8.h"
#include "io/tokenizer.h"

struct mm_answer_text {
    struct mm_utf8_stream utf8;
    struct mm_buf piece;  // of the token being added
    struct mm_buf text;   // white space at its end is held back
    size_t n_shown;       // of text, without that white space
};

// Forgets the text and makes room, so that adding `bytes` bytes in pieces of at most `longest`
// allocates nothing.
void mm_answer_text_begin(struct mm_answer_text *a, size_t bytes, size_t longest);
// Adds a token (`first`: it opens the answer); what can be shown now is text.data[return value ..
// n_shown).
size_t mm_answer_text_add(struct mm_answer_text *a, const struct mm_tokenizer *t, int32_t id,
                          bool first);
// An open character at the end becomes U+FFFD; held white space is dropped. As above.
size_t mm_answer_text_end(struct mm_answer_text *a);
void mm_answer_text_deinit(struct mm_answer_text *a);

#endif
