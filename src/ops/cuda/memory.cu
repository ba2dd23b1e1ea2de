// Memory of the device: what may be taken, what is held, scratch of the operations. Nothing is
// asked of the driver that is not free: what does not fit is refused with numbers, and the backend
// goes on.
#include "ops/cuda/cuda.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static double gib(size_t bytes) {
    return (double)bytes / 1073741824.0;
}

size_t mm_cuda_memory_limit(struct mm_error *err) {
    const char *text = getenv("MMAMBA_CUDA_MEMORY");
    if (!text || !*text) return SIZE_MAX;
    char *end;
    errno = 0;
    const unsigned long long n = strtoull(text, &end, 10);
    const int shift = *end == 'G' ? 30 : *end == 'M' ? 20 : 0;
    const bool whole = *text >= '0' && *text <= '9' && end[shift > 0] == '\0' && !errno;
    if (!whole || n == 0 || n > (SIZE_MAX >> shift)) {
        mm_cuda_fail(err, mm_code_usage,
                     "MMAMBA_CUDA_MEMORY is '%.40s', wanted how much of the device's memory to use "
                     "at most, in bytes or as 800M or 40G",
                     text);
        return 0;
    }
    return (size_t)n << shift;
}

// Bytes that can still be taken.
static bool room(struct mm_backend *be, size_t *bytes) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    size_t free_bytes = 0, total = 0;
    if (!mm_cuda_ok(be, cudaMemGetInfo(&free_bytes, &total), "asking for free memory"))
        return false;
    const size_t left = cuda->held < cuda->limit ? cuda->limit - cuda->held : 0;
    *bytes = left < free_bytes ? left : free_bytes;
    return true;
}

int64_t mm_cuda_available(struct mm_backend *be) {
    size_t bytes;
    // of a dead device: asking for memory has the sentence
    return !be->error.code && room(be, &bytes) ? (int64_t)bytes : INT64_MAX;
}

void mm_cuda_count(struct mm_backend *be, int64_t bytes) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    cuda->held += (size_t)bytes;
    if (cuda->held > cuda->peak) cuda->peak = cuda->held;
}

// What operations kept for sizes of before is given back, so that the count is of what follows.
bool mm_cuda_peak_reset(struct mm_backend *be) {
    mm_cuda_drop_scratch(be);
    mm_cuda_of(be)->peak = mm_cuda_of(be)->held;
    return true;
}

int64_t mm_cuda_peak(struct mm_backend *be) {
    return (int64_t)mm_cuda_of(be)->peak;
}

void *mm_cuda_take(struct mm_backend *be, size_t bytes, const char *what, struct mm_error *err) {
    size_t left;
    void *p = NULL;
    if (be->error.code || !room(be, &left)) {
        if (err) *err = be->error;
        return NULL;
    }
    cudaError_t e = bytes > left ? cudaErrorMemoryAllocation : cudaMalloc(&p, bytes);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();  // not sticky: the backend goes on
        mm_cuda_fail(err, mm_code_memory, "%s: %s needs %.3f GiB of memory, %.3f GiB are free",
                     be->device, what, gib(bytes), gib(left));
        return NULL;
    }
    if (!mm_cuda_ok(be, e, "taking memory")) {
        if (p) (void)cudaFree(p);  // a failure on purpose
        if (err) *err = be->error;
        return NULL;
    }
    mm_cuda_count(be, (int64_t)bytes);
    return p;
}

void mm_cuda_give(struct mm_backend *be, void *p, size_t bytes) {
    if (!p) return;
    mm_cuda_count(be, -(int64_t)bytes);
    mm_cuda_ok(be, cudaFree(p), "giving memory back");  // waits for the kernels that use it
}

// ---- for the program ----

enum mm_code mm_cuda_alloc(struct mm_backend *be, size_t bytes, void **out, struct mm_error *err) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    const size_t size = bytes ? bytes : 1;
    *out = NULL;
    if (cuda->mirror) {
        *out = size <= SIZE_MAX - 63 ? aligned_alloc(64, (size + 63) / 64 * 64) : NULL;
        if (!*out) return mm_cuda_fail(err, mm_code_memory, "no memory");
        memset(*out, 0, size);
        return mm_code_ok;
    }
    struct mm_error why = {};
    void *p = mm_cuda_take(be, size, "this", &why);
    if (p &&
        !mm_cuda_ok(be, cudaMemsetAsync(p, 0, size, cuda->stream), "filling memory with zeros")) {
        mm_cuda_give(be, p, size);
        why = be->error;
        p = NULL;
    }
    if (!p && err) *err = why;
    *out = p;
    return p ? mm_code_ok : why.code;
}

void mm_cuda_release(struct mm_backend *be, void *p, size_t bytes) {
    if (mm_cuda_of(be)->mirror) {
        free(p);
    } else {
        mm_cuda_give(be, p, bytes ? bytes : 1);
    }
}

// ---- scratch ----

static void drop(struct mm_backend *be, int slot) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    mm_cuda_give(be, cuda->scratch[slot], cuda->scratch_bytes[slot]);
    be->scratch_bytes -= cuda->scratch_bytes[slot];
    cuda->scratch[slot] = NULL;
    cuda->scratch_bytes[slot] = 0;
}

void mm_cuda_drop_scratch(struct mm_backend *be) {
    if (!mm_cuda_ok(be, cudaStreamSynchronize(mm_cuda_of(be)->stream), "waiting")) return;
    for (int i = 0; i < mm_cuda_slot_count; i++)
        drop(be, i);
}

void *mm_cuda_scratch(struct mm_backend *be, enum mm_cuda_slot slot, size_t bytes) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    if (cuda->scratch[slot] && bytes <= cuda->scratch_bytes[slot]) return cuda->scratch[slot];
    // Some more than asked, so that slowly growing inputs do not allocate each time.
    const size_t most_more = (size_t)16 << 20, more = bytes / 5 < most_more ? bytes / 5 : most_more;
    const size_t size = ((bytes + more) / 65536 + 1) * 65536;
    if (cuda->scratch[slot]) {
        if (!mm_cuda_ok(be, cudaStreamSynchronize(cuda->stream), "waiting")) return NULL;
        drop(be, slot);
    }
    struct mm_error why = {};
    void *fresh = mm_cuda_take(be, size, "what an operation works in", &why);
    if (!fresh) {
        if (!be->error.code) be->error = why;  // an operation cannot go on without
        return NULL;
    }
    cuda->scratch[slot] = fresh;
    cuda->scratch_bytes[slot] = size;
    be->scratch_bytes += size;
    return fresh;
}
