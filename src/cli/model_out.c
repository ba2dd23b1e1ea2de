#include "cli/model_out.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/file.h"
#include "model/model.h"

static const char stage_prefix[] = ".partial-";

// Calls fn for every entry of a folder but "." and ".."; the first failure ends it.
static enum mm_code each_entry(const char *folder,
                               enum mm_code (*fn)(void *arg, const char *name,
                                                  struct mm_error *err),
                               void *arg, struct mm_error *err) {
    DIR *dir = opendir(folder);
    if (!dir) return mm_fail_errno(err, "%s: cannot be listed", folder);
    enum mm_code code = mm_code_ok;
    for (const struct dirent *e = readdir(dir); e && !code; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) code = fn(arg, e->d_name, err);
    }
    closedir(dir);
    return code;
}

static enum mm_code remove_entry(void *arg, const char *name, struct mm_error *err) {
    (void)err;
    char *path = mm_path_join(arg, name);
    unlink(path);
    free(path);
    return mm_code_ok;
}

static void remove_stage(char *stage) {
    struct mm_error ignored;
    each_entry(stage, remove_entry, stage, &ignored);
    rmdir(stage);
}

// What a process that was killed left behind.
static enum mm_code sweep_entry(void *arg, const char *name, struct mm_error *err) {
    (void)err;
    if (strncmp(name, stage_prefix, strlen(stage_prefix)) != 0) return mm_code_ok;
    const long pid = atol(name + strlen(stage_prefix));
    if (pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH) return mm_code_ok;
    char *stage = mm_path_join(arg, name);
    remove_stage(stage);
    free(stage);
    return mm_code_ok;
}

static bool same_folder(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void out_free(struct mm_model_out *o) {
    free(o->stage);
    free(o->folder);
    *o = (struct mm_model_out){0};
}

enum mm_code mm_model_out_begin(struct mm_model_out *o, const char *folder, const char *source,
                                struct mm_error *err) {
    *o = (struct mm_model_out){0};
    char *from = mm_model_folder(source);
    const bool same = same_folder(folder, from);
    free(from);
    if (same) {
        return mm_fail(err, mm_code_usage,
                       "%s: is the folder that is read; the new model needs another", folder);
    }
    o->made = !mm_path_exists(folder);
    MM_TRY(mm_folder_make(folder, err));
    o->folder = mm_xstrdup(folder);
    char name[64];
    snprintf(name, sizeof name, "%s%ld", stage_prefix, (long)getpid());
    o->stage = mm_path_join(folder, name);
    enum mm_code code = each_entry(folder, sweep_entry, o->folder, err);
    if (!code && mkdir(o->stage, 0777) != 0) {
        code = mm_fail_errno(err, "%s: nothing can be written there", folder);
    }
    if (code && o->made) rmdir(folder);
    if (code) out_free(o);
    return code;
}

static enum mm_code move_entry(void *arg, const char *name, struct mm_error *err) {
    const struct mm_model_out *o = arg;
    char *from = mm_path_join(o->stage, name), *to = mm_path_join(o->folder, name);
    enum mm_code code = mm_code_ok;
    if (rename(from, to) != 0) code = mm_fail_errno(err, "%s: cannot be put in place", to);
    free(from);
    free(to);
    return code;
}

// Weights of an older model that the new one does not replace by name: the next reader would find
// two models, or an index of files that are gone.
static enum mm_code remove_old_weights(void *arg, const char *name, struct mm_error *err) {
    const struct mm_model_out *o = arg;
    int shard, n, end = 0;
    const bool weights = strcmp(name, "model.safetensors") == 0 ||
                         strcmp(name, "model.safetensors.index.json") == 0 ||
                         (sscanf(name, "model-%5d-of-%5d.safetensors%n", &shard, &n, &end) == 2 &&
                          end > 0 && name[end] == 0);
    if (!weights) return mm_code_ok;
    char *replaced = mm_path_join(o->stage, name), *path = mm_path_join(o->folder, name);
    enum mm_code code = mm_code_ok;
    if (!mm_path_exists(replaced) && unlink(path) != 0) {
        code = mm_fail_errno(err, "%s: belongs to the model that is replaced and cannot be removed",
                             path);
    }
    free(replaced);
    free(path);
    return code;
}

enum mm_code mm_model_out_end(struct mm_model_out *o, enum mm_code code, struct mm_error *err) {
    if (o->stage == NULL) return code;
    if (!code && !o->made) code = each_entry(o->folder, remove_old_weights, o, err);
    if (!code) code = each_entry(o->stage, move_entry, o, err);
    remove_stage(o->stage);
    if (code && o->made) rmdir(o->folder);
    out_free(o);
    return code;
}
