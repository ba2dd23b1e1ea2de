// Meta JSON and line index. The jsonl files are read once from front to back in small pieces (for
// the index and the hash), then a line at a time by position. They are not kept mapped: a file of
// gigabytes would count as memory of the run, and one cut short by somebody would kill it.
#include "train/data_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY  // for a state on the stack
#include <xxhash.h>
#include "base/log.h"
#include "io/file.h"
#include "io/json.h"

enum { piece_bytes = 1 << 20 };

static void hash_int(XXH3_state_t *h, int64_t v) {
    uint8_t le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)((uint64_t)v >> (8 * i));
    XXH3_128bits_update(h, le, sizeof le);
}

static void hash_string(XXH3_state_t *h, const char *s) {
    hash_int(h, (int64_t)strlen(s));
    XXH3_128bits_update(h, s, strlen(s));
}

// ---- index of one file ----

static enum mm_code offset_add(struct mm_data_set *set, int64_t at, struct mm_error *err) {
    if (set->n_lines == set->cap) {
        const int64_t cap = set->cap ? 2 * set->cap : 1024;
        int64_t *grown = realloc(set->offset, (size_t)cap * sizeof *grown);
        if (!grown) {
            return mm_fail(err, mm_code_memory, "%s: no memory for an index of %lld lines",
                           set->path, (long long)cap);
        }
        set->offset = grown;
        set->cap = cap;
    }
    set->offset[set->n_lines++] = at;
    return mm_code_ok;
}

// The state of the scan between two pieces.
struct scan {
    int64_t line_at;  // where the current line began
    bool blank;       // nothing but white space on it so far
};

static enum mm_code scan_piece(struct mm_data_set *set, struct scan *s, const char *data, size_t n,
                               int64_t at, struct mm_error *err) {
    for (size_t i = 0; i < n;) {
        // Only the beginning of a line has to be looked at byte by byte.
        while (s->blank && i < n && data[i] != '\n' && strchr(" \t\r", data[i]) && data[i])
            i++;
        if (i == n) break;
        if (s->blank && data[i] != '\n') {
            s->blank = false;
            MM_TRY(offset_add(set, s->line_at, err));
        }
        set->n_blank += s->blank;
        const char *end = memchr(data + i, '\n', n - i);
        if (!end) break;
        i = (size_t)(end - data) + 1;
        s->line_at = at + (int64_t)i;
        s->blank = true;
    }
    return mm_code_ok;
}

static enum mm_code set_scan(struct mm_data_set *set, XXH3_state_t *hash, struct mm_error *err) {
    char *piece = mm_xmalloc(piece_bytes);
    struct scan s = {.blank = true};
    enum mm_code code = mm_code_ok;
    int64_t at = 0;
    while (code == mm_code_ok) {
        const ssize_t got = read(set->fd, piece, piece_bytes);
        if (mm_interrupted()) {
            code = mm_fail(err, mm_code_interrupted, "interrupted");
            break;
        }
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) code = mm_fail_errno(err, "%s: cannot be read", set->path);
        if (got <= 0) break;
        XXH3_128bits_update(hash, piece, (size_t)got);
        size_t skip = 0;
        if (at == 0 && got >= 3 && memcmp(piece, "\xef\xbb\xbf", 3) == 0) {
            skip = 3;  // a byte order mark, as some editors leave it
            s.line_at = 3;
        }
        code = scan_piece(set, &s, piece + skip, (size_t)got - skip, at + (int64_t)skip, err);
        at += got;
    }
    free(piece);
    if (code != mm_code_ok) return code;
    hash_int(hash, at);
    MM_TRY(offset_add(set, at, err));
    set->n_lines--;
    return mm_code_ok;
}

// ---- meta ----

// InternVL's relative paths start in the current folder. A data description that carries its
// files with it is found from anywhere if the meta file's own folder is asked first.
static char *find_beside(const char *meta_path, const char *name) {
    const char *slash = strrchr(meta_path, '/');
    char *folder = slash ? mm_xasprintf("%.*s", (int)(slash - meta_path + 1), meta_path) : NULL;
    char *path = mm_path_join(folder ? folder : ".", name);
    free(folder);
    if (mm_path_exists(path) || name[0] == '/') return path;
    free(path);
    return mm_xstrdup(name);
}

