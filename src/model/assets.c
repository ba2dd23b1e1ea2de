// What a model folder holds beside config and weights: tokenizer, generation settings, and the
// Python files that config.json's auto_map refers to. Copied as they are.
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "io/file.h"
#include "io/tokenizer.h"
#include "model/model.h"

char *mm_model_folder(const char *path) {
    const char *colon = strstr(path, ".json:");
    char *name = colon ? mm_xasprintf("%.*s.json", (int)(colon - path), path) : mm_xstrdup(path);
    if (mm_path_is_folder(name)) return name;
    char *slash = strrchr(name, '/');
    if (slash == NULL) {
        free(name);
        return mm_xstrdup(".");
    }
    slash[slash == name] = 0;  // the root stays "/"
    return name;
}

static enum mm_code copy_where_there(const char *from, const char *to, const char *name,
                                     struct mm_error *err) {
    char *source = mm_path_join(from, name), *target = mm_path_join(to, name);
    const enum mm_code code =
        mm_path_exists(source) ? mm_file_copy(source, target, err) : mm_code_ok;
    free(source);
    free(target);
    return code;
}

// The first module of an auto_map ("module.Class") whose file the folder lacks, malloc'ed, or NULL.
// An entry "repository--module.Class" refers to somewhere else.
static char *missing_module(const json_t *object, const char *folder) {
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(object, "auto_map"), key, value) {
        const char *text = json_string_value(value);
        const char *dot = text ? strchr(text, '.') : NULL;
        if (dot == NULL || strstr(text, "--") || memchr(text, '/', (size_t)(dot - text))) continue;
        char *name = mm_xasprintf("%.*s.py", (int)(dot - text), text);
        char *path = mm_path_join(folder, name);
        const bool there = mm_path_exists(path);
        free(path);
        if (!there) return name;
        free(name);
    }
    return NULL;
}

static bool ends_in_py(const char *name) {
    const size_t n = strlen(name);
    return n > 3 && strcmp(name + n - 3, ".py") == 0 && name[0] != '.';
}

// The folder's code, if it is this model's: a student carved from a teacher needs other classes
// than the teacher's folder has.
static enum mm_code copy_code(const char *from, const char *to, const struct mm_config *config,
                              struct mm_error *err) {
    char *missing = missing_module(config->json, from);
    if (missing == NULL)
        missing = missing_module(json_object_get(config->json, "llm_config"), from);
    if (missing) {
        mm_info(
            "%s has no %s, which auto_map names: to load the new folder in PyTorch, put the "
            "published mmMamba code there",
            from, missing);
        free(missing);
        return mm_code_ok;
    }
    DIR *dir = opendir(from);
    if (!dir) return mm_fail_errno(err, "%s: cannot be listed", from);
    enum mm_code code = mm_code_ok;
    for (const struct dirent *e = readdir(dir); e && !code; e = readdir(dir)) {
        if (ends_in_py(e->d_name)) code = copy_where_there(from, to, e->d_name, err);
    }
    closedir(dir);
    return code;
}

enum mm_code mm_model_copy_assets(const char *from, const char *to, const struct mm_config *config,
                                  struct mm_error *err) {
    char *tokenizer = mm_path_join(from, "tokenizer.model");
    const bool there = mm_path_exists(tokenizer);
    free(tokenizer);
    if (there) {
        MM_TRY(mm_tokenizer_copy_files(from, to, err));
    } else {
        mm_warn("%s has no tokenizer.model; the new folder gets none", from);
    }
    MM_TRY(copy_where_there(from, to, "generation_config.json", err));
    MM_TRY(copy_where_there(from, to, "preprocessor_config.json", err));
    return copy_code(from, to, config, err);
}
