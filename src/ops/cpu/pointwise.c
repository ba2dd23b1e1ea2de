// Moving and combining elements: fill, copy, add, scale, SwiGLU, GELU, MSE, the gradient norm and
// AdamW.
#include <math.h>
#include "ops/cpu/convert.h"
#include "ops/cpu/kernels.h"

struct point_ctx {
    const struct mm_kernels *k;
    float value;
    enum mm_dtype to, from;
    enum mm_isa isa;
    const struct mm_adamw *adamw;
};

static void fill_span(void *ctx, void *const *at, int64_t n) {
    const struct point_ctx *c = ctx;
    if (c->value == 0.0f && !signbit(c->value)) {
        memset(at[0], 0, (size_t)n * mm_dtype_bytes(c->to));
        return;
    }
    if (c->to == mm_dtype_f32) {
        float *y = at[0];
        for (int64_t i = 0; i < n; i++)
            y[i] = c->value;
        return;
    }
    uint16_t *y = at[0], h;
    mm_from_f32(&h, c->to, &c->value, 1);
    for (int64_t i = 0; i < n; i++)
        y[i] = h;
}

void mm_fill_cpu(struct mm_backend *be, struct mm_view y, float value) {
    struct point_ctx c = {.value = value, .to = y.dtype};
    mm_for_spans(be, &y, 1, fill_span, &c);
}

static void copy_span(void *ctx, void *const *at, int64_t n) {
    const struct point_ctx *c = ctx;
    if (c->to == c->from) {
        memcpy(at[0], at[1], (size_t)n * mm_dtype_bytes(c->to));
        return;
    }
    enum { piece = 512 };
    for (int64_t i = 0; i < n; i += piece) {
        const int64_t m = n - i < piece ? n - i : piece;
        void *to = (char *)at[0] + (size_t)i * mm_dtype_bytes(c->to);
        const void *from = (const char *)at[1] + (size_t)i * mm_dtype_bytes(c->from);
        float between[piece];
        if (c->from != mm_dtype_f32) {
            mm_convert_to_f32(c->isa, c->to == mm_dtype_f32 ? to : between, from, c->from, m);
            from = between;
        }
        // A copy keeps what can be kept.
        if (c->to == mm_dtype_bf16) mm_convert_keep_bf16(c->isa, to, from, m);
        if (c->to == mm_dtype_f16) mm_from_f32(to, mm_dtype_f16, from, m);
    }
}

void mm_copy_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x) {
    struct point_ctx c = {.to = y.dtype, .from = x.dtype, .isa = mm_cpu_isa(be)};
    const struct mm_view views[] = {y, x};
    mm_for_spans(be, views, 2, copy_span, &c);
}

static void add_span(void *ctx, void *const *at, int64_t n) {
    ((const struct point_ctx *)ctx)->k->add(at[0], at[1], at[2], n);
}

void mm_add_cpu(struct mm_backend *be, struct mm_view y, struct mm_view a, struct mm_view b) {
    struct point_ctx c = {.k = mm_kernels_of(be)};
    const struct mm_view views[] = {y, a, b};
    mm_for_spans(be, views, 3, add_span, &c);
}

static void scale_span(void *ctx, void *const *at, int64_t n) {
    const struct point_ctx *c = ctx;
    c->k->scale(at[0], at[1], c->value, n);
}

void mm_scale_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x, float s) {
    struct point_ctx c = {.k = mm_kernels_of(be), .value = s};
    const struct mm_view views[] = {y, x};
    mm_for_spans(be, views, 2, scale_span, &c);
}

static void swiglu_fwd_span(void *ctx, void *const *at, int64_t n) {
    ((const struct point_ctx *)ctx)->k->swiglu_fwd(at[0], at[1], at[2], n);
}

void mm_swiglu_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view a,
                       struct mm_view b) {
    struct point_ctx c = {.k = mm_kernels_of(be)};
    const struct mm_view views[] = {y, a, b};
    mm_for_spans(be, views, 3, swiglu_fwd_span, &c);
}

static void swiglu_bwd_span(void *ctx, void *const *at, int64_t n) {
    ((const struct point_ctx *)ctx)->k->swiglu_bwd(at[0], at[1], at[2], at[3], at[4], n);
}

void mm_swiglu_bwd_cpu(struct mm_backend *be, struct mm_view da, struct mm_view db,
                       struct mm_view dy, struct mm_view a, struct mm_view b) {
    struct point_ctx c = {.k = mm_kernels_of(be)};
    const struct mm_view views[] = {da, db, dy, a, b};
    mm_for_spans(be, views, 5, swiglu_bwd_span, &c);
}

static void gelu_fwd_span(void *ctx, void *const *at, int64_t n) {
    ((const struct point_ctx *)ctx)->k->gelu_fwd(at[0], at[1], n);
}

void mm_gelu_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x) {
    struct point_ctx c = {.k = mm_kernels_of(be)};
    const struct mm_view views[] = {y, x};
    mm_for_spans(be, views, 2, gelu_fwd_span, &c);
}

static void gelu_bwd_span(void *ctx, void *const *at, int64_t n) {
    ((const struct point_ctx *)ctx)->k->gelu_bwd(at[0], at[1], at[2], n);
}

void mm_gelu_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                     struct mm_view x) {
    struct point_ctx c = {.k = mm_kernels_of(be)};
    const struct mm_view views[] = {dx, dy, x};
    mm_for_spans(be, views, 3, gelu_bwd_span, &c);
}

static double mse_span(void *ctx, void *const *at, int64_t n) {
    const struct point_ctx *c = ctx;
    return c->k->mse(at[0], at[1], at[2], c->value, n);
}

void mm_mse_cpu(struct mm_backend *be, struct mm_view loss, struct mm_view dy, struct mm_view y,
                struct mm_view target, float scale) {
    struct point_ctx c = {.k = mm_kernels_of(be), .value = 2.0f * scale};
    struct mm_view views[] = {dy, y, target};
    if (!dy.data) views[0] = y, views[0].data = NULL;  // the shape, without the memory
    const double sum = mm_sum_spans(be, views, 3, mse_span, &c);
    if (be->error.code) return;
    float *out = loss.data;
    *out = (float)((double)*out + (double)scale * sum);
}

static double squares_span(void *ctx, void *const *at, int64_t n) {
    return ((const struct point_ctx *)ctx)->k->sum_squares(at[0], n);
}

void mm_sum_squares_cpu(struct mm_backend *be, struct mm_view sum, struct mm_view x) {
    struct point_ctx c = {.k = mm_kernels_of(be)};
    const double s = mm_sum_spans(be, &x, 1, squares_span, &c);
    if (be->error.code) return;
    float *out = sum.data;
    *out = (float)((double)*out + s);
}

static void adamw_span(void *ctx, void *const *at, int64_t n) {
    const struct point_ctx *c = ctx;
    c->k->adamw(at[0], at[1], at[2], at[3], c->adamw, n);
}

void mm_adamw_cpu(struct mm_backend *be, struct mm_view w, struct mm_view m, struct mm_view v,
                  struct mm_view g, struct mm_adamw h) {
    struct point_ctx c = {.k = mm_kernels_of(be), .adamw = &h};
    const struct mm_view views[] = {w, m, v, g};
    mm_for_spans(be, views, 4, adamw_span, &c);
}
