// Moving rows and elements, and conversions between float types.
#include "ops/cuda/largest.cuh"
#include "ops/cuda/wide.cuh"

// Any float type, one element at a time.
struct cell {
    void *p;
    int64_t ld;
    int type;
    __device__ float get(int64_t r, int64_t c) const {
        const int64_t i = r * ld + c;
        if (type == mm_dtype_f32) return ((const float *)p)[i];
        if (type == mm_dtype_bf16) return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
        return __half2float(((const __half *)p)[i]);
    }
    __device__ void put(int64_t r, int64_t c, float x) const {
        const int64_t i = r * ld + c;
        if (type == mm_dtype_f32) {
            ((float *)p)[i] = x;
        } else if (type == mm_dtype_bf16) {
            ((__nv_bfloat16 *)p)[i] = __float2bfloat16(x);
        } else {
            ((__half *)p)[i] = __float2half(x);
        }
    }
};

static struct cell cell_of(struct mm_view v) {
    return cell{v.data, v.ld, (int)v.dtype};
}

void mm_fill_cuda(struct mm_backend *be, struct mm_view y, float value) {
    const struct cell a = cell_of(y);
    mm_each(be, y.shape[0], mm_view_cols(y),
            [=] __device__(int64_t r, int64_t c) { a.put(r, c, value); });
}

namespace {

struct copy {
    struct mm_mat y, x;
    template <int W>
    __device__ void operator()(mm_width<W>, int64_t r, int64_t c) const {
        mm_store(y, r, c, mm_load<W>(x, r, c));
    }
};

struct add {
    struct mm_mat y, a, b;
    template <int W>
    __device__ void operator()(mm_width<W>, int64_t r, int64_t c) const {
        const mm_raw<W> ra = mm_fetch<W>(a, r, c), rb = mm_fetch<W>(b, r, c);
        mm_pack<W> v = mm_open(ra);
        const mm_pack<W> w = mm_open(rb);
        for (int k = 0; k < W; k++)
            v.x[k] += w.x[k];
        mm_store(y, r, c, v);
    }
};

}  // namespace

void mm_copy_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x) {
    if (y.dtype != mm_dtype_f16 && x.dtype != mm_dtype_f16) {
        const struct copy f = {mm_mat_of(y), mm_mat_of(x)};
        const int64_t cols = mm_view_cols(y);
        mm_each_wide(be, y.shape[0], cols, mm_wide(cols, f.y, f.x), "copy", f);
        return;
    }
    const struct cell a = cell_of(y), b = cell_of(x);
    mm_each(be, y.shape[0], mm_view_cols(y),
            [=] __device__(int64_t r, int64_t c) { a.put(r, c, b.get(r, c)); });
}

const float *mm_cuda_vector(struct mm_backend *be, enum mm_cuda_slot slot, struct mm_view v) {
    if (!v.data || v.dtype == mm_dtype_f32) return (const float *)v.data;
    return (const float *)mm_cuda_converted(be, slot, v, mm_dtype_f32);
}

void *mm_cuda_converted(struct mm_backend *be, enum mm_cuda_slot slot, struct mm_view v,
                        enum mm_dtype to) {
    const int64_t rows = v.shape[0], cols = mm_view_cols(v);
    void *out = mm_cuda_scratch(be, slot, (size_t)(rows * cols) * mm_dtype_bytes(to));
    if (out) mm_copy_cuda(be, mm_view2(out, to, rows, cols), mm_view_flat(v));
    return out;
}

void mm_add_cuda(struct mm_backend *be, struct mm_view y, struct mm_view a, struct mm_view b) {
    const struct add f = {mm_mat_of(y), mm_mat_of(a), mm_mat_of(b)};
    const int64_t cols = mm_view_cols(y);
    mm_each_wide(be, y.shape[0], cols, mm_wide(cols, f.y, f.a, f.b), "add", f);
}

void mm_scale_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x, float s) {
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    mm_each(be, y.shape[0], mm_view_cols(y),
            [=] __device__(int64_t r, int64_t c) { ym(r, c) = xm(r, c) * s; });
}

void mm_embed_fwd_cuda(struct mm_backend *be, struct mm_view y, struct mm_view table,
                       struct mm_view ids) {
    const struct mm_mat ym = mm_mat_of(y);
    const struct cell t = cell_of(table);
    const int32_t *id = (const int32_t *)ids.data;
    mm_each(be, y.shape[0], mm_view_cols(y), [=] __device__(int64_t r, int64_t c) {
        ym(r, c) = id[r] < 0 ? 0.0f : t.get(id[r], c);
    });
}

// One block a row: the first row with an id adds up all rows with it, in their order. They are
// found a few thousand at a time, so that the sum's reads do not wait for each other.
enum { embed_threads = 256, embed_span = 4096 };

