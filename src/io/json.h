// JSON by jansson, with errors that name the file and the field. Numbers are checked against a
// range here so that no absurd size travels further.
#ifndef MM_IO_JSON_H
#define MM_IO_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

enum mm_code mm_json_load(json_t **root, const char *path, struct mm_error *err);  // <= 256 MB
// `what` names the text in messages.
enum mm_code mm_json_parse(json_t **root, const char *text, size_t n, const char *what,
                           struct mm_error *err);
// Typed access to an object's member. `what` is the file (and the object) for messages. With
// required = false a missing or null member leaves *out as it is.
enum mm_code mm_json_int(const json_t *o, const char *key, int64_t min, int64_t max, bool required,
                         int64_t *out, const char *what, struct mm_error *err);
enum mm_code mm_json_float(const json_t *o, const char *key, double min, double max, bool required,
                           double *out, const char *what, struct mm_error *err);
enum mm_code mm_json_bool(const json_t *o, const char *key, bool required, bool *out,
                          const char *what, struct mm_error *err);
enum mm_code mm_json_string(const json_t *o, const char *key, bool required, const char **out,
                            const char *what, struct mm_error *err);  // borrowed from o
// What a value looks like in a message: a number, "text" (cut at 60 bytes), an array of 3, missing.
void mm_json_show(char *out, size_t room, const json_t *v);  // v may be NULL
// "<what>: '<key>' is <seen>, wanted <wanted>", as the functions above say it.
enum mm_code mm_json_wrong(const char *what, const char *key, const json_t *seen,
                           const char *wanted, struct mm_error *err);
// Appends a quoted and escaped JSON string; s is UTF-8.
void mm_json_add_string(struct mm_buf *out, const char *s, size_t n);
// Indented by two, a newline at the end, reals in their shortest exact spelling; atomic.
enum mm_code mm_json_write_file(const json_t *root, const char *path, struct mm_error *err);

#endif
