// The kernel of a token step: one block a multiprocessor, all tasks of a token one after the other.
#include "ops/cuda/step_mixer.cuh"

static_assert(sizeof(struct mm_step_task) % 16 == 0 &&
                  sizeof(struct mm_step_task) / 16 <= mm_step_threads,
              "a task is read by one copy a thread");

// All blocks wait for each other; what they wrote before is seen after it.
static __device__ void meet(const struct mm_step_args &a, unsigned &round) {
    __syncthreads();
    round += gridDim.x;
    if (threadIdx.x == 0) {
        const unsigned target = a.meet_base + round;
        unsigned now;
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(a.meet) : "memory");
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                         : "=r"(now)
                         : "l"(a.meet)
                         : "memory");
        } while ((int)(now - target) < 0);
    }
    __syncthreads();
}

static __device__ void ahead(const char *p, int64_t bytes) {
    const int64_t at = ((int64_t)threadIdx.x * gridDim.x + blockIdx.x) * 128;
    const int64_t step = (int64_t)mm_step_threads * gridDim.x * 128;
#pragma unroll 1
    for (int64_t i = at; i < bytes; i += step)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(p + i));
}

// What the next tasks read besides weights comes to the L2 while this one works.
static __device__ void look_ahead(const struct mm_step_args &a, const struct mm_step_task &t) {
#pragma unroll 1
    for (int i = 0; i < t.n_ahead; i++)
        ahead(t.ahead[i].p, t.ahead[i].bytes);
#pragma unroll 1
    for (int seq = 0; t.state_ahead && seq < a.n; seq++) {
        const struct mm_step_state st = a.states[t.block * mm_step_cols + seq];
        ahead((const char *)st.conv, (int64_t)(t.conv_k - 1) * (2 * t.G + t.H) * t.P * 4);
        ahead((const char *)st.S, (int64_t)t.H * t.P * t.P * 4);
    }
}

// Rows of x divided by their length, and the last norm; a block a sequence.
static __device__ void l2norm(const struct mm_step_args &a) {
    if ((int)blockIdx.x >= a.n) return;
    float *x = a.x + blockIdx.x * a.x_ld, sum = 0.0f;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.D; i += mm_step_threads)
        sum += __ldcg(x + i) * __ldcg(x + i);
    const float r = rsqrtf(mm_block_sum(sum));
#pragma unroll 1
    for (int i = threadIdx.x; i < a.D; i += mm_step_threads)
        x[i] = __ldcg(x + i) * r;
}

static __device__ void hidden(const struct mm_step_args &a, const struct mm_step_task &t) {
    if ((int)blockIdx.x >= a.n) return;
    const float *x = a.x + blockIdx.x * a.x_ld;
    float sum = 0.0f;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.D; i += mm_step_threads)
        sum += __ldcg(x + i) * __ldcg(x + i);
    const float r = rsqrtf(mm_block_sum(sum) / (float)a.D + t.eps);
#pragma unroll 1
    for (int i = threadIdx.x; i < a.D; i += mm_step_threads)
        a.hidden[blockIdx.x * a.hidden_ld + i] = __ldcg(x + i) * r * t.norm[i];
}

// WEIGHTS: the type of most matrices. Of quantized models some are bf16, and of q4 the output is
// q8.
template <int WEIGHTS>
static __device__ void product(const struct mm_step_args &a, const struct mm_step_task &t,
                               struct mm_step_shared &sh, struct mm_queue &queue) {
    // beside quantized weights the operand of those that are not is kept exact: gates and dt
    constexpr bool exact = WEIGHTS != mm_dtype_bf16;
    if (t.m.type == mm_dtype_bf16) {
        mm_product<mm_dtype_bf16, exact>(a, t, sh, queue);
    } else if (exact && t.m.type == mm_dtype_q8) {
        mm_product<mm_dtype_q8, false>(a, t, sh, queue);
    } else if (WEIGHTS == mm_dtype_q4) {
        mm_product<mm_dtype_q4, false>(a, t, sh, queue);
    }
}

static __device__ void fetch(struct mm_step_shared &sh, const struct mm_step_args &a, int i) {
    const int at = threadIdx.x;
    if (i >= a.n_tasks || at >= (int)(sizeof(struct mm_step_task) / 16)) return;
    ((uint4 *)&sh.task[i & 1])[at] = __ldg((const uint4 *)(a.tasks + i) + at);
}

