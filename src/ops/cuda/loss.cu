// Losses and their gradients; the sums are taken in one order.
#include "ops/cuda/wide.cuh"

enum { strips = 256 };

// part[block] = sum of f over the block's share of elements, in double
template <int W, class F>
__global__ void mm_sum_strip(double *part, int64_t n, int per_row, F f) {
    double s = 0.0;
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const int64_t r = n <= INT32_MAX ? (int64_t)((int)i / per_row) : i / per_row;
        s += f(mm_width<W>{}, r, (i - r * per_row) * W);
    }
    s = mm_block_sum_double(s);
    if (threadIdx.x == 0) part[blockIdx.x] = s;
}
static __global__ void sum_finish(float *out, const double *part, int n, double scale) {
    double s = mm_block_sum_double((int)threadIdx.x < n ? part[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) *out = (float)((double)*out + scale * s);
}
template <class F>
void mm_add_sum(struct mm_backend *be, float *out, int64_t rows, int64_t cols, bool wide,
                double scale, const F &f) {
    if (rows * cols == 0) return;
    double *part = (double *)mm_cuda_scratch(be, mm_cuda_slot_a, strips * sizeof(double));
    if (!part) return;
    const int64_t per_row = wide ? cols / 8 : cols;
    const cudaStream_t stream = mm_cuda_of(be)->stream;
    if (wide) {
        mm_sum_strip<8><<<strips, 256, 0, stream>>>(part, rows * per_row, (int)per_row, f);
    } else {
        mm_sum_strip<1><<<strips, 256, 0, stream>>>(part, rows * per_row, (int)per_row, f);
    }
    mm_cuda_launched(be, "sum");
    MM_LAUNCH(be, sum_finish, 1, strips, 0, out, part, (int)strips, scale);
}

namespace {

struct squared_error {
    struct mm_mat dy, y, target;
    double scale;
    template <int W>
    __device__ double operator()(mm_width<W>, int64_t r, int64_t c) const {
        const mm_raw<W> ry = mm_fetch<W>(y, r, c), rt = mm_fetch<W>(target, r, c);
        const mm_pack<W> a = mm_open(ry), b = mm_open(rt);
        mm_pack<W> d;
        double sum = 0.0;
        for (int k = 0; k < W; k++) {
            const double e = (double)a.x[k] - (double)b.x[k];
            d.x[k] = (float)(2.0 * scale * e);
            sum += e * e;
        }
        if (dy) mm_store(dy, r, c, d);
        return sum;
    }
};

struct squares {
    struct mm_mat x;
    template <int W>
    __device__ double operator()(mm_width<W>, int64_t r, int64_t c) const {
        const mm_pack<W> v = mm_load<W>(x, r, c);
        double sum = 0.0;
        for (int k = 0; k < W; k++)
            sum += (double)v.x[k] * (double)v.x[k];
        return sum;
    }
};

}  // namespace

void mm_mse_cuda(struct mm_backend *be, struct mm_view loss, struct mm_view dy, struct mm_view y,
                 struct mm_view target, float scale) {
    const struct squared_error f = {mm_mat_of(dy), mm_mat_of(y), mm_mat_of(target), (double)scale};
    const int64_t cols = mm_view_cols(y);
    mm_add_sum(be, (float *)loss.data, y.shape[0], cols, mm_wide(cols, f.dy, f.y, f.target),
               (double)scale, f);
}

void mm_sum_squares_cuda(struct mm_backend *be, struct mm_view sum, struct mm_view x) {
    const struct squares f = {mm_mat_of(x)};
    const int64_t cols = mm_view_cols(x);
    mm_add_sum(be, (float *)sum.data, x.shape[0], cols, mm_wide(cols, f.x), 1.0, f);
}

// ---- losses of logits: one block a row

enum { row_threads = 512 };

// f(width, column) for the columns of this thread, eight at a time as far as they go: V need not be
// a multiple of eight.
template <int W, class F>
__device__ static void each_of_row(int cols, const F &f) {
    const int whole = cols / W * W;
    for (int c = threadIdx.x * W; c < whole; c += blockDim.x * W)
        f(mm_width<W>{}, c);
    for (int c = whole + threadIdx.x; c < cols; c += blockDim.x)
        f(mm_width<1>{}, c);
}

// The largest element of a row, and the logarithm of the sum of exp(x - largest): each thread by
// itself in one pass, then all together.
struct norm {
    float top, log_sum;
};
template <int W>
static __device__ struct norm norm_of(const struct mm_mat &x, int64_t r, int cols) {
    float top = -INFINITY, sum = 0.0f;
    each_of_row<W>(cols, [&](auto width, int c) {
        constexpr int N = decltype(width)::value;
        const mm_pack<N> v = mm_load<N>(x, r, c);
        float most = top;
        for (int k = 0; k < N; k++)
            most = fmaxf(most, v.x[k]);
        if (most == -INFINITY) return;
        sum *= expf(top - most);
        for (int k = 0; k < N; k++)
            sum += expf(v.x[k] - most);
        top = most;
    });
    struct norm n;
    n.top = mm_block_max(top);
    n.log_sum = logf(mm_block_sum(top == -INFINITY ? 0.0f : sum * expf(top - n.top)));
    return n;
}

template <int W>
static __device__ void zero_row(const struct mm_mat &x, int64_t r, int cols) {
    if (!x) return;
    each_of_row<W>(cols, [&](auto width, int c) {
        const mm_pack<decltype(width)::value> zeros = {};
        mm_store(x, r, c, zeros);
    });
}

// A row of weight 0 gives zeros whatever its logits hold. dlogits may be student. With a = log p -
// log q the loss is summed as p (a + exp(-a) - 1), every term of which is positive (the additions
// sum to zero): close distributions would cancel otherwise.
template <int W>
static __global__ void kl(float *loss, struct mm_mat dlogits, struct mm_mat student,
                          struct mm_mat teacher, const float *weight, int cols) {
    const int64_t r = blockIdx.x;
    const float w = weight[r];
    if (w == 0.0f) {
        zero_row<W>(dlogits, r, cols);
        if (threadIdx.x == 0) loss[r] = 0.0f;
        return;
    }
    const struct norm s = norm_of<W>(student, r, cols), t = norm_of<W>(teacher, r, cols);
    float sum = 0.0f;
    each_of_row<W>(cols, [&](auto width, int c) {
        constexpr int N = decltype(width)::value;
        const mm_raw<N> rs = mm_fetch<N>(student, r, c), rt = mm_fetch<N>(teacher, r, c);
        mm_pack<N> x = mm_open(rs);
        const mm_pack<N> y = mm_open(rt);
        for (int k = 0; k < N; k++) {
            const float log_q = x.x[k] - s.top - s.log_sum, log_p = y.x[k] - t.top - t.log_sum;
            const float p = expf(log_p), q = expf(log_q), a = log_p - log_q;
            // below 0.1 as a series: a^2/2 - a^3/6 + a^4/24
            sum += fabsf(a) < 0.1f ? p * a * a * (0.5f - a * (1.0f / 6.0f - a * (1.0f / 24.0f)))
                                   : (p > 0.0f ? p * a : 0.0f) + q - p;
            x.x[k] = w * (q - p);
        }
        if (dlogits) mm_store(dlogits, r, c, x);
    });
    sum = mm_block_sum(sum);
    if (threadIdx.x == 0) loss[r] = w * sum;
}

// Rows that begin at multiples of 16 bytes, whatever their length
static bool rows_wide(const struct mm_mat &x) {
    return mm_wide(0, x);
}

void mm_kl_cuda(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
                struct mm_view student, struct mm_view teacher, struct mm_view weight) {
    if (student.shape[0] == 0) return;
    const struct mm_mat d = mm_mat_of(dlogits), s = mm_mat_of(student), t = mm_mat_of(teacher);
    const unsigned rows = (unsigned)student.shape[0];
    const int cols = (int)mm_view_cols(student);
    if (rows_wide(d) && rows_wide(s) && rows_wide(t)) {
        MM_LAUNCH(be, kl<8>, rows, row_threads, 0, (float *)loss.data, d, s, t,
                  (const float *)weight.data, cols);
    } else {
        MM_LAUNCH(be, kl<1>, rows, row_threads, 0, (float *)loss.data, d, s, t,
                  (const float *)weight.data, cols);
    }
}

template <int W>
static __global__ void cross_entropy(float *loss, struct mm_mat dlogits, struct mm_mat logits,
                                     const int32_t *target, const float *weight, int cols) {
    const int64_t r = blockIdx.x;
    const float w = weight[r];
    if (w == 0.0f) {
        zero_row<W>(dlogits, r, cols);
        if (threadIdx.x == 0) loss[r] = 0.0f;
        return;
    }
    const int right = target[r];
    const struct norm n = norm_of<W>(logits, r, cols);
    if (threadIdx.x == 0) loss[r] = w * (n.log_sum - (logits(r, right) - n.top));
    if (!dlogits) return;
    __syncthreads();  // the logit of the target is read before it is overwritten
    each_of_row<W>(cols, [&](auto width, int c) {
        constexpr int N = decltype(width)::value;
        mm_pack<N> x = mm_load<N>(logits, r, c);
        for (int k = 0; k < N; k++)
            x.x[k] = w * (expf(x.x[k] - n.top - n.log_sum) - (c + k == right ? 1.0f : 0.0f));
        mm_store(dlogits, r, c, x);
    });
}

void mm_cross_entropy_cuda(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
                           struct mm_view logits, struct mm_view target, struct mm_view weight) {
    if (logits.shape[0] == 0) return;
    const struct mm_mat d = mm_mat_of(dlogits), x = mm_mat_of(logits);
    const unsigned rows = (unsigned)logits.shape[0];
    const int cols = (int)mm_view_cols(logits);
    if (rows_wide(d) && rows_wide(x)) {
        MM_LAUNCH(be, cross_entropy<8>, rows, row_threads, 0, (float *)loss.data, d, x,
                  (const int32_t *)target.data, (const float *)weight.data, cols);
    } else {
        MM_LAUNCH(be, cross_entropy<1>, rows, row_threads, 0, (float *)loss.data, d, x,
                  (const int32_t *)target.data, (const float *)weight.data, cols);
    }
}

// ---- the optimizer

namespace {

struct update {
    struct mm_mat w, m, v, g;
    struct mm_adamw h;
    template <int W>
    __device__ void operator()(mm_width<W>, int64_t r, int64_t c) const {
        const mm_raw<W> rw = mm_fetch<W>(w, r, c), rm = mm_fetch<W>(m, r, c),
                        rv = mm_fetch<W>(v, r, c), rg = mm_fetch<W>(g, r, c);
        mm_pack<W> x = mm_open(rw), mean = mm_open(rm), square = mm_open(rv);
        const mm_pack<W> grad = mm_open(rg);
        for (int k = 0; k < W; k++) {
            const float gs = grad.x[k] * h.grad_scale;
            mean.x[k] = h.b1 * mean.x[k] + (1.0f - h.b1) * gs;
            square.x[k] = h.b2 * square.x[k] + (1.0f - h.b2) * gs * gs;
            x.x[k] -= h.lr * h.decay * x.x[k];
            x.x[k] -= h.lr * (mean.x[k] / h.bias1) / (sqrtf(square.x[k] / h.bias2) + h.eps);
        }
        mm_store(w, r, c, x);
        mm_store(m, r, c, mean);
        mm_store(v, r, c, square);
    }
};

}  // namespace

void mm_adamw_cuda(struct mm_backend *be, struct mm_view w, struct mm_view m, struct mm_view v,
                   struct mm_view g, struct mm_adamw h) {
    const struct update f = {mm_mat_of(w), mm_mat_of(m), mm_mat_of(v), mm_mat_of(g), h};
    const int64_t cols = mm_view_cols(w);
    mm_each_wide(be, w.shape[0], cols, mm_wide(cols, f.w, f.m, f.v, f.g), "adamw", f);
}
