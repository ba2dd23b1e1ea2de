// A session as one file, exact: docs/SESSIONS.md.
#ifndef MM_INFER_SNAPSHOT_H
#define MM_INFER_SNAPSHOT_H

#include "infer/session.h"

// Pictures that still wait are read first: the file holds what they left in the state. The marks of
// rewind are not saved.
enum mm_code mm_session_save(struct mm_session *s, const char *path, struct mm_error *err);
// A file of other weights, another config or other code for them is refused. options: tiles, pieces
// and marks from now on; the system message, sampling and random numbers are the file's.
enum mm_code mm_session_load(struct mm_session **s, struct mm_engine *e,
                             const struct mm_session_options *options, const char *path,
                             struct mm_error *err);

#endif
