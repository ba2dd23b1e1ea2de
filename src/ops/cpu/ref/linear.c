// Plain reference: dense products, sums in double.
#include "ops/cpu/ref/ref.h"

// The product of base/quant.h: exact sums of codes inside a block, blocks added in double.
static void quantized_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                          struct mm_view w, struct mm_view bias) {
    const int64_t t_dim = x.shape[0], k_dim = mm_view_cols(x), blocks = mm_quant_blocks(k_dim);
    const int64_t padded = blocks * mm_quant_block;
    int8_t *a = mm_cpu_scratch(be, mm_scratch_a, (size_t)(t_dim * padded));
    float *r = mm_cpu_scratch(be, mm_scratch_b, (size_t)(t_dim * blocks) * sizeof *r);
    int8_t *w8 = mm_cpu_scratch(be, mm_scratch_c, (size_t)padded);
    if (!a || !r || !w8) return;
    for (int64_t t = 0; t < t_dim; t++)
        mm_quantize_x(a + t * padded, r + t * blocks, mm_view_at(x, t, 0), k_dim);
    for (int64_t n = 0; n < w.shape[0]; n++) {
        const void *row = mm_view_at(w, n, 0);
        const uint16_t *scales = mm_quant_scales(w.dtype, row, k_dim);
        mm_quant_expand_row(w8, w.dtype, row, k_dim);
        for (int64_t t = 0; t < t_dim; t++) {
            double sum = bias.data ? (double)ref_get(bias, n, 0) : 0.0;
            for (int64_t b = 0; b < blocks; b++) {
                int32_t exact = 0;
                for (int64_t k = b * mm_quant_block; k < (b + 1) * mm_quant_block; k++)
                    exact += w8[k] * a[t * padded + k];
                sum += (double)mm_f16_to_f32(scales[b]) * (double)r[t * blocks + b] * exact;
            }
            ref_put(y, t, n, (float)sum);
        }
    }
}

void mm_linear_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                       struct mm_view bias) {
    if (mm_dtype_quantized(w.dtype)) {
        quantized_fwd(be, y, x, w, bias);
        return;
    }
    const int64_t k_dim = mm_view_cols(x);
    for (int64_t t = 0; t < y.shape[0]; t++) {
        for (int64_t n = 0; n < mm_view_cols(y); n++) {
            double sum = bias.data ? (double)ref_get(bias, n, 0) : 0.0;
            for (int64_t k = 0; k < k_dim; k++) {
                sum += (double)ref_get(x, t, k) * (double)ref_get(w, n, k);
            }
            ref_put(y, t, n, (float)sum);
        }
    }
}

void mm_linear_add_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                           struct mm_view w, struct mm_view add) {
    mm_linear_fwd_ref(be, y, x, w, MM_NONE);
    mm_add_ref(be, y, y, add);
}

void mm_linear_bwd_x_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                         struct mm_view w, bool accumulate) {
    (void)be;
    for (int64_t t = 0; t < dx.shape[0]; t++) {
        for (int64_t k = 0; k < mm_view_cols(dx); k++) {
            double sum = accumulate ? (double)ref_get(dx, t, k) : 0.0;
            for (int64_t n = 0; n < mm_view_cols(dy); n++) {
                sum += (double)ref_get(dy, t, n) * (double)ref_get(w, n, k);
            }
            ref_put(dx, t, k, (float)sum);
        }
    }
}

void mm_linear_bwd_w_ref(struct mm_backend *be, struct mm_view dw, struct mm_view dbias,
                         struct mm_view dy, struct mm_view x, enum mm_dtype product) {
    (void)be;
    const int64_t t_dim = dy.shape[0];
    for (int64_t n = 0; n < dw.shape[0]; n++) {
        for (int64_t k = 0; k < mm_view_cols(dw); k++) {
            double sum = (double)ref_get(dw, n, k);
            for (int64_t t = 0; t < t_dim; t++) {
                sum += (double)ref_round(ref_get(dy, t, n), product) *
                       (double)ref_round(ref_get(x, t, k), product);
            }
            ref_put(dw, n, k, (float)sum);
        }
        if (!dbias.data) continue;
        double sum = (double)ref_get(dbias, n, 0);
        for (int64_t t = 0; t < t_dim; t++)
            sum += (double)ref_get(dy, t, n);
        ref_put(dbias, n, 0, (float)sum);
    }
}
