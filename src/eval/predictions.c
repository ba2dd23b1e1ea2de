// Predictions by index.
#include "eval/predictions.h"

#include <inttypes.h>
#include <stdlib.h>
#include "base/buf.h"

struct mm_prediction_place {
    size_t at;  // where the line begins
    int64_t line;
    int file;
    bool used;
};

enum mm_code mm_predictions_open(struct mm_predictions *p, const char *const *paths,
                                 struct mm_error *err) {
    *p = (struct mm_predictions){0};
    for (; paths[p->n_files]; p->n_files++) {
        p->file = mm_xrealloc(p->file, (size_t)(p->n_files + 1) * sizeof *p->file);
        p->file[p->n_files] = (struct mm_prediction_file){0};
        const enum mm_code code = mm_jsonl_open(&p->file[p->n_files].lines, paths[p->n_files], err);
        if (code != mm_code_ok) {
            mm_predictions_close(p);
            return code;
        }
    }
    return mm_code_ok;
}

void mm_predictions_close(struct mm_predictions *p) {
    for (int i = 0; i < p->n_files; i++) {
        json_decref(p->file[i].head);
        mm_jsonl_close(&p->file[i].lines);
    }
    json_decref(p->line);
    mm_names_free(&p->names);
    free(p->file);
    free(p->place);
    *p = (struct mm_predictions){0};
}

// Reads the next line of a file and its index; *o is NULL behind the last.
static enum mm_code read_next(struct mm_prediction_file *f, json_t **o, struct mm_error *err) {
    MM_TRY(mm_jsonl_next(&f->lines, o, err));
    if (!*o) return mm_code_ok;
    const enum mm_code code = mm_jsonl_index(&f->lines, *o, "index", f->room, &f->head_index, err);
    if (code == mm_code_ok) return code;
    json_decref(*o);
    *o = NULL;
    return code;
}

static enum mm_code read_out(const struct mm_predictions *p, const struct mm_prediction_file *f,
                             struct mm_prediction *out, struct mm_error *err) {
    const json_t *missing = json_object_get(p->line, "missing_image");
    *out = (struct mm_prediction){.found = true, .missing_image = json_is_true(missing)};
    return mm_jsonl_text(&f->lines, p->line, "prediction", !out->missing_image, &out->text, err);
}

// ---- out of order ----

static enum mm_code add_place(struct mm_predictions *p, size_t *cap, int file, size_t at,
                              struct mm_error *err) {
    const struct mm_prediction_file *f = &p->file[file];
    const int64_t before = p->names.n;
    const int64_t number = mm_names_add(&p->names, f->head_index);
    if (number != before) {
        const struct mm_prediction_place *first = &p->place[number];
        return mm_fail(err, mm_code_input,
                       "%s: line %" PRId64
                       ": index '%.*s' has been answered before, in %s line "
                       "%" PRId64,
                       f->lines.path, f->lines.line, (int)f->head_index.n, f->head_index.s,
                       p->file[first->file].lines.path, first->line);
    }
    if ((size_t)number == *cap) {
        *cap = *cap ? 2 * *cap : 1024;
        p->place = mm_xrealloc(p->place, *cap * sizeof *p->place);
    }
    p->place[number] = (struct mm_prediction_place){.at = at, .line = f->lines.line, .file = file};
    return mm_code_ok;
}

// Reads all files once for the places of their lines; the first n_in_order of each are used.
static enum mm_code build_index(struct mm_predictions *p, struct mm_error *err) {
    size_t cap = 0;
    for (int i = 0; i < p->n_files; i++) {
        struct mm_prediction_file *f = &p->file[i];
        json_decref(f->head);
        f->head = NULL;
        mm_jsonl_rewind(&f->lines);
        for (int64_t k = 0;; k++) {
            const size_t at = f->lines.at;
            json_t *o;
            MM_TRY(read_next(f, &o, err));
            if (!o) break;
            const enum mm_code code = add_place(p, &cap, i, at, err);
            json_decref(o);
            MM_TRY(code);
            p->place[p->names.n - 1].used = k < f->n_in_order;
        }
    }
    p->indexed = true;
    return mm_code_ok;
}

// The file whose next line answers `index`, or -1.
static enum mm_code find_in_order(struct mm_predictions *p, struct mm_str index, int *file,
                                  struct mm_error *err) {
    *file = -1;
    for (int i = 0; i < p->n_files && *file < 0; i++) {
        struct mm_prediction_file *f = &p->file[i];
        if (!f->head && !f->over) {
            MM_TRY(read_next(f, &f->head, err));
            f->over = !f->head;
        }
        if (f->head && mm_str_equal(f->head_index, index)) *file = i;
    }
    return mm_code_ok;
}

enum mm_code mm_predictions_find(struct mm_predictions *p, struct mm_str index,
                                 struct mm_prediction *out, struct mm_error *err) {
    *out = (struct mm_prediction){0};
    json_decref(p->line);
    p->line = NULL;
    if (!p->indexed) {
        int i;
        MM_TRY(find_in_order(p, index, &i, err));
        if (i >= 0) {
            struct mm_prediction_file *f = &p->file[i];
            p->line = f->head;
            f->head = NULL;
            f->n_in_order++;
            return read_out(p, f, out, err);
        }
        MM_TRY(build_index(p, err));
    }
    const int64_t number = mm_names_find(&p->names, index);
    if (number < 0) return mm_code_ok;
    struct mm_prediction_place *place = &p->place[number];
    struct mm_prediction_file *f = &p->file[place->file];
    if (place->used) {
        return mm_fail(err, mm_code_input, "%s: line %" PRId64 ": index '%.*s' is asked for twice",
                       f->lines.path, place->line, (int)index.n, index.s);
    }
    place->used = true;
    f->lines.at = place->at;
    f->lines.line = place->line - 1;
    MM_TRY(read_next(f, &p->line, err));
    f->lines.line = place->line;  // empty lines in front of it are counted already
    return read_out(p, f, out, err);
}

enum mm_code mm_predictions_end(struct mm_predictions *p, const char *data, struct mm_error *err) {
    if (!p->indexed) {
        int i;
        MM_TRY(find_in_order(p, (struct mm_str){NULL, SIZE_MAX}, &i, err));
        for (i = 0; i < p->n_files; i++) {
            const struct mm_prediction_file *f = &p->file[i];
            if (!f->head) continue;
            return mm_fail(
                err, mm_code_input,
                "%s: line %" PRId64 ": index '%.*s' is of no question of %s, or answered twice",
                f->lines.path, f->lines.line, (int)f->head_index.n, f->head_index.s, data);
        }
        return mm_code_ok;
    }
    for (int64_t i = 0; i < p->names.n; i++) {
        const struct mm_prediction_place *place = &p->place[i];
        if (place->used) continue;
        const struct mm_str index = mm_names_get(&p->names, i);
        return mm_fail(err, mm_code_input,
                       "%s: line %" PRId64 ": index '%.*s' is of no question of %s",
                       p->file[place->file].lines.path, place->line, (int)index.n, index.s, data);
    }
    return mm_code_ok;
}
