// The mixer's depthwise causal convolution with silu.
#include "ops/cuda/cuda.h"

struct conv {
    struct mm_mat x;
    const float *w, *bias, *state;  // state (S, K-1, C) or NULL
    const int32_t *start;           // NULL: every row is a sequence of one token
    int n_seqs, width, chans;
};

// x[t, c] of sequence s starting at row `first`, where t may reach K-1 rows before it.
static __device__ float tap(const struct conv &o, int s, int64_t first, int64_t t, int64_t c) {
    if (t >= first) return o.x(t, c);
    if (!o.state) return 0.0f;
    return o.state[((int64_t)s * (o.width - 1) + (o.width - 1 + t - first)) * o.chans + c];
}

static __device__ float pre_activation(const struct conv &o, int s, int64_t first, int64_t t,
                                       int64_t c) {
    float z = o.bias ? o.bias[c] : 0.0f;
    for (int j = 0; j < o.width; j++)
        z += o.w[c * o.width + j] * tap(o, s, first, t - o.width + 1 + j, c);
    return z;
}

static bool conv_of(struct mm_backend *be, struct conv *o, struct mm_view x, struct mm_view w,
                    struct mm_view bias, struct mm_view state, struct mm_segs segs) {
    o->x = mm_mat_of(x);
    o->w = mm_cuda_vector(be, mm_cuda_slot_a, mm_view_flat(w));
    o->bias = mm_cuda_vector(be, mm_cuda_slot_b, bias);
    o->state = (const float *)state.data;
    o->start = segs.dev;
    o->n_seqs = (int)segs.n;
    o->width = (int)w.shape[1];
    o->chans = (int)x.shape[1];
    return o->w && (o->bias || !bias.data);
}

// The last K-1 rows of each sequence, oldest first, so that a row of the old state is read before
// it is overwritten: it moves towards the front.
static __global__ void keep_last(struct conv o, float *state) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, s = blockIdx.y;
    if (c >= o.chans) return;
    const int64_t first = o.start ? o.start[s] : s, end = o.start ? o.start[s + 1] : s + 1;
    const int past = o.width - 1;
    for (int j = 0; j < past; j++)
        state[((int64_t)s * past + j) * o.chans + c] = tap(o, s, first, end - past + j, c);
}

static void run(struct mm_backend *be, const struct conv &o, struct mm_view y, struct mm_view state,
                int64_t n_seqs) {
    const struct mm_mat ym = mm_mat_of(y);
    const struct conv k = o;
    mm_each(be, y.shape[0], o.chans, [=] __device__(int64_t t, int64_t c) {
        const int s = k.start ? mm_seq_of(k.start, k.n_seqs, t) : (int)t;
        const float z = pre_activation(k, s, k.start ? k.start[s] : t, t, c);
        ym(t, c) = z * mm_sigmoid(z);
    });
    if (!state.data || n_seqs == 0 || o.width < 2) return;
    const dim3 grid((unsigned)((o.chans + 127) / 128), (unsigned)n_seqs);
    MM_LAUNCH(be, keep_last, grid, 128, 0, o, (float *)state.data);
}

void mm_conv_silu_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                           struct mm_view w, struct mm_view bias, struct mm_view state,
                           struct mm_segs segs) {
    struct conv o;
    if (x.shape[0] == 0 || !conv_of(be, &o, x, w, bias, state, segs)) return;
    run(be, o, y, state, segs.n);
}

void mm_conv_silu_step_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                            struct mm_view w, struct mm_view bias, struct mm_view state) {
    struct conv o;
    const struct mm_segs none = {x.shape[0], NULL, NULL};
    if (x.shape[0] == 0 || !conv_of(be, &o, x, w, bias, state, none)) return;
    run(be, o, y, state, x.shape[0]);
}

void mm_conv_silu_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                           struct mm_view dbias, struct mm_view dy, struct mm_view x,
                           struct mm_view w, struct mm_view bias, struct mm_segs segs) {
    struct conv o;
    if (x.shape[0] == 0 || !conv_of(be, &o, x, w, bias, MM_NONE, segs)) return;
    const int64_t rows = x.shape[0], chans = o.chans;
    float *dz =
        (float *)mm_cuda_scratch(be, mm_cuda_slot_c, (size_t)(rows * chans) * sizeof(float));
    if (!dz) return;
    const struct mm_mat dxm = mm_mat_of(dx), dym = mm_mat_of(dy);
    const struct conv k = o;
    mm_each(be, rows, chans, [=] __device__(int64_t t, int64_t c) {
        const int s = mm_seq_of(k.start, k.n_seqs, t);
        const float z = pre_activation(k, s, k.start[s], t, c), g = mm_sigmoid(z);
        dz[t * chans + c] = dym(t, c) * (g + z * g * (1.0f - g));
    });
    for (int j = 0; dw.data && j < o.width; j++) {
        const int shift = o.width - 1 - j;
        mm_add_column_sums(
            be, mm_cuda_slot_d, (float *)dw.data + j, dw.ld, rows, chans,
            [=] __device__(int64_t t, int64_t c) {
                const int s = mm_seq_of(k.start, k.n_seqs, t);
                return t - shift >= k.start[s] ? dz[t * chans + c] * k.x(t - shift, c) : 0.0f;
            });
    }
    if (dbias.data) {
        mm_add_column_sums(be, mm_cuda_slot_d, (float *)dbias.data, 1, rows, chans,
                           [=] __device__(int64_t t, int64_t c) { return dz[t * chans + c]; });
    }
    mm_each(be, rows, chans, [=] __device__(int64_t u, int64_t c) {
        const int s = mm_seq_of(k.start, k.n_seqs, u);
        float sum = 0.0f;
        for (int j = 0; j < k.width; j++) {
            const int64_t t = u + k.width - 1 - j;
            if (t < k.start[s + 1]) sum += dz[t * chans + c] * k.w[c * k.width + j];
        }
        dxm(u, c) = sum;
    });
}
