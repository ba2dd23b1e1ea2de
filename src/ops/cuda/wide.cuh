// Elements of a row several at a time: 16-byte accesses where every operand lies for them, single
// elements where not, by one source. A kernel fetches all it needs before it opens any of it, so
// that its loads are under way together.
#ifndef MM_OPS_CUDA_WIDE_CUH
#define MM_OPS_CUDA_WIDE_CUH

#include "ops/cuda/cuda.h"

// W neighbours as they lie in memory.
template <int W>
struct mm_raw {
    uint4 a, b;
    bool half;
};

template <int W>
__device__ inline mm_raw<W> mm_fetch(const struct mm_mat &x, int64_t r, int64_t c) {
    static_assert(W == 1 || W == 8, "one element, or eight");
    const int64_t i = r * x.ld + c;
    mm_raw<W> raw;
    raw.half = x.half;
    if constexpr (W == 1) {
        if (x.half) {
            raw.a.x = ((const unsigned short *)x.p)[i];
        } else {
            raw.a.x = ((const unsigned *)x.p)[i];
        }
    } else if (x.half) {
        raw.a = *(const uint4 *)((const __nv_bfloat16 *)x.p + i);
    } else {
        raw.a = *(const uint4 *)((const float *)x.p + i);
        raw.b = *(const uint4 *)((const float *)x.p + i + 4);
    }
    return raw;
}

template <int W>
struct mm_pack {
    float x[W];
};

template <int W>
__device__ inline mm_pack<W> mm_open(const mm_raw<W> &raw) {
    mm_pack<W> v;
    if constexpr (W == 1) {
        v.x[0] = __uint_as_float(raw.half ? raw.a.x << 16 : raw.a.x);
    } else {
        const unsigned a[4] = {raw.a.x, raw.a.y, raw.a.z, raw.a.w};
        if (raw.half) {
            for (int k = 0; k < 4; k++) {
                v.x[2 * k] = __uint_as_float(a[k] << 16);
                v.x[2 * k + 1] = __uint_as_float(a[k] & 0xffff0000u);
            }
        } else {
            const unsigned b[4] = {raw.b.x, raw.b.y, raw.b.z, raw.b.w};
            for (int k = 0; k < 4; k++) {
                v.x[k] = __uint_as_float(a[k]);
                v.x[4 + k] = __uint_as_float(b[k]);
            }
        }
    }
    return v;
}

template <int W>
__device__ inline mm_pack<W> mm_load(const struct mm_mat &x, int64_t r, int64_t c) {
    return mm_open<W>(mm_fetch<W>(x, r, c));
}

__device__ inline unsigned mm_two_halves(float low, float high) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *(const unsigned *)&two;
}

template <int W>
__device__ inline void mm_store(const struct mm_mat &y, int64_t r, int64_t c, const mm_pack<W> &v) {
    if constexpr (W == 1) {
        y(r, c) = v.x[0];
    } else {
        const int64_t i = r * y.ld + c;
        if (y.half) {
            *(uint4 *)((__nv_bfloat16 *)y.p + i) =
                make_uint4(mm_two_halves(v.x[0], v.x[1]), mm_two_halves(v.x[2], v.x[3]),
                           mm_two_halves(v.x[4], v.x[5]), mm_two_halves(v.x[6], v.x[7]));
        } else {
            float4 *to = (float4 *)((float *)y.p + i);
            to[0] = make_float4(v.x[0], v.x[1], v.x[2], v.x[3]);
            to[1] = make_float4(v.x[4], v.x[5], v.x[6], v.x[7]);
        }
    }
}

// W floats of a dense f32 vector, which may be NULL: then all are `otherwise`.
template <int W>
__device__ inline mm_pack<W> mm_load_vector(const float *x, int64_t c, float otherwise) {
    mm_pack<W> v;
    for (int k = 0; k < W; k++)
        v.x[k] = x ? x[c + k] : otherwise;
    return v;
}

// Whether rows of `cols` elements can be taken eight at a time from all of these.
static inline bool mm_wide(int64_t cols) {
    return cols % 8 == 0;
}
template <class... Rest>
bool mm_wide(int64_t cols, const struct mm_mat &x, const Rest &...rest) {
    return (!x.p || ((uintptr_t)x.p % 16 == 0 && x.ld % 8 == 0)) && mm_wide(cols, rest...);
}

template <int W>
struct mm_width {
    static constexpr int value = W;
};

// f(width, row, column) for every W-th column of every row.
template <int W, class F>
__global__ void mm_each_wide_kernel(int64_t n, int per_row, F f) {
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const int64_t r = n <= INT32_MAX ? (int64_t)((int)i / per_row) : i / per_row;
        f(mm_width<W>{}, r, (i - r * per_row) * W);
    }
}

// The operation f, a struct with `template <int W> __device__ void operator()(mm_width<W>, int64_t
// row, int64_t column) const`, on all elements, eight at a time when `wide`.
template <class F>
void mm_each_wide(struct mm_backend *be, int64_t rows, int64_t cols, bool wide, const char *name,
                  const F &f) {
    const int64_t per_row = wide ? cols / 8 : cols, n = rows * per_row;
    if (n == 0) return;
    const int64_t blocks = (n + 255) / 256;
    const unsigned grid = (unsigned)(blocks < 132 * 64 ? blocks : 132 * 64);
    const cudaStream_t stream = mm_cuda_of(be)->stream;
    if (wide) {
        mm_each_wide_kernel<8><<<grid, 256, 0, stream>>>(n, (int)per_row, f);
    } else {
        mm_each_wide_kernel<1><<<grid, 256, 0, stream>>>(n, (int)per_row, f);
    }
    mm_cuda_launched(be, name);
}

#endif
