// Text as Python sees it, and the answers' normal form of the VQA score (VLMEvalKit's
// process_punctuation, process_digit_article and process_answer).
// Texts are UTF-8; a byte that is no character counts as one character of its own.
#ifndef MM_EVAL_TEXT_H
#define MM_EVAL_TEXT_H

#include <stdint.h>
#include "base/buf.h"
#include "eval/str.h"

// One code point of s at *at, which moves on; a stray byte gives -1.
int32_t mm_text_next(struct mm_str s, size_t *at);
bool mm_text_is_space(int32_t c);  // str.isspace(): what str.split() and str.strip() go by
bool mm_text_is_digit(int32_t c);  // re's \d: any decimal digit

// str.lower(), with the final sigma and the dotted capital I. Overwrites *out; out does not hold s.
struct mm_str mm_text_lower(struct mm_buf *out, struct mm_str s);
struct mm_str mm_text_strip(struct mm_str s);
// The next word of s as str.split() cuts it, from *at on; false behind the last.
bool mm_text_word(struct mm_str s, size_t *at, struct mm_str *word);

struct mm_normalizer {  // working memory, kept between calls; zero to start with
    struct mm_buf a, b;
};
void mm_normalizer_deinit(struct mm_normalizer *n);
// Each gives a text that is valid until the next call with the same normalizer; s may not be one
// of those.
struct mm_str mm_process_punctuation(struct mm_normalizer *n, struct mm_str s);
struct mm_str mm_process_answer(struct mm_normalizer *n, struct mm_str s);

#endif
