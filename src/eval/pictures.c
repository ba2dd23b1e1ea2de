// Pictures of a data set.
#include "eval/pictures.h"

#include <stdio.h>
#include <stdlib.h>
#include "io/file.h"

bool mm_pictures_are_files(const struct mm_questions *questions) {
    return questions->kit || questions->column[mm_column_image] < 0;
}

static struct mm_str image_cell(struct mm_pictures *p, int64_t row) {
    mm_tsv_row_load(&p->row, row);
    return mm_tsv_cell(&p->row, p->questions->column[mm_column_image], mm_tsv_form_table);
}

static bool is_link(struct mm_str cell) {
    if (cell.n > 4 * mm_link_max) return false;
    int n = 0;
    for (size_t i = 0; i < cell.n; i++)
        n += ((unsigned char)cell.s[i] & 0xc0) != 0x80;
    return n <= mm_link_max;
}

// Numbers all rows that have a picture by their index.
static enum mm_code number_rows(struct mm_pictures *p, struct mm_error *err) {
    const struct mm_tsv *t = &p->questions->tsv;
    const int index = p->questions->column[mm_column_index];
    for (int64_t i = 0; i < t->n_rows; i++) {
        const struct mm_str cell = image_cell(p, i);
        if (!cell.s) continue;
        const struct mm_str key = mm_tsv_cell(&p->row, index, mm_tsv_form_table);
        if (!key.s) return mm_tsv_wrong(t, i, "index", err, "is missing");
        const int64_t number = p->rows.n;
        if (mm_names_add(&p->rows, key) != number) {
            return mm_tsv_wrong(t, i, "index", err, "'%.*s' is there twice", (int)key.n, key.s);
        }
        if (number == p->cap) {
            p->cap = p->cap ? 2 * p->cap : 1024;
            p->row_of = mm_xrealloc(p->row_of, (size_t)p->cap * sizeof *p->row_of);
            p->payload = mm_xrealloc(p->payload, (size_t)p->cap * sizeof *p->payload);
        }
        p->row_of[number] = i;
        p->payload[number] = XXH3_128bits(cell.s, cell.n);
    }
    return mm_code_ok;
}

// The row that holds the payload of `row`'s picture: itself, or the one it names.
static enum mm_code payload_row(struct mm_pictures *p, int64_t row, int64_t *out,
                                struct mm_error *err) {
    const struct mm_str cell = image_cell(p, row);
    *out = row;
    if (!is_link(cell)) return mm_code_ok;
    char name[4 * mm_link_max + 1];
    snprintf(name, sizeof name, "%.*s", (int)cell.n, cell.s);
    const int64_t number = mm_names_find(&p->rows, mm_str_of(name));
    if (number < 0) {
        return mm_tsv_wrong(&p->questions->tsv, row, "image", err,
                            "'%s' must be a picture or the index of a row that has one", name);
    }
    *out = p->row_of[number];
    if (is_link(image_cell(p, *out))) {
        return mm_tsv_wrong(&p->questions->tsv, row, "image", err,
                            "row '%s', which it names, holds no picture either", name);
    }
    return mm_code_ok;
}

static enum mm_code check_links(struct mm_pictures *p, struct mm_error *err) {
    for (int64_t i = 0; i < p->rows.n; i++) {
        int64_t row;
        MM_TRY(payload_row(p, p->row_of[i], &row, err));
    }
    return mm_code_ok;
}

enum mm_code mm_pictures_open(struct mm_pictures *p, const struct mm_questions *questions,
                              const char *folder, struct mm_error *err) {
    *p = (struct mm_pictures){.questions = questions};
    if (!questions->kit) mm_tsv_row_init(&p->row, &questions->tsv);
    if (mm_pictures_are_files(questions)) {
        if (!questions->kit && questions->column[mm_column_image_path] < 0) {
            mm_pictures_close(p);
            return mm_fail(err, mm_code_input,
                           "%s: line 1: there is neither a column 'image' nor 'image_path'",
                           questions->path);
        }
        const char *slash = strrchr(questions->path, '/');
        if (folder) {
            p->folder = mm_xstrdup(folder);
        } else if (questions->kit) {
            p->folder = mm_xstrdup(questions->path);
        } else {
            p->folder =
                slash ? mm_xasprintf("%.*s", (int)(slash - questions->path + 1), questions->path)
                      : mm_xstrdup(".");
        }
        return mm_code_ok;
    }
    enum mm_code code = number_rows(p, err);
    if (code == mm_code_ok) code = check_links(p, err);
    if (code != mm_code_ok) mm_pictures_close(p);
    return code;
}

void mm_pictures_close(struct mm_pictures *p) {
    free(p->folder);
    free(p->row_of);
    free(p->payload);
    mm_tsv_row_deinit(&p->row);
    mm_names_free(&p->rows);
    mm_pylist_free(&p->list);
    mm_buf_free(&p->bytes);
    *p = (struct mm_pictures){0};
}

