// A folder of the test program's own: made before its tests, removed with all that is in it after.
//     cmocka_run_group_tests(tests, scratch_make, scratch_remove)
#ifndef MM_TESTS_SCRATCH_H
#define MM_TESTS_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char folder[] = "/tmp/mmamba-test-XXXXXX";

static inline int scratch_make(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static inline int scratch_remove_one(const char *path, const struct stat *s, int type,
                                     struct FTW *f) {
    (void)s, (void)type, (void)f;
    return remove(path);
}

static inline int scratch_remove(void **state) {
    (void)state;
    return nftw(folder, scratch_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
