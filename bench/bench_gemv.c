// How fast decoding walks through weights, against how fast the same threads can read the same
// memory at all, measured in turns.
//     build/bench/bench_gemv [MIB_OF_WEIGHTS] [THREADS]
// A line: format, K, rows of x, GB/s of weights, the fraction of the read bandwidth around it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/rng.h"
#include "ops/ops.h"

static int repeats;

// Of one thread its processor time, which leaves out the time that others had the core.
static clockid_t watch = CLOCK_MONOTONIC;

static double now(void) {
    struct timespec t;
    clock_gettime(watch, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *memory(struct mm_backend *be, size_t bytes) {
    void *p;
    struct mm_error err;
    if (be->alloc(be, bytes, &p, &err)) {
        fprintf(stderr, "bench_gemv: %s\n", err.text);
        exit(1);
    }
    return p;
}

// ---- reading ----

struct reading {
    const char *from;
    uint64_t sum[64];
};

static void read_range(void *arg, int64_t begin, int64_t end, int thread) {
    struct reading *r = arg;
    typedef uint64_t wide __attribute__((vector_size(64)));
    wide a = {0}, b = {0}, c = {0}, d = {0};
    for (int64_t i = begin; i < end; i++) {  // of 1024 bytes
        const wide *p = (const wide *)(r->from + i * 1024);
        __builtin_prefetch((const char *)p + 4096, 0, 3);
        for (int j = 0; j < 16; j += 4) {
            __builtin_prefetch((const char *)(p + j) + 4096, 0, 3);
            __builtin_prefetch((const char *)(p + j + 1) + 4096, 0, 3);
            __builtin_prefetch((const char *)(p + j + 2) + 4096, 0, 3);
            __builtin_prefetch((const char *)(p + j + 3) + 4096, 0, 3);
            a ^= p[j], b ^= p[j + 1], c ^= p[j + 2], d ^= p[j + 3];
        }
    }
    a ^= b ^ c ^ d;
    r->sum[thread % 8 * 8] += a[0] ^ a[3] ^ a[7];
}

static double read_rate(struct mm_backend *be, const void *from, size_t bytes) {
    struct reading r = {.from = from};
    double best = 0;
    for (int i = 0; i < repeats; i++) {
        const double t = now();
        mm_parallel_for(be->pool, (int64_t)(bytes / 1024), 1, read_range, &r);
        const double rate = (double)bytes / (now() - t) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

// ---- products ----

static double product_rate(struct mm_backend *be, struct mm_view y, struct mm_view x,
                           struct mm_view w, size_t bytes) {
    double best = 0;
    for (int i = 0; i < repeats; i++) {
        const double t = now();
        mm_linear_fwd(be, y, x, w, MM_NONE);
        const double rate = (double)bytes / (now() - t) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

static void one(struct mm_backend *be, void *weights, size_t bytes, enum mm_dtype type, int64_t k,
                int64_t t_dim) {
    const int64_t row =
        mm_dtype_quantized(type) ? mm_quant_row_bytes(type, k) : k * (int64_t)mm_dtype_bytes(type);
    const int64_t n = (int64_t)bytes / row;
    struct mm_view w = mm_view2(weights, type, n, k);
    struct mm_view x = mm_view2(memory(be, (size_t)(t_dim * k) * 4), mm_dtype_f32, t_dim, k);
    struct mm_view y = mm_view2(memory(be, (size_t)(t_dim * n) * 4), mm_dtype_f32, t_dim, n);
    struct mm_rng rng = mm_rng_make(1, 2);
    for (int64_t i = 0; i < t_dim * k; i++)
        ((float *)x.data)[i] = (float)mm_rng_normal(&rng);
    const double before = read_rate(be, weights, bytes);
    const double rate = product_rate(be, y, x, w, (size_t)(n * row));
    const double after = read_rate(be, weights, bytes);
    const double read = before > after ? before : after;
    printf("  %-4s K %5lld T %lld  %6.1f GB/s  %5.1f%% of %5.1f\n", mm_dtype_name(type),
           (long long)k, (long long)t_dim, rate, 100 * rate / read, read);
    fflush(stdout);
    be->release(be, x.data, (size_t)(t_dim * k) * 4);
    be->release(be, y.data, (size_t)(t_dim * n) * 4);
}

int main(int argc, char **argv) {
    const size_t bytes = (size_t)(argc > 1 ? atoll(argv[1]) : 512) << 20;
    struct mm_backend *be;
    struct mm_error err;
    if (bytes == 0 || mm_backend_open_cpu(&be, argc > 2 ? atoi(argv[2]) : 0, &err)) {
        fprintf(stderr, "bench_gemv: %s\n", bytes ? err.text : "MIB_OF_WEIGHTS must be at least 1");
        return 2;
    }
    repeats = bytes >> 28 ? 3 : (int)(((size_t)1 << 28) / bytes);
    if (mm_pool_size(be->pool) == 1) watch = CLOCK_PROCESS_CPUTIME_ID;
    printf("%s\n", be->device);
    void *weights = memory(be, bytes + 8192);
    // f16 scales and bf16 weights that are finite whatever they are taken for
    for (size_t i = 0; i < bytes / 2; i++)
        ((uint16_t *)weights)[i] = (uint16_t)(0x3800 + (i * 2654435761u >> 20) % 0x300);
    const enum mm_dtype types[] = {mm_dtype_bf16, mm_dtype_q8, mm_dtype_q4, mm_dtype_f32};
    const int64_t ks[] = {2048, 8192}, ts[] = {1, 2, 4, 8};
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 2; j++) {
            for (int t = 0; t < 4; t++)
                one(be, weights, bytes, types[i], ks[j], ts[t]);
        }
    }
    mm_backend_close(be);
    return 0;
}
