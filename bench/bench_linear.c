// Dense products at the sizes of prefill and of training, next to the peak of the processor
// measured a moment before: bench_linear [THREADS [T N K [train]]]. MMAMBA_ISA picks the
// instructions. With one thread the processor's time is taken, so that other programs matter less.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/rng.h"
#include "ops/ops.h"

struct bench {
    struct mm_backend *be;
    int64_t t, n, k;
    struct mm_view x, y, w, dw;
    double peak[mm_ceiling_count];
};

static double now(const struct bench *b) {
    struct timespec t;
    const bool alone = mm_pool_size(b->be->pool) == 1;
    clock_gettime(alone ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *memory(struct bench *b, size_t bytes) {
    struct mm_error err;
    void *p;
    if (b->be->alloc(b->be, bytes, &p, &err) == mm_code_ok) return p;
    fprintf(stderr, "bench_linear: %s\n", err.text);
    exit(1);
}

static struct mm_view floats(struct bench *b, int64_t rows, int64_t cols) {
    float *p = memory(b, (size_t)(rows * cols) * sizeof *p);
    struct mm_rng rng = mm_rng_make(1, (uint64_t)rows);
    for (int64_t i = 0; i < rows * cols; i++)
        p[i] = i < 65536 ? (float)mm_rng_normal(&rng) : p[i - 65536];
    return mm_view2(p, mm_dtype_f32, rows, cols);
}

// Any bytes are codes; the scales of quantized rows stay zero, which no product minds.
static struct mm_view weight(struct bench *b, enum mm_dtype type) {
    const struct mm_view plain = floats(b, b->n, b->k);
    if (type == mm_dtype_f32) return plain;
    struct mm_view w = mm_view2(NULL, type, b->n, b->k);
    if (mm_dtype_quantized(type)) {
        w.data = memory(b, (size_t)(b->n * mm_quant_row_bytes(type, b->k)));
        for (int64_t r = 0; r < b->n; r++)
            memcpy(mm_view_at(w, r, 0), mm_view_at(plain, r, 0),
                   (size_t)mm_quant_code_bytes(type, b->k));
    } else {
        w.data = memory(b, (size_t)(b->n * b->k) * mm_dtype_bytes(type));
        mm_copy(b->be, w, plain);
    }
    b->be->release(b->be, plain.data, (size_t)(b->n * b->k) * sizeof(float));
    return w;
}

static void forward(struct bench *b) {
    mm_linear_fwd(b->be, b->y, b->x, b->w, MM_NONE);
}
static void backward_x(struct bench *b) {
    mm_linear_bwd_x(b->be, b->x, b->y, b->w, false);
}
static void backward_w(struct bench *b) {
    mm_linear_bwd_w(b->be, b->dw, MM_NONE, b->y, b->x, b->w.dtype);
}

static void measure(struct bench *b, const char *name, void (*run)(struct bench *),
                    enum mm_ceiling peak) {
    run(b);
    double best = 1e30;
    const double until = now(b) + 0.4;
    for (int i = 0; i < 3 || (i < 100 && now(b) < until); i++) {
        const double from = now(b);
        run(b);
        const double took = now(b) - from;
        best = took < best ? took : best;
    }
    struct mm_error err;
    if (mm_backend_sync(b->be, &err) != mm_code_ok) {
        fprintf(stderr, "bench_linear: %s\n", err.text);
        exit(1);
    }
    const double rate = 2.0 * (double)b->t * (double)b->n * (double)b->k / best;
    printf("  %-12s T %5lld N %6lld K %5lld  %9.3f ms %8.1f G/s  %5.1f%% of the peak\n", name,
           (long long)b->t, (long long)b->n, (long long)b->k, best * 1e3, rate * 1e-9,
           100 * rate / b->peak[peak]);
}

static void run_size(struct bench *b, int64_t t, int64_t n, int64_t k, bool train) {
    static const struct {
        const char *name;
        enum mm_dtype type;
        enum mm_ceiling peak;
    } kinds[] = {{"fwd bf16", mm_dtype_bf16, mm_ceiling_bf16},
                 {"fwd q8", mm_dtype_q8, mm_ceiling_int8},
                 {"fwd q4", mm_dtype_q4, mm_ceiling_int8},
                 {"fwd f32", mm_dtype_f32, mm_ceiling_f32}};
    b->t = t, b->n = n, b->k = k;
    b->x = floats(b, t, k), b->y = floats(b, t, n);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const size_t bytes = mm_dtype_quantized(kinds[i].type)
                                 ? (size_t)(n * mm_quant_row_bytes(kinds[i].type, k))
                                 : (size_t)(n * k) * mm_dtype_bytes(kinds[i].type);
        if (train && mm_dtype_quantized(kinds[i].type)) continue;
        b->w = weight(b, kinds[i].type);
        measure(b, kinds[i].name, forward, kinds[i].peak);
        if (train) {
            b->dw = floats(b, n, k);
            measure(b, "bwd_x", backward_x, kinds[i].peak);
            measure(b, "bwd_w", backward_w, kinds[i].peak);
            b->be->release(b->be, b->dw.data, (size_t)(n * k) * sizeof(float));
        }
        b->be->release(b->be, b->w.data, bytes);
    }
    b->be->release(b->be, b->x.data, (size_t)(t * k) * sizeof(float));
    b->be->release(b->be, b->y.data, (size_t)(t * n) * sizeof(float));
}

int main(int argc, char **argv) {
    struct bench b = {0};
    struct mm_error err;
    enum mm_code code = mm_backend_open_cpu(&b.be, argc > 1 ? atoi(argv[1]) : 0, &err);
    for (int i = mm_ceiling_f32; i < mm_ceiling_count && code == mm_code_ok; i++) {
        const char *how;
        code = b.be->gauges->ceiling(b.be, (enum mm_ceiling)i, 0.3, &b.peak[i], &how, &err);
        if (code == mm_code_ok) printf("peak %8.1f G/s, %s\n", b.peak[i] * 1e-9, how);
    }
    if (code != mm_code_ok) {
        fprintf(stderr, "bench_linear: %s\n", err.text);
        return 1;
    }
    printf("%s\n", b.be->device);
    if (argc > 4) {
        run_size(&b, atoll(argv[2]), atoll(argv[3]), atoll(argv[4]), argc > 5);
    } else {
        run_size(&b, 2048, 8192, 2048, false);
        run_size(&b, 2048, 2048, 8192, false);
        run_size(&b, 512, 8192, 2048, false);
        run_size(&b, 64, 8192, 2048, false);
        run_size(&b, 1200, 768, 256, true);
        run_size(&b, 1200, 256, 768, true);
    }
    mm_backend_close(b.be);
    return 0;
}
