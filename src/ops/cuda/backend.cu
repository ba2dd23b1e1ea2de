// The CUDA backend: opening, copies, errors. Loaded at run time (ops/cuda_load.c), so that the same
// program runs where there is no GPU and no driver.
#include "ops/cuda/cuda.h"
#include "ops/cuda/step_many.cuh"
#include "ops/cuda/step_plan.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mm_code mm_cuda_fail(struct mm_error *err, enum mm_code code, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return code;
}

static void die(struct mm_backend *be, enum mm_code code, const char *what, const char *why) {
    if (be->error.code) return;  // the first failure is the one to tell
    // what a program gets that another one's fault has cost the card (docs/TESTING.md)
    const char *more = strcmp(why, cudaGetErrorString(cudaErrorLaunchFailure)) != 0
                           ? ""
                           : "; a fault of another program on this card can be the cause";
    mm_cuda_fail(&be->error, code, "%s: %s failed: %s%s", be->device, what, why, more);
}

bool mm_cuda_ok(struct mm_backend *be, cudaError_t e, const char *what) {
    if (be->impl) e = mm_cuda_fault_call(mm_cuda_of(be), e);
    if (e == cudaSuccess) return true;
    die(be, e == cudaErrorMemoryAllocation ? mm_code_memory : mm_code_device, what,
        cudaGetErrorString(e));
    return false;
}

bool mm_cuda_blas_ok(struct mm_backend *be, cublasStatus_t s, const char *what) {
    if (s == CUBLAS_STATUS_SUCCESS) return true;
    // it is told of faults of kernels before, without their names
    const cudaError_t e = cudaStreamSynchronize(mm_cuda_of(be)->stream);
    die(be, mm_code_device, what, e ? cudaGetErrorString(e) : cublasGetStatusString(s));
    return false;
}

void mm_cuda_launched(struct mm_backend *be, const char *kernel) {
    if (!mm_cuda_ok(be, cudaGetLastError(), kernel)) return;
    mm_cuda_fault_launch(mm_cuda_of(be));
    if (mm_cuda_of(be)->mirror) {
        mm_cuda_ok(be, cudaStreamSynchronize(mm_cuda_of(be)->stream), kernel);
    }
}

static void transfer(struct mm_backend *be, void *dst, const void *src, size_t bytes, bool wait,
                     const char *what) {
    if (be->error.code || bytes == 0) return;
    struct mm_cuda *cuda = mm_cuda_of(be);
    if (cuda->mirror) {
        memmove(dst, src, bytes);
        return;
    }
    if (!mm_cuda_ok(be, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, cuda->stream), what)) {
        return;
    }
    if (wait) mm_cuda_ok(be, cudaStreamSynchronize(cuda->stream), what);
}

// Pageable host memory has been read when the call returns; pinned memory may not have been.
static void cuda_upload(struct mm_backend *be, void *dst, const void *host, size_t bytes) {
    transfer(be, dst, host, bytes, false, "copying to the device");
}
// What a dead device does not give is zero, so that nobody looks at memory that was never written
// before the error is found.
static void cuda_download(struct mm_backend *be, void *host, const void *src, size_t bytes) {
    transfer(be, host, src, bytes, true, "copying from the device");
    if (be->error.code && bytes > 0) memset(host, 0, bytes);
}
static void cuda_move(struct mm_backend *be, void *dst, const void *src, size_t bytes) {
    transfer(be, dst, src, bytes, false, "copying on the device");
}

enum mm_code mm_backend_sync_cuda(struct mm_backend *be, struct mm_error *err) {
    if (!be->error.code) {
        mm_cuda_ok(be, cudaStreamSynchronize(mm_cuda_of(be)->stream), "a kernel");
    }
    if (be->error.code && err) *err = be->error;
    return be->error.code;
}

static void cuda_close(struct mm_backend *be) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    mm_step_plan_free(be);
    mm_step_many_free(be);
    for (int i = 0; i < mm_cuda_slot_count; i++)
        (void)cudaFree(cuda->scratch[i]);
    mm_cuda_products_close(cuda);
    mm_cuda_mirror_close(cuda);
    if (cuda->stream) (void)cudaStreamDestroy(cuda->stream);
    free(cuda);
    be->impl = NULL;
}

// ---- opening ----

#define MM_OPS_ENTRY(name, params, args) mm_##name##_cuda,
extern const struct mm_ops mm_cuda_mirror_table;
const struct mm_ops mm_cuda_table = {MM_OPS_TABLE(MM_OPS_ENTRY)};
#undef MM_OPS_ENTRY

// What the program and the plug-in must agree on. A plug-in of another build is refused.
extern "C" __attribute__((visibility("default"))) const char *mm_cuda_build(void) {
    return MMAMBA_VERSION;
}
extern "C" __attribute__((visibility("default"))) size_t mm_cuda_contract(void) {
    return sizeof(struct mm_ops) * 65536 + sizeof(struct mm_backend);
}

// Writes one line a device into `out`: name, memory in all and free, multiprocessors, capability.
extern "C" __attribute__((visibility("default"))) int mm_cuda_list(char *out, size_t n) {
    int count = 0;
    if (n) out[0] = '\0';
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        (void)cudaGetLastError();  // not sticky
        return 0;
    }
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        cudaDeviceProp p;
        size_t free_bytes = 0, total = 0;
        if (cudaGetDeviceProperties(&p, i) != cudaSuccess || cudaSetDevice(i) != cudaSuccess ||
            cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) {
            (void)cudaGetLastError();  // somebody else's, or broken: not in the list
            continue;
        }
        const size_t limit = mm_cuda_memory_limit(NULL);
        if (limit < free_bytes) free_bytes = limit;
        const int wrote = snprintf(out + at, n - at, "%d\t%s\t%zu\t%zu\t%d\t%d.%d\n", i, p.name,
                                   total, free_bytes, p.multiProcessorCount, p.major, p.minor);
        if (wrote < 0 || (size_t)wrote >= n - at) break;
        at += (size_t)wrote;
    }
    return count;
}

