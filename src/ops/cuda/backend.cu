// The CUDA backend: opening, memory, errors. Loaded at run time (ops/load_cuda.c), so that the same
// program runs where there is no GPU and no driver.
#include "ops/cuda/cuda.h"
#include "ops/cuda/step_plan.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum mm_code fail(struct mm_error *err, enum mm_code code, const char *format, ...) {
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
    fail(&be->error, code, "%s: %s failed: %s", be->device, what, why);
}

bool mm_cuda_ok(struct mm_backend *be, cudaError_t e, const char *what) {
    if (e == cudaSuccess) return true;
    die(be, e == cudaErrorMemoryAllocation ? mm_code_memory : mm_code_device, what,
        cudaGetErrorString(e));
    return false;
}

bool mm_cuda_blas_ok(struct mm_backend *be, cublasStatus_t s, const char *what) {
    if (s == CUBLAS_STATUS_SUCCESS) return true;
    die(be, mm_code_device, what, cublasGetStatusString(s));
    return false;
}

void mm_cuda_launched(struct mm_backend *be, const char *kernel) {
    if (!mm_cuda_ok(be, cudaGetLastError(), kernel)) return;
    if (mm_cuda_of(be)->mirror) {
        mm_cuda_ok(be, cudaStreamSynchronize(mm_cuda_of(be)->stream), kernel);
    }
}

void mm_cuda_count(struct mm_backend *be, int64_t bytes) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    cuda->held += (size_t)bytes;
    if (cuda->held > cuda->peak) cuda->peak = cuda->held;
}

static void drop(struct mm_backend *be, int slot) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    if (!cuda->scratch[slot]) return;
    mm_cuda_ok(be, cudaFree(cuda->scratch[slot]), "cudaFree");
    be->scratch_bytes -= cuda->scratch_bytes[slot];
    mm_cuda_count(be, -(int64_t)cuda->scratch_bytes[slot]);
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
    const size_t room = ((bytes + more) / 65536 + 1) * 65536;
    if (cuda->scratch[slot]) {
        if (!mm_cuda_ok(be, cudaStreamSynchronize(cuda->stream), "waiting")) return NULL;
        drop(be, slot);
    }
    void *fresh = NULL;
    if (!mm_cuda_ok(be, cudaMalloc(&fresh, room), "cudaMalloc of scratch memory")) return NULL;
    cuda->scratch[slot] = fresh;
    cuda->scratch_bytes[slot] = room;
    be->scratch_bytes += room;
    mm_cuda_count(be, (int64_t)room);
    return fresh;
}

// ---- memory ----

static enum mm_code cuda_alloc(struct mm_backend *be, size_t bytes, void **out,
                               struct mm_error *err) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    *out = NULL;
    const size_t room = bytes ? bytes : 1;
    if (cuda->mirror) {
        *out = aligned_alloc(64, (room + 63) / 64 * 64);
        if (!*out) return fail(err, mm_code_memory, "no memory");
        memset(*out, 0, room);
        return mm_code_ok;
    }
    const cudaError_t e = cudaMalloc(out, room);
    if (e != cudaSuccess) {
        cudaGetLastError();  // not sticky: the backend goes on
        size_t free_bytes = 0, total = 0;
        cudaMemGetInfo(&free_bytes, &total);
        return fail(err, mm_code_memory, "%s: cannot get %.2f GiB of memory, %.2f GiB are free",
                    be->device, (double)bytes / 1073741824.0, (double)free_bytes / 1073741824.0);
    }
    mm_cuda_count(be, (int64_t)room);
    mm_cuda_ok(be, cudaMemsetAsync(*out, 0, room, cuda->stream), "cudaMemset");
    return mm_code_ok;
}

