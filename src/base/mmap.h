// Files read by mapping.
#ifndef MM_BASE_MMAP_H
#define MM_BASE_MMAP_H

#include <stddef.h>
#include "base/status.h"

struct mm_map {
    const unsigned char *data;  // NULL for an empty file
    size_t bytes;
};

// Refuses what is not a regular file. The mapping is private and read-only.
enum mm_code mm_map_open(struct mm_map *m, const char *path, struct mm_error *err);
// For files read from front to back: once `at` is well ahead of *from, the pages before it are
// given back, so that the resident part stays small whatever the file's size. Going back is
// allowed, and reads them again; *from starts as 0 and belongs to the reader.
void mm_map_pass(const struct mm_map *m, size_t *from, size_t at);
void mm_map_close(struct mm_map *m);
// Bytes inside a mapping that are not needed for now: their pages no longer count as this
// process's, and are read anew where they are touched.
void mm_map_forget(const void *data, size_t bytes);

#endif
