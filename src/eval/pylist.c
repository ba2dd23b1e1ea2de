// Python list literals.
#include "eval/pylist.h"

#include <stdlib.h>
#include <utf8proc.h>

void mm_pylist_free(struct mm_pylist *l) {
    mm_buf_free(&l->text);
    free(l->end);
    *l = (struct mm_pylist){0};
}

struct mm_str mm_pylist_get(const struct mm_pylist *l, int64_t i) {
    const size_t begin = i ? l->end[i - 1] : 0;
    return (struct mm_str){l->text.data ? l->text.data + begin : "", l->end[i] - begin};
}

struct cursor {
    const char *p, *end;
};

static void skip_space(struct cursor *c) {
    while (c->p < c->end && strchr(" \t\n\r\f", *c->p) && *c->p)
        c->p++;
}

static bool take(struct cursor *c, char wanted) {
    if (c->p == c->end || *c->p != wanted) return false;
    c->p++;
    return true;
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 99;
}

static void add_char(struct mm_buf *out, int32_t c) {
    if (c >= 0xd800 && c <= 0xdfff) c = 0xfffd;  // half of a pair is no character of its own
    utf8proc_uint8_t bytes[4];
    mm_buf_add(out, bytes, (size_t)utf8proc_encode_char(c, bytes));
}

// n hexadecimal digits.
static bool add_hex(struct cursor *c, int n, struct mm_buf *out) {
    int64_t v = 0;
    for (int i = 0; i < n; i++, c->p++) {
        if (c->p == c->end || digit_of(*c->p) > 15) return false;
        v = v * 16 + digit_of(*c->p);
    }
    if (v > 0x10ffff) return false;
    add_char(out, (int32_t)v);
    return true;
}

// What follows a backslash.
static bool add_escape(struct cursor *c, struct mm_buf *out) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    if (c->p == c->end) return false;
    const char e = *c->p++;
    const char *known = e ? strchr(from, e) : NULL;
    if (known) {
        mm_buf_add(out, &to[known - from], 1);
    } else if (e == '\n') {
        return true;  // a line that goes on
    } else if (e == 'x') {
        return add_hex(c, 2, out);
    } else if (e == 'u') {
        return add_hex(c, 4, out);
    } else if (e == 'U') {
        return add_hex(c, 8, out);
    } else if (e == 'N') {
        return false;
    } else if (e >= '0' && e <= '7') {
        int32_t v = e - '0';
        for (int i = 0; i < 2 && c->p < c->end && *c->p >= '0' && *c->p <= '7'; i++) {
            v = v * 8 + (*c->p++ - '0');
        }
        add_char(out, v);
    } else {  // unknown ones stay as they are
        mm_buf_add(out, "\\", 1);
        mm_buf_add(out, &e, 1);
    }
    return true;
}

// One string with its prefix, appended to *out.
static bool read_string(struct cursor *c, struct mm_buf *out) {
    bool raw = false;
    if (c->p < c->end && (*c->p == 'r' || *c->p == 'R')) {
        raw = true;
        c->p++;
    } else if (c->p < c->end && (*c->p == 'u' || *c->p == 'U')) {
        c->p++;
    }
    if (c->p == c->end || (*c->p != '\'' && *c->p != '"')) return false;
    const char quote = *c->p++;
    bool triple = false;
    if (c->end - c->p >= 2 && c->p[0] == quote && c->p[1] == quote) {
        triple = true;
        c->p += 2;
    }
    while (c->p < c->end) {
        const char x = *c->p++;
        if (x == quote && !triple) return true;
        if (x == quote && c->end - c->p >= 2 && c->p[0] == quote && c->p[1] == quote) {
            c->p += 2;
            return true;
        }
        if (x == '\n' && !triple) return false;
        if (x != '\\') {
            mm_buf_add(out, &x, 1);
        } else if (!raw) {
            if (!add_escape(c, out)) return false;
        } else {
            mm_buf_add(out, &x, 1);
            if (c->p < c->end) mm_buf_add(out, c->p++, 1);
        }
    }
    return false;
}

bool mm_pylist_read(struct mm_pylist *l, struct mm_str s) {
    struct cursor c = {s.s, s.s + s.n};
    mm_buf_reset(&l->text);
    l->n = 0;
    skip_space(&c);
    if (!take(&c, '[')) return false;
    for (skip_space(&c); !take(&c, ']'); skip_space(&c)) {
        do {
            if (!read_string(&c, &l->text)) return false;
            skip_space(&c);
        } while (c.p < c.end && strchr("'\"rRuU", *c.p) && *c.p);
        if (l->n == l->cap) {
            l->cap = l->cap ? 2 * l->cap : 16;
            l->end = mm_xrealloc(l->end, (size_t)l->cap * sizeof *l->end);
        }
        l->end[l->n++] = l->text.len;
        if (!take(&c, ',')) {
            if (!take(&c, ']')) return false;
            break;
        }
    }
    skip_space(&c);
    return c.p == c.end;
}
