// Growable buffers and small allocations that do not fail: they hold names, lines and tables of
// host structures, never tensors, so running out here means the machine is already lost.
#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void out_of_memory(size_t bytes) {
    fprintf(stderr, "mmamba: out of memory: %zu bytes more were needed for a small structure\n",
            bytes);
    exit(1);
}

void *mm_xmalloc(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p) out_of_memory(bytes);
    return p;
}

void *mm_xcalloc(size_t n, size_t bytes) {
    void *p = calloc(n ? n : 1, bytes ? bytes : 1);
    if (!p) out_of_memory(n > SIZE_MAX / (bytes ? bytes : 1) ? SIZE_MAX : n * bytes);
    return p;
}

void *mm_xrealloc(void *p, size_t bytes) {
    void *q = realloc(p, bytes ? bytes : 1);
    if (!q) out_of_memory(bytes);
    return q;
}

char *mm_xstrdup(const char *s) {
    const size_t n = strlen(s) + 1;
    return memcpy(mm_xmalloc(n), s, n);
}

char *mm_xasprintf(const char *format, ...) {
    va_list args;
    char *s = NULL;
    va_start(args, format);
    const int n = vasprintf(&s, format, args);
    va_end(args);
    if (n < 0) out_of_memory(0);
    return s;
}

// Room for n more bytes and the zero after them.
static void reserve(struct mm_buf *b, size_t n) {
    if (n > SIZE_MAX / 2 - b->len - 1) out_of_memory(n);
    const size_t need = b->len + n + 1;
    if (need <= b->cap) return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) {
        cap *= 2;
    }
    b->data = mm_xrealloc(b->data, cap);
    b->cap = cap;
}

void mm_buf_add(struct mm_buf *b, const void *bytes, size_t n) {
    reserve(b, n);
    if (n) memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void mm_buf_adds(struct mm_buf *b, const char *s) {
    mm_buf_add(b, s, strlen(s));
}

void mm_buf_addf(struct mm_buf *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) out_of_memory(0);
    reserve(b, (size_t)n);
    vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
    va_end(again);
    b->len += (size_t)n;
}

void mm_buf_reset(struct mm_buf *b) {
    b->len = 0;
    if (b->data) b->data[0] = '\0';
}

void mm_buf_free(struct mm_buf *b) {
    free(b->data);
    *b = (struct mm_buf){0};
}
