// Dense products: where training spends its time. The result is split over the threads, by rows or
// by columns, never the sum, so every element is one sum in one order.
//
// A product with a bf16 weight rounds the other operand to bf16 where the processor multiplies
// bf16: on AMX by our own kernels (amx.c), on AVX512-BF16 by oneDNN. Elsewhere the weight is
// widened, a block at a time, and f16 weights always are. Up to four rows (decoding) go to the
// matrix-vector kernels of gemv.c instead, and products with quantized weights to quant_linear.c.
#include "ops/cpu/amx.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/dnnl.h"
#include "ops/cpu/gemv.h"
#include "ops/cpu/quant_linear.h"

enum {
    rows_gemv_max = 4,
    split_unit = 32,          // rows or columns of the result a thread's part is a multiple of
    small_work = 1 << 20,     // operations below which a second thread does not pay
    widen_elements = 1 << 19  // f32 elements of a widened block: 2 MiB, to stay in the L2 cache
};

// ---- moving an operand to another type ----

struct convert_job {
    struct mm_view x;
    void *out;  // dense (rows, cols)
    enum mm_isa isa;
    enum mm_dtype to;
    bool round;  // to f32 by way of bf16
};

static void convert_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct convert_job *j = arg;
    const int64_t cols = mm_view_cols(j->x);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const void *from = mm_view_at(j->x, r, 0);
        if (j->to == mm_dtype_bf16) {
            mm_convert_to_bf16(j->isa, (uint16_t *)j->out + r * cols, from, cols);
        } else if (j->round) {
            mm_convert_round_bf16((float *)j->out + r * cols, from, cols);
        } else {
            mm_convert_to_f32(j->isa, (float *)j->out + r * cols, from, j->x.dtype, cols);
        }
    }
}

// A dense copy of f32 x in `slot`, bf16 or rounded; data NULL when there is no memory.
static struct mm_view converted(struct mm_backend *be, enum mm_scratch slot, struct mm_view x,
                                enum mm_dtype to) {
    const bool native = mm_isa_bf16(mm_cpu_isa(be));
    struct convert_job j = {.x = x, .isa = mm_cpu_isa(be), .round = !native};
    j.to = native ? to : mm_dtype_f32;
    const int64_t cols = mm_view_cols(x);
    j.out = mm_cpu_scratch(be, slot, (size_t)(x.shape[0] * cols) * mm_dtype_bytes(j.to));
    if (j.out) mm_parallel_for(be->pool, x.shape[0], 1 + 32768 / cols, convert_rows, &j);
    return mm_view2(j.out, j.to, x.shape[0], cols);
}

// ---- splitting a product over the threads ----

struct product_job {
    struct mm_backend *be;
    struct mm_product p;
    bool bf16, by_rows;
    // B is to be widened a block of columns at a time (fwd: rows of the stored weight)
    bool widen;
    enum mm_dtype b_type;
    float *room;  // widen_elements a thread, or one column
    size_t room_elements;
    bool *failed;  // one a thread
};

static const void *moved(const void *base, int64_t elements, enum mm_dtype type) {
    return (const char *)base + (size_t)elements * mm_dtype_bytes(type);
}

// Columns [begin, end) of the result, with B widened into this thread's room block by block.
static bool widened_columns(const struct product_job *j, int64_t begin, int64_t end, int thread) {
    const enum mm_isa isa = mm_cpu_isa(j->be);
    float *room = j->room + (size_t)thread * j->room_elements;
    const int64_t step = (int64_t)j->room_elements / j->p.k;
    for (int64_t n = begin; n < end; n += step) {
        struct mm_product p = j->p;
        p.n = end - n < step ? end - n : step;
        p.c += n;
        p.b = room;
        p.ldb = p.trans_b ? p.k : p.n;
        const int64_t stored_rows = p.trans_b ? p.n : p.k;
        for (int64_t r = 0; r < stored_rows; r++) {
            const int64_t at = p.trans_b ? (n + r) * j->p.ldb : r * j->p.ldb + n;
            mm_convert_to_f32(isa, room + r * p.ldb, moved(j->p.b, at, j->b_type), j->b_type,
                              p.ldb);
        }
        if (!mm_dnnl_f32(&p)) return false;
    }
    return true;
}

