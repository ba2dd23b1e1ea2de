// The GPU plug-in without a GPU, for tests on any machine: its host side (memory, limits, faults,
// the mirror, copies) as it is, on a device made of host memory whose operations are the CPU's.
// Memory of the device is not the host's: it lies at addresses that nobody may touch, and the
// copies and operations here see it at others. So whoever reads or writes it directly, or hands an
// operation something that is not there, is found at once.
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define mm_cuda_fill host_side_fill
#include "ops/cuda/backend.cu"
#undef mm_cuda_fill
#include "ops/cuda/mirror.cu"

// ---- memory -------------------------------------------------------------------------------------

static const size_t total_bytes = (size_t)6 << 30, page = 2 << 20;
static char *seen, *real;               // as programs see it, and where it is
static std::map<size_t, size_t> taken;  // offset, bytes, in whole pages
static size_t taken_bytes;
static bool dead;  // a kernel wrote nowhere
static cudaError_t last = cudaSuccess;

static cudaError_t tell(cudaError_t e) {
    last = e;
    return e;
}
static bool start() {
    if (real) return true;
    const int fd = memfd_create("device", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)total_bytes)) return false;
    void *a = mmap(NULL, total_bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    void *b = mmap(NULL, total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    close(fd);
    if (a == MAP_FAILED || b == MAP_FAILED) return false;
    seen = (char *)a, real = (char *)b;
    return true;
}
static bool on_device(const void *p) {
    return real && (const char *)p >= seen && (const char *)p < seen + total_bytes;
}
// Where `bytes` from p on are; NULL: not within one allocation.
static char *found(const void *p, size_t bytes) {
    if (!on_device(p)) return (char *)p;
    const size_t at = (size_t)((const char *)p - seen);
    auto next = taken.upper_bound(at);
    if (next == taken.begin()) return NULL;
    --next;
    return at + bytes <= next->first + next->second ? real + at : NULL;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    const size_t size = (bytes + page - 1) / page * page;
    size_t at = 0;
    *p = NULL;
    if (dead || !start()) return tell(dead ? cudaErrorIllegalAddress : cudaErrorUnknown);
    for (const auto &t : taken) {
        if (t.first - at >= size) break;
        at = t.first + t.second;
    }
    if (size > total_bytes || at > total_bytes - size) return tell(cudaErrorMemoryAllocation);
    taken[at] = size, taken_bytes += size;
    memset(real + at, 0xa5, bytes < page ? bytes : page);  // not zeros
    *p = seen + at;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    if (dead) return tell(cudaErrorIllegalAddress);
    if (!p) return cudaSuccess;
    const auto t = on_device(p) ? taken.find((size_t)((char *)p - seen)) : taken.end();
    if (t == taken.end()) return tell(cudaErrorInvalidValue);
    madvise(real + t->first, t->second, MADV_REMOVE);
    taken_bytes -= t->second;
    taken.erase(t);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    *p = malloc(bytes);
    return *p ? cudaSuccess : tell(cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void *p) {
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    if (dead) return tell(cudaErrorIllegalAddress);
    *total = total_bytes, *free_bytes = total_bytes - taken_bytes;
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t) {
    char *to = found(p, bytes);
    if (dead || !to || !on_device(p))
        return tell(dead ? cudaErrorIllegalAddress : cudaErrorInvalidValue);
    memset(to, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int, cudaStream_t) {
    char *a = found(to, bytes);
    const char *b = found(from, bytes);
    if (dead || !a || !b) return tell(dead ? cudaErrorIllegalAddress : cudaErrorInvalidValue);
    memmove(a, b, bytes);
    return cudaSuccess;
}

// ---- the rest of the runtime --------------------------------------------------------------------

const char *cudaGetErrorString(cudaError_t e) {
    return e == cudaErrorIllegalAddress     ? "an illegal memory access was encountered"
           : e == cudaErrorLaunchFailure    ? "unspecified launch failure"
           : e == cudaErrorMemoryAllocation ? "out of memory"
           : e == cudaErrorInvalidValue     ? "invalid argument"
           : e == cudaSuccess               ? "no error"
                                            : "unknown error";
}
cudaError_t cudaGetLastError() {
    const cudaError_t e = last;
    last = cudaSuccess;
    return e;
}
cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    return dead     ? tell(cudaErrorIllegalAddress)
           : device ? tell(cudaErrorInvalidValue)
                    : cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    *p = cudaDeviceProp{"Stand-in of host memory", 4, 9, 0, 227 << 10};
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    *s = NULL;
    return dead ? tell(cudaErrorIllegalAddress) : cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return dead ? tell(cudaErrorIllegalAddress) : cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void *, dim3, dim3, void **, size_t, cudaStream_t) {
    dead = true;  // the only one is that of fault.cu
    return cudaSuccess;
}

// ---- operations ---------------------------------------------------------------------------------

static struct mm_backend *cpu(struct mm_backend *be) {
    static struct mm_backend *opened;
    if (!opened && mm_backend_open_cpu(&opened, 2, &be->error)) abort();
    opened->product = be->product;
    opened->scan_rounds = be->scan_rounds;
    return opened;
}

static struct mm_view map(struct mm_view v) {
    if (!v.data || v.shape[0] <= 0) return v;
    if (!on_device(v.data)) {
        fprintf(stderr, "stand-in: an operand is not in the device's memory\n");
        abort();
    }
    const size_t bytes =
        mm_dtype_quantized(v.dtype)
            ? mm_view_bytes(v)
            : (size_t)((v.shape[0] - 1) * v.ld + mm_view_cols(v)) * mm_dtype_bytes(v.dtype);
    v.data = found(v.data, bytes);
    if (!v.data) {
        fprintf(stderr, "stand-in: an operand is not within one allocation\n");
        abort();
    }
    return v;
}
static struct mm_segs map(struct mm_segs s) {
    s.dev = s.start;
    return s;
}
template <class T>
static T map(T x) {
    return x;
}

// With MMAMBA_STAND_IN_SPILLS an operation writes a byte behind its first operand, as a bad kernel
// may.
static void spill(struct mm_view v) {
    if (!v.data || v.ld != mm_view_cols(v) || !getenv("MMAMBA_STAND_IN_SPILLS")) return;
    ((char *)map(v).data)[mm_view_bytes(v)] = 1;
}
template <class T>
static void spill(T) {
}

template <class F, class... A>
static void spill_first(F first, A...) {
    spill(first);
}

template <class... A>
static void forward(void (*op)(struct mm_backend *, A...), const char *name, struct mm_backend *be,
                    A... a) {
    // operations of a device work in memory of its own
    if (!mm_cuda_scratch(be, mm_cuda_slot_a, (size_t)4 << 20)) return;
    if (!dead) op(cpu(be), map(a)...);
    if (!dead) spill_first(a...);
    mm_cuda_launched(be, name);
}

static void step(struct mm_backend *be, const struct mm_step *asked) {
    const size_t L = (size_t)asked->n_blocks, n = (size_t)asked->n_seqs;
    struct mm_step s = *asked;
    struct mm_step_block *blocks = (struct mm_step_block *)calloc(L + 1, sizeof *blocks);
    struct mm_block_state *states = (struct mm_block_state *)calloc(L * n + 1, sizeof *states);
    struct mm_step_seq *seqs = (struct mm_step_seq *)calloc(n + 1, sizeof *seqs);
    if (!blocks || !states || !seqs) abort();
    memcpy(blocks, asked->blocks, L * sizeof *blocks);
    for (size_t t = 0; t < n; t++) {
        seqs[t] = asked->seqs[t];
        memcpy(states + t * L, seqs[t].blocks, L * sizeof *states);
        seqs[t].blocks = states + t * L;
    }
    s.blocks = blocks, s.seqs = seqs;
    each_view(s, blocks, states, [](struct mm_view &v) { v = map(v); });
    forward(cpu(be)->ops->decode_step, "a token step", be, (const struct mm_step *)&s);
    free(blocks), free(states), free(seqs);
}

#define ALL(...) __VA_ARGS__
#define FORWARD(name, params, args)                   \
    void mm_##name##_cuda params {                    \
        forward(cpu(be)->ops->name, #name, ALL args); \
    }
#define mm_decode_step_cuda mm_decode_step_unused
MM_OPS_TABLE(FORWARD)
#undef mm_decode_step_cuda
void mm_decode_step_cuda(struct mm_backend *be, const struct mm_step *s) {
    if (mm_cuda_of(be)->mirror) {
        mm_cuda_mirror_step(be, s, step);
    } else {
        step(be, s);
    }
}

static enum mm_code ceiling(struct mm_backend *be, enum mm_ceiling which, double, double *rate,
                            const char **how, struct mm_error *err) {
    return cpu(be)->gauges->ceiling(cpu(be), which, 0.01, rate, how, err);
}
const struct mm_gauges mm_cuda_gauges = {ceiling, mm_cuda_peak_reset, mm_cuda_peak};

void mm_cuda_products_close(struct mm_cuda *) {
}

// Its addresses have memory behind them or not: parts cannot grow, and caches take the other way.
bool mm_cuda_can_grow(struct mm_backend *) {
    return false;
}
enum mm_code mm_cuda_grow(struct mm_backend *, struct mm_parts *, size_t, struct mm_error *err) {
    return mm_cuda_fail(err, mm_code_unsupported, "a stand-in's memory does not grow");
}
void mm_cuda_release_parts(struct mm_backend *, struct mm_parts *) {
}

extern "C" __attribute__((visibility("default"))) enum mm_code mm_cuda_fill(struct mm_backend *be,
                                                                            int device, bool mirror,
                                                                            struct mm_error *err) {
    const enum mm_code code = host_side_fill(be, device, mirror, err);
    if (code) return code;
    be->activations = mm_dtype_f32;
    be->piece_tokens = 512;
    be->steps_ahead = 8;
    return mm_code_ok;
}
