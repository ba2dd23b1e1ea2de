// Owns: reading safetensors files and folders. A file is 8 bytes of header length n
// (little-endian), n bytes of JSON, and the tensors' bytes without gap or overlap:
//   {"__metadata__": {key: text}, name: {"dtype": "F32", "shape": [..], "data_offsets": [begin,
//   end]}}
// with offsets counted from the end of the header. Files are mapped; nothing is copied.
#include "io/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/memory.h"
#include "base/mmap.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors_names.h"

enum {
    // The format's own limit is 100 MB; this holds 200,000 tensors and bounds what parsing takes.
    header_most = 32 << 20,
    name_most = 1024,
};

struct shard {
    char *path;
    struct mm_map map;
    json_t *header;  // owns the tensors' names and the metadata
};

struct entry {
    struct mm_st_tensor t;
    int shard;
};

struct mm_st {
    char *path;
    struct shard *shards;
    int n_shards;
    struct entry *entries;  // (n) in order of the name
    int n, cap;
};

// A tensor name as it may stand in a message: cut, and without control bytes.
struct shown {
    char text[96];
};

static struct shown show(const char *name) {
    struct shown s;
    json_t *v = json_string(name);
    mm_json_show(s.text, sizeof s.text, v);
    json_decref(v);
    return s;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->t.name, ((const struct entry *)b)->t.name);
}

// By place in the file; an empty tensor comes before one that begins at the same byte.
static int by_place(const void *a, const void *b) {
    const struct mm_st_tensor *x = &((const struct entry *)a)->t,
                              *y = &((const struct entry *)b)->t;
    if (x->data != y->data) return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static enum mm_code read_dtype(struct mm_st_tensor *t, const json_t *o, const char *what,
                               struct mm_error *err) {
    const json_t *v = json_object_get(o, "dtype");
    if (json_is_string(v)) {
        for (int d = 0; d < mm_dtype_count; d++) {
            if (strcmp(json_string_value(v), mm_dtype_st_name((enum mm_dtype)d)) == 0) {
                t->dtype = (enum mm_dtype)d;
                return mm_code_ok;
            }
        }
    }
    return mm_json_wrong(what, "dtype", v, "one of F32, BF16, F16, I32, I64, U8", err);
}

// Reads the shape; *bytes is what it takes, checked against overflow.
static enum mm_code read_shape(struct mm_st_tensor *t, const json_t *o, uint64_t *bytes,
                               const char *what, struct mm_error *err) {
    const json_t *v = json_object_get(o, "shape");
    if (!json_is_array(v) || json_array_size(v) > mm_st_max_axes) {
        return mm_json_wrong(what, "shape", v, "an array of at most 8 sizes", err);
    }
    t->n_axes = (int)json_array_size(v);
    *bytes = mm_dtype_bytes(t->dtype);
    bool overflow = false, empty = false;
    for (int i = 0; i < t->n_axes; i++) {
        const json_t *size = json_array_get(v, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0) {
            return mm_json_wrong(what, "shape", size, "sizes that are integers of at least 0", err);
        }
        t->shape[i] = json_integer_value(size);
        empty |= t->shape[i] == 0;
        overflow |= __builtin_mul_overflow(*bytes, (uint64_t)t->shape[i], bytes);
    }
    if (empty) *bytes = 0;  // also when the other sizes alone would not fit
    if (overflow && !empty) {
        return mm_fail(err, mm_code_input, "%s: 'shape' is larger than any memory", what);
    }
    return mm_code_ok;
}

// Reads the place of the tensor's bytes, which must hold exactly what dtype and shape take.
static enum mm_code read_offsets(struct mm_st_tensor *t, const json_t *o, uint64_t bytes,
                                 const char *what, const unsigned char *data, size_t data_bytes,
                                 struct mm_error *err) {
    const json_t *v = json_object_get(o, "data_offsets");
    const json_t *b = json_array_get(v, 0), *e = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(b) || !json_is_integer(e)) {
        return mm_json_wrong(what, "data_offsets", v, "an array of two integers", err);
    }
    const json_int_t begin = json_integer_value(b), end = json_integer_value(e);
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes) {
        return mm_fail(err, mm_code_input,
                       "%s: 'data_offsets' is [%" PRId64 ", %" PRId64
                       "], wanted a range within the %zu bytes that follow the header",
                       what, (int64_t)begin, (int64_t)end, data_bytes);
    }
    if ((uint64_t)(end - begin) != bytes) {
        return mm_fail(err, mm_code_input,
                       "%s: 'data_offsets' span %" PRId64 " bytes, wanted the %" PRIu64
                       " that its dtype and shape take",
                       what, (int64_t)(end - begin), bytes);
    }
    t->data = data ? data + begin : NULL;
    t->bytes = (size_t)bytes;
    return mm_code_ok;
}

