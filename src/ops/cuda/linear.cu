// Dense products: what mm_cuda_product (product.cu) computes, from operands of any float type. A
// bf16 weight rounds the other operand to bf16 and runs on the tensor cores with f32 sums; f32 and
// f16 weights compute in f32.
#include "ops/cuda/product.cuh"
#include "ops/cuda/wide.cuh"

// An operand in the product's type, dense or as it is.
static struct mm_cuda_operand operand_of(struct mm_backend *be, enum mm_cuda_slot slot,
                                         struct mm_view v, enum mm_dtype type) {
    if (v.dtype == type) return mm_cuda_operand{v.data, v.ld};
    return mm_cuda_operand{mm_cuda_converted(be, slot, v, type), mm_view_cols(v)};
}

static enum mm_dtype product_type(struct mm_view w) {
    return w.dtype == mm_dtype_bf16 ? mm_dtype_bf16 : mm_dtype_f32;
}

static void add_bias(struct mm_backend *be, struct mm_view y, struct mm_view bias) {
    const float *b = mm_cuda_vector(be, mm_cuda_slot_c, bias);
    if (!b) return;
    const struct mm_mat ym = mm_mat_of(y);
    mm_each(be, y.shape[0], mm_view_cols(y),
            [=] __device__(int64_t r, int64_t c) { ym(r, c) += b[c]; });
}

// ---- quantized weights (base/quant.h) ----

// x as what its codes stand for: a warp a block of 128.
static __global__ void round_x(float *out, struct mm_mat x, int64_t rows, int cols, int blocks) {
    const int64_t w = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (w >= rows * blocks) return;
    const int64_t r = w / blocks;
    const int begin = (int)(w % blocks) * mm_quant_block, lane = threadIdx.x % 32;
    float top = 0.0f;
    for (int i = begin + lane; i < begin + mm_quant_block && i < cols; i += 32)
        top = fmaxf(top, fabsf(x(r, i)));
    top = mm_warp_max(top);
    const float inverse = top > 0.0f ? 127.0f / top : 0.0f, scale = top / 127.0f;
    for (int i = begin + lane; i < begin + mm_quant_block && i < cols; i += 32)
        out[r * cols + i] = rintf(x(r, i) * inverse) * scale;
}

__device__ static void store(float *out, float x) {
    *out = x;
}
__device__ static void store(__nv_bfloat16 *out, float x) {
    *out = __float2bfloat16(x);
}

