// Owns: whole files. Reading with a limit; writing to "<path>.tmp.<pid>" in the same folder and
// renaming, so that a crash, a full disk or a missing permission leaves the old file or the new.
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { copy_bytes = 1 << 20, gather_bytes = 1 << 16, write_most = 1 << 30 };

struct mm_outfile {
    char *path;  // where the caller sees the file; for messages
    char *real;  // path with links followed: what is replaced
    char *temp;  // NULL when path is a device or pipe, which is written directly
    int fd;
    size_t held;  // bytes in gather
    unsigned char gather[gather_bytes];
};

// What stands at a path, for a message about why it is not read or replaced.
static const char *kind_of(mode_t mode) {
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
    if (S_ISFIFO(mode)) return "a pipe";
    if (S_ISSOCK(mode)) return "a socket";
    return "a file";
}

enum mm_code mm_file_read(struct mm_buf *out, const char *path, size_t max_bytes,
                          struct mm_error *err) {
    // Nonblocking, or opening a pipe nobody writes to would hang before it can be refused.
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return mm_fail_errno(err, "%s: cannot be opened", path);
    enum mm_code code = mm_code_ok;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        code = mm_fail_errno(err, "%s: cannot be examined", path);
    } else if (!S_ISREG(st.st_mode)) {
        code = mm_fail(err, mm_code_input, "%s: is %s, a regular file is wanted", path,
                       kind_of(st.st_mode));
    } else if ((uintmax_t)st.st_size > max_bytes) {
        code = mm_fail(err, mm_code_input, "%s: has %lld bytes, at most %zu are read here", path,
                       (long long)st.st_size, max_bytes);
    }
    char *chunk = code == mm_code_ok ? mm_xmalloc(copy_bytes) : NULL;
    const size_t start = out->len;
    while (code == mm_code_ok) {
        const ssize_t got = read(fd, chunk, copy_bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            code = mm_fail_errno(err, "%s: cannot be read", path);
        } else if ((size_t)got > max_bytes - (out->len - start)) {
            code = mm_fail(err, mm_code_input, "%s: grew beyond %zu bytes while it was read", path,
                           max_bytes);
        } else {
            mm_buf_add(out, chunk, (size_t)got);
            if (got == 0) break;
        }
    }
    free(chunk);
    close(fd);
    return code;
}

// Removes temporaries that dead processes left beside `temp`. A living writer holds a lock on its
// own, so a name that can be locked has no owner, whatever process number stands in it.
static void sweep(const char *temp) {
    const char *slash = strrchr(temp, '/');
    const char *base = slash ? slash + 1 : temp;
    const char *dot = strrchr(base, '.');
    const size_t stem = (size_t)(dot - base) + 1;  // "<name>.tmp."
    char *folder = slash ? mm_xasprintf("%.*s/", (int)(slash - temp), temp) : mm_xstrdup(".");
    DIR *dir = opendir(folder);
    free(folder);
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        const char *tail = e->d_name + stem;
        if (strncmp(e->d_name, base, stem) != 0 || *tail == '\0' ||
            tail[strspn(tail, "0123456789")] != '\0') {
            continue;
        }
        const int fd =
            openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(dirfd(dir), e->d_name, 0);
        close(fd);
    }
    closedir(dir);
}

static void outfile_free(struct mm_outfile *f) {
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f->real);
    free(f->temp);
    free(f);
}

// Opens the temporary, or a device or pipe itself.
static enum mm_code outfile_start(struct mm_outfile *f, struct mm_error *err) {
    struct stat st;
    const bool exists = stat(f->path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) {
        return mm_fail(err, mm_code_input, "%s: is a folder, a file is to be written", f->path);
    }
    if (exists && !S_ISREG(st.st_mode)) {
        f->fd = open(f->path, O_WRONLY | O_CLOEXEC);
        if (f->fd < 0) return mm_fail_errno(err, "%s: cannot be opened for writing", f->path);
        return mm_code_ok;
    }
    // Renaming needs no right to the old file itself; who took it away meant it.
    if (exists && access(f->path, W_OK) != 0) {
        return mm_fail_errno(err, "%s: cannot be replaced", f->path);
    }
    f->real = exists ? realpath(f->path, NULL) : mm_xstrdup(f->path);
    if (!f->real) return mm_fail_errno(err, "%s: cannot be resolved", f->path);
    f->temp = mm_xasprintf("%s.tmp.%ld", f->real, (long)getpid());
    sweep(f->temp);
    f->fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        const enum mm_code code = mm_fail_errno(err, "%s: cannot be created", f->path);
        free(f->temp);
        f->temp = NULL;
        return code;
    }
    (void)flock(f->fd, LOCK_EX | LOCK_NB);  // where locks are missing sweeping finds none either
    if (exists) (void)fchmod(f->fd, st.st_mode & 0777);
    return mm_code_ok;
}

enum mm_code mm_outfile_open(struct mm_outfile **f, const char *path, struct mm_error *err) {
    *f = NULL;
    struct mm_outfile *o = mm_xcalloc(1, sizeof *o);
    o->path = mm_xstrdup(path);
    o->fd = -1;
    const enum mm_code code = outfile_start(o, err);
    if (code != mm_code_ok) {
        outfile_free(o);
        return code;
    }
    *f = o;
    return mm_code_ok;
}