// One member of the header. data_bytes is what the file holds behind it.
static enum mm_code read_tensor(struct mm_st_tensor *t, const char *name, const json_t *o,
                                const char *path, const unsigned char *data, size_t data_bytes,
                                struct mm_error *err) {
    const struct shown shown = show(name);
    const size_t length = strlen(name);
    if (length == 0 || length > name_most) {
        return mm_fail(err, mm_code_input,
                       "%s: a tensor's name has %zu bytes, wanted 1 to %d (it begins %s)", path,
                       length, name_most, shown.text);
    }
    for (const char *c = name; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            return mm_fail(err, mm_code_input, "%s: tensor name %s has control characters in it",
                           path, shown.text);
        }
    }
    if (!json_is_object(o)) {
        char seen[96];
        mm_json_show(seen, sizeof seen, o);
        return mm_fail(err, mm_code_input,
                       "%s: tensor %s is described by %s, wanted an object with dtype, shape and "
                       "data_offsets",
                       path, shown.text, seen);
    }
    char *what = mm_xasprintf("%s: tensor %s", path, shown.text);
    uint64_t bytes = 0;
    t->name = name;
    enum mm_code code = read_dtype(t, o, what, err);
    if (code == mm_code_ok) code = read_shape(t, o, &bytes, what, err);
    if (code == mm_code_ok) code = read_offsets(t, o, bytes, what, data, data_bytes, err);
    free(what);
    return code;
}

static enum mm_code check_metadata(const json_t *meta, const char *path, struct mm_error *err) {
    if (!json_is_object(meta)) {
        return mm_json_wrong(path, "__metadata__", meta, "an object of strings", err);
    }
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)meta, key, v) {
        if (!json_is_string(v)) {
            return mm_json_wrong(path, "__metadata__", v, "strings as its values", err);
        }
    }
    return mm_code_ok;
}

// The tensors must tile the bytes behind the header: what two names share, or none has, was
// damaged or hides something. Entries first..n are this shard's; they are reordered.
static enum mm_code check_tiling(struct mm_st *st, int first, const char *path,
                                 const unsigned char *data, size_t data_bytes,
                                 struct mm_error *err) {
    const int n = st->n - first;
    if (n > 0) qsort(st->entries + first, (size_t)n, sizeof *st->entries, by_place);
    size_t at = 0;
    for (int i = first; i < st->n; i++) {
        const struct mm_st_tensor *t = &st->entries[i].t;
        const size_t begin = data ? (size_t)((const unsigned char *)t->data - data) : 0;
        if (begin < at) {
            return mm_fail(err, mm_code_input, "%s: tensors %s and %s overlap", path,
                           show(st->entries[i - 1].t.name).text, show(t->name).text);
        }
        if (begin > at) {
            return mm_fail(err, mm_code_input, "%s: %zu bytes before tensor %s belong to no tensor",
                           path, begin - at, show(t->name).text);
        }
        at += t->bytes;
    }
    if (at != data_bytes) {
        return mm_fail(err, mm_code_input, "%s: %zu bytes at the end belong to no tensor", path,
                       data_bytes - at);
    }
    return mm_code_ok;
}