// Eight neighbours of a row, to an address of theirs.
__device__ static void store8(float *out, const float (&x)[8]) {
    ((float4 *)out)[0] = make_float4(x[0], x[1], x[2], x[3]);
    ((float4 *)out)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
__device__ static void store8(__nv_bfloat16 *out, const float (&x)[8]) {
    *(uint4 *)out = make_uint4(mm_two_halves(x[0], x[1]), mm_two_halves(x[2], x[3]),
                               mm_two_halves(x[4], x[5]), mm_two_halves(x[6], x[7]));
}

// A thread expands 16 weights of a block of 128, whose 8 threads are neighbours: of q8 16
// neighbours, of q4 the two halves of 8 bytes. Columns past the last are not written, a multiple
// of 8.
template <class T, bool Q4>
static __global__ void expand_rows(T *out, const unsigned char *w, int64_t row_bytes,
                                   int64_t code_bytes, int64_t rows, int cols, int blocks) {
    const int per_row = blocks * 8;
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, r = i / per_row;
    if (r >= rows) return;
    const int at = (int)(i - r * per_row), b = at / 8, in = at % 8;
    const unsigned char *row = w + r * row_bytes;
    const __half *scales = (const __half *)(row + code_bytes);
    const float scale = __half2float(scales[b]);
    T *to = out + r * cols + b * mm_quant_block;
    float x[2][8];
    int c[2];
    if constexpr (Q4) {
        const uint2 raw = ((const uint2 *)row)[at];
        const unsigned factors = ((const unsigned short *)(scales + blocks))[b] >> (in / 4 * 4);
        const int u[2] = {(int)(factors & 15), (int)(factors >> 8 & 15)};
        for (int h = 0; h < 2; h++) {
            c[h] = h * 64 + in * 8;
            for (int k = 0; k < 8; k++) {
                const unsigned four = (k < 4 ? raw.x : raw.y) >> (8 * (k % 4) + 4 * h);
                x[h][k] = scale * (float)(((int)(four & 15) - 8) * u[h]);
            }
        }
    } else {
        const uint4 raw = ((const uint4 *)row)[at];
        const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
        for (int h = 0; h < 2; h++) {
            c[h] = in * 16 + h * 8;
            for (int k = 0; k < 8; k++)
                x[h][k] = scale * (float)(signed char)(words[2 * h + k / 4] >> (8 * (k % 4)));
        }
    }
    for (int h = 0; h < 2; h++)
        if (b * mm_quant_block + c[h] < cols) store8(to + c[h], x[h]);
}

// The same for any number of columns, one weight at a time.
template <class T>
static __global__ void expand_any(T *out, const unsigned char *w, int64_t row_bytes,
                                  int64_t code_bytes, int64_t rows, int cols, int blocks, bool q4) {
    const int64_t n = rows * cols, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const int64_t r = i / cols;
        const int c = (int)(i % cols), b = c / mm_quant_block, in = c % mm_quant_block;
        const unsigned char *row = w + r * row_bytes;
        const __half *scales = (const __half *)(row + code_bytes);
        int code;
        if (q4) {
            const unsigned byte = row[b * (mm_quant_block / 2) + in % 64];
            const unsigned factors = ((const unsigned short *)(scales + blocks))[b];
            code = ((int)(in < 64 ? byte & 15 : byte >> 4) - 8) *
                   (int)(factors >> (4 * (in / mm_quant_group)) & 15);
        } else {
            code = ((const signed char *)row)[c];
        }
        store(&out[i], __half2float(scales[b]) * (float)code);
    }
}

template <class T>
static void expand(struct mm_backend *be, T *out, struct mm_view w, int64_t cols) {
    const bool q4 = w.dtype == mm_dtype_q4;
    const int64_t row = mm_quant_row_bytes(w.dtype, cols), rows = w.shape[0];
    const int64_t codes = mm_quant_code_bytes(w.dtype, cols), blocks = mm_quant_blocks(cols);
    const unsigned char *from = (const unsigned char *)w.data;
    const unsigned grid = (unsigned)((rows * blocks * 8 + 255) / 256);
    if (cols % 8 || (uintptr_t)from % 16) {
        MM_LAUNCH(be, expand_any, 132 * 8, 256, 0, out, from, row, codes, rows, (int)cols,
                  (int)blocks, q4);
    } else if (q4) {
        MM_LAUNCH(be, (expand_rows<T, true>), grid, 256, 0, out, from, row, codes, rows, (int)cols,
                  (int)blocks);
    } else {
        MM_LAUNCH(be, (expand_rows<T, false>), grid, 256, 0, out, from, row, codes, rows, (int)cols,
                  (int)blocks);
    }
}

// x as the product takes it: f32 rows are rounded to what their codes stand for, as base/quant.h
// says. Rows of bf16 have no more bits than a product of bf16 needs, and stay as they are.
static struct mm_cuda_operand coded_rows(struct mm_backend *be, struct mm_view x) {
    if (x.dtype == mm_dtype_bf16) return mm_cuda_operand{x.data, x.ld};
    const int64_t rows = x.shape[0], cols = mm_view_cols(x), blocks = mm_quant_blocks(cols);
    float *xr = (float *)mm_cuda_scratch(be, mm_cuda_slot_a, (size_t)(rows * cols) * sizeof(float));
    if (!xr) return mm_cuda_operand{NULL, 0};
    MM_LAUNCH(be, round_x, (unsigned)((rows * blocks + 7) / 8), 256, 0, xr, mm_mat_of(x), rows,
              (int)cols, (int)blocks);
    return mm_cuda_operand{xr, cols};
}

