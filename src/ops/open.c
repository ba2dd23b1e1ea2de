// A backend by the name that people give it.
#include <stdlib.h>
#include <string.h>

#include "ops/ops.h"

enum mm_code mm_backend_open(struct mm_backend **be, const char *name, int n_threads,
                             struct mm_error *err) {
    *be = NULL;
    if (strcmp(name, "auto") == 0 || strcmp(name, "cpu") == 0) {
        return mm_backend_open_cpu(be, n_threads, err);
    }
    if (strcmp(name, "cuda") == 0) return mm_backend_open_cuda(be, 0, n_threads, err);
    if (strncmp(name, "cuda:", 5) == 0 && name[5] >= '0' && name[5] <= '9') {
        char *end;
        const long device = strtol(name + 5, &end, 10);
        if (*end == '\0' && device <= 1023) {
            return mm_backend_open_cuda(be, (int)device, n_threads, err);
        }
    }
    return mm_fail(err, mm_code_usage,
                   "the backend is '%.40s', must be auto, cpu, cuda or cuda:N, the GPUs counted "
                   "from 0",
                   name);
}
