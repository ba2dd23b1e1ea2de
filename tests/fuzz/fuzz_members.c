// Any bytes as a large JSON object read a member at a time: refused with a sentence where the
// parser of whole files refuses them, else the same members.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "eval/members.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(int holds) {
    if (!holds) abort();
}

// All members as one object; NULL when it is refused. A name that comes again is the caller's
// affair.
static json_t *collect(const char *path, bool *again) {
    struct mm_members m;
    struct mm_error err = {0};
    *again = false;
    if (mm_members_open(&m, path, "an object", &err) != mm_code_ok) {
        check(err.text[0] && !strchr(err.text, '\n'));
        return NULL;
    }
    json_t *all = json_object();
    enum mm_code code;
    for (;;) {
        struct mm_str key;
        const json_t *value;
        code = mm_members_next(&m, &key, &value, &err);
        if (code != mm_code_ok || !key.s) break;
        char *name = strndup(key.s, key.n);
        *again = *again || json_object_get(all, name);
        json_object_set_new(all, name, json_deep_copy(value));
        free(name);
    }
    mm_members_close(&m);
    if (code == mm_code_ok) return all;
    check(err.text[0] && !strchr(err.text, '\n'));
    json_decref(all);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("members", 0);
        check(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    check(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    bool again;
    json_t *got = collect(path, &again);
    json_t *whole = json_loadb((const char *)data, n, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(whole)) {
        check(!got || again);
    } else {
        check(got && !again && json_equal(got, whole));
    }
    json_decref(got);
    json_decref(whole);
    return 0;
}
