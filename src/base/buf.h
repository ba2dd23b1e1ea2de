// A growable byte buffer and string.
#ifndef MM_BASE_BUF_H
#define MM_BASE_BUF_H

#include <stddef.h>

struct mm_buf {
    char *data;  // always followed by a zero byte once anything was added; NULL when empty
    size_t len, cap;
};

// Memory for these is small; running out of it ends the process with a sentence.
void mm_buf_add(struct mm_buf *b, const void *bytes, size_t n);
void mm_buf_adds(struct mm_buf *b, const char *s);
void mm_buf_addf(struct mm_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mm_buf_reset(struct mm_buf *b);  // len = 0, memory kept
void mm_buf_free(struct mm_buf *b);

void *mm_xmalloc(size_t bytes);  // for small host structures only; never NULL
void *mm_xcalloc(size_t n, size_t bytes);
void *mm_xrealloc(void *p, size_t bytes);
char *mm_xstrdup(const char *s);
char *mm_xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
