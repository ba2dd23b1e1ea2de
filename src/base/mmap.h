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
// process's, and are read anew where they are touched. Not after mm_map_copy.
void mm_map_forget(const void *data, size_t bytes);

// Advice, and nothing else: the file will be needed whole and soon. The kernel begins to read it,
// in large pages where its file system can. Returns at once.
void mm_map_prefetch(const struct mm_map *m);
// Replaces the mapping, at its place, by a copy in memory of our own and in huge pages: for kernels
// and file systems that map files in small pages only. The memory is then no longer shared with
// other processes, nor given back when it is short.
enum mm_code mm_map_copy(struct mm_map *m, struct mm_error *err);

#endif
