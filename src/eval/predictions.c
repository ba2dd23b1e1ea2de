// Predictions by index.
#include "eval/predictions.h"

#include <inttypes.h>
#include <stdlib.h>
#include "base/buf.h"

enum mm_code mm_predictions_open(struct mm_predictions *p, const char *const *paths,
                                 const struct mm_questions *all, struct mm_error *err) {
    *p = (struct mm_predictions){.all = all, .join.room = all->sort_room};
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
    mm_join_free(&p->join);
    free(p->file);
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

static enum mm_code read_out(const json_t *line, const struct mm_prediction_file *f,
                             struct mm_prediction *out, struct mm_error *err) {
    const json_t *missing = json_object_get(line, "missing_image");
    *out = (struct mm_prediction){.found = true, .missing_image = json_is_true(missing)};
    return mm_jsonl_text(&f->lines, line, "prediction", !out->missing_image, &out->text, err);
}

// ---- out of order ----

// What is kept of a line: how it stands, then the text.
enum { kept_missing = 1, kept_text = 2 };

static enum mm_code add_lines(struct mm_predictions *p, int number, struct mm_error *err) {
    struct mm_prediction_file *f = &p->file[number];
    json_decref(f->head);
    f->head = NULL;
    mm_jsonl_rewind(&f->lines);
    for (;;) {
        json_t *o;
        struct mm_prediction said = {0};
        MM_TRY(read_next(f, &o, err));
        if (!o) break;
        enum mm_code code = read_out(o, f, &said, err);
        struct mm_buf kept = {0};
        const char how =
            (char)((said.missing_image ? kept_missing : 0) | (said.text.s ? kept_text : 0));
        mm_buf_add(&kept, &how, 1);
        if (said.text.n) mm_buf_add(&kept, said.text.s, said.text.n);
        const struct mm_join_place place = {number, 1, f->lines.line};
        if (code == mm_code_ok) {
            code = mm_join_add(&p->join, f->head_index, place, (struct mm_str){kept.data, kept.len},
                               err);
        }
        mm_buf_free(&kept);
        json_decref(o);
        MM_TRY(code);
    }
    mm_map_forget(f->lines.map.data, f->lines.map.bytes);
    return mm_code_ok;
}

static enum mm_code join_all(struct mm_predictions *p, struct mm_error *err) {
    json_decref(p->line);
    p->line = NULL;
    p->joined = true;
    for (int i = 0; i < p->n_files; i++) {
        MM_TRY(add_lines(p, i, err));
    }
    MM_TRY(mm_join_run(&p->join, p->all, err));
    const struct mm_join_trouble *t = &p->join.twice;
    if (!t->key) return mm_code_ok;
    return mm_fail(err, mm_code_input,
                   "%s: line %" PRId64 ": index '%s' has been answered before, in %s line %" PRId64,
                   p->file[t->place.file].lines.path, t->place.line, t->key,
                   p->file[t->first.file].lines.path, t->first.line);
}

static enum mm_code find_joined(struct mm_predictions *p, int64_t number, struct mm_prediction *out,
                                struct mm_error *err) {
    struct mm_str kept;
    MM_TRY(mm_join_get(&p->join, number, &kept, err));
    if (!kept.s) return mm_code_ok;
    out->found = true;
    out->missing_image = kept.s[0] & kept_missing;
    if (kept.s[0] & kept_text) out->text = (struct mm_str){kept.s + 1, kept.n - 1};
    return mm_code_ok;
}

// ---- in order ----

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

enum mm_code mm_predictions_find(struct mm_predictions *p, const struct mm_question *q,
                                 struct mm_prediction *out, struct mm_error *err) {
    *out = (struct mm_prediction){0};
    if (p->joined) return find_joined(p, q->number, out, err);
    json_decref(p->line);
    p->line = NULL;
    int i;
    MM_TRY(find_in_order(p, q->index, &i, err));
    if (i < 0) {
        MM_TRY(join_all(p, err));
        return find_joined(p, q->number, out, err);
    }
    struct mm_prediction_file *f = &p->file[i];
    p->line = f->head;
    f->head = NULL;
    return read_out(p->line, f, out, err);
}

enum mm_code mm_predictions_end(struct mm_predictions *p, struct mm_error *err) {
    int i;
    if (!p->joined) {
        // A line is left: about nothing, or a second one about a question.
        MM_TRY(find_in_order(p, (struct mm_str){NULL, SIZE_MAX}, &i, err));
        for (i = 0; i < p->n_files && !p->file[i].head; i++) {
        }
        if (i < p->n_files) MM_TRY(join_all(p, err));
    }
    const struct mm_join_trouble *t = &p->join.stray;
    if (!t->key) return mm_code_ok;
    return mm_fail(err, mm_code_input, "%s: line %" PRId64 ": index '%s' is of no question of %s",
                   p->file[t->place.file].lines.path, t->place.line, t->key, p->all->path);
}
