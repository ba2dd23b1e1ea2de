// Any bytes as model.safetensors.index.json beside one good shard.
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"
#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char folder[] = "/tmp/mm_fuzz_index_XXXXXX";
static char *shard, *index_path;

static void check(int holds) {
    if (!holds) abort();
}

static void clear(void) {
    unlink(shard);
    unlink(index_path);
    rmdir(folder);
    free(shard);
    free(index_path);
}

static void prepare(void) {
    static const float f[3] = {1, 2, 3};
    const struct mm_st_tensor t[] = {{"a", mm_dtype_f32, 1, {3}, f, 12},
                                     {"b", mm_dtype_f32, 0, {0}, f, 4}};
    check(mkdtemp(folder) != NULL);
    shard = mm_path_join(folder, "s");
    index_path = mm_path_join(folder, "model.safetensors.index.json");
    check(mm_st_write(shard, t, 2, NULL, 0, NULL) == mm_code_ok);
    atexit(clear);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!shard) prepare();
    const int fd = open(index_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
    struct mm_error err = {0};
    struct mm_st *st = NULL;
    const enum mm_code code = mm_st_open_folder(&st, folder, &err);
    if (code != mm_code_ok) {
        check(!st && err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    const int count = mm_st_count(st);
    check(count == 2 || count == 0);  // the shard's tensors, or an index that names nothing
    check(count == 0 || (mm_st_find(st, "a") && mm_st_find(st, "b")));
    mm_st_close(st);
    return 0;
}
