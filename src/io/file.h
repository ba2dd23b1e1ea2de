// Whole files: read with a limit, written beside and renamed, so that a crash or a full disk
// leaves the old file or the new one, never half of one.
#ifndef MM_IO_FILE_H
#define MM_IO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

// Reads a regular file of at most max_bytes into *out (zero-terminated, free with mm_buf_free).
enum mm_code mm_file_read(struct mm_buf *out, const char *path, size_t max_bytes,
                          struct mm_error *err);

// "<path>.tmp.<pid>", renamed to path by commit. Temporaries of dead processes are removed by the
// next open. A link is followed; a device or pipe is written directly.
struct mm_outfile;
enum mm_code mm_outfile_open(struct mm_outfile **f, const char *path, struct mm_error *err);
enum mm_code mm_outfile_write(struct mm_outfile *f, const void *data, size_t bytes,
                              struct mm_error *err);
// Everything written so far is on the disk (still under the temporary name): for several files that
// are to change together, so that a full disk is met before the first is renamed.
enum mm_code mm_outfile_sync(struct mm_outfile *f, struct mm_error *err);
// fsync, rename, fsync of the folder. Frees f in every case; on failure the temporary is removed.
enum mm_code mm_outfile_commit(struct mm_outfile *f, struct mm_error *err);
void mm_outfile_abort(struct mm_outfile *f);  // NULL is allowed

enum mm_code mm_file_write(const char *path, const void *data, size_t bytes, struct mm_error *err);
enum mm_code mm_file_copy(const char *from, const char *to, struct mm_error *err);  // atomic too
enum mm_code mm_folder_make(const char *path, struct mm_error *err);  // with its parents; may exist
bool mm_path_exists(const char *path);
bool mm_path_is_folder(const char *path);
char *mm_path_join(const char *folder, const char *name);  // malloc'ed; an absolute name wins

// Standard base64 (RFC 4648); white space is skipped; missing padding is accepted.
enum mm_code mm_base64_decode(struct mm_buf *out, const char *text, size_t n, const char *what,
                              struct mm_error *err);
void mm_base64_encode(struct mm_buf *out, const void *data, size_t n);

#endif
