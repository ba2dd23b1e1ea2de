// A block's products and pointwise operations on a GPU, and what training adds to them, at
// HoVLE-2.6B's sizes in bf16; the mixer's own operations are bench_gpu_mixer's.
//     build/bench/bench_gpu_block [TOKENS]...
// A line: operation, tokens, milliseconds (the median of several windows), the rate it reaches, and
// that over the ceiling of the same run: copies for operations that move bytes (every operand read
// or written once), 8192 x 8192 x 8192 products for products.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "base/buf.h"
#include "base/rng.h"
#include "ops/ops.h"

enum { D = 2048, F = 8192, Z = 6160, V = 92553, V_ld = 92560, slice = 1024, n_windows = 7 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct mm_error err;
#define OK(call)                                                \
    do {                                                        \
        if (call) {                                             \
            fprintf(stderr, "bench_gpu_block: %s\n", err.text); \
            exit(1);                                            \
        }                                                       \
    } while (0)

struct bench {
    struct mm_backend *be;
    int64_t T;
    struct mm_view w_in, wo, w1, w2, out;  // weights
    struct mm_view x, u, z, a, b, s, dz;   // (T, D), (T, D), (T, Z), (T, F) three times, (T, Z)
    struct mm_view norm, rinv, dw, m, v, master, ls, lt, dl, loss, one;
    double copy, product;
};

// Numbers in +-size, the same million over and over.
static struct mm_view rows(struct mm_backend *be, enum mm_dtype t, int64_t n, int64_t cols,
                           double size) {
    enum { block = 1 << 20 };
    static float numbers[block];
    static char raw[block * sizeof(float)];
    void *data;
    const int64_t all = n * cols;
    OK(be->alloc(be, (size_t)all * mm_dtype_bytes(t), &data, &err));
    struct mm_rng rng = mm_rng_make((uint64_t)n, (uint64_t)cols);
    for (int64_t i = 0; i < block; i++)
        numbers[i] = (float)mm_rng_uniform(&rng, -size, size);
    mm_from_f32(raw, t, numbers, block);
    const struct mm_view v = mm_view2(data, t, n, cols);
    for (int64_t at = 0; at < all; at += block) {
        const int64_t some = all - at < block ? all - at : block;
        be->upload(be, mm_view_at(v, 0, at), raw, (size_t)some * mm_dtype_bytes(t));
    }
    OK(mm_backend_sync(be, &err));
    return v;
}

static double median_ms(struct bench *b, void (*op)(struct bench *)) {
    double ms[n_windows];
    op(b);
    OK(mm_backend_sync(b->be, &err));
    double from = now();
    op(b);
    OK(mm_backend_sync(b->be, &err));
    const int times = 1 + (int)(0.004 / (now() - from));
    for (int i = 0; i < n_windows; i++) {
        from = now();
        for (int k = 0; k < times; k++)
            op(b);
        OK(mm_backend_sync(b->be, &err));
        ms[i] = 1e3 * (now() - from) / times;
        for (int k = i; k > 0 && ms[k] < ms[k - 1]; k--) {
            const double other = ms[k];
            ms[k] = ms[k - 1];
            ms[k - 1] = other;
        }
    }
    return ms[n_windows / 2];
}

static void product(struct bench *b, const char *name, int64_t T, double n, double k,
                    void (*op)(struct bench *)) {
    const double ms = median_ms(b, op), rate = 2.0 * (double)T * n * k / (1e-3 * ms);
    printf("%-28s %6lld %9.4f ms %7.0f TFLOP/s %5.1f%%\n", name, (long long)T, ms, rate * 1e-12,
           100.0 * rate / b->product);
}

static void moved(struct bench *b, const char *name, int64_t T, double bytes,
                  void (*op)(struct bench *)) {
    const double ms = median_ms(b, op), rate = bytes / (1e-3 * ms);
    printf("%-28s %6lld %9.4f ms %7.0f GB/s    %5.1f%%\n", name, (long long)T, ms, rate * 1e-9,
           100.0 * rate / b->copy);
}

static void in_fwd(struct bench *b) {
    mm_linear_fwd(b->be, b->z, b->u, b->w_in, MM_NONE);
}
static void wo_fwd(struct bench *b) {
    mm_linear_add_fwd(b->be, b->u, b->x, b->wo, b->x);
}
static void w1_fwd(struct bench *b) {
    mm_linear_fwd(b->be, b->a, b->u, b->w1, MM_NONE);
}
static void w2_fwd(struct bench *b) {
    mm_linear_add_fwd(b->be, b->u, b->a, b->w2, b->x);
}
static void ffn(struct bench *b) {
    mm_ffn_fwd(b->be, b->x, b->x, b->u, b->w1, b->w1, b->w2);
}
static void in_bwd_x(struct bench *b) {
    mm_linear_bwd_x(b->be, b->u, b->dz, b->w_in, false);
}
static void w1_bwd_x(struct bench *b) {
    mm_linear_bwd_x(b->be, b->u, b->a, b->w1, true);
}
static void w2_bwd_x(struct bench *b) {
    mm_linear_bwd_x(b->be, b->a, b->u, b->w2, false);
}
static void in_bwd_w(struct bench *b) {
    mm_linear_bwd_w(b->be, b->dw, MM_NONE, b->dz, b->u, mm_dtype_bf16);
}
static void out_fwd(struct bench *b) {
    mm_linear_fwd(b->be, b->ls, mm_view_rows(b->u, 0, slice), b->out, MM_NONE);
}
static void out_bwd_x(struct bench *b) {
    mm_linear_bwd_x(b->be, mm_view_rows(b->u, 0, slice), b->dl, b->out, false);
}
static void norm_fwd(struct bench *b) {
    mm_rmsnorm_fwd(b->be, b->u, MM_NONE, b->x, b->norm, 1e-5f);
}
static void norm_bwd(struct bench *b) {
    mm_rmsnorm_bwd(b->be, b->u, MM_NONE, b->x, b->x, b->norm, b->rinv);
}
static void swiglu_fwd(struct bench *b) {
    mm_swiglu_fwd(b->be, b->s, b->a, b->b);
}
static void swiglu_bwd(struct bench *b) {
    mm_swiglu_bwd(b->be, b->a, b->b, b->s, b->a, b->b);
}
static void kl(struct bench *b) {
    mm_kl(b->be, b->loss, b->dl, b->ls, b->lt, b->one);
}
static void adamw(struct bench *b) {
    const struct mm_adamw h = {1e-5f, 0.9f, 0.999f, 1e-8f, 0.05f, 0.1f, 0.001f, 1.0f};
    mm_adamw(b->be, b->master, b->m, b->v, b->dw, h);
}
static void squares(struct bench *b) {
    mm_sum_squares(b->be, mm_view1(b->loss.data, mm_dtype_f32, 1), b->dw);
}

static void weights(struct bench *b) {
    struct mm_backend *be = b->be;
    const enum mm_dtype h = mm_dtype_bf16, f = mm_dtype_f32;
    b->w_in = rows(be, h, Z, D, 0.04), b->wo = rows(be, h, D, D, 0.04);
    b->w1 = rows(be, h, F, D, 0.04), b->w2 = rows(be, h, D, F, 0.02);
    b->out = rows(be, h, V, D, 0.04);
    b->norm = mm_view1(rows(be, f, D, 1, 1.0).data, f, D);
    b->dw = rows(be, f, Z, D, 1.0), b->master = rows(be, f, Z, D, 1.0);
    b->m = rows(be, f, Z, D, 1.0), b->v = rows(be, f, Z, D, 0.0);
    b->ls = mm_view_cut(rows(be, f, slice, V_ld, 3.0), 0, V);
    b->lt = mm_view_cut(rows(be, f, slice, V_ld, 3.0), 0, V);
    b->dl = mm_view_cut(rows(be, h, slice, V_ld, 1e-3), 0, V);
    b->loss = mm_view1(rows(be, f, slice, 1, 1.0).data, f, slice);
    b->one = mm_view1(rows(be, f, slice, 1, 1.0).data, f, slice);
}

static void release(struct bench *b, struct mm_view v) {
    b->be->release(b->be, v.data, mm_view_bytes(v));
}

static void run(struct bench *b, int64_t T) {
    struct mm_backend *be = b->be;
    const enum mm_dtype h = mm_dtype_bf16;
    const double t = (double)T;
    b->T = T;
    b->x = rows(be, h, T, D, 1.0), b->u = rows(be, h, T, D, 1.0);
    b->z = rows(be, h, T, Z, 1.0), b->dz = rows(be, h, T, Z, 1.0);
    b->a = rows(be, h, T, F, 1.0), b->b = rows(be, h, T, F, 1.0), b->s = rows(be, h, T, F, 1.0);
    b->rinv = mm_view1(rows(be, mm_dtype_f32, T, 1, 1.0).data, mm_dtype_f32, T);
    product(b, "w_in u", T, Z, D, in_fwd);
    product(b, "x + wo o", T, D, D, wo_fwd);
    product(b, "w1 h", T, F, D, w1_fwd);
    product(b, "x + w2 s", T, D, F, w2_fwd);
    product(b, "ffn_fwd", T, 3 * F, D, ffn);
    product(b, "du = dz w_in", T, Z, D, in_bwd_x);
    product(b, "dh += da w1", T, F, D, w1_bwd_x);
    product(b, "ds = dy w2", T, F, D, w2_bwd_x);
    product(b, "dw_in += dz^T u", T, Z, D, in_bwd_w);
    moved(b, "rmsnorm_fwd", T, t * D * 4, norm_fwd);
    moved(b, "rmsnorm_bwd", T, t * D * 4, norm_bwd);
    moved(b, "swiglu_fwd", T, t * F * 6, swiglu_fwd);
    moved(b, "swiglu_bwd", T, t * F * 10, swiglu_bwd);
    if (T >= slice) {
        product(b, "logits = out h", slice, V, D, out_fwd);
        product(b, "dh = dlogits out", slice, V, D, out_bwd_x);
        moved(b, "kl", slice, (double)slice * V * 10, kl);
    }
    const struct mm_view all[] = {b->x, b->u, b->z, b->dz, b->a, b->b, b->s, b->rinv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        release(b, all[i]);
}

int main(int argc, char **argv) {
    static struct bench b;
    const char *how;
    OK(mm_backend_open_cuda(&b.be, 0, 0, &err));
    OK(b.be->gauges->ceiling(b.be, mm_ceiling_read, 0.3, &b.copy, &how, &err));
    OK(b.be->gauges->ceiling(b.be, mm_ceiling_bf16, 0.3, &b.product, &how, &err));
    printf("%s: copies %.0f GB/s, products %.0f TFLOP/s\n", b.be->device, b.copy * 1e-9,
           b.product * 1e-12);
    weights(&b);
    for (int i = 1; i < argc || i == 1; i++)
        run(&b, i < argc ? atoll(argv[i]) : 8192);
    moved(&b, "adamw of w_in", 0, (double)Z * D * 28, adamw);
    moved(&b, "sum_squares of w_in", 0, (double)Z * D * 4, squares);
    mm_backend_close(b.be);
    return 0;
}
