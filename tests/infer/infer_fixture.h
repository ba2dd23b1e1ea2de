// A small random model folder with the golden tokenizer, written once a test program: the golden
// config with the tokenizer's vocabulary, blocks of both kinds.
#ifndef MM_TESTS_INFER_FIXTURE_H
#define MM_TESTS_INFER_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cmocka_all.h"

#include "infer/snapshot.h"
#include "io/file.h"
#include "io/json.h"
#include "ops/under_test.h"

static struct mm_error err;
static char fixture_dir[] = "/tmp/mm_infer_XXXXXX";
static struct mm_backend *fixture_be;
static float fixture_gain = 1.0f;  // of the matrices inside: above 1 answers hang on the question

#define OK(call)                                                       \
    do {                                                               \
        if ((call) != mm_code_ok) fail_msg("%s: %s", #call, err.text); \
    } while (0)
// The call fails with a sentence that holds `words`.
#define REFUSED(call, words)                                                             \
    do {                                                                                 \
        err.text[0] = '\0';                                                              \
        if ((call) == mm_code_ok) fail_msg("%s: was not refused", #call);                \
        if (strstr(err.text, words) == NULL) fail_msg("%s: says '%s'", #call, err.text); \
    } while (0)

static char *fixture_path(const char *name) {
    return mm_xasprintf("%s/%s", fixture_dir, name);
}

// The golden teacher's config with V and the picture token of the golden tokenizer.
static void fixture_config(struct mm_config *c, const char *golden) {
    char *path = mm_xasprintf("tests/golden/%s/teacher_config.json", golden);
    json_t *o = NULL;
    OK(mm_json_load(&o, path, &err));
    json_t *embed = json_object_get(o, "embedding_config"), *llm = json_object_get(o, "llm_config");
    json_object_set_new(embed, "llm_vocab_size", json_integer(905));
    json_object_set_new(embed, "img_context_token_id", json_integer(904));
    json_object_set_new(llm, "vocab_size", json_integer(905));
    char *text = json_dumps(o, 0);
    OK(mm_config_parse(c, text, strlen(text), path, &err));
    free(text);
    json_decref(o);
    free(path);
}

// Writes folder `name` with the blocks that `keep` lists as attention; returns its path.
static inline char *fixture_model(const char *name, const char *golden, const char *keep_text,
                                  uint64_t seed) {
    struct mm_config c;
    fixture_config(&c, golden);
    struct mm_model teacher, student;
    mm_model_init(&teacher, &c, fixture_be, mm_dtype_f32);
    OK(mm_model_alloc(&teacher, &err));
    mm_model_randomize(&teacher, seed);
    // larger than at the start of a training, so that answers are not all the same token
    for (int i = 0; i < teacher.n_params; i++) {
        const struct mm_param *p = &teacher.params[i];
        const bool inside = p->role != mm_role_text && p->role != mm_role_output;
        if (inside && (fixture_gain == 1.0f || p->w.n_axes != 2)) continue;
        const int64_t n = mm_view_count(p->w);
        float *w = mm_xmalloc((size_t)n * sizeof *w);
        mm_param_get(&teacher, p->w, w);
        for (int64_t j = 0; j < n; j++)
            w[j] *= inside ? fixture_gain : p->role == mm_role_text ? 50.0f : 6.0f;
        mm_param_put(&teacher, p->w, w);
        free(w);
    }
    bool keep[mm_max_blocks];
    OK(mm_keep_parse(keep_text, teacher.n_blocks, keep, &err));
    OK(mm_model_carve(&student, &teacher, keep, mm_init_mimic, seed, &err));
    char *folder = fixture_path(name);
    OK(mm_model_save(&student, folder, mm_dtype_f32, "tests/golden/tokenizer", &err));
    mm_model_deinit(&student);
    mm_model_deinit(&teacher);
    mm_config_deinit(&c);
    return folder;
}

static inline struct mm_engine *fixture_engine(const char *folder) {
    struct mm_engine *e;
    OK(mm_engine_open(&e, fixture_be, folder, -1, &err));
    return e;
}

static int fixture_begin(void **state) {
    (void)state;
    if (mkdtemp(fixture_dir) == NULL) return -1;
    // with MMAMBA_TEST_BACKEND=cuda the model and its sessions lie in the device's memory
    const char *name = testing_cuda() ? "cuda" : "cpu";
    if (mm_backend_open(&fixture_be, name, 2, &err) == mm_code_ok) return 0;
    print_error("%s\n", err.text);
    return -1;
}

static int fixture_end(void **state) {
    (void)state;
    mm_backend_close(fixture_be);
    char *command = mm_xasprintf("rm -rf '%s'", fixture_dir);
    const int status = system(command);
    free(command);
    return status;
}

#endif
