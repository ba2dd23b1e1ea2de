// Whole files: reading with limits, atomic replacement, what a full disk or a missing permission
// leaves behind, and base64.
#include "cmocka_all.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/file.h"
#include "scratch.h"

static struct mm_error err;

static char *in_folder(const char *name) {
    return mm_path_join(folder, name);
}

static void assert_holds(const char *path, const char *text) {
    struct mm_buf b = {0};
    assert_int_equal(mm_file_read(&b, path, 1 << 20, &err), mm_code_ok);
    assert_int_equal(b.len, strlen(text));
    assert_memory_equal(b.data, text, b.len);
    mm_buf_free(&b);
}

// Files in the folder whose name begins with `stem`.
static int count_files(const char *stem) {
    char *command = mm_xasprintf("ls -A '%s' | grep -c -e '^%s'", folder, stem);
    FILE *p = popen(command, "r");
    int n = -1;
    assert_int_equal(fscanf(p, "%d", &n), 1);
    pclose(p);
    free(command);
    return n;
}

static void reads_and_replaces(void **state) {
    (void)state;
    char *path = in_folder("a.txt");
    assert_int_equal(mm_file_write(path, "one", 3, &err), mm_code_ok);
    assert_holds(path, "one");
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(mm_file_write(path, "second", 6, &err), mm_code_ok);
    assert_holds(path, "second");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(mm_file_write(path, NULL, 0, &err), mm_code_ok);
    struct mm_buf b = {0};
    assert_int_equal(mm_file_read(&b, path, 10, &err), mm_code_ok);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");  // zero-terminated also when there is nothing
    mm_buf_free(&b);
    assert_int_equal(count_files("a.txt"), 1);
    free(path);
}

static void large_and_small_writes_mix(void **state) {
    (void)state;
    char *path = in_folder("mixed"), *copy = in_folder("copy");
    struct mm_outfile *f = NULL;
    assert_int_equal(mm_outfile_open(&f, path, &err), mm_code_ok);
    struct mm_buf want = {0};
    static char block[200000];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(i * 7);
    static const size_t sizes[] = {1, 65535, 1, 65536, 0, 3, 200000, 65537, 40000, 40000, 5};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(
            mm_outfile_write(f, block + i % 3, sizes[i] - (sizes[i] > 9 ? 3 : 0), &err),
            mm_code_ok);
        mm_buf_add(&want, block + i % 3, sizes[i] - (sizes[i] > 9 ? 3 : 0));
    }
    assert_false(mm_path_exists(path));  // nothing before the commit
    assert_int_equal(mm_outfile_commit(f, &err), mm_code_ok);
    assert_int_equal(mm_file_copy(path, copy, &err), mm_code_ok);
    struct mm_buf got = {0};
    assert_int_equal(mm_file_read(&got, copy, want.len, &err), mm_code_ok);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.data, want.data, want.len);
    mm_buf_free(&got);
    assert_int_equal(mm_file_read(&got, copy, want.len - 1, &err), mm_code_input);
    assert_non_null(strstr(err.text, copy));
    mm_buf_free(&got);
    mm_buf_free(&want);
    free(path);
    free(copy);
}

static void refuses_what_is_no_file(void **state) {
    (void)state;
    struct mm_buf b = {0};
    assert_int_equal(mm_file_read(&b, folder, 10, &err), mm_code_input);
    assert_non_null(strstr(err.text, "is a folder"));
    assert_int_equal(mm_file_read(&b, "/dev/zero", 10, &err), mm_code_input);
    char *pipe_path = in_folder("pipe"), *none = in_folder("none");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(mm_file_read(&b, pipe_path, 10, &err), mm_code_input);  // and does not hang
    assert_non_null(strstr(err.text, "is a pipe"));
    assert_int_equal(mm_file_copy(pipe_path, none, &err), mm_code_input);
    assert_false(mm_path_exists(none));
    assert_int_equal(mm_file_read(&b, none, 10, &err), mm_code_io);
    assert_int_equal(mm_file_write(folder, "x", 1, &err), mm_code_input);
    free(none);
    none = in_folder("no/such/folder/x");
    assert_int_equal(mm_file_write(none, "x", 1, &err), mm_code_io);
    assert_non_null(strstr(err.text, none));
    assert_null(b.data);
    free(none);
    free(pipe_path);
}