// The text that stands for the pictures of the question read last: base64, a path, or a list.
static enum mm_code source_of(struct mm_pictures *p, struct mm_str *out, struct mm_error *err) {
    const struct mm_questions *q = p->questions;
    *out = q->line_image;
    if (q->kit) return mm_code_ok;
    int64_t row = q->row.row;
    if (!mm_pictures_are_files(q)) {
        MM_TRY(payload_row(p, row, &row, err));
        *out = image_cell(p, row);
        return mm_code_ok;
    }
    mm_tsv_row_load(&p->row, row);
    *out = mm_tsv_cell(&p->row, q->column[mm_column_image_path], mm_tsv_form_table);
    return out->s ? mm_code_ok : mm_tsv_wrong(&q->tsv, row, "image_path", err, "is missing");
}

enum mm_code mm_pictures_key(struct mm_pictures *p, struct mm_buf *key, struct mm_error *err) {
    mm_buf_reset(key);
    if (mm_pictures_are_files(p->questions)) {
        struct mm_str path;
        MM_TRY(source_of(p, &path, err));
        mm_buf_add(key, path.s, path.n);
        return mm_code_ok;
    }
    int64_t row;
    MM_TRY(payload_row(p, p->questions->row.row, &row, err));
    mm_tsv_row_load(&p->row, row);
    const struct mm_str index =
        mm_tsv_cell(&p->row, p->questions->column[mm_column_index], mm_tsv_form_table);
    const XXH128_hash_t *hash = &p->payload[mm_names_find(&p->rows, index)];
    mm_buf_add(key, hash, sizeof *hash);
    return mm_code_ok;
}

// The path of a picture that is a file; malloc'ed.
static char *path_of(const struct mm_pictures *p, struct mm_str source) {
    char *name = mm_xasprintf("%.*s", (int)source.n, source.s);
    char *path = mm_path_join(p->folder, name);
    free(name);
    return path;
}

static enum mm_code read_one(struct mm_pictures *p, struct mm_str source, struct mm_buf *bytes,
                             struct mm_error *err) {
    if (!mm_pictures_are_files(p->questions)) {
        return mm_base64_decode(bytes, source.s, source.n, "the picture", err);
    }
    char *path = path_of(p, source);
    const enum mm_code code = mm_file_read(bytes, path, mm_image_max_file_bytes, err);
    free(path);
    return code;
}

static enum mm_code load_one(struct mm_pictures *p, struct mm_str source, struct mm_image *im,
                             struct mm_error *err) {
    if (!mm_pictures_are_files(p->questions)) {
        mm_buf_reset(&p->bytes);
        MM_TRY(read_one(p, source, &p->bytes, err));
        return mm_image_decode(im, p->bytes.data, p->bytes.len, "the picture", err);
    }
    char *path = path_of(p, source);
    const enum mm_code code = mm_image_open(im, path, err);
    free(path);
    return code;
}

// The sources of the question read last: itself, or the strings of a list, in p->list.
static enum mm_code sources_of(struct mm_pictures *p, struct mm_str *source, int *n,
                               struct mm_error *err) {
    *n = -1;  // not a list
    MM_TRY(source_of(p, source, err));
    if (source->n == 0 || source->s[0] != '[' || source->s[source->n - 1] != ']') {
        return mm_code_ok;
    }
    if (!mm_pylist_read(&p->list, *source)) {
        return mm_fail(err, mm_code_input, "the list of pictures is no list of strings");
    }
    if (p->list.n > mm_pictures_max) {
        return mm_fail(err, mm_code_input, "there are %lld pictures, must be at most %d",
                       (long long)p->list.n, mm_pictures_max);
    }
    *n = (int)p->list.n;
    return mm_code_ok;
}

enum mm_code mm_pictures_bytes(struct mm_pictures *p, struct mm_buf bytes[mm_pictures_max], int *n,
                               struct mm_error *err) {
    struct mm_str source;
    int listed;
    *n = 0;
    MM_TRY(sources_of(p, &source, &listed, err));
    enum mm_code code = mm_code_ok;
    int k = 0;
    for (; k < (listed < 0 ? 1 : listed) && code == mm_code_ok; k++) {
        bytes[k] = (struct mm_buf){0};
        code = read_one(p, listed < 0 ? source : mm_pylist_get(&p->list, k), &bytes[k], err);
    }
    if (code == mm_code_ok) {
        *n = k;
        return code;
    }
    for (int i = 0; i < k; i++) {
        mm_buf_free(&bytes[i]);
    }
    return code;
}

enum mm_code mm_pictures_load(struct mm_pictures *p, struct mm_image image[mm_pictures_max], int *n,
                              struct mm_error *err) {
    struct mm_str source;
    int listed;
    *n = 0;
    MM_TRY(sources_of(p, &source, &listed, err));
    enum mm_code code = mm_code_ok;
    int k = 0;
    for (; k < (listed < 0 ? 1 : listed) && code == mm_code_ok; k++) {
        code = load_one(p, listed < 0 ? source : mm_pylist_get(&p->list, k), &image[k], err);
    }
    if (code == mm_code_ok) {
        *n = k;
        return code;
    }
    for (int i = 0; i + 1 < k; i++) {
        mm_image_free(&image[i]);
    }
    return code;
}
