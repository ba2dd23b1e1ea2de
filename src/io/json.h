// JSON by jansson, with errors that name the file and the field. Numbers are checked against a
// range here so that no absurd size travels further.
#ifndef MM_IO_JSON_H
#define MM_IO_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
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
enum mm_code mm_json_write_file(const json_t *root, const char *path, struct mm_error *err);

#endif
