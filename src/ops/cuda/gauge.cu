// What the device can do when nothing is in the way, measured.
#include "ops/cuda/product.cuh"

#include <string.h>

// Numbers in +-1 that do not repeat: products of zeros are faster than real ones.
template <class T>
static __global__ void scatter_numbers(T *x, int64_t n) {
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        unsigned long long h = ((unsigned long long)i + 1) * 0x9e3779b97f4a7c15ull;
        h = (h ^ (h >> 31)) * 0x94d049bb133111ebull;
        x[i] = (T)((float)(int)(h >> 40 & 0xffff) / 32768.0f - 1.0f);
    }
}

struct gauge {
    struct mm_view a, b, c;  // of a product; a and c alone for copies
    size_t bytes;            // of a copy
};

static void run_once(struct mm_backend *be, const struct gauge *g) {
    if (g->bytes > 0) {
        mm_cuda_ok(be,
                   cudaMemcpyAsync(g->c.data, g->a.data, g->bytes, cudaMemcpyDeviceToDevice,
                                   mm_cuda_of(be)->stream),
                   "a copy");
        return;
    }
    mm_cuda_product(be, CUBLAS_OP_T, CUBLAS_OP_N, g->a.ld, mm_cuda_operand{g->b.data, g->b.ld},
                    mm_cuda_operand{g->a.data, g->a.ld}, g->a.dtype, MM_NONE, g->c);
}

// The shortest time of one run, among those of `seconds`, by the device's clock.
static double best_time(struct mm_backend *be, const struct gauge *g, double seconds) {
    cudaEvent_t from, to;
    float best = INFINITY, sum = 0.0f;
    if (!mm_cuda_ok(be, cudaEventCreate(&from), "cudaEventCreate") ||
        !mm_cuda_ok(be, cudaEventCreate(&to), "cudaEventCreate"))
        return INFINITY;
    run_once(be, g);
    const cudaStream_t stream = mm_cuda_of(be)->stream;
    while (!be->error.code && (sum < (float)seconds * 1e3f || best == INFINITY)) {
        float took = 0.0f;
        mm_cuda_ok(be, cudaEventRecord(from, stream), "a gauge");
        run_once(be, g);
        if (!mm_cuda_ok(be, cudaEventRecord(to, stream), "a gauge") ||
            !mm_cuda_ok(be, cudaEventSynchronize(to), "a gauge") ||
            !mm_cuda_ok(be, cudaEventElapsedTime(&took, from, to), "a gauge"))
            break;
        sum += took;
        if (took < best) best = took;
    }
    mm_cuda_ok(be, cudaEventDestroy(from), "a gauge");
    mm_cuda_ok(be, cudaEventDestroy(to), "a gauge");
    return (double)best * 1e-3;
}

static enum mm_code ceiling(struct mm_backend *be, enum mm_ceiling which, double seconds,
                            double *rate, const char **how, struct mm_error *err) {
    const bool copies = which == mm_ceiling_read, f32 = which == mm_ceiling_f32;
    const enum mm_dtype t = f32 ? mm_dtype_f32 : mm_dtype_bf16;
    const int64_t side = copies ? 16384 : f32 ? 4096 : 8192;
    const size_t bytes = (size_t)(side * side) * mm_dtype_bytes(t);
    char *block = (char *)mm_cuda_take(be, 3 * bytes, "measuring what the card can do", err);
    if (!block) return be->error.code ? be->error.code : mm_code_memory;
    struct gauge g = {mm_view2(block, t, side, side), mm_view2(block + bytes, t, side, side),
                      mm_view2(block + 2 * bytes, t, side, side), copies ? bytes : 0};
    for (void *p : {g.a.data, g.b.data}) {
        if (f32) {
            MM_LAUNCH(be, scatter_numbers<float>, 1024, 256, 0, (float *)p, side * side);
        } else {
            MM_LAUNCH(be, scatter_numbers<__nv_bfloat16>, 1024, 256, 0, (__nv_bfloat16 *)p,
                      side * side);
        }
    }
    const double best = best_time(be, &g, seconds), n = (double)side;
    *rate = (copies ? 2.0 * (double)bytes : 2.0 * n * n * n) / best;
    *how = copies ? "copies of one large buffer, read and written"
           : f32  ? "f32 products of 4096 x 4096 x 4096"
           : which == mm_ceiling_bf16
               ? "bf16 products of 8192 x 8192 x 8192"
               : "bf16 products of 8192 x 8192 x 8192, to which codes are widened";
    mm_cuda_give(be, block, 3 * bytes);
    return mm_backend_sync_cuda(be, err);
}

const struct mm_gauges mm_cuda_gauges = {ceiling, mm_cuda_peak_reset, mm_cuda_peak};
