// What the tests of bench share: a backend, and models of models/pico's sizes.
#ifndef MM_TESTS_BENCH_FIXTURE_H
#define MM_TESTS_BENCH_FIXTURE_H

#include "cmocka_all.h"

#include "base/log.h"
#include "bench/models.h"

static const char pico[] = "models/pico/config.json";
static struct mm_backend *be;

static inline int setup(void **state) {
    (void)state;
    struct mm_error err;
    mm_log_set_level(mm_log_level_error);
    return mm_backend_open_cpu(&be, 2, &err) ? -1 : 0;
}
static inline int teardown(void **state) {
    (void)state;
    mm_backend_close(be);
    return 0;
}

// In place: an open source points into itself.
static inline void source_open(struct mm_bench_source *s, bool random, int dtype) {
    *s = (struct mm_bench_source){
        .be = be, .path = random ? pico : "models/pico", .random = random, .dtype = dtype};
    struct mm_error err;
    if (mm_bench_source_open(s, &err)) fail_msg("%s", err.text);
}

static inline struct mm_model *form_of(struct mm_bench_source *s, enum mm_bench_form form) {
    struct mm_model *m;
    struct mm_error err;
    if (mm_bench_model_open(&m, s, form, &err)) fail_msg("%s", err.text);
    return m;
}

#endif
