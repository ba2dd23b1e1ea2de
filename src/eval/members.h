// One large JSON object in a mapped file, a member at a time: of the rest only the mapping is
// there.
#ifndef MM_EVAL_MEMBERS_H
#define MM_EVAL_MEMBERS_H

#include <jansson.h>
#include "base/buf.h"
#include "base/mmap.h"
#include "base/status.h"
#include "eval/str.h"

struct mm_members {
    char *path;
    struct mm_map map;
    size_t at;      // where the next member begins, or the comma in front of it
    size_t passed;  // bytes before this are given back to the system
    bool begun, over;
    json_t *key, *value;  // of the member read last
};

// `wanted` says what the object is, for the sentence about another file.
enum mm_code mm_members_open(struct mm_members *m, const char *path, const char *wanted,
                             struct mm_error *err);
// key->s is NULL behind the last; key and value are valid until the next.
enum mm_code mm_members_next(struct mm_members *m, struct mm_str *key, const json_t **value,
                             struct mm_error *err);
void mm_members_close(struct mm_members *m);

#endif
