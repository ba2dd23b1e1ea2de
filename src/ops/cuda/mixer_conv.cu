// The mixer's depthwise causal convolution with silu. A thread walks down some rows of its
// channels, so that its weights stay in registers and the rows before come from the cache.
#include "ops/cuda/wide.cuh"

namespace {

enum { rows_down = 16 };

struct conv {
    struct mm_mat x;
    const float *w, *bias, *state;  // state (S, K-1, C) or NULL
    const int32_t *start;           // NULL: every row is a sequence of one token
    int64_t rows;
    int n_seqs, width, chans;
    __device__ int seq_of(int64_t t) const {
        return start ? mm_seq_of(start, n_seqs, t) : (int)t;
    }
    __device__ int64_t first_of(int s) const {
        return start ? start[s] : s;
    }
    __device__ int64_t end_of(int s) const {
        return start ? start[s + 1] : s + 1;
    }
};

// x[t, c...] of sequence s that begins at row `first`; t may reach K-1 rows before it.
template <int W>
__device__ mm_pack<W> tap(const struct conv &o, int s, int64_t first, int64_t t, int64_t c) {
    if (t >= first) return mm_load<W>(o.x, t, c);
    const int past = o.width - 1;
    const float *row = o.state ? o.state + ((int64_t)s * past + past + t - first) * o.chans : NULL;
    return mm_load_vector<W>(row, c, 0.0f);
}

// The weights of W channels: in registers where K is known.
template <int W, int K>
struct weights {
    float w[W][K ? K : 1], bias[W];
    const float *all;
    int width;
    __device__ weights(const struct conv &o, int64_t c) : all(o.w + c * o.width), width(o.width) {
        for (int k = 0; k < W; k++) {
            bias[k] = o.bias ? o.bias[c + k] : 0.0f;
            for (int j = 0; j < K; j++)
                w[k][j] = all[k * K + j];
        }
    }
    __device__ float operator()(int k, int j) const {
        if constexpr (K == 0) {
            return all[k * width + j];
        } else {
            return w[k][j];
        }
    }
};

template <int W, int K>
__device__ mm_pack<W> before_silu(const struct conv &o, const weights<W, K> &w, int s,
                                  int64_t first, int64_t t, int64_t c) {
    const int width = K ? K : o.width;
    mm_pack<W> z;
    for (int k = 0; k < W; k++)
        z.x[k] = w.bias[k];
    for (int j = 0; j < width; j++) {
        const mm_pack<W> x = tap<W>(o, s, first, t - width + 1 + j, c);
        for (int k = 0; k < W; k++)
            z.x[k] += w(k, j) * x.x[k];
    }
    return z;
}

template <int W, int K>
__global__ void conv_fwd(struct conv o, struct mm_mat y) {
    const int64_t c = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    const int64_t t0 = ((int64_t)blockIdx.y * blockDim.y + threadIdx.y) * rows_down;
    if (c >= o.chans || t0 >= o.rows) return;
    const weights<W, K> w(o, c);
    const int64_t t1 = t0 + rows_down < o.rows ? t0 + rows_down : o.rows;
    int s = o.seq_of(t0);
    for (int64_t t = t0; t < t1; t++) {
        while (t >= o.end_of(s))
            s++;
        mm_pack<W> z = before_silu(o, w, s, o.first_of(s), t, c);
        for (int k = 0; k < W; k++)
            z.x[k] *= mm_sigmoid(z.x[k]);
        mm_store(y, t, c, z);
    }
}

// The last K-1 rows of each sequence, oldest first, so that a row of the old state is read before
// it is overwritten: it moves towards the front.
__global__ void keep_last(struct conv o, float *state) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, s = blockIdx.y;
    if (c >= o.chans) return;
    const int64_t first = o.first_of(s), end = o.end_of(s);
    const int past = o.width - 1;
    for (int j = 0; j < past; j++)
        state[((int64_t)s * past + j) * o.chans + c] = tap<1>(o, s, first, end - past + j, c).x[0];
}

// dz = dy silu'(z) of row t; zeros outside of the sequence.
template <int W, int K>
__device__ mm_pack<W> gradient_before_silu(const struct conv &o, const weights<W, K> &w,
                                           const struct mm_mat &dy, int s, int64_t t, int64_t c) {
    mm_pack<W> z;
    if (t >= o.end_of(s)) {
        for (int k = 0; k < W; k++)
            z.x[k] = 0.0f;
        return z;
    }
    const mm_raw<W> rd = mm_fetch<W>(dy, t, c);
    z = before_silu(o, w, s, o.first_of(s), t, c);
    const mm_pack<W> d = mm_open(rd);
    for (int k = 0; k < W; k++) {
        const float g = mm_sigmoid(z.x[k]);
        z.x[k] = d.x[k] * (g + z.x[k] * g * (1.0f - g));
    }
    return z;
}

