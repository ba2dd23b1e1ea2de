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
void mm_map_close(struct mm_map *m);
// Bytes inside a mapping that are not needed for now: their pages no longer count as this
// process's, and are read anew where they are touched.
void mm_map_forget(const void *data, size_t bytes);

#endif
