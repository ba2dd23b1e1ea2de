// Owns: the check of one UTF-8 character (RFC 3629) and the stream that never shows half of one.
#include "base/utf8.h"

#include <stdbool.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD";  // U+FFFD

// The number of bytes a lead byte asks for, 0 for bytes that can open no character.
static int wanted(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead >= 0xC2 && lead <= 0xDF) return 2;
    if (lead >= 0xE0 && lead <= 0xEF) return 3;
    if (lead >= 0xF0 && lead <= 0xF4) return 4;
    return 0;
}

// Whether byte i >= 1 may follow `lead`. Only the first of them depends on the lead: that is where
// overlong forms, surrogates and numbers above U+10FFFF show.
static bool may_follow(unsigned char lead, size_t i, unsigned char c) {
    unsigned char lo = 0x80, hi = 0xBF;
    if (i == 1) {
        if (lead == 0xE0) lo = 0xA0;
        if (lead == 0xED) hi = 0x9F;
        if (lead == 0xF0) lo = 0x90;
        if (lead == 0xF4) hi = 0x8F;
    }
    return c >= lo && c <= hi;
}

// As mm_utf8_char, but -1 when the bytes are a good start that n cuts.
static int char_or_open(const char *s, size_t n) {
    const unsigned char lead = (unsigned char)s[0];
    const int want = wanted(lead);
    for (size_t i = 1; i < (size_t)want; i++) {
        if (i == n) return -1;
        if (!may_follow(lead, i, (unsigned char)s[i])) return 0;
    }
    return want;
}

int mm_utf8_char(const char *s, size_t n) {
    const int len = char_or_open(s, n);
    return len < 0 ? 0 : len;
}

void mm_utf8_stream_add(struct mm_utf8_stream *s, const char *bytes, size_t n, struct mm_buf *out) {
    for (size_t i = 0; i < n; i++) {
        s->held[s->n_held++] = bytes[i];
        while (s->n_held > 0) {
            const int len = char_or_open(s->held, (size_t)s->n_held);
            if (len < 0) break;  // may still become whole
            const int used = len > 0 ? len : 1;
            if (len > 0) {
                mm_buf_add(out, s->held, (size_t)len);
            } else {
                mm_buf_add(out, replacement, 3);
            }
            s->n_held -= used;
            memmove(s->held, s->held + used, (size_t)s->n_held);
        }
    }
}

void mm_utf8_stream_end(struct mm_utf8_stream *s, struct mm_buf *out) {
    for (int i = 0; i < s->n_held; i++) {
        mm_buf_add(out, replacement, 3);
    }
    s->n_held = 0;
}