// A kernel of its own: functions in double would take registers from everything else.
static __global__ void rope_table(const __grid_constant__ struct mm_step_args a) {
    mm_rope_table(a);
}

template <int WEIGHTS>
static __global__ void __launch_bounds__(mm_step_threads, 1)
    step_token(const __grid_constant__ struct mm_step_args given) {
    extern __shared__ __align__(128) char memory[];
    struct mm_step_shared &sh =
        *(struct mm_step_shared *)(memory + mm_step_warps * MM_STEP_SLOTS * mm_step_slot);
    // by reference to functions that are not inlined: of a parameter each thread would make a copy
#pragma unroll 1
    for (int i = threadIdx.x; i < (int)(sizeof given / 4); i += mm_step_threads)
        ((uint32_t *)&sh.args)[i] = ((const uint32_t *)&given)[i];
    __syncthreads();
    const struct mm_step_args &a = sh.args;
    struct mm_queue queue;
    queue.start(a, memory, sh.bringing);
    unsigned round = 0;
    fetch(sh, a, 0);
    __syncthreads();
    for (int i = 0; i < a.n_tasks; i++) {
        const struct mm_step_task &t = sh.task[i & 1];
        fetch(sh, a, i + 1);
        look_ahead(a, t);
        switch (t.kind) {
            case mm_step_kind_product:
                product<WEIGHTS>(a, t, sh, queue);
                break;
            case mm_step_kind_mamba2:
                mm_mamba2(a, t);
                break;
            case mm_step_kind_attention:
                mm_attention(a, t, sh);
                break;
            case mm_step_kind_merge:
                mm_merge(a, t);
                break;
            case mm_step_kind_l2norm:
                l2norm(a);
                break;
            default:
                hidden(a, t);
                break;
        }
        if (t.sync) {
            meet(a, round);
        } else {
            __syncthreads();
        }
    }
}

static const void *const kernels[] = {(const void *)step_token<mm_dtype_bf16>,
                                      (const void *)step_token<mm_dtype_q8>,
                                      (const void *)step_token<mm_dtype_q4>};

static int shared_bytes(int slots) {
    return mm_step_warps * slots * mm_step_slot + (int)sizeof(struct mm_step_shared);
}

// As MM_STEP_SLOTS, for the code that this device runs.
int mm_step_slots(struct mm_backend *be) {
    int most = 0, together = 0, slots = 0;
    const int device = mm_cuda_of(be)->device;
    if (!mm_cuda_ok(be,
                    cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                    "cudaDeviceGetAttribute") ||
        !mm_cuda_ok(be, cudaDeviceGetAttribute(&together, cudaDevAttrCooperativeLaunch, device),
                    "cudaDeviceGetAttribute"))
        return 0;
    for (const void *kernel : kernels) {
        cudaFuncAttributes f;
        if (!mm_cuda_ok(be, cudaFuncGetAttributes(&f, kernel), "cudaFuncGetAttributes")) return 0;
        slots = f.binaryVersion == 80 ? 3 : f.binaryVersion < 90 ? 2 : 5;
        const int bytes = shared_bytes(slots);
        if (!together || bytes + (int)f.sharedSizeBytes > most) return 0;
        if (!mm_cuda_ok(
                be,
                cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                "asking for shared memory for a token step"))
            return 0;
    }
    return slots;
}

bool mm_step_launch(struct mm_backend *be, const struct mm_step_args *a, int blocks, int slots,
                    enum mm_dtype weights) {
    void *args[] = {(void *)a};
    const int which = weights == mm_dtype_q4 ? 2 : weights == mm_dtype_q8 ? 1 : 0;
    if (a->rope_half[0] > 0 || a->rope_half[1] > 0)
        MM_LAUNCH(be, rope_table, (unsigned)a->n, 256, 0, *a);
    return mm_cuda_ok(
        be,
        cudaLaunchCooperativeKernel(kernels[which], dim3((unsigned)blocks), dim3(mm_step_threads),
                                    args, (size_t)shared_bytes(slots), mm_cuda_of(be)->stream),
        "a token step");
}

static_assert(mm_step_warps * 5 * mm_step_slot + sizeof(struct mm_step_shared) + 1024 <= 232448,
              "shared memory of compute capability 9.0");
static_assert(mm_step_warps * 3 * mm_step_slot + sizeof(struct mm_step_shared) + 1024 <= 166912,
              "shared memory of compute capability 8.0");
