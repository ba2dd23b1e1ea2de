// Members of a large JSON object.
#include "eval/members.h"

#include <stdlib.h>

void mm_members_close(struct mm_members *m) {
    json_decref(m->key);
    json_decref(m->value);
    mm_map_close(&m->map);
    free(m->path);
    *m = (struct mm_members){0};
}

static int byte_at(const struct mm_members *m, size_t at) {
    return at < m->map.bytes ? m->map.data[at] : -1;
}

static void skip_space(struct mm_members *m) {
    for (;; m->at++) {
        const int c = byte_at(m, m->at);
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
    }
}

// `lines` and `columns` behind `at`.
static enum mm_code wrong(const struct mm_members *m, size_t at, int lines, int columns,
                          const char *what, struct mm_error *err) {
    long long line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        column = m->map.data[i] == '\n' ? 1 : column + 1;
        line += m->map.data[i] == '\n';
    }
    return mm_fail(err, mm_code_input, "%s: line %lld, column %lld: not valid JSON: %s", m->path,
                   line + lines, lines ? columns : column + columns, what);
}

static enum mm_code wanted_here(const struct mm_members *m, const char *what,
                                struct mm_error *err) {
    return wrong(m, m->at, 0, 0, what, err);
}

// Behind the text that opens at `at`; the end of the file where it never ends.
static size_t skip_text(const struct mm_members *m, size_t at) {
    for (at++; at < m->map.bytes; at++) {
        if (m->map.data[at] == '\\') {
            at++;
        } else if (m->map.data[at] == '"') {
            return at + 1;
        }
    }
    return m->map.bytes;
}

// Behind the value that opens at `at`: brackets are counted, the parser looks at the rest.
static size_t skip_value(const struct mm_members *m, size_t at) {
    for (long long depth = 0; at < m->map.bytes;) {
        const unsigned char c = m->map.data[at];
        if (c == '"') {
            at = skip_text(m, at);
            if (depth == 0) return at;
            continue;
        }
        const bool closes = c == '}' || c == ']';
        if (depth == 0 && (closes || c == ',')) return at;
        depth += (c == '{' || c == '[') - closes;
        at++;
        if (closes && depth == 0) return at;
    }
    return m->map.bytes;
}

static enum mm_code parse(struct mm_members *m, size_t end, json_t **out, struct mm_error *err) {
    json_error_t e;
    *out = json_loadb((const char *)m->map.data + m->at, end - m->at,
                      JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &e);
    if (!*out) return wrong(m, m->at, e.line - 1, e.column, e.text, err);
    m->at = end;
    return mm_code_ok;
}

enum mm_code mm_members_open(struct mm_members *m, const char *path, const char *wanted,
                             struct mm_error *err) {
    *m = (struct mm_members){0};
    MM_TRY(mm_map_open(&m->map, path, err));
    m->path = mm_xstrdup(path);
    skip_space(m);
    if (byte_at(m, m->at) == '{') {
        m->at++;
        return mm_code_ok;
    }
    const enum mm_code code = mm_fail(err, mm_code_input, "%s: must be %s", path, wanted);
    mm_members_close(m);
    return code;
}

static enum mm_code end(struct mm_members *m, struct mm_error *err) {
    m->over = true;
    m->at++;
    skip_space(m);
    if (m->at == m->map.bytes) return mm_code_ok;
    return wanted_here(m, "something stands behind the object", err);
}

enum mm_code mm_members_next(struct mm_members *m, struct mm_str *key, const json_t **value,
                             struct mm_error *err) {
    json_decref(m->key);
    json_decref(m->value);
    m->key = m->value = NULL;
    *key = (struct mm_str){NULL, 0};
    *value = NULL;
    if (m->over) return mm_code_ok;
    mm_map_pass(&m->map, &m->passed, m->at);
    skip_space(m);
    if (byte_at(m, m->at) == '}') return end(m, err);
    if (m->begun) {
        if (byte_at(m, m->at) != ',') return wanted_here(m, "',' or '}' expected", err);
        m->at++;
        skip_space(m);
    }
    m->begun = true;
    if (byte_at(m, m->at) != '"') return wanted_here(m, "a name in quotes expected", err);
    MM_TRY(parse(m, skip_text(m, m->at), &m->key, err));
    skip_space(m);
    if (byte_at(m, m->at) != ':') return wanted_here(m, "':' expected", err);
    m->at++;
    skip_space(m);
    MM_TRY(parse(m, skip_value(m, m->at), &m->value, err));
    *key = (struct mm_str){json_string_value(m->key), json_string_length(m->key)};
    *value = m->value;
    return mm_code_ok;
}
