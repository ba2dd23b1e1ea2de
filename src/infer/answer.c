// Owns: what of an answer may be shown when.
#include "infer/answer.h"

#include <stdlib.h>
#include <string.h>

// Bytes of the white space character that opens s[0, n), 0 when it is none: those that Python's
// str.strip() takes, which is what the published code calls. All are at most three bytes long.
static size_t space_at(const char *s, size_t n) {
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80) {
        return (u[0] >= 0x09 && u[0] <= 0x0d) || (u[0] >= 0x1c && u[0] <= 0x20) ? 1 : 0;
    }
    if (n >= 2 && u[0] == 0xc2) return u[1] == 0x85 || u[1] == 0xa0 ? 2 : 0;
    if (n < 3 || u[0] < 0xe1 || u[0] > 0xe3) return 0;
    const unsigned c = (u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
    const bool space = c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
                       c == 0x202f || c == 0x205f || c == 0x3000;
    return space ? 3 : 0;
}

static void make_room(struct mm_buf *b, size_t bytes) {
    if (b->cap < bytes + 1) {
        b->data = mm_xrealloc(b->data, bytes + 1);
        b->cap = bytes + 1;
    }
    b->len = 0;
    b->data[0] = '\0';
}

void mm_answer_text_begin(struct mm_answer_text *a, size_t bytes, size_t longest) {
    a->utf8 = (struct mm_utf8_stream){0};
    a->n_shown = 0;
    // each byte may turn into the three of U+FFFD
    make_room(&a->text, 3 * (bytes + sizeof a->utf8.held));
    make_room(&a->piece, longest);
}

static size_t show(struct mm_answer_text *a) {
    const size_t from = a->n_shown;
    size_t at = from;
    while (at < a->text.len) {
        const char *s = a->text.data + at;
        const size_t space = space_at(s, a->text.len - at);
        at += space ? space : (size_t)mm_utf8_char(s, a->text.len - at);
        if (space == 0) a->n_shown = at;
    }
    if (a->n_shown == 0) a->text.len = 0;  // white space in front
    return from;
}

size_t mm_answer_text_add(struct mm_answer_text *a, const struct mm_tokenizer *t, int32_t id,
                          bool first) {
    if (mm_tokenizer_is_special(t, id)) return a->n_shown;
    mm_buf_reset(&a->piece);
    mm_tokenizer_piece(t, id, first, &a->piece);
    const size_t before = a->text.len;
    if (a->piece.len > 0) mm_utf8_stream_add(&a->utf8, a->piece.data, a->piece.len, &a->text);
    if (a->n_shown == 0 && before == 0) {
        // leading white space goes at once, so that the text begins where the answer does
        size_t n = 0, step;
        while (n < a->text.len && (step = space_at(a->text.data + n, a->text.len - n)) > 0)
            n += step;
        if (n > 0) {
            a->text.len -= n;
            memmove(a->text.data, a->text.data + n, a->text.len + 1);
        }
    }
    return show(a);
}

size_t mm_answer_text_end(struct mm_answer_text *a) {
    mm_utf8_stream_end(&a->utf8, &a->text);
    const size_t from = show(a);
    a->text.len = a->n_shown;
    if (a->text.data) a->text.data[a->text.len] = '\0';
    return from;
}

void mm_answer_text_deinit(struct mm_answer_text *a) {
    mm_buf_free(&a->piece);
    mm_buf_free(&a->text);
    *a = (struct mm_answer_text){0};
}
