// Losses and their gradients; the sums are taken in one order.
#include "ops/cuda/cuda.h"

enum { strips = 256 };

// part[block] = sum of f over the block's share of elements, in double
template <class F>
__global__ void mm_sum_strip(double *part, int64_t n, int cols, F f) {
    double s = 0.0;
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        s += f(i / cols, i % cols);
    s = mm_block_sum_double(s);
    if (threadIdx.x == 0) part[blockIdx.x] = s;
}
static __global__ void sum_finish(float *out, const double *part, int n, double scale) {
    double s = mm_block_sum_double((int)threadIdx.x < n ? part[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) *out = (float)((double)*out + scale * s);
}
template <class F>
void mm_add_sum(struct mm_backend *be, float *out, int64_t rows, int64_t cols, double scale, F f) {
    if (rows * cols == 0) return;
    double *part = (double *)mm_cuda_scratch(be, mm_cuda_slot_a, strips * sizeof(double));
    if (!part) return;
    mm_sum_strip<<<strips, 256, 0, mm_cuda_of(be)->stream>>>(part, rows * cols, (int)cols, f);
    mm_cuda_launched(be, "sum");
    MM_LAUNCH(be, sum_finish, 1, strips, 0, out, part, (int)strips, scale);
}

void mm_mse_cuda(struct mm_backend *be, struct mm_view loss, struct mm_view dy, struct mm_view y,
                 struct mm_view target, float scale) {
    const struct mm_mat dm = mm_mat_of(dy), ym = mm_mat_of(y), tm = mm_mat_of(target);
    const bool want = dy.data != NULL;
    mm_add_sum(be, (float *)loss.data, y.shape[0], mm_view_cols(y), (double)scale,
               [=] __device__(int64_t r, int64_t c) {
                   const double d = (double)ym(r, c) - (double)tm(r, c);
                   if (want) dm(r, c) = (float)(2.0 * (double)scale * d);
                   return d * d;
               });
}

void mm_sum_squares_cuda(struct mm_backend *be, struct mm_view sum, struct mm_view x) {
    const struct mm_mat xm = mm_mat_of(x);
    mm_add_sum(
        be, (float *)sum.data, x.shape[0], mm_view_cols(x), 1.0,
        [=] __device__(int64_t r, int64_t c) { return (double)xm(r, c) * (double)xm(r, c); });
}

// The largest element of a row, and the logarithm of the sum of exp(x - largest).
struct norm {
    float top, log_sum;
};
static __device__ struct norm norm_of(const struct mm_mat &x, int64_t r, int cols) {
    struct norm n;
    float top = -INFINITY;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        top = fmaxf(top, x(r, c));
    n.top = mm_block_max(top);
    float sum = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        sum += expf(x(r, c) - n.top);
    n.log_sum = logf(mm_block_sum(sum));
    return n;
}

static __device__ void zero_row(const struct mm_mat &x, int64_t r, int cols) {
    if (!x) return;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        x(r, c) = 0.0f;
}

// A row of weight 0 gives zeros whatever its logits hold. dlogits may be student. With a = log p -
// log q the loss is summed as p (a + exp(-a) - 1), every term of which is positive (the additions
// sum to zero): close distributions would cancel otherwise.
static __global__ void kl(float *loss, struct mm_mat dlogits, struct mm_mat student,
                          struct mm_mat teacher, const float *weight, int cols) {
    const int64_t r = blockIdx.x;
    const float w = weight[r];
    if (w == 0.0f) {
        zero_row(dlogits, r, cols);
        if (threadIdx.x == 0) loss[r] = 0.0f;
        return;
    }
    const struct norm s = norm_of(student, r, cols), t = norm_of(teacher, r, cols);
    float sum = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        const float log_q = student(r, c) - s.top - s.log_sum;
        const float log_p = teacher(r, c) - t.top - t.log_sum;
        const float p = expf(log_p), q = expf(log_q), a = log_p - log_q;
        // below 0.1 as a series: a^2/2 - a^3/6 + a^4/24
        sum += fabsf(a) < 0.1f ? p * a * a * (0.5f - a * (1.0f / 6.0f - a * (1.0f / 24.0f)))
                               : (p > 0.0f ? p * a : 0.0f) + q - p;
        if (dlogits) dlogits(r, c) = w * (q - p);
    }
    sum = mm_block_sum(sum);
    if (threadIdx.x == 0) loss[r] = w * sum;
}

void mm_kl_cuda(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
                struct mm_view student, struct mm_view teacher, struct mm_view weight) {
    if (student.shape[0] == 0) return;
    MM_LAUNCH(be, kl, (unsigned)student.shape[0], 256, 0, (float *)loss.data, mm_mat_of(dlogits),
              mm_mat_of(student), mm_mat_of(teacher), (const float *)weight.data,
              (int)mm_view_cols(student));
}

static __global__ void cross_entropy(float *loss, struct mm_mat dlogits, struct mm_mat logits,
                                     const int32_t *target, const float *weight, int cols) {
    const int64_t r = blockIdx.x;
    const float w = weight[r];
    if (w == 0.0f) {
        zero_row(dlogits, r, cols);
        if (threadIdx.x == 0) loss[r] = 0.0f;
        return;
    }
    const int right = target[r];
    const struct norm n = norm_of(logits, r, cols);
    if (threadIdx.x == 0) loss[r] = w * (n.log_sum - (logits(r, right) - n.top));
    if (!dlogits) return;
    __syncthreads();  // the logit of the target is read before it is overwritten
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        dlogits(r, c) = w * (expf(logits(r, c) - n.top - n.log_sum) - (c == right ? 1.0f : 0.0f));
}

void mm_cross_entropy_cuda(struct mm_backend *be, struct mm_view loss, struct mm_view dlogits,
                           struct mm_view logits, struct mm_view target, struct mm_view weight) {
    if (logits.shape[0] == 0) return;
    MM_LAUNCH(be, cross_entropy, (unsigned)logits.shape[0], 256, 0, (float *)loss.data,
              mm_mat_of(dlogits), mm_mat_of(logits), (const int32_t *)target.data,
              (const float *)weight.data, (int)mm_view_cols(logits));
}

// struct mm_adamw under a name that no function has: nvcc names the function around a kernel's
// lambda with the types of its parameters.
struct update {
    float lr, b1, b2, eps, decay, bias1, bias2, grad_scale;
};

static void adamw(struct mm_backend *be, struct mm_view w, struct mm_view m, struct mm_view v,
                  struct mm_view g, struct update h) {
    const struct mm_mat wm = mm_mat_of(w), mm = mm_mat_of(m), vm = mm_mat_of(v), gm = mm_mat_of(g);
    mm_each(be, w.shape[0], mm_view_cols(w), [=] __device__(int64_t r, int64_t c) {
        const float gs = gm(r, c) * h.grad_scale;
        const float mn = h.b1 * mm(r, c) + (1.0f - h.b1) * gs;
        const float vn = h.b2 * vm(r, c) + (1.0f - h.b2) * gs * gs;
        float x = wm(r, c);
        x -= h.lr * h.decay * x;
        x -= h.lr * (mn / h.bias1) / (sqrtf(vn / h.bias2) + h.eps);
        mm(r, c) = mn;
        vm(r, c) = vn;
        wm(r, c) = x;
    });
}

void mm_adamw_cuda(struct mm_backend *be, struct mm_view w, struct mm_view m, struct mm_view v,
                   struct mm_view g, struct mm_adamw o) {
    adamw(be, w, m, v, g, update{o.lr, o.b1, o.b2, o.eps, o.decay, o.bias1, o.bias2, o.grad_scale});
}
