// Reading questions in order.
#include "eval/questions.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "io/file.h"

static const char *const column_names[mm_column_count] = {
    "index",    "question",    "answer", "image",   "image_path", "hint",
    "category", "l2-category", "split",  "g_index", "structural", "semantic"};

static enum mm_code open_table(struct mm_questions *q, bool pandas1, struct mm_error *err) {
    MM_TRY(mm_tsv_open(&q->tsv, q->path, pandas1, err));
    for (int i = 0; i < mm_column_count; i++) {
        q->column[i] = mm_tsv_find(&q->tsv, column_names[i]);
    }
    for (int k = 0; k < 26; k++) {
        const char letter[2] = {(char)('A' + k), 0};
        q->option[k] = mm_tsv_find(&q->tsv, letter);
    }
    for (int i = mm_column_index; i <= mm_column_answer; i++) {
        if (q->column[i] < 0) {
            return mm_fail(err, mm_code_input,
                           "%s: line 1: there is no column '%s'; the first line must name the "
                           "columns of a VLMEvalKit TSV",
                           q->path, column_names[i]);
        }
    }
    if (q->form == mm_tsv_form_result && q->column[mm_column_image] >= 0) {
        mm_tsv_recount(&q->tsv, q->column[mm_column_image]);
    }
    mm_tsv_row_init(&q->row, &q->tsv);
    return mm_code_ok;
}

static enum mm_code open_kit(struct mm_questions *q, struct mm_error *err) {
    if (!q->bench->has_kit) {
        return mm_fail(err, mm_code_input, "%s: is a folder; %s wants the TSV file", q->path,
                       q->bench->title);
    }
    q->kit = true;
    char *path = mm_path_join(q->path, q->bench == &mm_bench_pope
                                           ? "llava_pope_test.jsonl"
                                           : "llava_gqa_testdev_balanced_qwen_format.jsonl");
    const enum mm_code code = mm_jsonl_open(&q->lines, path, err);
    free(path);
    return code;
}

enum mm_code mm_questions_open(struct mm_questions *q, const struct mm_bench *bench,
                               const char *path, bool pandas1, enum mm_tsv_form form, int64_t limit,
                               struct mm_error *err) {
    *q = (struct mm_questions){.bench = bench, .form = form, .limit = limit, .partial = limit > 0};
    q->path = mm_xstrdup(path);
    const enum mm_code code =
        mm_path_is_folder(path) ? open_kit(q, err) : open_table(q, pandas1, err);
    if (code != mm_code_ok) mm_questions_close(q);
    return code;
}

void mm_questions_close(struct mm_questions *q) {
    mm_tsv_row_deinit(&q->row);
    mm_tsv_close(&q->tsv);
    json_decref(q->line);
    mm_jsonl_close(&q->lines);
    free(q->path);
    *q = (struct mm_questions){0};
}

void mm_questions_share(struct mm_questions *again, const struct mm_questions *q) {
    *again = *q;
    again->line = NULL;
    if (!q->kit) mm_tsv_row_init(&again->row, &q->tsv);
    mm_questions_rewind(again);
}

void mm_questions_unshare(struct mm_questions *again) {
    const struct mm_map *map = again->kit ? &again->lines.map : &again->tsv.map;
    mm_map_forget(map->data, map->bytes);
    mm_tsv_row_deinit(&again->row);
    json_decref(again->line);
    *again = (struct mm_questions){0};
}

void mm_questions_rewind(struct mm_questions *q) {
    q->next_row = 0;
    q->n_given = 0;
    q->n_dropped = 0;
    mm_jsonl_rewind(&q->lines);
}

int64_t mm_questions_spot(const struct mm_questions *q) {
    return q->kit ? q->lines.line : q->row.row;
}

enum mm_code mm_questions_wrong_at(const struct mm_questions *q, int64_t spot, const char *field,
                                   struct mm_error *err, const char *what) {
    if (!q->kit) return mm_tsv_wrong(&q->tsv, spot, field, err, "%s", what);
    return mm_fail(err, mm_code_input, "%s: line %" PRId64 ": '%s': %s", q->lines.path, spot, field,
                   what);
}

