// What the files of the CUDA backend share: its private struct, scratch memory, launching, and how
// kernels see views. Activations are f32 or bf16, each operand by itself; kernels compute in f32.
// Every call and launch is checked; the first failure is kept in be->error and the
// door of the operations (ops/check.c) then lets nothing more through.
#ifndef MM_OPS_CUDA_CUDA_H
#define MM_OPS_CUDA_CUDA_H

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>

#define _Static_assert static_assert  // the headers are C
extern "C" {
#include "ops/ops.h"
}

enum mm_cuda_slot {
    mm_cuda_slot_a,
    mm_cuda_slot_b,
    mm_cuda_slot_c,
    mm_cuda_slot_d,
    mm_cuda_slot_e,
    mm_cuda_slot_f,
    mm_cuda_slot_g,
    mm_cuda_slot_h,
    mm_cuda_slot_step,    // of decode_step, around the operations it is made of
    mm_cuda_slot_ffn,     // of ffn_fwd, likewise
    mm_cuda_slot_many,    // step_many.cu, around the products
    mm_cuda_slot_counts,  // of argmax: zeros between its launches
    mm_cuda_slot_count,
};

// A failure on purpose (fault.cu); zeros: none.
struct mm_cuda_fault {
    int64_t call, launch;  // how many more there are until the one that fails; 0: none does
};

// Where operands in host memory are while an operation runs (mirror.cu).
struct mm_cuda_mirror {
    bool exact;
    char *dev, *host;  // (bytes); host is pinned
    size_t bytes;
};

// What the kernel of a token step can have: crews of blocks (0: it cannot run), bytes of shared
// memory a block.
struct mm_step_device {
    int crews, shared;
    bool asked;
};

// be->impl
struct mm_cuda {
    int device;
    int sms;             // multiprocessors
    size_t shared_most;  // bytes of shared memory that a block may have: 99 KiB on cards for desks
    bool as_older;       // MMAMBA_CUDA_AS: kernels of this card alone are not to be used
    bool mirror;         // operands are host memory (mirror.cu): every operation waits for its end
    bool racecheck;      // MMAMBA_CUDA_RACECHECK=1, see mm_cuda_givers
    int few;             // MMAMBA_CUDA_FEW, or 0: step.cu knows
    cudaStream_t stream;
    struct mm_cuda_products *products;  // product.cu
    void *scratch[mm_cuda_slot_count];
    size_t scratch_bytes[mm_cuda_slot_count];
    size_t held, peak;  // bytes of the device: allocations, scratch, workspace
    size_t limit;       // held stays below
    struct mm_cuda_fault fault;
    struct mm_cuda_mirror mirrored;
    struct mm_step_plan *step;          // step_plan.cu
    struct mm_step_many_states *many;   // step_many.cu
    struct mm_step_device step_device;  // what its kernel can have here
};

// Lanes that say that their warp has read a buffer, which is then filled again: one, after
// __syncwarp. Racecheck does not follow that as far as the copy engine, so for it all lanes do.
static inline unsigned mm_cuda_givers(const struct mm_cuda *cuda) {
    return cuda->racecheck ? 32 : 1;
}