static void quantized_fwd(struct mm_backend *be, struct mm_view y, struct mm_view x,
                          struct mm_view w, struct mm_view add) {
    const int64_t cols = mm_view_cols(x), each = (int64_t)mm_dtype_bytes(x.dtype);
    const struct mm_cuda_operand xr = coded_rows(be, x);
    // some rows of the weight at a time: 32 MiB, so that the product finds most of it in the L2
    int64_t some = ((int64_t)32 << 20) / each / cols;
    if (some > w.shape[0]) some = w.shape[0];
    void *wf = mm_cuda_scratch(be, mm_cuda_slot_b, (size_t)(some * cols * each));
    if (!xr.p || !wf) return;
    for (int64_t n = 0; n < w.shape[0]; n += some) {
        const int64_t count = w.shape[0] - n < some ? w.shape[0] - n : some;
        if (x.dtype == mm_dtype_bf16) {
            expand(be, (__nv_bfloat16 *)wf, mm_view_rows(w, n, count), cols);
        } else {
            expand(be, (float *)wf, mm_view_rows(w, n, count), cols);
        }
        mm_cuda_product(be, CUBLAS_OP_T, CUBLAS_OP_N, cols, mm_cuda_operand{wf, cols}, xr, x.dtype,
                        add.data ? mm_view_cut(mm_view_flat(add), n, count) : add,
                        mm_view_cut(mm_view_flat(y), n, count));
    }
}

// ---- the three products ----

// Row-major y = x w^T is column-major y^T = w x^T: nothing is transposed in memory.
void mm_linear_add_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                            struct mm_view w, struct mm_view add) {
    if (x.shape[0] == 0) return;
    if (mm_dtype_quantized(w.dtype)) {
        quantized_fwd(be, y, x, w, add);
        return;
    }
    const enum mm_dtype type = product_type(w);
    const struct mm_cuda_operand a = operand_of(be, mm_cuda_slot_a, x, type);
    const struct mm_cuda_operand b = operand_of(be, mm_cuda_slot_b, w, type);
    if (!a.p || !b.p) return;
    mm_cuda_product(be, CUBLAS_OP_T, CUBLAS_OP_N, mm_view_cols(x), b, a, type, add, y);
}

void mm_linear_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                        struct mm_view bias) {
    mm_linear_add_fwd_cuda(be, y, x, w, MM_NONE);
    add_bias(be, y, bias);
}

void mm_linear_bwd_x_cuda(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                          struct mm_view w, bool accumulate) {
    if (dy.shape[0] == 0) return;
    const enum mm_dtype type = product_type(w);
    const struct mm_cuda_operand a = operand_of(be, mm_cuda_slot_a, dy, type);
    const struct mm_cuda_operand b = operand_of(be, mm_cuda_slot_b, w, type);
    if (!a.p || !b.p) return;
    mm_cuda_product(be, CUBLAS_OP_N, CUBLAS_OP_N, mm_view_cols(dy), b, a, type,
                    accumulate ? dx : MM_NONE, dx);
}

void mm_linear_bwd_w_cuda(struct mm_backend *be, struct mm_view dw, struct mm_view dbias,
                          struct mm_view dy, struct mm_view x, enum mm_dtype product) {
    if (dy.shape[0] == 0) return;
    const enum mm_dtype type = product == mm_dtype_bf16 ? mm_dtype_bf16 : mm_dtype_f32;
    const struct mm_cuda_operand a = operand_of(be, mm_cuda_slot_a, x, type);
    const struct mm_cuda_operand b = operand_of(be, mm_cuda_slot_b, dy, type);
    if (!a.p || !b.p) return;
    mm_cuda_product(be, CUBLAS_OP_N, CUBLAS_OP_T, dy.shape[0], a, b, type, dw, dw);
    if (!dbias.data) return;
    const struct mm_mat ym = mm_mat_of(dy);
    mm_add_column_sums(be, mm_cuda_slot_c, (float *)dbias.data, 1, dy.shape[0], mm_view_cols(dy),
                       [=] __device__(int64_t r, int64_t c) { return (float)ym(r, c); });
}
