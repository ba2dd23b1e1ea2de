// Mapping files for reading.
#include "base/mmap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode)    ? "a folder"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

enum mm_code mm_map_open(struct mm_map *m, const char *path, struct mm_error *err) {
    *m = (struct mm_map){0};
    // O_NONBLOCK: opening a pipe nobody writes to would hang before it can be refused.
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return mm_fail_errno(err, "%s: cannot open", path);
    enum mm_code code = mm_code_ok;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        code = mm_fail_errno(err, "%s: cannot stat", path);
    } else if (!S_ISREG(st.st_mode)) {
        code = mm_fail(err, mm_code_input, "%s: is %s, a regular file is needed", path,
                       kind_of(st.st_mode));
    } else if ((uintmax_t)st.st_size > SIZE_MAX) {
        code = mm_fail(err, mm_code_memory, "%s: too large to map", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            code = mm_fail_errno(err, "%s: cannot map %lld bytes", path, (long long)st.st_size);
        } else {
            *m = (struct mm_map){p, (size_t)st.st_size};
        }
    }
    close(fd);
    return code;
}

void mm_map_pass(const struct mm_map *m, size_t *from, size_t at) {
    enum { window = 2 << 20 };  // kept behind the reader
    if (at < *from) *from = at;
    if (at - *from < 2 * (size_t)window) return;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t begin = *from / page * page, end = (at - window) / page * page;
    madvise((void *)(uintptr_t)(m->data + begin), end - begin, MADV_DONTNEED);
    *from = end;
}

void mm_map_close(struct mm_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->bytes);
    *m = (struct mm_map){0};
}

void mm_map_forget(const void *data, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);  // a hint
}