static void a_full_disk_leaves_the_old_file(void **state) {
    (void)state;
    assert_int_equal(mm_file_write("/dev/full", "x", 1, &err), mm_code_io);
    assert_non_null(strstr(err.text, "/dev/full"));
    char *path = in_folder("full");
    assert_int_equal(mm_file_write(path, "old", 3, &err), mm_code_ok);
    const pid_t child = fork();
    if (child == 0) {
        static char block[300000];
        const struct rlimit limit = {100000, 100000};
        signal(SIGXFSZ, SIG_IGN);  // as the program does
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(9);
        const enum mm_code code = mm_file_write(path, block, sizeof block, &err);
        _exit(code == mm_code_io && strstr(err.text, path) && strstr(err.text, "too large") ? 0
                                                                                            : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_holds(path, "old");
    assert_int_equal(count_files("full"), 1);
    free(path);
}

// As a user without rights: in a child, because the tests may run as root.
static void a_missing_permission_leaves_the_old_file(void **state) {
    (void)state;
    char *path = in_folder("kept");
    assert_int_equal(mm_file_write(path, "old", 3, &err), mm_code_ok);
    for (int what = 0; what < 2; what++) {  // the file is read-only; the folder is
        assert_int_equal(chmod(folder, what == 0 ? 0777 : 0555), 0);
        assert_int_equal(chmod(path, what == 0 ? 0444 : 0666), 0);
        const pid_t child = fork();
        if (child == 0) {
            if (getuid() == 0 && setuid(65534) != 0) _exit(9);
            const enum mm_code code = mm_file_write(path, "new", 3, &err);
            _exit(code == mm_code_io && strstr(err.text, path) ? 0 : 1);
        }
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_holds(path, "old");
    }
    assert_int_equal(chmod(folder, 0700), 0);
    assert_int_equal(count_files("kept"), 1);
    free(path);
}

static void leftovers_of_the_dead_are_removed(void **state) {
    (void)state;
    char *path = in_folder("run");
    const pid_t child = fork();
    if (child == 0) {
        struct mm_outfile *f = NULL;
        if (mm_outfile_open(&f, path, &err) != mm_code_ok) _exit(1);
        kill(getpid(), SIGKILL);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(count_files("run.tmp."), 1);
    struct mm_outfile *mine = NULL;
    assert_int_equal(mm_outfile_open(&mine, path, &err), mm_code_ok);
    assert_int_equal(count_files("run.tmp."), 1);  // the dead one's is gone, this one's is there
    const pid_t other = fork();                    // and a second writer leaves it alone
    if (other == 0) _exit(mm_file_write(path, "other", 5, &err) == mm_code_ok ? 0 : 1);
    assert_int_equal(waitpid(other, &status, 0), other);
    assert_int_equal(status, 0);
    assert_holds(path, "other");
    assert_int_equal(mm_outfile_write(mine, "mine", 4, &err), mm_code_ok);
    assert_int_equal(mm_outfile_commit(mine, &err), mm_code_ok);
    assert_holds(path, "mine");
    assert_int_equal(count_files("run"), 1);
    free(path);
}

static void links_are_followed(void **state) {
    (void)state;
    char *path = in_folder("target"), *link = in_folder("link");
    assert_int_equal(mm_file_write(path, "a", 1, &err), mm_code_ok);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(mm_file_write(link, "b", 1, &err), mm_code_ok);
    assert_holds(path, "b");
    struct stat st;
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    free(path);
    free(link);
}

static void folders_and_paths(void **state) {
    (void)state;
    char *deep = in_folder("d/e//f/");
    assert_int_equal(mm_folder_make(deep, &err), mm_code_ok);
    assert_int_equal(mm_folder_make(deep, &err), mm_code_ok);
    assert_true(mm_path_is_folder(deep));
    free(deep);
    char *file = in_folder("plain");
    assert_int_equal(mm_file_write(file, "x", 1, &err), mm_code_ok);
    char *below = mm_path_join(file, "sub");
    assert_int_equal(mm_folder_make(below, &err), mm_code_io);
    assert_int_equal(mm_folder_make(file, &err), mm_code_io);
    assert_int_equal(mm_folder_make("", &err), mm_code_input);
    free(below);
    free(file);
    char *joined = mm_path_join("a/", "b");
    assert_string_equal(joined, "a/b");
    free(joined);
    joined = mm_path_join("a", "/b");
    assert_string_equal(joined, "/b");
    free(joined);
}

static void base64_vectors(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xfb\xff\xfe", "+//+"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct mm_buf b = {0};
        mm_base64_encode(&b, pairs[i][0], strlen(pairs[i][0]));
        assert_int_equal(b.len, strlen(pairs[i][1]));
        assert_memory_equal(b.data ? b.data : "", pairs[i][1], b.len);
        mm_buf_reset(&b);
        // As it is, without padding, and broken into lines.
        for (int form = 0; form < 3; form++) {
            struct mm_buf text = {0};
            for (const char *c = pairs[i][1]; *c; c++) {
                if (form == 1 && *c == '=') continue;
                mm_buf_add(&text, c, 1);
                if (form == 2) mm_buf_adds(&text, " \r\n");
            }
            mm_buf_reset(&b);
            assert_int_equal(mm_base64_decode(&b, text.data ? text.data : "", text.len, "t", &err),
                             mm_code_ok);
            assert_int_equal(b.len, strlen(pairs[i][0]));
            assert_memory_equal(b.data ? b.data : "", pairs[i][0], b.len);
            mm_buf_free(&text);
        }
        mm_buf_free(&b);
    }
    static const char *const wrong[] = {
        "Z", "Zg=", "Zg=a", "Zm9vZ", "Zm9v=", "=", "Zm9v====", "Z_9v", "Zm\x80v", "Zg==Zg=="};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct mm_buf b = {0};
        assert_int_equal(mm_base64_decode(&b, wrong[i], strlen(wrong[i]), "the picture", &err),
                         mm_code_input);
        assert_non_null(strstr(err.text, "the picture: not base64"));
        mm_buf_free(&b);
    }
}

static void base64_of_many_bytes(void **state) {
    (void)state;
    static unsigned char bytes[50001];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * i >> 3);
    for (size_t n = sizeof bytes - 3; n <= sizeof bytes; n++) {
        struct mm_buf text = {0}, back = {0};
        mm_base64_encode(&text, bytes, n);
        assert_int_equal(text.len, (n + 2) / 3 * 4);
        assert_int_equal(mm_base64_decode(&back, text.data, text.len, "t", &err), mm_code_ok);
        assert_int_equal(back.len, n);
        assert_memory_equal(back.data, bytes, n);
        mm_buf_free(&text);
        mm_buf_free(&back);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_replaces),
        cmocka_unit_test(large_and_small_writes_mix),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(a_missing_permission_leaves_the_old_file),
        cmocka_unit_test(leftovers_of_the_dead_are_removed),
        cmocka_unit_test(links_are_followed),
        cmocka_unit_test(folders_and_paths),
        cmocka_unit_test(base64_vectors),
        cmocka_unit_test(base64_of_many_bytes),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
