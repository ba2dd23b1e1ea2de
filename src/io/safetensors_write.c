// Owns: writing safetensors files and folders, streamed from the tensors' own memory.
// The layout is that of the published writer: tensors of wide elements first (so that every tensor
// stays aligned to its element), compact JSON, spaces up to a multiple of 8.
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/safetensors_names.h"

// Place of a dtype in a file.
static int rank_of(enum mm_dtype dtype) {
    static const int rank[mm_dtype_count] = {
        [mm_dtype_i64] = 0,  [mm_dtype_f32] = 1, [mm_dtype_i32] = 2,
        [mm_dtype_bf16] = 3, [mm_dtype_f16] = 4, [mm_dtype_u8] = 5,
    };
    return rank[dtype];
}

static void check_tensor(const struct mm_st_tensor *t) {
    uint64_t bytes = mm_dtype_bytes(t->dtype);
    for (int i = 0; i < t->n_axes; i++)
        bytes *= (uint64_t)t->shape[i];
    assert(t->n_axes >= 0 && t->n_axes <= mm_st_max_axes && bytes == t->bytes);
    assert(t->name && t->name[0] && strcmp(t->name, "__metadata__") != 0);
    (void)bytes;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// Every tensor is what it says, and no name comes twice: anything else is a bug of the caller, and
// would be found only when the file is read.
static void check_tensors(const struct mm_st_tensor *tensors, int n) {
    const char **names = mm_xcalloc((size_t)n, sizeof *names);
    for (int i = 0; i < n; i++) {
        check_tensor(&tensors[i]);
        names[i] = tensors[i].name;
    }
    if (n > 0) qsort(names, (size_t)n, sizeof *names, compare_names);
    for (int i = 1; i < n; i++)
        assert(strcmp(names[i - 1], names[i]) != 0);
    free(names);
}

static void add_header(struct mm_buf *out, const struct mm_st_tensor *const *order, int n,
                       const struct mm_st_meta *meta, int n_meta, size_t align) {
    mm_buf_adds(out, "{");
    for (int i = 0; i < n_meta; i++) {
        mm_buf_adds(out, i ? "," : "\"__metadata__\":{");
        mm_json_add_string(out, meta[i].key, strlen(meta[i].key));
        mm_buf_adds(out, ":");
        mm_json_add_string(out, meta[i].value, strlen(meta[i].value));
    }
    if (n_meta) mm_buf_adds(out, n ? "}," : "}");
    uint64_t at = 0;
    for (int i = 0; i < n; i++) {
        const struct mm_st_tensor *t = order[i];
        if (i) mm_buf_adds(out, ",");
        mm_json_add_string(out, t->name, strlen(t->name));
        mm_buf_addf(out, ":{\"dtype\":\"%s\",\"shape\":[", mm_dtype_st_name(t->dtype));
        for (int a = 0; a < t->n_axes; a++) {
            mm_buf_addf(out, "%s%" PRId64, a ? "," : "", t->shape[a]);
        }
        mm_buf_addf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, at + t->bytes);
        at += t->bytes;
    }
    mm_buf_adds(out, "}");
    while ((out->len + 8) % align)
        mm_buf_adds(out, " ");
}

// ---- bytes --------------------------------------------------------------------------------------

struct mm_st_sink {
    struct mm_outfile *f;
    size_t left;  // bytes of this tensor
};

enum mm_code mm_st_put(struct mm_st_sink *to, const void *data, size_t bytes,
                       struct mm_error *err) {
    assert(bytes <= to->left);
    to->left -= bytes;
    return mm_outfile_write(to->f, data, bytes, err);
}

// Tensors that go into one file; the first of them is number `first` of the source.
struct run {
    const struct mm_st_tensor *tensors;
    int n, first;
    const struct mm_st_source *source;
};

