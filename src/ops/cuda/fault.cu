// Failures on purpose, so that tests can see that none passes silently. MMAMBA_CUDA_FAULT=call:N
// makes the N-th checked call of the runtime fail (from the backend's opening on);
// MMAMBA_CUDA_FAULT=launch:N lets a kernel write after the N-th launch where nothing is, which the
// card reports as it does every real mistake of the kind, and is lost to the process from then on.
#include "ops/cuda/cuda.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static __global__ void write_nowhere(int *nowhere) {
    *nowhere = 1;
}

enum mm_code mm_cuda_fault_parse(struct mm_cuda_fault *f, struct mm_error *err) {
    const char *text = getenv("MMAMBA_CUDA_FAULT");
    if (!text || !*text) return mm_code_ok;
    const bool call = strncmp(text, "call:", 5) == 0, launch = strncmp(text, "launch:", 7) == 0;
    const char *number = text + (call ? 5 : launch ? 7 : 0);
    char *end;
    errno = 0;
    const long long n = strtoll(number, &end, 10);
    if ((!call && !launch) || *number < '1' || *number > '9' || *end || errno) {
        return mm_cuda_fail(err, mm_code_usage,
                            "MMAMBA_CUDA_FAULT is '%.40s', wanted call:N or launch:N, counted from "
                            "1",
                            text);
    }
    *(call ? &f->call : &f->launch) = n;
    return mm_code_ok;
}

cudaError_t mm_cuda_fault_call(struct mm_cuda *cuda, cudaError_t e) {
    if (cuda->fault.call == 0 || --cuda->fault.call > 0 || e != cudaSuccess) return e;
    return cudaErrorUnknown;
}

void mm_cuda_fault_launch(struct mm_cuda *cuda) {
    if (cuda->fault.launch == 0 || --cuda->fault.launch > 0) return;
    int *nowhere = (int *)64;
    void *args[] = {&nowhere};
    // what it does is to be found by those that come after
    (void)cudaLaunchKernel((const void *)write_nowhere, dim3(1), dim3(1), args, 0, cuda->stream);
    (void)cudaGetLastError();
}