static __global__ void embed_bwd(struct mm_mat dtable, struct mm_mat dy, const int32_t *ids,
                                 int64_t n, int cols) {
    __shared__ int found[embed_threads / 32], list[embed_span];
    const int64_t first = blockIdx.x;
    const int32_t id = ids[first];
    if (id < 0) return;
    int earlier = 0;
    for (int64_t t = threadIdx.x; t < first; t += embed_threads)
        earlier |= ids[t] == id;
    if (__syncthreads_or(earlier)) return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int64_t base = first; base < n; base += embed_span) {
        int total = 0;  // rows found in this span
        for (int64_t from = base; from < n && from < base + embed_span; from += embed_threads) {
            const int64_t t = from + threadIdx.x;
            const bool mine = t < n && ids[t] == id;
            const unsigned votes = __ballot_sync(0xffffffffu, mine);
            if (lane == 0) found[warp] = __popc(votes);
            __syncthreads();
            int at = total;
            for (int w = 0; w < embed_threads / 32; w++) {
                if (w < warp) at += found[w];
                total += found[w];
            }
            if (mine) list[at + __popc(votes & ((1u << lane) - 1))] = (int)(t - base);
            __syncthreads();
        }
        for (int c = (int)threadIdx.x; c < cols; c += embed_threads) {
            float sum = dtable(id, c);
            int i = 0;
            for (; i + 8 <= total; i += 8) {
                float x[8];
#pragma unroll
                for (int k = 0; k < 8; k++)
                    x[k] = dy(base + list[i + k], c);
#pragma unroll
                for (int k = 0; k < 8; k++)
                    sum += x[k];
            }
            for (; i < total; i++)
                sum += dy(base + list[i], c);
            dtable(id, c) = sum;
        }
        __syncthreads();
    }
}

void mm_embed_bwd_cuda(struct mm_backend *be, struct mm_view dtable, struct mm_view dy,
                       struct mm_view ids) {
    if (dy.shape[0] == 0) return;
    MM_LAUNCH(be, embed_bwd, (unsigned)dy.shape[0], embed_threads, 0, mm_mat_of(dtable),
              mm_mat_of(dy), (const int32_t *)ids.data, dy.shape[0], (int)mm_view_cols(dy));
}

void mm_gather_rows_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                         struct mm_view idx) {
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    const int32_t *id = (const int32_t *)idx.data;
    mm_each(be, y.shape[0], mm_view_cols(y),
            [=] __device__(int64_t r, int64_t c) { ym(r, c) = xm(id[r], c); });
}

void mm_scatter_rows_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                          struct mm_view idx) {
    const struct mm_mat ym = mm_mat_of(y), xm = mm_mat_of(x);
    const int32_t *id = (const int32_t *)idx.data;
    mm_each(be, x.shape[0], mm_view_cols(x),
            [=] __device__(int64_t r, int64_t c) { ym(id[r], c) = xm(r, c); });
}

// A block a span of a row; the last of them to come ends the row. counts: zeros, which it leaves.
static __global__ void __launch_bounds__(mm_largest_threads)
    argmax(int32_t *y, uint64_t *words, unsigned *counts, struct mm_mat x, int cols,
           const int32_t *banned, int n_banned) {
    __shared__ bool last;
    const int row = (int)blockIdx.y, spans = (int)gridDim.x;
    uint64_t word = mm_largest_of_span(cols, [=](int c) {
        float v = (float)x((int64_t)row, c);
        for (int i = 0; i < n_banned; i++)
            if (banned[i] == c) v = -INFINITY;
        return v;
    });
    words += (int64_t)row * spans;
    if (threadIdx.x == 0) {
        words[blockIdx.x] = word;
        __threadfence();
        last = atomicInc(&counts[row], (unsigned)spans - 1) == (unsigned)spans - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x >= 32) return;
    __threadfence();
    word = mm_largest_of_spans(words, spans);
    if (threadIdx.x == 0) y[row] = isfinite(mm_largest_value(word)) ? mm_largest_column(word) : -1;
}

void mm_argmax_cuda(struct mm_backend *be, struct mm_view y, struct mm_view x,
                    struct mm_view banned) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    enum { most = 32768 };  // rows of a grid
    const int64_t rows = x.shape[0];
    const int spans = mm_largest_spans(mm_view_cols(x));
    uint64_t *words =
        (uint64_t *)mm_cuda_scratch(be, mm_cuda_slot_a, (size_t)(rows * spans) * sizeof *words);
    const size_t had = cuda->scratch_bytes[mm_cuda_slot_counts];
    unsigned *counts = (unsigned *)mm_cuda_scratch(be, mm_cuda_slot_counts, most * sizeof *counts);
    const size_t has = cuda->scratch_bytes[mm_cuda_slot_counts];
    if (rows == 0 || !words || !counts) return;
    if (had != has && !mm_cuda_ok(be, cudaMemsetAsync(counts, 0, has, cuda->stream), "zeros"))
        return;
    for (int64_t from = 0; from < rows; from += most) {
        const int64_t some = rows - from < most ? rows - from : most;
        MM_LAUNCH(be, argmax, dim3((unsigned)spans, (unsigned)some), mm_largest_threads, 0,
                  (int32_t *)y.data + from, words, counts, mm_mat_of(mm_view_rows(x, from, some)),
                  (int)mm_view_cols(x), (const int32_t *)banned.data,
                  banned.data ? (int)banned.shape[0] : 0);
    }
}