enum mm_code mm_questions_wrong(const struct mm_questions *q, const char *field,
                                struct mm_error *err, const char *what) {
    return mm_questions_wrong_at(q, mm_questions_spot(q), field, err, what);
}

static struct mm_str cell(struct mm_questions *q, enum mm_column c) {
    return mm_tsv_cell(&q->row, q->column[c], q->form);
}

// The next row that has a picture; false behind the last.
static bool load_row(struct mm_questions *q) {
    while (q->next_row < q->tsv.n_rows) {
        mm_tsv_row_load(&q->row, q->next_row++);
        if (q->column[mm_column_image] < 0 || cell(q, mm_column_image).s) return true;
        q->n_dropped++;
    }
    return false;
}

static enum mm_code read_row(struct mm_questions *q, struct mm_question *out,
                             struct mm_error *err) {
    out->index = cell(q, mm_column_index);
    out->text = cell(q, mm_column_question);
    out->answer = cell(q, mm_column_answer);
    out->hint = cell(q, mm_column_hint);
    out->category = cell(q, mm_column_category);
    out->l2_category = cell(q, mm_column_l2_category);
    out->split = cell(q, mm_column_split);
    out->structural = cell(q, mm_column_structural);
    out->semantic = cell(q, mm_column_semantic);
    out->image_path = cell(q, mm_column_image_path);
    out->g_index = cell(q, mm_column_g_index);
    for (int k = 0; k < 26; k++) {
        if (q->option[k] >= 0) out->options.text[k] = mm_tsv_cell(&q->row, q->option[k], q->form);
    }
    if (!out->index.s) return mm_questions_wrong(q, "index", err, "is missing");
    if (!out->text.s) return mm_questions_wrong(q, "question", err, "is missing");
    return mm_code_ok;
}

static enum mm_code read_line(struct mm_questions *q, struct mm_question *out, bool *end,
                              struct mm_error *err) {
    const bool pope = q->bench == &mm_bench_pope;
    json_decref(q->line);
    q->line_at = q->lines.at;
    q->line_before = q->lines.line;
    MM_TRY(mm_jsonl_next(&q->lines, &q->line, err));
    *end = !q->line;
    if (*end) return mm_code_ok;
    const json_t *o = q->line;
    MM_TRY(mm_jsonl_index(&q->lines, o, "question_id", q->index_room, &out->index, err));
    MM_TRY(mm_jsonl_text(&q->lines, o, pope ? "text" : "question", true, &out->text, err));
    MM_TRY(mm_jsonl_text(&q->lines, o, "image", true, &q->line_image, err));
    if (pope) return mm_jsonl_text(&q->lines, o, "category", true, &out->category, err);
    return mm_jsonl_text(&q->lines, o, "answer", false, &out->answer, err);
}

enum mm_code mm_questions_next(struct mm_questions *q, struct mm_question *out, bool *end,
                               struct mm_error *err) {
    *out = (struct mm_question){.number = q->n_given};
    *end = q->limit > 0 && q->n_given >= q->limit;
    if (*end) return mm_code_ok;
    if (q->kit) {
        MM_TRY(read_line(q, out, end, err));
    } else {
        *end = !load_row(q);
        if (!*end) MM_TRY(read_row(q, out, err));
    }
    if (!*end) q->n_given++;
    return mm_code_ok;
}

struct mm_question_place mm_questions_tell(const struct mm_questions *q) {
    if (q->kit) {
        return (struct mm_question_place){q->n_given - 1, (int64_t)q->line_at, q->line_before};
    }
    return (struct mm_question_place){q->n_given - 1, q->row.row, 0};
}

enum mm_code mm_questions_at(struct mm_questions *q, struct mm_question_place place,
                             struct mm_question *out, struct mm_error *err) {
    bool end;
    q->n_given = place.number;
    if (q->kit) {
        q->lines.at = (size_t)place.at;
        q->lines.line = place.line;
    } else {
        q->next_row = place.at;
    }
    return mm_questions_next(q, out, &end, err);
}
