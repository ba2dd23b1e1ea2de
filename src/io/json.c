// Owns: JSON through jansson, with one sentence for everything that can be wrong with it: the
// file, the field, the value seen, the value wanted. Writing gives what Python's
// json.dump(indent=2) would, so that a file that passes through keeps its spelling.
#include "io/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/file.h"

enum { file_most = 256 << 20 };

// Control bytes of a foreign file do not belong on a terminal.
static void clean(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c == 0x7f) *c = '?';
    }
}

enum mm_code mm_json_parse(json_t **root, const char *text, size_t n, const char *what,
                           struct mm_error *err) {
    *root = NULL;
    if (n == 0) return mm_fail(err, mm_code_input, "%s: is empty, JSON is wanted", what);
    json_error_t e;
    *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
    if (*root) return mm_code_ok;
    clean(e.text);
    return mm_fail(err, mm_code_input, "%s: not valid JSON at line %d, column %d: %s", what, e.line,
                   e.column, e.text);
}

enum mm_code mm_json_load(json_t **root, const char *path, struct mm_error *err) {
    *root = NULL;
    struct mm_buf text = {0};
    enum mm_code code = mm_file_read(&text, path, file_most, err);
    if (code == mm_code_ok) code = mm_json_parse(root, text.data, text.len, path, err);
    mm_buf_free(&text);
    return code;
}

void mm_json_show(char *out, size_t room, const json_t *v) {
    if (json_is_array(v)) {
        snprintf(out, room, "an array of %zu", json_array_size(v));
    } else if (json_is_object(v)) {
        snprintf(out, room, "an object");
    } else if (json_is_integer(v)) {
        snprintf(out, room, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else if (json_is_real(v)) {
        snprintf(out, room, "%.9g", json_real_value(v));
    } else if (json_is_string(v)) {
        const size_t n = json_string_length(v);
        size_t shown = n < 60 ? n : 60;
        const char *s = json_string_value(v);
        while (shown < n && shown > 0 && ((unsigned char)s[shown] & 0xc0) == 0x80)
            shown--;
        snprintf(out, room, "\"%.*s%s\"", (int)shown, s, shown < n ? "..." : "");
        clean(out);
    } else {
        snprintf(out, room, "%s",
                 !v                 ? "missing"
                 : json_is_true(v)  ? "true"
                 : json_is_false(v) ? "false"
                                    : "null");
    }
}

enum mm_code mm_json_wrong(const char *what, const char *key, const json_t *seen,
                           const char *wanted, struct mm_error *err) {
    char text[128];
    mm_json_show(text, sizeof text, seen);
    return mm_fail(err, mm_code_input, "%s: '%s' is %s, wanted %s", what, key, text, wanted);
}

// The member, or NULL when it is missing or null.
static const json_t *member(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

enum mm_code mm_json_int(const json_t *o, const char *key, int64_t min, int64_t max, bool required,
                         int64_t *out, const char *what, struct mm_error *err) {
    const json_t *v = member(o, key);
    if (!v && !required) return mm_code_ok;
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max) {
        char wanted[96];
        snprintf(wanted, sizeof wanted, "an integer from %" PRId64 " to %" PRId64, min, max);
        return mm_json_wrong(what, key, json_object_get(o, key), wanted, err);
    }
    *out = json_integer_value(v);
    return mm_code_ok;
}

enum mm_code mm_json_float(const json_t *o, const char *key, double min, double max, bool required,
                           double *out, const char *what, struct mm_error *err) {
    const json_t *v = member(o, key);
    if (!v && !required) return mm_code_ok;
    if (!json_is_number(v) || json_number_value(v) < min || json_number_value(v) > max) {
        char wanted[96];
        snprintf(wanted, sizeof wanted, "a number from %.9g to %.9g", min, max);
        return mm_json_wrong(what, key, json_object_get(o, key), wanted, err);
    }
    *out = json_number_value(v);
    return mm_code_ok;
}

enum mm_code mm_json_bool(const json_t *o, const char *key, bool required, bool *out,
                          const char *what, struct mm_error *err) {
    const json_t *v = member(o, key);
    if (!v && !required) return mm_code_ok;
    if (!json_is_boolean(v)) {
        return mm_json_wrong(what, key, json_object_get(o, key), "true or false", err);
    }
    *out = json_is_true(v);
    return mm_code_ok;
}

enum mm_code mm_json_string(const json_t *o, const char *key, bool required, const char **out,
                            const char *what, struct mm_error *err) {
    const json_t *v = member(o, key);
    if (!v && !required) return mm_code_ok;
    if (!json_is_string(v)) {
        return mm_json_wrong(what, key, json_object_get(o, key), "a string", err);
    }
    *out = json_string_value(v);
    return mm_code_ok;
}

void mm_json_add_string(struct mm_buf *out, const char *s, size_t n) {
    mm_buf_adds(out, "\"");
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            mm_buf_addf(out, "\\%c", c);
        } else if (c == '\n') {
            mm_buf_adds(out, "\\n");
        } else if (c < 0x20 || c == 0x7f) {
            mm_buf_addf(out, "\\u%04x", c);
        } else {
            mm_buf_add(out, &s[i], 1);
        }
    }
    mm_buf_adds(out, "\"");
}

// The fewest digits, 15 at least, that read back as the same double.
static void add_real(struct mm_buf *out, double v) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    mm_buf_adds(out, text);
    if (!strpbrk(text, ".e")) mm_buf_adds(out, ".0");  // stays a real when read again
}

static void add_break(struct mm_buf *out, int depth) {
    mm_buf_addf(out, "\n%*s", 2 * depth, "");
}

// Nesting is bounded by jansson's parser (2048), or by the program for what it builds itself.
static void add_value(struct mm_buf *out, const json_t *v, int depth) {
    const char *key;
    json_t *item;
    size_t i;
    switch (json_typeof(v)) {
        case JSON_OBJECT:
            mm_buf_adds(out, "{");
            i = 0;
            json_object_foreach((json_t *)(uintptr_t)v, key, item) {
                if (i++) mm_buf_adds(out, ",");
                add_break(out, depth + 1);
                mm_json_add_string(out, key, strlen(key));
                mm_buf_adds(out, ": ");
                add_value(out, item, depth + 1);
            }
            if (i) add_break(out, depth);
            mm_buf_adds(out, "}");
            break;
        case JSON_ARRAY:
            mm_buf_adds(out, "[");
            json_array_foreach(v, i, item) {
                if (i) mm_buf_adds(out, ",");
                add_break(out, depth + 1);
                add_value(out, item, depth + 1);
            }
            if (json_array_size(v)) add_break(out, depth);
            mm_buf_adds(out, "]");
            break;
        case JSON_STRING:
            mm_json_add_string(out, json_string_value(v), json_string_length(v));
            break;
        case JSON_INTEGER:
            mm_buf_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
            break;
        case JSON_REAL:
            add_real(out, json_real_value(v));
            break;
        case JSON_TRUE:
            mm_buf_adds(out, "true");
            break;
        case JSON_FALSE:
            mm_buf_adds(out, "false");
            break;
        case JSON_NULL:
            mm_buf_adds(out, "null");
            break;
    }
}

enum mm_code mm_json_write_file(const json_t *root, const char *path, struct mm_error *err) {
    struct mm_buf text = {0};
    add_value(&text, root, 0);
    mm_buf_adds(&text, "\n");
    const enum mm_code code = mm_file_write(path, text.data, text.len, err);
    mm_buf_free(&text);
    return code;
}