static void run_product(void *arg, int64_t begin, int64_t end, int thread) {
    const struct product_job *j = arg;
    struct mm_product p = j->p;
    const int64_t whole = j->by_rows ? p.m : p.n;
    begin *= split_unit;
    end = end * split_unit < whole ? end * split_unit : whole;
    if (begin >= end) return;
    bool ok;
    if (j->widen) {
        ok = widened_columns(j, begin, end, thread);
    } else {
        const enum mm_dtype type = j->bf16 ? mm_dtype_bf16 : mm_dtype_f32;
        if (j->by_rows) {
            p.m = end - begin;
            p.a = moved(p.a, p.trans_a ? begin : begin * p.lda, type);
            p.c += begin * p.ldc;
        } else {
            p.n = end - begin;
            p.b = moved(p.b, p.trans_b ? begin * p.ldb : begin, type);
            p.c += begin;
        }
        const struct mm_cpu *cpu = j->be->impl;
        ok = j->bf16 ? mm_dnnl_bf16(cpu->dnnl, &p, thread) : mm_dnnl_f32(&p);
    }
    if (!ok) j->failed[thread] = true;
}

static void product(struct mm_backend *be, struct product_job *j) {
    const int threads = mm_pool_size(be->pool);
    if (j->p.m == 0 || j->p.n == 0) return;
    j->be = be;
    j->by_rows = !j->widen && j->p.m >= j->p.n;
    j->failed = mm_cpu_scratch(be, mm_scratch_f, (size_t)threads * sizeof *j->failed);
    if (!j->failed) return;
    memset(j->failed, 0, (size_t)threads * sizeof *j->failed);
    if (j->widen) {
        const int64_t least = j->p.k * split_unit;
        j->room_elements = (size_t)(least > widen_elements ? least : widen_elements);
        j->room =
            mm_cpu_scratch(be, mm_scratch_c, (size_t)threads * j->room_elements * sizeof(float));
        if (!j->room) return;
    }
    const int64_t parts = ((j->by_rows ? j->p.m : j->p.n) + split_unit - 1) / split_unit;
    const bool small = j->p.m * j->p.n * j->p.k < small_work;
    // oneDNN lays out the whole of the other operand again for every piece.
    (j->widen ? mm_parallel_for : mm_parallel_ranges)(be->pool, parts, small ? parts : 1,
                                                      run_product, j);
    for (int t = 0; t < threads; t++) {
        if (!j->failed[t]) continue;
        mm_fail(&be->error, mm_code_memory, "oneDNN failed in a product of %lld x %lld x %lld",
                (long long)j->p.m, (long long)j->p.n, (long long)j->p.k);
    }
}

// Sets up A (activations, f32) and B (a weight of any type).
static bool operands(struct mm_backend *be, struct product_job *j, struct mm_view a,
                     struct mm_view w) {
    j->p.a = a.data, j->p.lda = a.ld;
    j->p.b = w.data, j->p.ldb = w.ld;
    j->b_type = w.dtype;
    if (w.dtype == mm_dtype_f32) return true;
    if (w.dtype == mm_dtype_bf16 && mm_isa_bf16(mm_cpu_isa(be))) {
        const struct mm_view h = converted(be, mm_scratch_a, a, mm_dtype_bf16);
        j->p.a = h.data, j->p.lda = h.ld;
        j->bf16 = true;
        return h.data != NULL;
    }
    j->widen = true;
    return true;
}

// ---- the operations ----

static struct mm_amx_side side(struct mm_view v, bool by_k) {
    return (struct mm_amx_side){v.data, v.dtype, v.ld, by_k};
}

struct bias_job {
    struct mm_view y;
    const float *bias;
};

static void bias_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bias_job *j = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        memcpy(mm_view_at(j->y, r, 0), j->bias, (size_t)mm_view_cols(j->y) * sizeof(float));
    }
}