// dx[u] = sum over j of dz[u + K-1 - j] w[j]. The sums for dw and dbias of a run of rows go to
// part[run] (K + 1, C).
template <int W, int K>
__global__ void conv_bwd(struct conv o, struct mm_mat dx, struct mm_mat dy, float *part) {
    const int64_t c = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    const int64_t run = (int64_t)blockIdx.y * blockDim.y + threadIdx.y, t0 = run * rows_down;
    if (c >= o.chans || t0 >= o.rows) return;
    const weights<W, K> w(o, c);
    const int64_t t1 = t0 + rows_down < o.rows ? t0 + rows_down : o.rows;
    mm_pack<W> dz[K], dw[K], dbias;  // dz of rows t, t + 1, ...
    for (int k = 0; k < W; k++) {
        dbias.x[k] = 0.0f;
        for (int j = 0; j < K; j++)
            dw[j].x[k] = 0.0f;
    }
    int s = o.seq_of(t0);
    bool entered = true;
    for (int64_t t = t0; t < t1; t++) {
        while (t >= o.end_of(s))
            s++, entered = true;
        for (int j = 0; j + 1 < K; j++)
            dz[j] = entered ? gradient_before_silu(o, w, dy, s, t + j, c) : dz[j + 1];
        dz[K - 1] = gradient_before_silu(o, w, dy, s, t + K - 1, c);
        entered = false;
        mm_pack<W> sum;
        for (int k = 0; k < W; k++) {
            sum.x[k] = 0.0f;
            dbias.x[k] += dz[0].x[k];
            for (int j = 0; j < K; j++)
                sum.x[k] += dz[K - 1 - j].x[k] * w(k, j);
        }
        for (int j = 0; part && j < K; j++) {
            const mm_pack<W> x = tap<W>(o, s, o.first_of(s), t - K + 1 + j, c);
            for (int k = 0; k < W; k++)
                dw[j].x[k] += dz[0].x[k] * x.x[k];
        }
        mm_store(dx, t, c, sum);
    }
    for (int k = 0; part && k < W; k++) {
        float *to = part + run * (K + 1) * o.chans + c + k;
        for (int j = 0; j < K; j++)
            to[(int64_t)j * o.chans] = dw[j].x[k];
        to[(int64_t)K * o.chans] = dbias.x[k];
    }
}

// The same for any width, with dz (rows, C) of all rows.
__global__ void conv_bwd_wide(struct conv o, struct mm_mat dx, const float *dz, float *part) {
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t run = (int64_t)blockIdx.y * blockDim.y + threadIdx.y, t0 = run * rows_down;
    if (c >= o.chans || t0 >= o.rows) return;
    const int64_t t1 = t0 + rows_down < o.rows ? t0 + rows_down : o.rows;
    const float *w = o.w + c * o.width;
    for (int j = -1; j <= (part ? o.width : -1); j++) {
        float sum = 0.0f;  // over rows, of dw[j]; at the end of dbias
        int s = o.seq_of(t0);
        for (int64_t t = t0; t < t1; t++) {
            while (t >= o.end_of(s))
                s++;
            if (j >= 0) {
                const float x =
                    j < o.width ? tap<1>(o, s, o.first_of(s), t - o.width + 1 + j, c).x[0] : 1.0f;
                sum += dz[t * o.chans + c] * x;
                continue;
            }
            float d = 0.0f;
            for (int i = 0; i < o.width && t + i < o.end_of(s); i++)
                d += dz[(t + i) * o.chans + c] * w[o.width - 1 - i];
            dx(t, c) = d;
        }
        if (j >= 0) part[(run * (o.width + 1) + j) * o.chans + c] = sum;
    }
}

// dw (C, K) += and dbias (C) += the runs' parts, in their order
__global__ void add_parts(float *dw, float *dbias, const float *part, int64_t runs, int width,
                          int chans) {
    __shared__ float sum[8][33];
    const int c = blockIdx.x * 32 + threadIdx.x, j = blockIdx.y;
    float x = 0.0f;
    for (int64_t r = threadIdx.y; c < chans && r < runs; r += 8)
        x += part[(r * (width + 1) + j) * chans + c];
    sum[threadIdx.y][threadIdx.x] = x;
    __syncthreads();
    if (threadIdx.y || c >= chans) return;
    for (int i = 1; i < 8; i++)
        x += sum[i][threadIdx.x];
    if (j < width) {
        dw[(int64_t)c * width + j] += x;
    } else {
        dbias[c] += x;
    }
}

bool conv_of(struct mm_backend *be, struct conv *o, struct mm_view x, struct mm_view w,
             struct mm_view bias, struct mm_view state, struct mm_segs segs) {
    o->x = mm_mat_of(x);
    o->w = mm_cuda_vector(be, mm_cuda_slot_a, mm_view_flat(w));
    o->bias = mm_cuda_vector(be, mm_cuda_slot_b, bias);
    o->state = (const float *)state.data;
    o->start = segs.dev;
    o->rows = x.shape[0];
    o->n_seqs = (int)segs.n;
    o->width = (int)w.shape[1];
    o->chans = (int)x.shape[1];
    return o->w && (o->bias || !bias.data);
}