// What a device is, asked once: it takes milliseconds.
static bool properties(struct mm_backend *be, int device, cudaDeviceProp *prop) {
    static cudaDeviceProp known;
    static int of = -1;
    if (of != device) {
        if (!mm_cuda_ok(be, cudaGetDeviceProperties(&known, device), "cudaGetDeviceProperties"))
            return false;
        of = device;
    }
    *prop = known;
    return true;
}

// MMAMBA_CUDA_AS=8.0, 8.6 or 8.9: the recurrence and attention take the paths that they have for
// such a card, so that these can be tested on a newer one.
static enum mm_code pretend(struct mm_cuda *cuda, struct mm_error *err) {
    static const struct {
        const char *name;
        size_t shared;
    } cards[] = {{"8.0", 163 << 10}, {"8.6", 99 << 10}, {"8.9", 99 << 10}};
    const char *as = getenv("MMAMBA_CUDA_AS");
    if (!as || !*as) return mm_code_ok;
    for (const auto &card : cards) {
        if (strcmp(as, card.name)) continue;
        cuda->as_older = true;
        if (card.shared < cuda->shared_most) cuda->shared_most = card.shared;
        return mm_code_ok;
    }
    return mm_cuda_fail(err, mm_code_usage, "MMAMBA_CUDA_AS is '%.40s', wanted 8.0, 8.6 or 8.9",
                        as);
}

// MMAMBA_CUDA_FEW=1 to 8: a step of more sequences is one of many (step_many.cuh).
static enum mm_code read_few(struct mm_cuda *cuda, struct mm_error *err) {
    const char *few = getenv("MMAMBA_CUDA_FEW");
    if (!few || !*few) return mm_code_ok;
    if (few[0] < '1' || few[0] > '8' || few[1])
        return mm_cuda_fail(err, mm_code_usage, "MMAMBA_CUDA_FEW is '%.40s', wanted 1 to 8", few);
    cuda->few = few[0] - '0';
    return mm_code_ok;
}

// Fills a backend whose pool and error are set. mirror: see mirror.cu.
extern "C" __attribute__((visibility("default"))) enum mm_code mm_cuda_fill(struct mm_backend *be,
                                                                            int device, bool mirror,
                                                                            struct mm_error *err) {
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0) {
        return mm_cuda_fail(err, mm_code_unsupported,
                            "--backend cuda: no NVIDIA GPU can be used here: %s",
                            e != cudaSuccess ? cudaGetErrorString(e) : "the driver lists none");
    }
    if (device < 0 || device >= count) {
        return mm_cuda_fail(err, mm_code_input,
                            "GPU %d was asked for, there are %d, counted from 0", device, count);
    }
    struct mm_cuda_fault fault = {};
    const size_t limit = mm_cuda_memory_limit(err);
    if (limit == 0) return mm_code_usage;
    const enum mm_code asked = mm_cuda_fault_parse(&fault, err);
    if (asked) return asked;
    struct mm_cuda *cuda = (struct mm_cuda *)calloc(1, sizeof *cuda);
    if (!cuda) return mm_cuda_fail(err, mm_code_memory, "no memory");
    cudaDeviceProp prop;
    cuda->limit = limit;
    cuda->fault = fault;
    cuda->device = device;
    const char *exact = getenv("MMAMBA_CUDA_MIRROR");
    cuda->mirror = mirror;
    cuda->mirrored.exact = exact && strcmp(exact, "exact") == 0;
    const char *racecheck = getenv("MMAMBA_CUDA_RACECHECK");
    cuda->racecheck = racecheck && strcmp(racecheck, "1") == 0;
    be->name = "cuda";
    be->ops = mirror ? &mm_cuda_mirror_table : &mm_cuda_table;
    be->impl = cuda;
    be->close = cuda_close;
    snprintf(be->device, sizeof be->device, "GPU %d", device);
    if (!mm_cuda_ok(be, cudaSetDevice(device), "cudaSetDevice") || !properties(be, device, &prop) ||
        !mm_cuda_ok(be, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking),
                    "cudaStreamCreate")) {
        if (err) *err = be->error;
        return be->error.code;
    }
    snprintf(be->device, sizeof be->device, "%.127s", prop.name);
    cuda->sms = prop.multiProcessorCount;
    cuda->shared_most = prop.sharedMemPerBlockOptin;
    enum mm_code code = pretend(cuda, err);
    if (!code) code = read_few(cuda, err);
    if (code) return code;
    be->alloc = mm_cuda_alloc;
    be->release = mm_cuda_release;
    be->upload = cuda_upload;
    be->download = cuda_download;
    be->move = cuda_move;
    be->sync = mm_backend_sync_cuda;
    be->available = mm_cuda_available;
    if (!mirror && mm_cuda_can_grow(be)) {
        be->grow = mm_cuda_grow;
        be->release_parts = mm_cuda_release_parts;
    }
    be->host_memory = mirror;
    be->gauges = &mm_cuda_gauges;
    // Fills the card evenly (ffn.cu, and attention's tiles of 128 rows), and keeps what a piece
    // needs under half a GiB.
    be->piece_tokens = 64 * (int64_t)cuda->sms;
    // An eighth is left of what the host's looks cost; more would be wasted where answers end.
    be->steps_ahead = 8;
    be->activations = mirror ? mm_dtype_f32 : mm_dtype_bf16;
    return mm_code_ok;
}
