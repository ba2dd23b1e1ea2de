// A judge's words and grades.
#include "eval/judge.h"

#include <stdlib.h>
#include "eval/jsonl.h"
#include "eval/tsv.h"

void mm_judge_free(struct mm_judge *j) {
    mm_names_free(&j->index);
    mm_buf_free(&j->text);
    free(j->end);
    free(j->grade);
    *j = (struct mm_judge){0};
}

bool mm_judge_grade(const struct mm_judge *j, struct mm_str index, double *grade) {
    const int64_t number = mm_names_find(&j->index, index);
    if (number >= 0) *grade = j->grade[number];
    return number >= 0;
}

struct mm_str mm_judge_reply(const struct mm_judge *j, struct mm_str index) {
    const int64_t number = mm_names_find(&j->index, index);
    if (number < 0) return (struct mm_str){NULL, 0};
    const size_t begin = number ? j->end[number - 1] : 0;
    return (struct mm_str){j->text.data ? j->text.data + begin : "", j->end[number] - begin};
}

static enum mm_code add(struct mm_judge *j, struct mm_str index, double grade, struct mm_str reply,
                        const char *where, int64_t line, struct mm_error *err) {
    if (!(grade >= 0 && grade <= 1)) {
        return mm_fail(err, mm_code_input, "%s: line %lld: score is %g, must be from 0 to 1", where,
                       (long long)line, grade);
    }
    const int64_t before = j->index.n;
    if (mm_names_add(&j->index, index) != before) {
        return mm_fail(err, mm_code_input, "%s: line %lld: index '%.*s' has been judged before",
                       where, (long long)line, (int)index.n, index.s);
    }
    if (before == j->cap) {
        j->cap = j->cap ? 2 * j->cap : 256;
        j->grade = mm_xrealloc(j->grade, (size_t)j->cap * sizeof *j->grade);
        j->end = mm_xrealloc(j->end, (size_t)j->cap * sizeof *j->end);
    }
    mm_buf_add(&j->text, reply.n ? reply.s : "", reply.n);
    j->grade[before] = grade;
    j->end[before] = j->text.len;
    return mm_code_ok;
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
        if (code == mm_code_ok) {
            code = add(j, index, grade, reply, file->path, file->line, err);
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
        if (kind == mm_judge_kind_grades && !read_number(text, &grade)) {
            return mm_tsv_wrong(t, i, name, err, "must be a number from 0 to 1");
        }
        MM_TRY(add(j, key, grade, text, t->path, mm_tsv_line(t, i), err));
    }
    return mm_code_ok;
}

enum mm_code mm_judge_read(struct mm_judge *j, const char *path, enum mm_judge_kind kind,
                           struct mm_error *err) {
    *j = (struct mm_judge){0};
    if (!path) return mm_code_ok;
    struct mm_jsonl file;
    MM_TRY(mm_jsonl_open(&file, path, err));
    const bool json = file.map.bytes > 0 && file.map.data[0] == '{';
    enum mm_code code = json ? read_lines(j, &file, kind, err) : mm_code_ok;
    mm_jsonl_close(&file);
    if (!json) {
        struct mm_tsv table;
        struct mm_tsv_row row;
        MM_TRY(mm_tsv_open(&table, path, false, err));
        mm_tsv_row_init(&row, &table);
        code = read_table(j, &table, &row, kind, err);
        mm_tsv_row_deinit(&row);
        mm_tsv_close(&table);
    }
    if (code != mm_code_ok) mm_judge_free(j);
    return code;
}
