// Safetensors files and folders: read by mapping, every header field checked; written beside and
// renamed. Format: 8 bytes little-endian header length, JSON header, tensor bytes.
#ifndef MM_IO_SAFETENSORS_H
#define MM_IO_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/status.h"

enum { mm_st_max_axes = 8 };

struct mm_st_tensor {
    const char *name;
    enum mm_dtype dtype;
    int n_axes;  // 0 for a scalar
    int64_t shape[mm_st_max_axes];
    const void *data;  // in the mapping; may be unaligned for its type
    size_t bytes;
};

struct mm_st;  // an open file, or all shards of a folder

// One file. Refuses truncated files, offsets that overlap, leave gaps or leave the file, repeated
// names, unknown dtypes, shapes whose size differs from the offsets, absurd headers.
enum mm_code mm_st_open(struct mm_st **st, const char *path, struct mm_error *err);
// A model folder: model.safetensors.index.json with its shards, else model.safetensors. A tensor
// that the index names and its shard lacks, or the reverse, is an error.
enum mm_code mm_st_open_folder(struct mm_st **st, const char *folder, struct mm_error *err);
void mm_st_close(struct mm_st *st);

// The files will be read whole and soon: the kernel may begin, unless that is more than the memory
// that is free.
void mm_st_prefetch(const struct mm_st *st);
// Replaces the mappings by copies in huge pages; tensors stay where they are. See mm_map_copy.
enum mm_code mm_st_copy_to_memory(struct mm_st *st, struct mm_error *err);

const char *mm_st_path(const struct mm_st *st);  // for messages
int mm_st_count(const struct mm_st *st);
const struct mm_st_tensor *mm_st_at(const struct mm_st *st, int i);  // in order of the name
const struct mm_st_tensor *mm_st_find(const struct mm_st *st, const char *name);  // or NULL
// The __metadata__ value of a key, or NULL.
const char *mm_st_metadata(const struct mm_st *st, const char *key);

struct mm_st_meta {
    const char *key, *value;
};

// Writes one file, metadata may be NULL (n_meta 0). Tensors of wider elements come first, else in
// the given order; given in order of the name the file equals the published writer's to the byte.
// Data is streamed from the pointers, so nothing is held twice. On any failure the old file is
// untouched.
enum mm_code mm_st_write(const char *path, const struct mm_st_tensor *tensors, int n,
                         const struct mm_st_meta *meta, int n_meta, struct mm_error *err);

// Bytes of tensors that are made while they are written: `write` gives those of tensor i, whose
// data is NULL, to mm_st_put in order, in pieces of any size.
struct mm_st_sink;
enum mm_code mm_st_put(struct mm_st_sink *to, const void *data, size_t bytes, struct mm_error *err);
struct mm_st_source {
    enum mm_code (*write)(void *arg, int i, struct mm_st_sink *to, struct mm_error *err);
    void *arg;
    bool ordered;  // the given order stays, and a file's first tensor begins at a multiple of 64
};
// Writes folder/model.safetensors, or shards of at most shard_bytes with an index when larger.
// Metadata {"format": "pt"} as the published code expects. `source` may be NULL when every tensor
// has its data.
enum mm_code mm_st_write_folder(const char *folder, const struct mm_st_tensor *tensors, int n,
                                const struct mm_st_source *source, size_t shard_bytes,
                                struct mm_error *err);

#endif