static enum mm_code read_header(struct mm_st *st, struct shard *s, struct mm_error *err) {
    if (s->map.bytes < 8) {
        return mm_fail(err, mm_code_input,
                       "%s: has %zu bytes, a safetensors file has 8 and a header at least", s->path,
                       s->map.bytes);
    }
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | s->map.data[i];
    if (length > s->map.bytes - 8 || length > header_most) {
        return mm_fail(err, mm_code_input,
                       "%s: the header's length is given as %" PRIu64
                       " bytes, wanted at most %zu (the file has %zu); is this a safetensors file?",
                       s->path, length,
                       s->map.bytes - 8 < header_most ? s->map.bytes - 8 : (size_t)header_most,
                       s->map.bytes);
    }
    const size_t data_bytes = s->map.bytes - 8 - (size_t)length;
    const unsigned char *data = data_bytes ? s->map.data + 8 + length : NULL;
    char *what = mm_xasprintf("%s: header", s->path);
    enum mm_code code =
        mm_json_parse(&s->header, (const char *)s->map.data + 8, (size_t)length, what, err);
    free(what);
    if (code != mm_code_ok) return code;
    if (!json_is_object(s->header)) {
        return mm_fail(err, mm_code_input, "%s: the header is no JSON object", s->path);
    }
    const int first = st->n;
    st->cap = first + (int)json_object_size(s->header);
    st->entries = mm_xrealloc(st->entries, ((size_t)st->cap + 1) * sizeof *st->entries);
    const char *name;
    json_t *v;
    json_object_foreach(s->header, name, v) {
        if (strcmp(name, "__metadata__") == 0) {
            MM_TRY(check_metadata(v, s->path, err));
            continue;
        }
        struct entry *e = &st->entries[st->n];
        *e = (struct entry){.shard = (int)(s - st->shards)};
        MM_TRY(read_tensor(&e->t, name, v, s->path, data, data_bytes, err));
        st->n++;
    }
    return check_tiling(st, first, s->path, data, data_bytes, err);
}

// Adds one file's tensors. `path` is taken over.
static enum mm_code add_shard(struct mm_st *st, char *path, struct mm_error *err) {
    st->shards = mm_xrealloc(st->shards, (size_t)(st->n_shards + 1) * sizeof *st->shards);
    struct shard *s = &st->shards[st->n_shards++];
    *s = (struct shard){.path = path};
    MM_TRY(mm_map_open(&s->map, path, err));
    return read_header(st, s, err);
}

void mm_st_close(struct mm_st *st) {
    if (!st) return;
    for (int i = 0; i < st->n_shards; i++) {
        mm_map_close(&st->shards[i].map);
        json_decref(st->shards[i].header);
        free(st->shards[i].path);
    }
    free(st->shards);
    free(st->entries);
    free(st->path);
    free(st);
}

static int64_t mapped_bytes(const struct mm_st *st) {
    int64_t sum = 0;
    for (int i = 0; i < st->n_shards; i++)
        sum += (int64_t)st->shards[i].map.bytes;
    return sum;
}

void mm_st_prefetch(const struct mm_st *st) {
    if (mapped_bytes(st) > mm_memory_available()) return;  // the end would push out the beginning
    for (int i = 0; i < st->n_shards; i++)
        mm_map_prefetch(&st->shards[i].map);
}

enum mm_code mm_st_copy_to_memory(struct mm_st *st, struct mm_error *err) {
    const int64_t bytes = mapped_bytes(st), left = mm_memory_available();
    if (bytes > left) {
        return mm_fail(err, mm_code_memory,
                       "%s: a copy in memory takes %.1f MiB, and %.1f MiB are available", st->path,
                       (double)bytes / 1048576.0, (double)left / 1048576.0);
    }
    for (int i = 0; i < st->n_shards; i++)
        MM_TRY(mm_map_copy(&st->shards[i].map, err));
    return mm_code_ok;
}

static enum mm_code settle(struct mm_st **out, struct mm_st *st, enum mm_code code) {
    *out = NULL;
    if (code != mm_code_ok) {
        mm_st_close(st);
        return code;
    }
    if (st->n > 0) qsort(st->entries, (size_t)st->n, sizeof *st->entries, by_name);
    *out = st;
    return mm_code_ok;
}

enum mm_code mm_st_open(struct mm_st **out, const char *path, struct mm_error *err) {
    struct mm_st *st = mm_xcalloc(1, sizeof *st);
    st->path = mm_xstrdup(path);
    return settle(out, st, add_shard(st, mm_xstrdup(path), err));
}

// The number of the shard in a file of this name, opening it when it is new; -1 on failure.
static int shard_of(struct mm_st *st, const char *folder, const char *file, json_t *seen,
                    enum mm_code *code, struct mm_error *err) {
    const json_t *known = json_object_get(seen, file);
    if (known) return (int)json_integer_value(known);
    *code = add_shard(st, mm_path_join(folder, file), err);
    if (*code != mm_code_ok) return -1;
    json_object_set_new(seen, file, json_integer(st->n_shards - 1));
    return st->n_shards - 1;
}