static enum mm_code write_tensor(struct mm_outfile *f, const struct run *r,
                                 const struct mm_st_tensor *t, struct mm_error *err) {
    if (t->data || t->bytes == 0) return mm_outfile_write(f, t->data, t->bytes, err);
    assert(r->source);
    struct mm_st_sink to = {f, t->bytes};
    const int i = r->first + (int)(t - r->tensors);
    MM_TRY(r->source->write(r->source->arg, i, &to, err));
    assert(to.left == 0);
    return mm_code_ok;
}

// Writes everything to the temporary; *f is the caller's to commit.
static enum mm_code write_open(struct mm_outfile **f, const char *path, const struct run *r,
                               const struct mm_st_meta *meta, int n_meta, struct mm_error *err) {
    const int n = r->n;
    check_tensors(r->tensors, n);
    const struct mm_st_tensor **order = mm_xcalloc((size_t)n + 1, sizeof *order);
    const bool ordered = r->source && r->source->ordered;
    int placed = 0;
    for (int i = 0; ordered && i < n; i++)
        order[placed++] = &r->tensors[i];
    for (int rank = 0; !ordered && rank < mm_dtype_count; rank++) {
        for (int i = 0; i < n; i++) {
            if (rank_of(r->tensors[i].dtype) == rank) order[placed++] = &r->tensors[i];
        }
    }
    assert(placed == n);
    struct mm_buf header = {0};
    add_header(&header, order, n, meta, n_meta, ordered ? 64 : 8);
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
    enum mm_code code = mm_outfile_open(f, path, err);
    if (code == mm_code_ok) code = mm_outfile_write(*f, length, sizeof length, err);
    if (code == mm_code_ok) code = mm_outfile_write(*f, header.data, header.len, err);
    for (int i = 0; i < n && code == mm_code_ok; i++) {
        code = write_tensor(*f, r, order[i], err);
    }
    mm_buf_free(&header);
    free(order);
    return code;
}

enum mm_code mm_st_write(const char *path, const struct mm_st_tensor *tensors, int n,
                         const struct mm_st_meta *meta, int n_meta, struct mm_error *err) {
    struct mm_outfile *f = NULL;
    const struct run all = {tensors, n, 0, NULL};
    const enum mm_code code = write_open(&f, path, &all, meta, n_meta, err);
    if (code != mm_code_ok) {
        mm_outfile_abort(f);
        return code;
    }
    return mm_outfile_commit(f, err);
}

// One file of a folder that is being written.
struct part {
    char *name;
    int first, n;  // tensors
    struct mm_outfile *f;
};

// Cuts the tensors into runs of at most shard_bytes; a larger tensor is a run of its own.
static struct part *cut(const struct mm_st_tensor *tensors, int n, size_t shard_bytes,
                        int *n_parts) {
    struct part *parts = mm_xcalloc((size_t)n + 1, sizeof *parts);
    size_t used = 0;
    int count = 1;
    for (int i = 0; i < n; i++) {
        struct part *p = &parts[count - 1];
        if (p->n > 0 && (tensors[i].bytes > shard_bytes || used > shard_bytes - tensors[i].bytes)) {
            p = &parts[count++];
            p->first = i;
            used = 0;
        }
        p->n++;
        used += tensors[i].bytes;
    }
    for (int i = 0; i < count; i++) {
        parts[i].name = count == 1 ? mm_xstrdup(mm_st_single_name)
                                   : mm_xasprintf("model-%05d-of-%05d.safetensors", i + 1, count);
    }
    *n_parts = count;
    return parts;
}

static enum mm_code write_index(const char *path, const struct mm_st_tensor *tensors, int n,
                                const struct part *parts, int n_parts, struct mm_error *err) {
    json_t *files = json_object();  // name: file, in the given order
    const char **names = mm_xcalloc((size_t)n, sizeof *names);
    json_int_t total = 0;
    for (int p = 0; p < n_parts; p++) {
        for (int i = parts[p].first; i < parts[p].first + parts[p].n; i++) {
            json_object_set_new(files, tensors[i].name, json_string(parts[p].name));
            names[i] = tensors[i].name;
            total += (json_int_t)tensors[i].bytes;
        }
    }
    qsort(names, (size_t)n, sizeof *names, compare_names);
    json_t *map = json_object();
    for (int i = 0; i < n; i++)
        json_object_set(map, names[i], json_object_get(files, names[i]));
    json_t *root = json_pack("{s:{s:I},s:o}", "metadata", "total_size", total, "weight_map", map);
    const enum mm_code code = mm_json_write_file(root, path, err);
    json_decref(root);
    json_decref(files);
    free(names);
    return code;
}

