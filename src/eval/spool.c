// Files without a name.
#include "eval/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { tail_bytes = 64 << 10 };

// Some file systems have no O_TMPFILE: there a name lives for a moment.
static int open_in(const char *folder) {
    const int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) return fd;
    char *path = mm_xasprintf("%s/mmamba-XXXXXX", folder);
    const int named = mkostemp(path, O_CLOEXEC);
    if (named >= 0) unlink(path);
    free(path);
    return named;
}

static enum mm_code make(struct mm_spool *s, struct mm_error *err) {
    const char *chosen = getenv("TMPDIR");
    const char *const folders[] = {chosen && *chosen ? chosen : "/var/tmp", "/tmp"};
    int fd = open_in(folders[0]);
    if (fd < 0 && !(chosen && *chosen)) fd = open_in(folders[1]);
    if (fd < 0) {
        return mm_fail_errno(err, "%s: no temporary file can be made there (TMPDIR chooses)",
                             folders[0]);
    }
    s->fd_and_1 = fd + 1;
    return mm_code_ok;
}

static enum mm_code flush(struct mm_spool *s, struct mm_error *err) {
    if (!s->fd_and_1) MM_TRY(make(s, err));
    for (size_t done = 0; done < s->tail.len;) {
        const ssize_t n = pwrite(s->fd_and_1 - 1, s->tail.data + done, s->tail.len - done,
                                 (off_t)(s->bytes - (int64_t)(s->tail.len - done)));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            return mm_fail_errno(err, "a temporary file cannot be written (TMPDIR chooses where)");
        }
        done += (size_t)n;
    }
    mm_buf_reset(&s->tail);
    return mm_code_ok;
}

enum mm_code mm_spool_add(struct mm_spool *s, const void *data, size_t n, struct mm_error *err) {
    mm_buf_add(&s->tail, data, n);
    s->bytes += (int64_t)n;
    return s->tail.len < tail_bytes ? mm_code_ok : flush(s, err);
}

enum mm_code mm_spool_read(const struct mm_spool *s, int64_t at, void *data, size_t n,
                           struct mm_error *err) {
    const int64_t written = s->bytes - (int64_t)s->tail.len;
    for (size_t done = 0; done < n;) {
        const int64_t from = at + (int64_t)done;
        const size_t left = n - done;
        if (from >= written && from + (int64_t)left <= s->bytes) {
            memcpy((char *)data + done, s->tail.data + (from - written), left);
            return mm_code_ok;
        }
        const size_t there = from < written ? (size_t)(written - from) : left;
        const ssize_t got =
            pread(s->fd_and_1 - 1, (char *)data + done, left < there ? left : there, (off_t)from);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = EIO;  // it was there when it was written
        if (got <= 0) return mm_fail_errno(err, "a temporary file cannot be read");
        done += (size_t)got;
    }
    return mm_code_ok;
}

void mm_spool_drop(struct mm_spool *s, int64_t from, int64_t to) {
    if (!s->fd_and_1 || from >= to) return;
    (void)fallocate(s->fd_and_1 - 1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                    (off_t)(to - from));  // a hint
}

void mm_spool_close(struct mm_spool *s) {
    if (s->fd_and_1) close(s->fd_and_1 - 1);
    mm_buf_free(&s->tail);
    *s = (struct mm_spool){0};
}
