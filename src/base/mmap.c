// Mapping files for reading.
#include "base/mmap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode)    ? "a folder"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

enum { huge_page = 2 << 20 };

// A file large enough for huge pages begins at one: only then can any of it be mapped by them.
static void *map_file(int fd, size_t bytes) {
    if (bytes < 2 * (size_t)huge_page || bytes > SIZE_MAX - huge_page) {
        return mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    }
    char *room = mmap(NULL, bytes + huge_page, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return MAP_FAILED;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    const size_t before = (huge_page - (uintptr_t)room % huge_page) % huge_page;
    void *p = mmap(room + before, bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    const int why = errno;
    if (p == MAP_FAILED) {
        munmap(room, bytes + huge_page);
        errno = why;
        return MAP_FAILED;
    }
    if (before) munmap(room, before);
    const size_t used = before + whole, all = (bytes + huge_page + page - 1) / page * page;
    if (all > used) munmap(room + used, all - used);
    return p;
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
        void *p = map_file(fd, (size_t)st.st_size);
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
    enum { window = 256 << 10 };  // kept behind the reader
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

void mm_map_prefetch(const struct mm_map *m) {
    if (!m->data) return;
    void *p = (void *)(uintptr_t)m->data;
    (void)madvise(p, m->bytes, MADV_HUGEPAGE);
    (void)madvise(p, m->bytes, MADV_WILLNEED);
}

enum mm_code mm_map_copy(struct mm_map *m, struct mm_error *err) {
    if (!m->data) return mm_code_ok;
    void *at = (void *)(uintptr_t)m->data;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), all = (m->bytes + page - 1) / page * page;
    // As aligned as the mapping that it will replace, so that the pages can move as they are.
    const size_t shift = (uintptr_t)at % huge_page;
    char *room = mmap(NULL, all + 2 * huge_page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        return mm_fail_errno(err, "cannot get %.1f MiB of memory", (double)all / 1048576.0);
    }
    char *copy = room + (huge_page - (uintptr_t)room % huge_page) % huge_page + shift;
    (void)madvise(copy, all, MADV_HUGEPAGE);
    memcpy(copy, at, m->bytes);
    (void)mprotect(copy, all, PROT_READ);
    const void *moved = mremap(copy, all, all, MREMAP_MAYMOVE | MREMAP_FIXED, at);
    enum mm_code code = mm_code_ok;
    if (moved == MAP_FAILED) code = mm_fail_errno(err, "cannot move memory to its place");
    const size_t left = (size_t)(copy - room);
    if (left) munmap(room, left);
    munmap(copy + all, 2 * huge_page - left);
    if (code) munmap(copy, all);
    return code;
}
