// Kernels of a token step that begin while the one before them ends.
#ifndef MM_OPS_CUDA_STEP_MANY_LAUNCH_CUH
#define MM_OPS_CUDA_STEP_MANY_LAUNCH_CUH

#include "ops/cuda/codes.cuh"
#include "ops/cuda/cuda.h"

// Lets the next kernel begin, as far as there is room for it.
__device__ inline void mm_many_next() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Waits until the kernel before is over, and so all before it, which waited likewise. Until then a
// kernel must touch nothing that others of the step write.
__device__ inline void mm_many_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Weights that the next product reads first. A kernel that has asked for all it needs itself brings
// them to the L2, so that the memory does not wait while it ends: they do not depend on it.
struct mm_many_ahead {
    const char *p[2];
    int64_t bytes;  // of each; a multiple of 16
};
// Part `i` of `n`, by one thread.
__device__ inline void mm_many_bring(const struct mm_many_ahead &a, int i, int n) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const int64_t from = a.bytes / 16 * i / n * 16, to = a.bytes / 16 * (i + 1) / n * 16;
    for (int k = 0; k < 2; k++) {
        if (!a.p[k]) continue;
        for (int64_t at = from; at < to; at += 16384) {
            const int some = (int)(to - at < 16384 ? to - at : 16384);
            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(a.p[k] + at), "r"(some)
                         : "memory");
        }
    }
#endif
}

// A word of all blocks: what was written before it is changed is seen by who reads it thereafter.
// Lighter than __threadfence, which puts all fences of the card in one order.
__device__ inline unsigned mm_many_read(const unsigned *p) {
    unsigned x = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
#endif
    return x;
}
__device__ inline unsigned mm_many_add(unsigned *p, unsigned y) {
    unsigned x = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
                 : "=r"(x)
                 : "l"(p), "r"(y)
                 : "memory");
#endif
    return x;
}

struct mm_many_state {
    float *S, *conv;
    void *k, *v;
};

__device__ inline float mm_many_dot(float4 a, float4 b) {
    return a.x * b.x + a.y * b.y + (a.z * b.z + a.w * b.w);
}

__device__ inline uint2 mm_many_halves(float a, float b, float c, float d) {
    const __nv_bfloat162 low = __floats2bfloat162_rn(a, b), high = __floats2bfloat162_rn(c, d);
    return make_uint2(*(const unsigned *)&low, *(const unsigned *)&high);
}

// Rows that a product meets, in the forms that those who read them take: bf16, or codes with a
// scale for every 128 columns.
struct mm_many_operand {
    __nv_bfloat16 *u;   // (padded, cols) dense; NULL: nobody takes it
    int8_t *codes;      // (padded, cols) dense, cols a multiple of 128; or NULL
    float *scales;      // (cols / 128, scales_ld), of every row
    int64_t scales_ld;  // rows there are room for: as many as the step is padded to
    int cols;
};

// Four columns of row r from `c` on, by every lane of a warp: neighbours, from 32 lanes a block of
// codes. in: the lane has columns.
__device__ inline void mm_many_put(const struct mm_many_operand &to, int64_t r, int c, float4 v,
                                   bool in) {
    const int64_t at = r * to.cols + c;
    if (to.u && in) *(uint2 *)(to.u + at) = mm_many_halves(v.x, v.y, v.z, v.w);
    if (!to.codes) return;
    const struct mm_four_codes f = mm_codes_of(v);
    *(uint32_t *)(to.codes + at) = f.four;
    if (threadIdx.x % 32 == 0) to.scales[c / mm_quant_block * to.scales_ld + r] = f.scale;
}

// early: the kernel may begin before the one before it is over; it calls mm_many_wait.
template <class... P, class... A>
void mm_many_launch(struct mm_backend *be, bool early, const char *name, void (*kernel)(P...),
                    dim3 grid, dim3 block, size_t shared, const A &...args) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared;
    config.stream = mm_cuda_of(be)->stream;
    config.attrs = &attribute, config.numAttrs = early;
    if (mm_cuda_ok(be, cudaLaunchKernelEx(&config, kernel, args...), name))
        mm_cuda_launched(be, name);
}

#endif