void mm_linear_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
                       struct mm_view bias) {
    const float *b = mm_cpu_vector(be, mm_scratch_b, bias);
    if (be->error.code) return;
    if (mm_dtype_quantized(w.dtype)) {
        mm_quant_linear(be, y, x, w, b);
        return;
    }
    if (x.shape[0] <= rows_gemv_max) {
        mm_gemv(be, y, x, w, b);
        return;
    }
    if (b) {  // the product is added to rows of bias
        struct bias_job j = {y, b};
        mm_parallel_for(be->pool, y.shape[0], 64, bias_rows, &j);
    }
    struct product_job j = {.p = {.m = x.shape[0],
                                  .n = w.shape[0],
                                  .k = mm_view_cols(x),
                                  .c = y.data,
                                  .ldc = y.ld,
                                  .trans_b = true,
                                  .accumulate = b != NULL}};
    if (w.dtype == mm_dtype_bf16 && mm_cpu_isa(be) >= mm_isa_amx) {
        mm_amx_product(be, y.data, y.ld, j.p.m, j.p.n, j.p.k, side(x, false), side(w, false),
                       b != NULL);
    } else if (operands(be, &j, x, w)) {
        product(be, &j);
    }
}

void mm_linear_bwd_x_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dy,
                         struct mm_view w, bool accumulate) {
    struct product_job j = {.p = {.m = dy.shape[0],
                                  .n = mm_view_cols(w),
                                  .k = mm_view_cols(dy),
                                  .c = dx.data,
                                  .ldc = dx.ld,
                                  .accumulate = accumulate}};
    if (w.dtype == mm_dtype_bf16 && mm_cpu_isa(be) >= mm_isa_amx) {
        mm_amx_product(be, dx.data, dx.ld, j.p.m, j.p.n, j.p.k, side(dy, false), side(w, true),
                       accumulate);
    } else if (operands(be, &j, dy, w)) {
        product(be, &j);
    }
}

struct dbias_job {
    float *dbias;
    struct mm_view dy;
};

// Sums over t in blocks of 64 rows, so that a long sum keeps its small terms.
static void dbias_columns(void *arg, int64_t begin, int64_t end, int thread) {
    enum { width = 64, block = 64 };
    const struct dbias_job *j = arg;
    const int64_t cols = mm_view_cols(j->dy), rows = j->dy.shape[0];
    (void)thread;
    for (int64_t c = begin * width; c < end * width && c < cols; c += width) {
        const int64_t n = cols - c < width ? cols - c : width;
        for (int64_t t0 = 0; t0 < rows; t0 += block) {
            float sum[width] = {0};
            for (int64_t t = t0; t < rows && t < t0 + block; t++) {
                const float *dy = mm_view_at(j->dy, t, c);
                for (int64_t i = 0; i < n; i++)
                    sum[i] += dy[i];
            }
            for (int64_t i = 0; i < n; i++)
                j->dbias[c + i] += sum[i];
        }
    }
}

void mm_linear_bwd_w_cpu(struct mm_backend *be, struct mm_view dw, struct mm_view dbias,
                         struct mm_view dy, struct mm_view x, enum mm_dtype how) {
    struct product_job j = {.p = {.m = dw.shape[0],
                                  .n = mm_view_cols(dw),
                                  .k = dy.shape[0],
                                  .c = dw.data,
                                  .ldc = dw.ld,
                                  .trans_a = true,
                                  .accumulate = true}};
    if (dy.shape[0] == 0) return;
    if (dbias.data) {
        struct dbias_job b = {dbias.data, dy};
        mm_parallel_for(be->pool, (mm_view_cols(dy) + 63) / 64, 2, dbias_columns, &b);
    }
    if (how == mm_dtype_bf16 && mm_cpu_isa(be) >= mm_isa_amx) {
        mm_amx_product(be, dw.data, dw.ld, j.p.m, j.p.n, j.p.k, side(dy, true), side(x, true),
                       true);
        return;
    }
    struct mm_view a = dy, b = x;
    if (how == mm_dtype_bf16) {
        a = converted(be, mm_scratch_a, dy, mm_dtype_bf16);
        b = converted(be, mm_scratch_b, x, mm_dtype_bf16);
        if (!a.data || !b.data) return;
        j.bf16 = a.dtype == mm_dtype_bf16;
    }
    j.p.a = a.data, j.p.lda = a.ld;
    j.p.b = b.data, j.p.ldb = b.ld;
    product(be, &j);
}