// Threads (32, 4): channels along x, runs of rows along y.
dim3 grid_of(const struct conv &o, int wide) {
    const int64_t runs = (o.rows + rows_down - 1) / rows_down;
    return dim3((unsigned)((o.chans + 32 * wide - 1) / (32 * wide)), (unsigned)((runs + 3) / 4));
}

template <int W, int K>
void launch_fwd(struct mm_backend *be, const struct conv &o, const struct mm_mat &y) {
    MM_LAUNCH(be, (conv_fwd<W, K>), grid_of(o, W), dim3(32, 4), 0, o, y);
}

void forward(struct mm_backend *be, const struct conv &o, struct mm_view y, struct mm_view state,
             int64_t n_seqs) {
    const struct mm_mat ym = mm_mat_of(y);
    const bool wide = mm_wide(o.chans, o.x, ym);
    if (wide && o.width == 2) {
        launch_fwd<8, 2>(be, o, ym);
    } else if (wide && o.width == 4) {
        launch_fwd<8, 4>(be, o, ym);
    } else {
        launch_fwd<1, 0>(be, o, ym);
    }
    if (!state.data || n_seqs == 0 || o.width < 2) return;
    const dim3 grid((unsigned)((o.chans + 127) / 128), (unsigned)n_seqs);
    MM_LAUNCH(be, keep_last, grid, 128, 0, o, (float *)state.data);
}

// The width as a constant: the gradients of K rows stay in registers.
template <int W, int K>
void launch_bwd(struct mm_backend *be, const struct conv &o, struct mm_mat dx, struct mm_mat dy,
                float *part) {
    MM_LAUNCH(be, (conv_bwd<W, K>), grid_of(o, W), dim3(32, 4), 0, o, dx, dy, part);
}

void launch_bwd_wide(struct mm_backend *be, const struct conv &o, struct mm_mat dx,
                     struct mm_mat dy, float *part) {
    float *dz =
        (float *)mm_cuda_scratch(be, mm_cuda_slot_d, (size_t)(o.rows * o.chans) * sizeof(float));
    if (!dz) return;
    mm_each(be, o.rows, o.chans, [=] __device__(int64_t t, int64_t c) {
        const weights<1, 0> w(o, c);
        dz[t * o.chans + c] = gradient_before_silu(o, w, dy, o.seq_of(t), t, c).x[0];
    });
    MM_LAUNCH(be, conv_bwd_wide, grid_of(o, 1), dim3(32, 4), 0, o, dx, dz, part);
}

void backward(struct mm_backend *be, const struct conv &o, struct mm_mat dx, struct mm_mat dy,
              struct mm_view dw, struct mm_view dbias) {
    const int64_t runs = (o.rows + rows_down - 1) / rows_down;
    float *part = NULL;
    if (dw.data) {
        part = (float *)mm_cuda_scratch(be, mm_cuda_slot_c,
                                        (size_t)(runs * (o.width + 1) * o.chans) * sizeof(float));
        if (!part) return;
    }
    if (o.width == 2 && mm_wide(o.chans, o.x, dx, dy)) {
        launch_bwd<8, 2>(be, o, dx, dy, part);
    } else if (o.width == 2) {
        launch_bwd<1, 2>(be, o, dx, dy, part);
    } else if (o.width == 4) {
        launch_bwd<1, 4>(be, o, dx, dy, part);
    } else {
        launch_bwd_wide(be, o, dx, dy, part);
    }
    if (!part) return;
    const dim3 grid((unsigned)((o.chans + 31) / 32), (unsigned)o.width + 1);
    MM_LAUNCH(be, add_parts, grid, dim3(32, 8), 0, (float *)dw.data, (float *)dbias.data, part,
              runs, o.width, o.chans);
}

}  // namespace

void mm_conv_silu_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                           struct mm_view w, struct mm_view bias, struct mm_view state,
                           struct mm_segs segs) {
    struct conv o;
    if (x.shape[0] == 0 || !conv_of(be, &o, x, w, bias, state, segs)) return;
    forward(be, o, y, state, segs.n);
}

void mm_conv_silu_step_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                            struct mm_view w, struct mm_view bias, struct mm_view state) {
    struct conv o;
    const struct mm_segs none = {x.shape[0], NULL, NULL};
    if (x.shape[0] == 0 || !conv_of(be, &o, x, w, bias, state, none)) return;
    forward(be, o, y, state, x.shape[0]);
}

void mm_conv_silu_bwd_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                           struct mm_view dbias, struct mm_view dy, struct mm_view x,
                           struct mm_view w, struct mm_view bias, struct mm_segs segs) {
    struct conv o;
    if (x.shape[0] == 0 || !conv_of(be, &o, x, w, bias, MM_NONE, segs)) return;
    const struct mm_mat dxm = mm_mat_of(dx), dym = mm_mat_of(dy);
    backward(be, o, dxm, dym, dw, dbias);
}
