// What the tests of scoring share: a folder of their own, files in it, and errors that must be.
//     cmocka_run_group_tests(tests, files_begin, scratch_remove)
#ifndef MM_TESTS_EVAL_FILES_H
#define MM_TESTS_EVAL_FILES_H

#include "cmocka_all.h"
#include "scratch.h"

#include <string.h>
#include "base/log.h"
#include "io/file.h"

static struct mm_error err;

#define OK(call)                                                       \
    do {                                                               \
        if ((call) != mm_code_ok) fail_msg("%s: %s", #call, err.text); \
    } while (0)
// The call fails with a sentence that holds `words`.
#define REFUSED(call, words)                                                                   \
    do {                                                                                       \
        if ((call) == mm_code_ok) fail_msg("%s: was not refused", #call);                      \
        if (!strstr(err.text, words)) fail_msg("says '%s', must say '%s'", err.text, (words)); \
    } while (0)

static inline int files_begin(void **state) {
    mm_log_set_level(mm_log_level_error);
    return scratch_make(state);
}

// Writes a file in the folder; its path, which stays until 64 others were written.
static inline const char *put_bytes(const char *name, const char *bytes, size_t n) {
    static char *paths[64];
    static int next;
    char **path = &paths[next++ % 64];
    free(*path);
    *path = mm_path_join(folder, name);
    OK(mm_file_write(*path, bytes, n, &err));
    return *path;
}

static inline const char *put(const char *name, const char *text) {
    return put_bytes(name, text, strlen(text));
}

#endif
