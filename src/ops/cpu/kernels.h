// The inner loops of everything but the mixer, one set for each instruction set: kernels_avx2.c,
// kernels_avx512.c and kernels_neon.c compile the same kernel_math.h. All work on n consecutive
// floats (a row, or a piece of a dense tensor); threads, views and the order of sums are the
// callers'.
#ifndef MM_OPS_CPU_KERNELS_H
#define MM_OPS_CPU_KERNELS_H

#include "ops/cpu/cpu.h"

struct mm_kernels {
    // y may be a or b, y may be x: as the operations allow.
    void (*add)(float *y, const float *a, const float *b, int64_t n);
    void (*scale)(float *y, const float *x, float s, int64_t n);
    void (*swiglu_fwd)(float *y, const float *a, const float *b, int64_t n);
    void (*swiglu_bwd)(float *da, float *db, const float *dy, const float *a, const float *b,
                       int64_t n);
    void (*gelu_fwd)(float *y, const float *x, int64_t n);
    void (*gelu_bwd)(float *dx, const float *dy, const float *x, int64_t n);
    void (*adamw)(float *w, float *m, float *v, const float *g, const struct mm_adamw *h,
                  int64_t n);

    // Return rinv.
    float (*rmsnorm_fwd)(float *y, const float *x, const float *w, float eps, int64_t n);
    float (*l2norm_fwd)(float *y, const float *x, int64_t n);
    // dw += dy x rinv unless NULL.
    void (*rmsnorm_bwd)(float *dx, float *dw, const float *dy, const float *x, const float *w,
                        float rinv, int64_t n);
    void (*l2norm_bwd)(float *dx, const float *dy, const float *y, float rinv, int64_t n);

    double (*sum_squares)(const float *x, int64_t n);
    // sum (y - t)^2; dy = slope (y - t) unless NULL.
    double (*mse)(float *dy, const float *y, const float *t, float slope, int64_t n);
    // The row's loss over its weight; d = weight * gradient unless NULL. d may be s or x.
    double (*kl)(float *d, const float *s, const float *t, float weight, int64_t n);
    double (*cross_entropy)(float *d, const float *x, int64_t target, float weight, int64_t n);

    // cos and sin of where * freq[i], any size of angle.
    void (*angles)(float *cosines, float *sines, double where, const double *freq, int64_t n);
    // One head of 2 * half elements, turned. y may be x. sign 1 or -1.
    void (*turn)(float *y, const float *x, const float *cosines, const float *sines, float sign,
                 int64_t half);

    // A row of scores of a tile of attention: s[j] = exp(scale s[j] - top) for j < n, 0 up to
    // padded, where top becomes the largest so far; *sum follows. Returns the factor by which
    // what was summed under the old top must be multiplied.
    float (*soften)(float *s, int64_t n, int64_t padded, float scale, float *top, float *sum);
    // s[h * lds + j] = q_h k_j for the `heads` rows of q (heads, dim) and n rows of keys; and
    // y_h += sum_j s[h * lds + j] v_j. A sum over dim has one order, whatever heads and n are.
    void (*scores)(float *s, int64_t lds, const float *q, int64_t heads, const float *k,
                   int64_t ldk, int64_t n, int64_t dim);
    void (*weigh)(float *y, int64_t ldy, const float *s, int64_t lds, int64_t heads, const float *v,
                  int64_t ldv, int64_t n, int64_t dim);
    // With p = exp(scale s[j] - lse): s[j] = p, d[j] = p (d[j] - delta) scale; 0 up to padded.
    void (*soften_bwd)(float *s, float *d, int64_t n, int64_t padded, float scale, float lse,
                       float delta);
    // silu(bias[c] + sum_j w[c * width + j] x[j][c]) for c < n: a convolution's one token.
    void (*conv_silu)(float *y, const float *const *x, const float *w, const float *bias,
                      int64_t width, int64_t n);
    float (*dot)(const float *a, const float *b, int64_t n);
    void (*axpy)(float *y, float a, const float *x, int64_t n);  // y += a x
};

extern const struct mm_kernels mm_kernels_avx2, mm_kernels_avx512, mm_kernels_neon;
const struct mm_kernels *mm_kernels_of(const struct mm_backend *be);  // isa_x86.c, isa_arm.c

// ---- spans: elementwise work on views of one shape ----

// fn gets one pointer a view, at the same place in each, and a count of consecutive elements.
// Dense views are cut into pieces whatever their shape, others into rows. NULL views give NULL.
enum { mm_spans_max = 5 };
typedef void mm_span_fn(void *ctx, void *const *at, int64_t n);
void mm_for_spans(struct mm_backend *be, const struct mm_view *views, int n_views, mm_span_fn *fn,
                  void *ctx);

// The same, with a double from each span; the sum is in a fixed order. NAN when there is no
// memory for it, and be->error is set.
typedef double mm_span_sum_fn(void *ctx, void *const *at, int64_t n);
double mm_sum_spans(struct mm_backend *be, const struct mm_view *views, int n_views,
                    mm_span_sum_fn *fn, void *ctx);

#endif
