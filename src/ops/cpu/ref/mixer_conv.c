// Reference of the mixer's depthwise causal convolution with silu (MODEL.md section 2).
//   z[t,c] = bias[c] + sum_j w[c,j] x[t-K+1+j, c],   y = silu(z)
// Rows before a sequence's first come from the state, or are zero.
#include "ops/cpu/cpu.h"
#include "ops/cpu/ref/mixer.h"

// x[t, c] of sequence s starting at row `first`, where t may reach K-1 rows before it.
static double tap(struct mm_view x, struct mm_view state, int64_t s, int64_t first, int64_t t,
                  int64_t c, int64_t n_past) {
    const int64_t n_chan = x.shape[1];
    if (t >= first) return mm_ref_get(x, t, c);
    return mm_ref_get(state, s, (n_past + t - first) * n_chan + c);
}

static double pre_activation(struct mm_view x, struct mm_view w, struct mm_view bias,
                             struct mm_view state, int64_t s, int64_t first, int64_t t, int64_t c) {
    const int64_t width = w.shape[1];
    double z = mm_ref_get(bias, c, 0);
    for (int64_t j = 0; j < width; j++) {
        z += mm_ref_get(w, c, j) * tap(x, state, s, first, t - width + 1 + j, c, width - 1);
    }
    return z;
}

void mm_conv_silu_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                          struct mm_view w, struct mm_view bias, struct mm_view state,
                          struct mm_segs segs) {
    (void)be;
    const int64_t n_chan = x.shape[1], n_past = w.shape[1] - 1;
    for (int64_t s = 0; s < segs.n; s++) {
        const int64_t first = segs.start[s], end = segs.start[s + 1];
        for (int64_t t = first; t < end; t++) {
            for (int64_t c = 0; c < n_chan; c++) {
                const double z = pre_activation(x, w, bias, state, s, first, t, c);
                *mm_ref_f32(y, t, c) = (float)(z * mm_ref_sigmoid(z));
            }
        }
        if (!state.data) continue;
        // Oldest first, so that a row of the old state is read before it is overwritten.
        for (int64_t j = 0; j < n_past; j++) {
            for (int64_t c = 0; c < n_chan; c++) {
                *mm_ref_f32(state, s, j * n_chan + c) =
                    (float)tap(x, state, s, first, end - n_past + j, c, n_past);
            }
        }
    }
}

void mm_conv_silu_bwd_ref(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                          struct mm_view dbias, struct mm_view dy, struct mm_view x,
                          struct mm_view w, struct mm_view bias, struct mm_segs segs) {
    (void)be;
    const int64_t n_chan = x.shape[1], width = w.shape[1];
    for (int64_t c = 0; c < n_chan; c++) {
        for (int64_t j = 0; j < width; j++) {
            // Tap j of row t reads row t - shift; summed over all rows, one tap after the other.
            const int64_t shift = width - 1 - j;
            double sum = 0.0, sum_bias = 0.0;
            for (int64_t s = 0; s < segs.n; s++) {
                for (int64_t t = segs.start[s]; t < segs.start[s + 1]; t++) {
                    const double z = pre_activation(x, w, bias, MM_NONE, s, segs.start[s], t, c);
                    const double sg = mm_ref_sigmoid(z);
                    const double dz = mm_ref_get(dy, t, c) * (sg + z * sg * (1.0 - sg));
                    if (t - shift >= segs.start[s]) sum += dz * mm_ref_get(x, t - shift, c);
                    sum_bias += dz;
                }
            }
            if (dw.data) *mm_ref_f32(dw, c, j) += (float)sum;
            if (dbias.data && j == 0) *mm_ref_f32(dbias, c, 0) += (float)sum_bias;
        }
        for (int64_t s = 0; s < segs.n; s++) {
            for (int64_t u = segs.start[s]; u < segs.start[s + 1]; u++) {
                double sum = 0.0;
                for (int64_t j = 0; j < width; j++) {
                    const int64_t t = u + width - 1 - j;
                    if (t >= segs.start[s + 1]) continue;
                    const double z = pre_activation(x, w, bias, MM_NONE, s, segs.start[s], t, c);
                    const double sg = mm_ref_sigmoid(z);
                    sum += mm_ref_get(dy, t, c) * (sg + z * sg * (1.0 - sg)) * mm_ref_get(w, c, j);
                }
                *mm_ref_f32(dx, u, c) = (float)sum;
            }
        }
    }
}

void mm_conv_silu_step_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                           struct mm_view w, struct mm_view bias, struct mm_view state) {
    (void)be;
    const int64_t n_chan = x.shape[1], n_past = w.shape[1] - 1;
    for (int64_t s = 0; s < x.shape[0]; s++) {
        for (int64_t c = 0; c < n_chan; c++) {
            const double z = pre_activation(x, w, bias, state, s, s, s, c);
            *mm_ref_f32(y, s, c) = (float)(z * mm_ref_sigmoid(z));
            for (int64_t j = 0; state.data && j < n_past; j++) {
                *mm_ref_f32(state, s, j * n_chan + c) =
                    (float)tap(x, state, s, s, s + 1 - n_past + j, c, n_past);
            }
        }
    }
}