// Opens the shards of an index and holds both against each other.
static enum mm_code open_index(struct mm_st *st, const char *folder, const char *index,
                               const json_t *map, json_t *seen, struct mm_error *err) {
    const char *name;
    json_t *v;
    enum mm_code code = mm_code_ok;
    json_object_foreach((json_t *)(uintptr_t)map, name, v) {
        const char *file = json_string_value(v);
        if (!file || file[0] == '\0' || strchr(file, '/') || strcmp(file, ".") == 0 ||
            strcmp(file, "..") == 0) {
            return mm_json_wrong(index, "weight_map", v, "names of files in the same folder", err);
        }
        if (shard_of(st, folder, file, seen, &code, err) < 0) return code;
    }
    if (st->n > 0) qsort(st->entries, (size_t)st->n, sizeof *st->entries, by_name);
    for (int i = 0; i < st->n; i++) {
        const struct entry *e = &st->entries[i];
        const char *file = json_string_value(json_object_get(map, e->t.name));
        const char *path = st->shards[e->shard].path;
        if (!file) {
            return mm_fail(err, mm_code_input, "%s: holds tensor %s, which %s does not name", path,
                           show(e->t.name).text, index);
        }
        if (json_integer_value(json_object_get(seen, file)) != e->shard) {
            return mm_fail(err, mm_code_input, "%s: says that tensor %s is in %s, but %s holds it",
                           index, show(e->t.name).text, file, path);
        }
    }
    json_object_foreach((json_t *)(uintptr_t)map, name, v) {
        if (!mm_st_find(st, name)) {
            return mm_fail(err, mm_code_input, "%s: says that tensor %s is in %s, which lacks it",
                           index, show(name).text, json_string_value(v));
        }
    }
    return mm_code_ok;
}

enum mm_code mm_st_open_folder(struct mm_st **out, const char *folder, struct mm_error *err) {
    *out = NULL;
    char *index = mm_path_join(folder, mm_st_index_name);
    char *single = mm_path_join(folder, mm_st_single_name);
    enum mm_code code = mm_code_ok;
    if (mm_path_exists(index)) {
        struct mm_st *st = mm_xcalloc(1, sizeof *st);
        st->path = mm_xstrdup(folder);
        json_t *root = NULL, *seen = json_object();
        code = mm_json_load(&root, index, err);
        const json_t *map = json_object_get(root, "weight_map");
        if (code == mm_code_ok && !json_is_object(map)) {
            code = mm_json_wrong(index, "weight_map", map, "an object of file names", err);
        }
        if (code == mm_code_ok) code = open_index(st, folder, index, map, seen, err);
        json_decref(seen);
        json_decref(root);
        code = settle(out, st, code);
    } else if (mm_path_exists(single)) {
        code = mm_st_open(out, single, err);
    } else if (!mm_path_is_folder(folder)) {
        code = mm_fail(err, mm_code_input, "%s: %s, a model folder is wanted", folder,
                       mm_path_exists(folder) ? "is a file" : "does not exist");
    } else {
        code = mm_fail(err, mm_code_input, "%s: holds neither %s nor %s", folder, mm_st_single_name,
                       mm_st_index_name);
    }
    free(index);
    free(single);
    return code;
}

const char *mm_st_path(const struct mm_st *st) {
    return st->path;
}

int mm_st_count(const struct mm_st *st) {
    return st->n;
}

const struct mm_st_tensor *mm_st_at(const struct mm_st *st, int i) {
    return &st->entries[i].t;
}

const struct mm_st_tensor *mm_st_find(const struct mm_st *st, const char *name) {
    const struct entry key = {.t = {.name = name}};
    // bsearch may not be given NULL, which is what an empty file has.
    const struct entry *e =
        st->n > 0 ? bsearch(&key, st->entries, (size_t)st->n, sizeof key, by_name) : NULL;
    return e ? &e->t : NULL;
}

const char *mm_st_metadata(const struct mm_st *st, const char *key) {
    if (st->n_shards == 0) return NULL;
    return json_string_value(
        json_object_get(json_object_get(st->shards[0].header, "__metadata__"), key));
}
