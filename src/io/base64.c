// Owns: standard base64 (RFC 4648).
#include <stdint.h>
#include <string.h>
#include "io/file.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int digit_of(unsigned char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool is_space(unsigned char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

enum mm_code mm_base64_decode(struct mm_buf *out, const char *text, size_t n, const char *what,
                              struct mm_error *err) {
    unsigned char block[3 * 1024];  // gathered, so that a megapixel is not a million appends
    size_t held = 0, digits = 0, pads = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (is_space(c)) continue;
        if (c == '=') {
            pads++;
            continue;
        }
        const int d = digit_of(c);
        if (d < 0 || pads > 0) {
            return mm_fail(err, mm_code_input, "%s: not base64: byte 0x%02x at offset %zu%s", what,
                           c, i, d < 0 ? "" : " stands behind the padding");
        }
        bits = bits << 6 | (uint32_t)d;
        if (++digits % 4 == 0) {
            block[held++] = (unsigned char)(bits >> 16);
            block[held++] = (unsigned char)(bits >> 8);
            block[held++] = (unsigned char)bits;
            if (held == sizeof block) {
                mm_buf_add(out, block, held);
                held = 0;
            }
        }
    }
    const size_t rest = digits % 4;
    if (rest == 1 || pads > 2 || (pads > 0 && (rest + pads) % 4 != 0)) {
        return mm_fail(
            err, mm_code_input,
            "%s: not base64: it ends with %zu digits and %zu '=' where four make a group", what,
            rest, pads);
    }
    if (rest >= 2) block[held++] = (unsigned char)(bits >> (rest == 2 ? 4 : 10));
    if (rest == 3) block[held++] = (unsigned char)(bits >> 2);
    mm_buf_add(out, block, held);
    return mm_code_ok;
}

void mm_base64_encode(struct mm_buf *out, const void *data, size_t n) {
    const unsigned char *p = data;
    char block[4 * 1024];
    size_t held = 0;
    for (size_t i = 0; i < n; i += 3) {
        const size_t left = n - i;
        const uint32_t bits = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                              (left > 2 ? (uint32_t)p[i + 2] : 0);
        block[held++] = alphabet[bits >> 18];
        block[held++] = alphabet[bits >> 12 & 63];
        block[held++] = left > 1 ? alphabet[bits >> 6 & 63] : '=';
        block[held++] = left > 2 ? alphabet[bits & 63] : '=';
        if (held == sizeof block) {
            mm_buf_add(out, block, held);
            held = 0;
        }
    }
    mm_buf_add(out, block, held);
}
