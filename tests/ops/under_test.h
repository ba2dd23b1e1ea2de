// The backend that the tests of operations hold against the reference: the CPU with one instruction
// set, or, with MMAMBA_TEST_BACKEND=cuda (tests/gpu/run.sh), the GPU on operands in host memory.
#ifndef MM_TESTS_OPS_UNDER_TEST_H
#define MM_TESTS_OPS_UNDER_TEST_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "ops/cpu/cpu.h"

static inline bool testing_cuda(void) {
    const char *name = getenv("MMAMBA_TEST_BACKEND");
    return name && strcmp(name, "cuda") == 0;
}

// Under a sanitizer, where everything takes many times as long: fewer sizes, no finite differences.
static inline bool test_few(void) {
    return getenv("MMAMBA_TEST_FEW") != NULL;
}

// The instruction sets to go through, from the best down to 1: a GPU is one.
static inline int best_under_test(void) {
    return testing_cuda() ? 1 : (int)mm_isa_best();
}

static inline enum mm_code open_under_test(struct mm_backend **be, enum mm_isa isa, int n_threads,
                                           struct mm_error *err) {
    if (isa != mm_isa_plain && testing_cuda()) {
        setenv("MMAMBA_CUDA_MIRROR", "1", 0);  // or "exact", for sanitizers
        return mm_backend_open_cuda(be, 0, n_threads, err);
    }
    // the environment is the process's: threads that open one each wait for each other
    static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&opening);
    setenv("MMAMBA_ISA", mm_isa_name(isa), 1);
    const enum mm_code code = mm_backend_open_cpu(be, n_threads, err);
    unsetenv("MMAMBA_ISA");
    pthread_mutex_unlock(&opening);
    return code;
}

#endif
