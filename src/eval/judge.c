// A judge's words and grades.
#include "eval/judge.h"

#include <stdlib.h>
#include "base/log.h"
#include "eval/jsonl.h"
#include "eval/tsv.h"

void mm_judge_free(struct mm_judge *j) {
    mm_join_free(&j->join);
    *j = (struct mm_judge){0};
}

enum mm_code mm_judge_grade(struct mm_judge *j, const struct mm_question *q, bool *found,
                            double *grade, struct mm_error *err) {
    struct mm_str value;
    MM_TRY(mm_join_get(&j->join, q->number, &value, err));
    *found = value.s != NULL;
    if (*found) memcpy(grade, value.s, sizeof *grade);
    return mm_code_ok;
}

enum mm_code mm_judge_reply(struct mm_judge *j, const struct mm_question *q, struct mm_str *reply,
                            struct mm_error *err) {
    return mm_join_get(&j->join, q->number, reply, err);
}

// `spot`: the line, or the row of a table.
static enum mm_code add(struct mm_judge *j, struct mm_str index, const double *grade,
                        struct mm_str reply, int64_t spot, struct mm_error *err) {
    const struct mm_join_place place = {.line = spot, .wanted = 1};
    return mm_join_add(&j->join, index, place, grade ? MM_SORTER_VALUE(*grade) : reply, err);
}

static enum mm_code read_lines(struct mm_judge *j, struct mm_jsonl *file, enum mm_judge_kind kind,
                               struct mm_error *err) {
    for (;;) {
        json_t *o;
        char room[24];
        struct mm_str index, reply = {NULL, 0};
        double grade = 0;
        MM_TRY(mm_jsonl_next(file, &o, err));
        if (!o) return mm_code_ok;
        enum mm_code code = mm_jsonl_index(file, o, "index", room, &index, err);
        if (code == mm_code_ok && kind == mm_judge_kind_replies) {
            code = mm_jsonl_text(file, o, "reply", true, &reply, err);
        } else if (code == mm_code_ok) {
            const json_t *v = json_object_get(o, "score");
            grade = json_number_value(v);
            if (!json_is_number(v)) {
                code = mm_jsonl_wrong(file, o, "score", "a number from 0 to 1", err);
            }
        }
        const bool graded = kind == mm_judge_kind_grades;
        if (code == mm_code_ok && !(grade >= 0 && grade <= 1)) {
            code = mm_fail(err, mm_code_input, "%s: line %lld: score is %g, must be from 0 to 1",
                           file->path, (long long)file->line, grade);
        }
        if (code == mm_code_ok) {
            code = add(j, index, graded ? &grade : NULL, reply, file->line, err);
        }
        json_decref(o);
        MM_TRY(code);
    }
}

static bool read_number(struct mm_str text, double *value) {
    char *copy = mm_xasprintf("%.*s", (int)text.n, text.s ? text.s : ""), *end = NULL;
    *value = strtod(copy, &end);
    const bool ok = end != copy && *end == '\0';
    free(copy);
    return ok;
}

static enum mm_code read_table(struct mm_judge *j, const struct mm_tsv *t, struct mm_tsv_row *row,
                               enum mm_judge_kind kind, struct mm_error *err) {
    const char *name = kind == mm_judge_kind_grades ? "score" : "reply";
    const int index = mm_tsv_find(t, "index"), what = mm_tsv_find(t, name);
    if (index < 0 || what < 0) {
        return mm_fail(err, mm_code_input, "%s: line 1: there is no column '%s'", t->path,
                       index < 0 ? "index" : name);
    }
    for (int64_t i = 0; i < t->n_rows; i++) {
        mm_tsv_row_load(row, i);
        const struct mm_str key = mm_tsv_cell(row, index, mm_tsv_form_table);
        const struct mm_str text = mm_tsv_cell(row, what, mm_tsv_form_table);
        double grade = 0;
        if (!key.s) return mm_tsv_wrong(t, i, "index", err, "is missing");
        const bool graded = kind == mm_judge_kind_grades;
        if (graded && (!read_number(text, &grade) || !(grade >= 0 && grade <= 1))) {
            return mm_tsv_wrong(t, i, name, err, "is '%.*s', must be a number from 0 to 1",
                                (int)(text.n < 60 ? text.n : 60), text.n ? text.s : "");
        }
        MM_TRY(add(j, key, graded ? &grade : NULL, text, i, err));
    }
    return mm_code_ok;
}

// Entries are in j->join: finds whose they are.
static enum mm_code join(struct mm_judge *j, const char *path, const struct mm_tsv *table,
                         const struct mm_questions *all, struct mm_error *err) {
    MM_TRY(mm_join_run(&j->join, all, err));
    const struct mm_join_trouble *twice = &j->join.twice, *stray = &j->join.stray;
    if (twice->key) {
        const int64_t line = twice->place.line;
        return mm_fail(err, mm_code_input, "%s: line %lld: index '%s' has been judged before", path,
                       (long long)(table ? mm_tsv_line(table, line) : line), twice->key);
    }
    if (stray->key && !all->limit) {
        const int64_t line = stray->place.line;
        mm_warn("%s: line %lld: index '%s' is of no question of %s; such lines are passed over",
                path, (long long)(table ? mm_tsv_line(table, line) : line), stray->key, all->path);
    }
    return mm_code_ok;
}

static enum mm_code read_json(struct mm_judge *j, struct mm_jsonl *file, enum mm_judge_kind kind,
                              const struct mm_questions *all, struct mm_error *err) {
    MM_TRY(read_lines(j, file, kind, err));
    return join(j, file->path, NULL, all, err);
}

static enum mm_code read_tsv(struct mm_judge *j, const char *path, enum mm_judge_kind kind,
                             const struct mm_questions *all, struct mm_error *err) {
    struct mm_tsv table;
    struct mm_tsv_row row;
    MM_TRY(mm_tsv_open(&table, path, false, err));
    mm_tsv_row_init(&row, &table);
    enum mm_code code = read_table(j, &table, &row, kind, err);
    if (code == mm_code_ok) code = join(j, path, &table, all, err);
    mm_tsv_row_deinit(&row);
    mm_tsv_close(&table);
    return code;
}

enum mm_code mm_judge_read(struct mm_judge *j, const char *path, enum mm_judge_kind kind,
                           const struct mm_questions *all, struct mm_error *err) {
    *j = (struct mm_judge){.join.room = all->sort_room};
    if (!path) return mm_code_ok;
    struct mm_jsonl file;
    MM_TRY(mm_jsonl_open(&file, path, err));
    const bool json = file.map.bytes > 0 && file.map.data[0] == '{';
    enum mm_code code = json ? read_json(j, &file, kind, all, err) : mm_code_ok;
    mm_jsonl_close(&file);
    if (!json) code = read_tsv(j, path, kind, all, err);
    if (code != mm_code_ok) mm_judge_free(j);
    return code;
}