static void cuda_release(struct mm_backend *be, void *p, size_t bytes) {
    if (mm_cuda_of(be)->mirror) {
        free(p);
    } else if (p) {
        mm_cuda_count(be, -(int64_t)(bytes ? bytes : 1));
        mm_cuda_ok(be, cudaFree(p), "cudaFree");  // waits for the kernels that use it
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
static void cuda_download(struct mm_backend *be, void *host, const void *src, size_t bytes) {
    transfer(be, host, src, bytes, true, "copying from the device");
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

static int64_t cuda_available(struct mm_backend *be) {
    size_t free_bytes = 0, total = 0;
    if (!mm_cuda_ok(be, cudaMemGetInfo(&free_bytes, &total), "cudaMemGetInfo")) return 0;
    return (int64_t)free_bytes;
}

static void cuda_close(struct mm_backend *be) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    mm_step_plan_free(be);
    for (int i = 0; i < mm_cuda_slot_count; i++)
        cudaFree(cuda->scratch[i]);
    mm_cuda_products_close(cuda);
    if (cuda->stream) cudaStreamDestroy(cuda->stream);
    free(cuda);
    be->impl = NULL;
}

// ---- opening ----

#define MM_OPS_ENTRY(name, params, args) mm_##name##_cuda,
extern const struct mm_ops mm_cuda_mirror_table;
static const struct mm_ops table = {MM_OPS_TABLE(MM_OPS_ENTRY)};
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
        cudaGetLastError();
        return 0;
    }
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        cudaDeviceProp p;
        size_t free_bytes = 0, total = 0;
        if (cudaGetDeviceProperties(&p, i) != cudaSuccess || cudaSetDevice(i) != cudaSuccess)
            continue;
        cudaMemGetInfo(&free_bytes, &total);
        const int wrote = snprintf(out + at, n - at, "%d\t%s\t%zu\t%zu\t%d\t%d.%d\n", i, p.name,
                                   total, free_bytes, p.multiProcessorCount, p.major, p.minor);
        if (wrote < 0 || (size_t)wrote >= n - at) break;
        at += (size_t)wrote;
    }
    return count;
}

// Fills a backend whose pool and error are set. mirror: see mirror.cu.
extern "C" __attribute__((visibility("default"))) enum mm_code mm_cuda_fill(struct mm_backend *be,
                                                                            int device, bool mirror,
                                                                            struct mm_error *err) {
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0) {
        return fail(err, mm_code_unsupported, "--backend cuda: no NVIDIA GPU can be used here: %s",
                    e != cudaSuccess ? cudaGetErrorString(e) : "the driver lists none");
    }
    if (device < 0 || device >= count) {
        return fail(err, mm_code_input, "GPU %d was asked for, there are %d, counted from 0",
                    device, count);
    }
    struct mm_cuda *cuda = (struct mm_cuda *)calloc(1, sizeof *cuda);
    if (!cuda) return fail(err, mm_code_memory, "no memory");
    cudaDeviceProp prop;
    cuda->device = device;
    cuda->mirror = mirror;
    be->name = "cuda";
    be->ops = mirror ? &mm_cuda_mirror_table : &table;
    be->impl = cuda;
    snprintf(be->device, sizeof be->device, "GPU %d", device);
    if (!mm_cuda_ok(be, cudaSetDevice(device), "cudaSetDevice") ||
        !mm_cuda_ok(be, cudaGetDeviceProperties(&prop, device), "cudaGetDeviceProperties") ||
        !mm_cuda_ok(be, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking),
                    "cudaStreamCreate")) {
        if (err) *err = be->error;
        const enum mm_code code = be->error.code;
        cuda_close(be);
        return code;
    }
    snprintf(be->device, sizeof be->device, "%.127s", prop.name);
    be->alloc = cuda_alloc;
    be->release = cuda_release;
    be->upload = cuda_upload;
    be->download = cuda_download;
    be->move = cuda_move;
    be->sync = mm_backend_sync_cuda;
    be->available = cuda_available;
    be->close = cuda_close;
    be->host_memory = mirror;
    be->gauges = &mm_cuda_gauges;
    be->piece_tokens = 8192;  // fills the card, and keeps what a piece needs under half a GiB
    be->activations = mirror ? mm_dtype_f32 : mm_dtype_bf16;
    return mm_code_ok;
}