static bool ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

struct set_fields {
    const char *root, *annotation;
    double repeat_time;
    bool augment;
    int64_t max_tiles;
};

static enum mm_code set_fields_read(struct set_fields *f, const json_t *o, const char *what,
                                    const struct mm_data_options *options, struct mm_error *err) {
    *f = (struct set_fields){.root = "", .repeat_time = 1, .max_tiles = options->max_tiles};
    if (!json_is_object(o)) return mm_fail(err, mm_code_input, "%s: must be an object", what);
    MM_TRY(mm_json_string(o, "root", false, &f->root, what, err));
    MM_TRY(mm_json_string(o, "annotation", true, &f->annotation, what, err));
    MM_TRY(mm_json_float(o, "repeat_time", 0, 1e6, false, &f->repeat_time, what, err));
    MM_TRY(mm_json_bool(o, "data_augment", false, &f->augment, what, err));
    MM_TRY(mm_json_int(o, "max_dynamic_patch", 1, 1024, false, &f->max_tiles, what, err));
    if (!ends_with(f->annotation, "jsonl")) {
        return mm_fail(err, mm_code_input, "%s: 'annotation' is '%s', must end with jsonl", what,
                       f->annotation);
    }
    if (f->repeat_time > 1 && f->repeat_time != (double)(int64_t)f->repeat_time) {
        return mm_fail(err, mm_code_input,
                       "%s: 'repeat_time' is %g, must be a whole number or less than 1", what,
                       f->repeat_time);
    }
    return mm_code_ok;
}

static enum mm_code set_open(struct mm_data_set *set, const char *key, const json_t *o,
                             const char *meta_path, const struct mm_data_options *options,
                             XXH3_state_t *hash, struct mm_error *err) {
    struct set_fields f;
    char *what = mm_xasprintf("%s: data set '%s'", meta_path, key);
    const enum mm_code code = set_fields_read(&f, o, what, options, err);
    free(what);
    if (code != mm_code_ok) return code;

    set->name = mm_xstrdup(key);
    set->path = find_beside(meta_path, f.annotation);
    set->root = find_beside(meta_path, f.root);
    set->source = (struct mm_sample_source){
        .root = set->root, .max_tiles = (int32_t)f.max_tiles, .augment = f.augment};
    hash_string(hash, key);
    hash_string(hash, f.root);
    hash_string(hash, f.annotation);
    hash_string(hash, f.augment ? "augment" : "plain");
    hash_int(hash, f.max_tiles);

    // O_NONBLOCK: a pipe by that name must not hang the run before it is refused.
    set->fd = open(set->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (set->fd < 0) return mm_fail_errno(err, "%s: cannot be opened", set->path);
    struct stat st;
    if (fstat(set->fd, &st) != 0) return mm_fail_errno(err, "%s: cannot be read", set->path);
    if (!S_ISREG(st.st_mode)) {
        return mm_fail(err, mm_code_input, "%s: is not a regular file", set->path);
    }
    MM_TRY(set_scan(set, hash, err));
    const bool part = f.repeat_time < 1;
    set->n_used = part ? (int64_t)((double)set->n_lines * f.repeat_time) : set->n_lines;
    set->repeat = part ? 1 : (int64_t)f.repeat_time;
    hash_int(hash, set->n_used);
    hash_int(hash, set->repeat);
    set->warned = calloc((size_t)set->n_used / 8 + 1, 1);
    if (!set->warned) {
        return mm_fail(err, mm_code_memory, "%s: no memory for %lld lines", set->path,
                       (long long)set->n_used);
    }
    return mm_code_ok;
}

static enum mm_code sets_open(struct mm_data_index *index, const json_t *root,
                              const struct mm_data_options *options, struct mm_error *err) {
    if (!json_is_object(root) || json_object_size(root) == 0) {
        return mm_fail(err, mm_code_input, "%s: must be an object of at least one data set",
                       index->meta_path);
    }
    XXH3_state_t hash;
    XXH3_128bits_reset(&hash);
    index->sets = mm_xcalloc(json_object_size(root), sizeof *index->sets);
    const char *key;
    json_t *o;
    json_object_foreach((json_t *)root, key, o) {
        struct mm_data_set *set = &index->sets[index->n_sets++];
        set->fd = -1;
        MM_TRY(set_open(set, key, o, index->meta_path, options, &hash, err));
        set->first = index->n_samples;
        // A sample's number has to fit the generator's 32 bits.
        if (set->n_used > (UINT32_MAX - index->n_samples) / set->repeat) {
            return mm_fail(err, mm_code_input, "%s: has more than %u samples an epoch",
                           index->meta_path, UINT32_MAX);
        }
        index->n_samples += set->n_used * set->repeat;
        index->bytes += (size_t)set->cap * sizeof *set->offset + (size_t)set->n_used / 8 + 1;
    }
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&hash));
    memcpy(index->hash, canonical.digest, sizeof index->hash);
    if (index->n_samples == 0) {
        return mm_fail(err, mm_code_input, "%s: the data sets hold no sample", index->meta_path);
    }
    return mm_code_ok;
}