static enum mm_code put(struct mm_outfile *f, const unsigned char *data, size_t bytes,
                        struct mm_error *err) {
    while (bytes > 0) {
        const ssize_t n = write(f->fd, data, bytes < write_most ? bytes : write_most);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return mm_fail_errno(err, "%s: cannot be written", f->path);
        data += n;
        bytes -= (size_t)n;
    }
    return mm_code_ok;
}

static enum mm_code flush(struct mm_outfile *f, struct mm_error *err) {
    const size_t held = f->held;
    f->held = 0;
    return put(f, f->gather, held, err);
}

enum mm_code mm_outfile_write(struct mm_outfile *f, const void *data, size_t bytes,
                              struct mm_error *err) {
    if (bytes > gather_bytes - f->held) {
        MM_TRY(flush(f, err));
    }
    if (bytes >= gather_bytes) {
        return put(f, data, bytes, err);
    }
    if (bytes > 0) {
        memcpy(f->gather + f->held, data, bytes);
        f->held += bytes;
    }
    return mm_code_ok;
}

// Makes a rename in the folder of `path` last through a power cut.
static enum mm_code sync_folder(const char *path, struct mm_error *err) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? mm_xasprintf("%.*s/", (int)(slash - path), path) : mm_xstrdup(".");
    enum mm_code code = mm_code_ok;
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    // A folder one may write to but not read, and file systems without fsync of folders, are
    // no reason to call a finished file a failure.
    if (fd >= 0 && fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) {
        code = mm_fail_errno(err, "%s: the folder cannot be synchronised", folder);
    }
    if (fd >= 0) close(fd);
    free(folder);
    return code;
}

enum mm_code mm_outfile_sync(struct mm_outfile *f, struct mm_error *err) {
    MM_TRY(flush(f, err));
    if (f->temp && fsync(f->fd) != 0) {
        return mm_fail_errno(err, "%s: cannot be written to disk", f->path);
    }
    return mm_code_ok;
}

static enum mm_code outfile_finish(struct mm_outfile *f, struct mm_error *err) {
    MM_TRY(mm_outfile_sync(f, err));
    if (!f->temp) return mm_code_ok;
    // Renamed while still open: closing would give up the lock that keeps sweep() away.
    if (rename(f->temp, f->real) != 0) {
        return mm_fail_errno(err, "%s: cannot be put in place", f->path);
    }
    free(f->temp);
    f->temp = NULL;
    return sync_folder(f->real, err);
}

enum mm_code mm_outfile_commit(struct mm_outfile *f, struct mm_error *err) {
    const enum mm_code code = outfile_finish(f, err);
    if (code != mm_code_ok) {
        mm_outfile_abort(f);
    } else {
        outfile_free(f);
    }
    return code;
}

void mm_outfile_abort(struct mm_outfile *f) {
    if (!f) return;
    if (f->temp) unlink(f->temp);
    outfile_free(f);
}

enum mm_code mm_file_write(const char *path, const void *data, size_t bytes, struct mm_error *err) {
    struct mm_outfile *f = NULL;
    MM_TRY(mm_outfile_open(&f, path, err));
    const enum mm_code code = mm_outfile_write(f, data, bytes, err);
    if (code != mm_code_ok) {
        mm_outfile_abort(f);
        return code;
    }
    return mm_outfile_commit(f, err);
}

enum mm_code mm_file_copy(const char *from, const char *to, struct mm_error *err) {
    const int fd = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return mm_fail_errno(err, "%s: cannot be opened", from);
    struct stat st;
    struct mm_outfile *f = NULL;
    enum mm_code code = mm_code_ok;
    if (fstat(fd, &st) != 0) {
        code = mm_fail_errno(err, "%s: cannot be examined", from);
    } else if (!S_ISREG(st.st_mode)) {
        code = mm_fail(err, mm_code_input, "%s: is %s, a regular file is wanted", from,
                       kind_of(st.st_mode));
    } else {
        code = mm_outfile_open(&f, to, err);
    }
    unsigned char *chunk = code == mm_code_ok ? mm_xmalloc(copy_bytes) : NULL;
    while (code == mm_code_ok) {
        const ssize_t got = read(fd, chunk, copy_bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) break;
        code = got < 0 ? mm_fail_errno(err, "%s: cannot be read", from)
                       : mm_outfile_write(f, chunk, (size_t)got, err);
    }
    free(chunk);
    close(fd);
    if (code != mm_code_ok) {
        mm_outfile_abort(f);
        return code;
    }
    return mm_outfile_commit(f, err);
}

enum mm_code mm_folder_make(const char *path, struct mm_error *err) {
    char *p = mm_xstrdup(path);
    enum mm_code code = mm_code_ok;
    const size_t n = strlen(p);
    for (size_t i = 1; i <= n && code == mm_code_ok; i++) {
        if (p[i] != '/' && p[i] != '\0') continue;
        const char kept = p[i];
        p[i] = '\0';
        const int failed = mkdir(p, 0777) != 0 ? errno : 0;
        if (failed && !mm_path_is_folder(p)) {
            errno = failed;  // of mkdir, not of the look at what is there
            code = mm_fail_errno(err, "%s: the folder cannot be made", p);
        }
        p[i] = kept;
    }
    if (n == 0) code = mm_fail(err, mm_code_input, "the name of the folder to make is empty");
    free(p);
    return code;
}

bool mm_path_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool mm_path_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *mm_path_join(const char *folder, const char *name) {
    const size_t n = strlen(folder);
    if (name[0] == '/' || n == 0) return mm_xstrdup(name);
    return mm_xasprintf("%s%s%s", folder, folder[n - 1] == '/' ? "" : "/", name);
}