// After the switch to the new files: what only the old index or the old single file named is
// removed, or the next reader would find two models. Failing to remove is an error for that reason.
static enum mm_code remove_old(const char *folder, const json_t *old_index,
                               const struct part *parts, int n_parts, struct mm_error *err) {
    const json_t *map = json_object_get(old_index, "weight_map");
    const char *name;
    json_t *v;
    json_t *gone = json_object();
    json_object_foreach((json_t *)(uintptr_t)map, name, v) {
        const char *file = json_string_value(v);
        if (file && strncmp(file, "model-", 6) == 0 && !strchr(file, '/')) {
            json_object_set_new(gone, file, json_null());
        }
    }
    if (n_parts > 1) json_object_set_new(gone, mm_st_single_name, json_null());
    for (int i = 0; i < n_parts; i++)
        json_object_del(gone, parts[i].name);
    enum mm_code code = mm_code_ok;
    json_object_foreach(gone, name, v) {
        char *path = mm_path_join(folder, name);
        if (mm_path_exists(path) && unlink(path) != 0 && code == mm_code_ok) {
            code = mm_fail_errno(
                err, "%s: belongs to the model that was replaced and cannot be removed", path);
        }
        free(path);
    }
    json_decref(gone);
    return code;
}

// Every file is complete on disk under its temporary name before the first is renamed, so a full
// disk changes nothing; the index comes last, or goes when there is none any more.
static enum mm_code write_parts(const char *folder, const char *index,
                                const struct mm_st_tensor *tensors, int n,
                                const struct mm_st_source *source, struct part *parts, int n_parts,
                                struct mm_error *err) {
    static const struct mm_st_meta format = {"format", "pt"};
    for (int i = 0; i < n_parts; i++) {
        struct part *p = &parts[i];
        char *path = mm_path_join(folder, p->name);
        const struct run some = {tensors + p->first, p->n, p->first, source};
        const enum mm_code code = write_open(&p->f, path, &some, &format, 1, err);
        free(path);
        if (code != mm_code_ok) return code;
    }
    for (int i = 0; i < n_parts; i++)
        MM_TRY(mm_outfile_sync(parts[i].f, err));
    for (int i = 0; i < n_parts; i++) {
        struct mm_outfile *f = parts[i].f;
        parts[i].f = NULL;
        MM_TRY(mm_outfile_commit(f, err));
    }
    if (n_parts > 1) return write_index(index, tensors, n, parts, n_parts, err);
    if (mm_path_exists(index) && unlink(index) != 0) {
        return mm_fail_errno(
            err, "%s: belongs to the model that was replaced and cannot be removed", index);
    }
    return mm_code_ok;
}

enum mm_code mm_st_write_folder(const char *folder, const struct mm_st_tensor *tensors, int n,
                                const struct mm_st_source *source, size_t shard_bytes,
                                struct mm_error *err) {
    int n_parts = 0;
    struct part *parts = cut(tensors, n, shard_bytes ? shard_bytes : SIZE_MAX, &n_parts);
    char *index = mm_path_join(folder, mm_st_index_name);
    json_t *old = NULL;
    if (mm_path_exists(index)) (void)mm_json_load(&old, index, NULL);  // a broken one names nothing
    enum mm_code code = write_parts(folder, index, tensors, n, source, parts, n_parts, err);
    if (code == mm_code_ok) code = remove_old(folder, old, parts, n_parts, err);
    for (int i = 0; i < n_parts; i++) {
        mm_outfile_abort(parts[i].f);
        free(parts[i].name);
    }
    json_decref(old);
    free(parts);
    free(index);
    return code;
}