enum mm_code mm_data_index_open(struct mm_data_index *index, const char *meta_path,
                                const struct mm_data_options *options, struct mm_error *err) {
    *index = (struct mm_data_index){.meta_path = mm_xstrdup(meta_path)};
    json_t *root = NULL;
    enum mm_code code = mm_json_load(&root, meta_path, err);
    if (code == mm_code_ok) {
        code = sets_open(index, root, options, err);
        json_decref(root);
    }
    if (code != mm_code_ok) mm_data_index_close(index);
    return code;
}

void mm_data_index_close(struct mm_data_index *index) {
    for (int32_t i = 0; i < index->n_sets; i++) {
        struct mm_data_set *set = &index->sets[i];
        if (set->fd >= 0) close(set->fd);
        free(set->name);
        free(set->path);
        free(set->root);
        free(set->offset);
        free(set->warned);
    }
    free(index->sets);
    free(index->meta_path);
    *index = (struct mm_data_index){0};
}

// ---- use ----

struct mm_data_set *mm_data_index_find(const struct mm_data_index *index, int64_t sample,
                                       int64_t *line) {
    // The last set that begins at or before the sample; empty sets share their successor's start.
    int32_t lo = 0, hi = index->n_sets;
    while (hi - lo > 1) {
        const int32_t mid = lo + (hi - lo) / 2;
        if (index->sets[mid].first <= sample) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    struct mm_data_set *set = &index->sets[lo];
    *line = (sample - set->first) % set->n_used;
    return set;
}

enum mm_code mm_data_set_read(const struct mm_data_set *set, int64_t line, struct mm_buf *out,
                              struct mm_error *err) {
    const int64_t at = set->offset[line], n = set->offset[line + 1] - at;
    mm_buf_reset(out);
    if (n > mm_sample_max_line) {
        return mm_fail(err, mm_code_input, "a line of %lld bytes, must be at most %d", (long long)n,
                       mm_sample_max_line);
    }
    char piece[1 << 14];
    while ((int64_t)out->len < n) {
        const int64_t left = n - (int64_t)out->len;
        const size_t want = left < (int64_t)sizeof piece ? (size_t)left : sizeof piece;
        const ssize_t got = pread(set->fd, piece, want, at + (int64_t)out->len);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return mm_fail_errno(err, "cannot be read");
        if (got == 0) return mm_fail(err, mm_code_input, "the file has become shorter");
        mm_buf_add(out, piece, (size_t)got);
    }
    return mm_code_ok;
}

int64_t mm_data_set_line_number(const struct mm_data_set *set, int64_t line) {
    if (set->n_blank == 0) return line + 1;  // no need to read gigabytes for a warning
    char piece[1 << 14];
    int64_t number = 1;
    for (int64_t at = 0; at < set->offset[line];) {
        const int64_t left = set->offset[line] - at;
        const size_t want = left < (int64_t)sizeof piece ? (size_t)left : sizeof piece;
        const ssize_t got = pread(set->fd, piece, want, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        for (const char *p = piece, *end = piece + got; (p = memchr(p, '\n', (size_t)(end - p)));) {
            number++;
            p++;
        }
        at += got;
    }
    return number;
}
