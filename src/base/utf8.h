// UTF-8: what is one character, and text that arrives in pieces which may cut a character.
#ifndef MM_BASE_UTF8_H
#define MM_BASE_UTF8_H

#include <stddef.h>
#include "base/buf.h"

// Bytes of the character that opens s[0, n): 1..4, or 0 when these bytes are no character (a stray
// or missing continuation byte, an overlong form, a surrogate, above U+10FFFF, cut at n). n >= 1.
int mm_utf8_char(const char *s, size_t n);

// Collects bytes and lets only whole characters through: what a token stream is shown with. Start
// from a zeroed struct. Each byte that can belong to no character becomes U+FFFD, so cutting the
// input anywhere gives the same text as giving it at once.
struct mm_utf8_stream {
    char held[4];  // the open start of a character
    int n_held;    // 0..3 between calls
};
void mm_utf8_stream_add(struct mm_utf8_stream *s, const char *bytes, size_t n, struct mm_buf *out);
void mm_utf8_stream_end(struct mm_utf8_stream *s, struct mm_buf *out);  // what is held is broken

#endif