void mm_cuda_products_close(struct mm_cuda *cuda);
extern const struct mm_gauges mm_cuda_gauges;
extern const struct mm_ops mm_cuda_table;
// Waits; returns be->error.
enum mm_code mm_backend_sync_cuda(struct mm_backend *be, struct mm_error *err);
enum mm_code mm_cuda_fail(struct mm_error *err, enum mm_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// ---- memory (memory.cu) ----

// MMAMBA_CUDA_MEMORY in bytes; SIZE_MAX where it is not set, 0 and *err where it is no size.
size_t mm_cuda_memory_limit(struct mm_error *err);
// Memory of the device, counted; give it back with mm_cuda_give. NULL: *err has a sentence, with
// numbers where it does not fit, and the backend goes on.
void *mm_cuda_take(struct mm_backend *be, size_t bytes, const char *what, struct mm_error *err);
void mm_cuda_give(struct mm_backend *be, void *p, size_t bytes);
// Counts memory of the device that was taken or given back.
void mm_cuda_count(struct mm_backend *be, int64_t bytes);
enum mm_code mm_cuda_alloc(struct mm_backend *be, size_t bytes, void **out, struct mm_error *err);
void mm_cuda_release(struct mm_backend *be, void *p, size_t bytes);
int64_t mm_cuda_available(struct mm_backend *be);
bool mm_cuda_peak_reset(struct mm_backend *be);
int64_t mm_cuda_peak(struct mm_backend *be);

// ---- memory that grows where it lies: struct mm_parts (parts.cu) ----

bool mm_cuda_can_grow(struct mm_backend *be);
enum mm_code mm_cuda_grow(struct mm_backend *be, struct mm_parts *p, size_t bytes,
                          struct mm_error *err);
void mm_cuda_release_parts(struct mm_backend *be, struct mm_parts *p);

// ---- failures on purpose (fault.cu) ----

// MMAMBA_CUDA_FAULT: "call:N" or "launch:N".
enum mm_code mm_cuda_fault_parse(struct mm_cuda_fault *f, struct mm_error *err);
// What the program is to see of a call that gave e.
cudaError_t mm_cuda_fault_call(struct mm_cuda *cuda, cudaError_t e);
// After a launch.
void mm_cuda_fault_launch(struct mm_cuda *cuda);

static inline struct mm_cuda *mm_cuda_of(struct mm_backend *be) {
    return (struct mm_cuda *)be->impl;
}

// False, and the backend is dead, when the call failed; `what` names it.
bool mm_cuda_ok(struct mm_backend *be, cudaError_t e, const char *what);
bool mm_cuda_blas_ok(struct mm_backend *be, cublasStatus_t s, const char *what);
// After a launch: catches what it reported, and under the mirror waits for it.
void mm_cuda_launched(struct mm_backend *be, const char *kernel);

// Device memory of one operation; valid until the next operation asks for the slot. NULL when there
// is none: be->error is set.
void *mm_cuda_scratch(struct mm_backend *be, enum mm_cuda_slot slot, size_t bytes);
// Waits, and gives all of it back.
void mm_cuda_drop_scratch(struct mm_backend *be);
// A dense vector of any float type as f32: itself, or converted into the slot. NULL when absent.
const float *mm_cuda_vector(struct mm_backend *be, enum mm_cuda_slot slot, struct mm_view v);
// A dense bf16 (or f32) copy of a view of any float type.
void *mm_cuda_converted(struct mm_backend *be, enum mm_cuda_slot slot, struct mm_view v,
                        enum mm_dtype to);

bool mm_cuda_mirror_room(struct mm_backend *be, size_t bytes);
void mm_cuda_mirror_close(struct mm_cuda *cuda);
// A token step on copies of its operands (mirror.cu).
void mm_cuda_mirror_step(struct mm_backend *be, const struct mm_step *s,
                         void (*run)(struct mm_backend *, const struct mm_step *));

#define MM_LAUNCH(be, kernel, grid, block, shared, ...)                       \
    do {                                                                      \
        kernel<<<grid, block, shared, mm_cuda_of(be)->stream>>>(__VA_ARGS__); \
        mm_cuda_launched(be, #kernel);                                        \
    } while (0)

#ifdef __CUDACC__  // from here on code of the device

// One element in memory, a float in arithmetic.
struct mm_cell {
    void *p;
    bool half;
    __device__ operator float() const {
        return half ? __bfloat162float(*(const __nv_bfloat16 *)p) : *(const float *)p;
    }
    __device__ void operator=(float x) const {
        if (half) {
            *(__nv_bfloat16 *)p = __float2bfloat16(x);
        } else {
            *(float *)p = x;
        }
    }
    __device__ void operator=(const mm_cell &x) const {
        *this = (float)x;
    }
    __device__ void operator+=(float x) const {
        *this = (float)*this + x;
    }
};

// A view of f32 or bf16 as a kernel sees it.
struct mm_mat {
    void *p;
    int64_t ld;
    bool half;
    __device__ mm_cell operator()(int64_t r, int64_t c) const {
        const int64_t i = r * ld + c;
        return mm_cell{half ? (void *)((__nv_bfloat16 *)p + i) : (void *)((float *)p + i), half};
    }
    __host__ __device__ explicit operator bool() const {
        return p != nullptr;
    }
};
static inline struct mm_mat mm_mat_of(struct mm_view v) {
    return mm_mat{v.data, v.ld, v.dtype == mm_dtype_bf16};
}
static inline struct mm_mat mm_mat_f32(float *p, int64_t ld) {
    return mm_mat{p, ld, false};
}

// ---- elementwise: f(row, column) for every element
// -------------------------------------------------

template <class F>
__global__ void mm_each_kernel(int64_t n, int cols, F f) {
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        if (n <= INT32_MAX) {
            const int r = (int)i / cols;
            f((int64_t)r, (int64_t)((int)i - r * cols));
        } else {
            f(i / cols, i % cols);
        }
    }
}

template <class F>
void mm_each(struct mm_backend *be, int64_t rows, int64_t cols, F f) {
    const int64_t n = rows * cols;
    if (n == 0) return;
    const int64_t blocks = (n + 255) / 256;
    const int grid = (int)(blocks < 132 * 16 ? blocks : 132 * 16);
    mm_each_kernel<<<grid, 256, 0, mm_cuda_of(be)->stream>>>(n, (int)cols, f);
    mm_cuda_launched(be, "elementwise");
}

// ---- sums
// -----------------------------------------------------------------------------------------

__device__ inline float mm_warp_sum(float x) {
    for (int i = 16; i > 0; i >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}
__device__ inline float mm_warp_max(float x) {
    for (int i = 16; i > 0; i >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}
// The sum of x over the block's threads (a multiple of 32, at most 1024), in every thread.
__device__ inline float mm_block_sum(float x) {
    __shared__ float part[32];
    x = mm_warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    const int warps = blockDim.x / 32;
    return mm_warp_sum(threadIdx.x % 32 < warps ? part[threadIdx.x % 32] : 0.0f);
}
__device__ inline float mm_block_max(float x) {
    __shared__ float part[32];
    x = mm_warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    const int warps = blockDim.x / 32;
    return mm_warp_max(threadIdx.x % 32 < warps ? part[threadIdx.x % 32] : -INFINITY);
}
__device__ inline double mm_block_sum_double(double x) {
    __shared__ double part[32];
    for (int i = 16; i > 0; i >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0.0;
    for (int i = 0; i < (int)blockDim.x / 32; i++)
        x += part[i];
    return x;
}

// out[c * out_ld] += sum over rows of f(row, c): strips of rows first, then the strips in order, so
// that the result does not depend on timing.
template <class F>
__global__ void mm_columns_strip(float *part, int64_t rows, int cols, int64_t strip, F f) {
    __shared__ float sum[8][33];
    const int c = blockIdx.x * 32 + threadIdx.x;
    const int64_t begin = blockIdx.y * strip, end = begin + strip < rows ? begin + strip : rows;
    float s = 0.0f;
    for (int64_t r = begin + threadIdx.y; c < cols && r < end; r += 8)
        s += f(r, (int64_t)c);
    sum[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y || c >= cols) return;
    for (int i = 1; i < 8; i++)
        s += sum[i][threadIdx.x];
    part[(int64_t)blockIdx.y * cols + c] = s;
}
// Blocks of (32, 8): a column's strips are summed by eight threads, every eighth strip each.
static __global__ void mm_columns_finish(float *out, int64_t out_ld, const float *part, int strips,
                                         int cols) {
    __shared__ float sum[8][33];
    const int c = blockIdx.x * 32 + threadIdx.x;
    float s = 0.0f;
    for (int i = threadIdx.y; c < cols && i < strips; i += 8)
        s += part[(int64_t)i * cols + c];
    sum[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y || c >= cols) return;
    for (int i = 1; i < 8; i++)
        s += sum[i][threadIdx.x];
    out[c * out_ld] += s;
}
static inline void mm_add_strips(struct mm_backend *be, float *out, int64_t out_ld,
                                 const float *part, int64_t strips, int64_t cols) {
    MM_LAUNCH(be, mm_columns_finish, (unsigned)((cols + 31) / 32), dim3(32, 8), 0, out, out_ld,
              part, (int)strips, (int)cols);
}
template <class F>
void mm_add_column_sums(struct mm_backend *be, enum mm_cuda_slot slot, float *out, int64_t out_ld,
                        int64_t rows, int64_t cols, F f) {
    if (rows == 0 || cols == 0) return;
    int64_t strips = (rows + 63) / 64;
    if (strips > 256) strips = 256;
    const int64_t strip = (rows + strips - 1) / strips;
    float *part = (float *)mm_cuda_scratch(be, slot, (size_t)(strips * cols) * sizeof(float));
    if (!part) return;
    const dim3 grid((unsigned)((cols + 31) / 32), (unsigned)strips), block(32, 8);
    mm_columns_strip<<<grid, block, 0, mm_cuda_of(be)->stream>>>(part, rows, (int)cols, strip, f);
    mm_cuda_launched(be, "column sums");
    mm_add_strips(be, out, out_ld, part, strips, cols);
}

// ---- small functions
// ------------------------------------------------------------------------------

__device__ inline float mm_sigmoid(float x) {
    return __fdividef(1.0f, 1.0f + expf(-x));  // within 2 ulp; 0 where the exponential overflows
}
// The sequence of row t: the s with start[s] <= t < start[s + 1].
__device__ inline int mm_seq_of(const int32_t *start, int n, int64_t t) {
    int low = 0, high = n;
    while (high - low > 1) {
        const int mid = (low + high) / 2;
        if (start[mid] <= t) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return low;
}

#endif  // __CUDACC__

#define MM_OPS_DECLARE(name, params, args) void mm_##name##_cuda params;
MM_OPS_TABLE(MM_OPS_DECLARE)
#undef MM_OPS_DECLARE

#endif
