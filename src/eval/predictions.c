// Predictions by index.
#include "eval/predictions.h"

#include <inttypes.h>
#include <stdlib.h>
#include "base/buf.h"

enum mm_code mm_predictions_open(struct mm_predictions *p, const char *path, struct mm_error *err) {
    *p = (struct mm_predictions){0};
    return mm_jsonl_open(&p->file, path, err);
}

void mm_predictions_close(struct mm_predictions *p) {
    json_decref(p->line);
    mm_jsonl_close(&p->file);
    mm_names_free(&p->names);
    free(p->at);
    free(p->used);
    *p = (struct mm_predictions){0};
}

static enum mm_code read_next(struct mm_predictions *p, struct mm_error *err) {
    json_decref(p->line);
    return mm_jsonl_next(&p->file, &p->line, err);
}

static enum mm_code read_out(const struct mm_predictions *p, struct mm_prediction *out,
                             struct mm_error *err) {
    const json_t *missing = json_object_get(p->line, "missing_image");
    *out = (struct mm_prediction){.found = true, .missing_image = json_is_true(missing)};
    return mm_jsonl_text(&p->file, p->line, "prediction", !out->missing_image, &out->text, err);
}

// Reads the whole file once for the places of its lines; the first n_in_order are used already.
static enum mm_code build_index(struct mm_predictions *p, struct mm_error *err) {
    char room[24];
    struct mm_str index;
    size_t cap = 0;
    mm_jsonl_rewind(&p->file);
    for (;;) {
        const size_t at = p->file.at;
        MM_TRY(read_next(p, err));
        if (!p->line) break;
        MM_TRY(mm_jsonl_index(&p->file, p->line, "index", room, &index, err));
        const int64_t before = p->names.n;
        const int64_t number = mm_names_add(&p->names, index);
        if (number != before) {
            return mm_fail(err, mm_code_input,
                           "%s: line %" PRId64 ": index '%.*s' has been answered before",
                           p->file.path, p->file.line, (int)index.n, index.s);
        }
        if ((size_t)number == cap) {
            cap = cap ? 2 * cap : 1024;
            p->at = mm_xrealloc(p->at, cap * sizeof *p->at);
            p->used = mm_xrealloc(p->used, cap);
        }
        p->at[number] = at;
        p->used[number] = number < p->n_in_order;
    }
    p->indexed = true;
    return mm_code_ok;
}

enum mm_code mm_predictions_find(struct mm_predictions *p, struct mm_str index,
                                 struct mm_prediction *out, struct mm_error *err) {
    *out = (struct mm_prediction){0};
    char room[24];
    struct mm_str seen;
    if (!p->indexed) {
        MM_TRY(read_next(p, err));
        if (p->line) {
            MM_TRY(mm_jsonl_index(&p->file, p->line, "index", room, &seen, err));
            if (mm_str_equal(seen, index)) {
                p->n_in_order++;
                return read_out(p, out, err);
            }
        }
        MM_TRY(build_index(p, err));
    }
    const int64_t number = mm_names_find(&p->names, index);
    if (number < 0) return mm_code_ok;
    if (p->used[number]) {
        return mm_fail(err, mm_code_input, "index '%.*s' is there twice", (int)index.n, index.s);
    }
    p->used[number] = 1;
    p->file.at = p->at[number];
    MM_TRY(read_next(p, err));
    p->file.line = number + 1;  // right where the file has no empty lines
    return read_out(p, out, err);
}

enum mm_code mm_predictions_end(struct mm_predictions *p, const char *data, struct mm_error *err) {
    char room[24];
    struct mm_str index = {0};
    if (!p->indexed) {
        MM_TRY(read_next(p, err));
        if (!p->line) return mm_code_ok;
        MM_TRY(mm_jsonl_index(&p->file, p->line, "index", room, &index, err));
        return mm_fail(err, mm_code_input,
                       "%s: line %" PRId64
                       ": index '%.*s' is of no question of %s, or answered twice",
                       p->file.path, p->file.line, (int)index.n, index.s, data);
    }
    for (int64_t i = 0; i < p->names.n; i++) {
        if (p->used[i]) continue;
        index = mm_names_get(&p->names, i);
        return mm_fail(err, mm_code_input, "%s: index '%.*s' is of no question of %s", p->file.path,
                       (int)index.n, index.s, data);
    }
    return mm_code_ok;
}
