// Any bytes as a safetensors file: refused with one sentence, or every tensor lies within the file.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile uint8_t sink;

static void check(int holds) {
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    check(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct mm_error err = {0};
    struct mm_st *st = NULL;
    const enum mm_code code = mm_st_open(&st, path, &err);
    close(fd);
    if (code != mm_code_ok) {
        check(!st && err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    size_t bytes = 0;
    for (int i = 0; i < mm_st_count(st); i++) {
        const struct mm_st_tensor *t = mm_st_at(st, i);
        check(mm_st_find(st, t->name) == t);
        check(i == 0 || strcmp(mm_st_at(st, i - 1)->name, t->name) < 0);
        for (size_t j = 0; j < t->bytes; j++) {  // every byte must be mapped
            sink = ((const uint8_t *)t->data)[j];
        }
        bytes += t->bytes;
    }
    check(bytes <= n);
    (void)mm_st_metadata(st, "format");
    mm_st_close(st);
    return 0;
}
