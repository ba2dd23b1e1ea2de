// JSON lines.
#include "eval/jsonl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/buf.h"
#include "io/json.h"

enum mm_code mm_jsonl_open(struct mm_jsonl *j, const char *path, struct mm_error *err) {
    *j = (struct mm_jsonl){0};
    MM_TRY(mm_map_open(&j->map, path, err));
    j->path = mm_xstrdup(path);
    return mm_code_ok;
}

void mm_jsonl_close(struct mm_jsonl *j) {
    free(j->path);
    mm_map_close(&j->map);
    *j = (struct mm_jsonl){0};
}

void mm_jsonl_rewind(struct mm_jsonl *j) {
    j->at = 0;
    j->line = 0;
}

static bool is_blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r') return false;
    }
    return true;
}

enum mm_code mm_jsonl_next(struct mm_jsonl *j, json_t **o, struct mm_error *err) {
    *o = NULL;
    const char *data = (const char *)j->map.data;
    while (j->at < j->map.bytes) {
        const char *s = data + j->at;
        const char *lf = memchr(s, '\n', j->map.bytes - j->at);
        const size_t n = lf ? (size_t)(lf - s) : j->map.bytes - j->at;
        j->at += n + (lf ? 1 : 0);
        j->line++;
        mm_map_pass(&j->map, &j->passed, j->at - n);
        if (is_blank(s, n)) continue;
        // a model may say U+0000; texts carry their length
        json_error_t e;
        *o = json_loadb(s, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
        if (json_is_object(*o)) return mm_code_ok;
        if (*o) {
            json_decref(*o);
            *o = NULL;
            return mm_fail(err, mm_code_input, "%s: line %" PRId64 ": must be a JSON object",
                           j->path, j->line);
        }
        for (unsigned char *c = (unsigned char *)e.text; *c; c++) {
            if (*c < 0x20 || *c == 0x7f) *c = '?';  // it quotes the line
        }
        return mm_fail(err, mm_code_input, "%s: line %" PRId64 ", column %d: not valid JSON: %s",
                       j->path, j->line, e.column, e.text);
    }
    return mm_code_ok;
}

enum mm_code mm_jsonl_wrong(const struct mm_jsonl *j, const json_t *o, const char *key,
                            const char *wanted, struct mm_error *err) {
    char what[512];
    snprintf(what, sizeof what, "%s: line %" PRId64, j->path, j->line);
    return mm_json_wrong(what, key, json_object_get(o, key), wanted, err);
}

enum mm_code mm_jsonl_text(const struct mm_jsonl *j, const json_t *o, const char *key,
                           bool required, struct mm_str *out, struct mm_error *err) {
    const json_t *v = json_object_get(o, key);
    *out = (struct mm_str){NULL, 0};
    if (!required && (!v || json_is_null(v))) return mm_code_ok;
    if (!json_is_string(v)) return mm_jsonl_wrong(j, o, key, "a text", err);
    *out = (struct mm_str){json_string_value(v), json_string_length(v)};
    return mm_code_ok;
}

enum mm_code mm_jsonl_index(const struct mm_jsonl *j, const json_t *o, const char *key,
                            char room[24], struct mm_str *out, struct mm_error *err) {
    const json_t *v = json_object_get(o, key);
    if (json_is_integer(v)) {
        snprintf(room, 24, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        *out = mm_str_of(room);
        return mm_code_ok;
    }
    if (!json_is_string(v) || json_string_length(v) == 0) {
        return mm_jsonl_wrong(j, o, key, "a whole number or a text", err);
    }
    *out = (struct mm_str){json_string_value(v), json_string_length(v)};
    return mm_code_ok;
}
