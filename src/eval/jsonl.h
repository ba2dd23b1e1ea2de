// A mapped file of JSON objects, one a line; empty lines are passed over.
#ifndef MM_EVAL_JSONL_H
#define MM_EVAL_JSONL_H

#include <jansson.h>
#include <stdint.h>
#include "base/mmap.h"
#include "base/status.h"
#include "eval/str.h"

struct mm_jsonl {
    char *path;
    struct mm_map map;
    size_t at;      // where the next line begins
    size_t passed;  // bytes before this are given back to the system
    int64_t line;   // number of the line read last, from 1
};

enum mm_code mm_jsonl_open(struct mm_jsonl *j, const char *path, struct mm_error *err);
void mm_jsonl_close(struct mm_jsonl *j);
void mm_jsonl_rewind(struct mm_jsonl *j);
// The next line as an object; *o is NULL behind the last. The caller releases it.
enum mm_code mm_jsonl_next(struct mm_jsonl *j, json_t **o, struct mm_error *err);
// The line read last opens the sentence: "<path>: line 3: 'label' is missing, wanted ...".
enum mm_code mm_jsonl_wrong(const struct mm_jsonl *j, const json_t *o, const char *key,
                            const char *wanted, struct mm_error *err);
// A text member, borrowed from o. Not there (or null): an error when `required`, else .s is NULL.
enum mm_code mm_jsonl_text(const struct mm_jsonl *j, const json_t *o, const char *key,
                           bool required, struct mm_str *out, struct mm_error *err);
// An index: a whole number or a text, as text. `room` keeps a number's digits.
enum mm_code mm_jsonl_index(const struct mm_jsonl *j, const json_t *o, const char *key,
                            char room[24], struct mm_str *out, struct mm_error *err);

#endif
