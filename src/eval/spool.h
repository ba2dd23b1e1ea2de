// A file without a name for what scoring cannot keep in memory: in $TMPDIR, else /var/tmp, else
// /tmp. It is gone when it is closed, however the program ends. Little makes no file.
#ifndef MM_EVAL_SPOOL_H
#define MM_EVAL_SPOOL_H

#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

struct mm_spool {  // zeroed: empty, and not made before something is written
    int fd_and_1;
    int64_t bytes;
    struct mm_buf tail;  // what is not written yet: all of it while that is little
};

enum mm_code mm_spool_add(struct mm_spool *s, const void *data, size_t n, struct mm_error *err);
enum mm_code mm_spool_read(const struct mm_spool *s, int64_t at, void *data, size_t n,
                           struct mm_error *err);
// These bytes are not read again: the disk may have them back.
void mm_spool_drop(struct mm_spool *s, int64_t from, int64_t to);
void mm_spool_close(struct mm_spool *s);

#endif
