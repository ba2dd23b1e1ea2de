// Dense products of x86-64: of bf16 on tiles (tiles.h), of f32 by oneDNN, into which other weights
// are widened. The result is split over the threads, by rows or by columns, never the sum.
#include "ops/cpu/convert.h"
#include "ops/cpu/dnnl.h"
#include "ops/cpu/product.h"
#include "ops/cpu/quant_linear.h"
#include "ops/cpu/tiles_bf16.h"

enum {
    split_unit = 32,          // rows or columns of the result a thread's part is a multiple of
    small_work = 1 << 20,     // operations below which a second thread does not pay
    widen_elements = 1 << 19  // f32 elements of a widened block: 2 MiB, to stay in the L2 cache
};

// ---- moving an operand to another type ----

struct round_job {
    struct mm_side x;
    int64_t cols;
    float *out;  // dense (rows, cols)
};

static void round_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct round_job *j = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        mm_convert_round_bf16(j->out + r * j->cols, (const float *)j->x.data + r * j->x.ld,
                              j->cols);
    }
}

// A dense copy of f32 x, rounded by way of bf16; data NULL when there is no memory.
static struct mm_side rounded(struct mm_backend *be, enum mm_scratch slot, struct mm_side x,
                              int64_t rows, int64_t cols) {
    struct round_job j = {.x = x, .cols = cols};
    j.out = mm_cpu_scratch(be, slot, (size_t)(rows * cols) * sizeof *j.out);
    if (j.out) mm_parallel_for(be->pool, rows, 1 + 32768 / cols, round_rows, &j);
    return (struct mm_side){j.out, mm_dtype_f32, cols, x.by_k};
}

// ---- splitting a product over the threads ----

struct product_job {
    struct mm_backend *be;
    struct mm_product p;
    bool by_rows;
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
        const float *a = p.a, *b = p.b;
        if (j->by_rows) {
            p.m = end - begin;
            p.a = a + (p.trans_a ? begin : begin * p.lda);
            p.c += begin * p.ldc;
        } else {
            p.n = end - begin;
            p.b = b + (p.trans_b ? begin * p.ldb : begin);
            p.c += begin;
        }
        ok = mm_dnnl_f32(&p);
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

void mm_dense_product(struct mm_backend *be, const struct mm_dense *d) {
    if ((d->round || d->b.dtype == mm_dtype_bf16) && mm_isa_bf16(mm_cpu_isa(be))) {
        mm_tiles_bf16_product(be, d);
        return;
    }
    struct product_job j = {.p = {.m = d->m,
                                  .n = d->n,
                                  .k = d->k,
                                  .c = d->c,
                                  .ldc = d->ldc,
                                  .trans_a = d->a.by_k,
                                  .trans_b = !d->b.by_k,
                                  .accumulate = d->accumulate}};
    struct mm_side a = d->a, b = d->b;
    if (d->round) {
        a = rounded(be, mm_scratch_a, a, a.by_k ? d->k : d->m, a.by_k ? d->m : d->k);
        b = rounded(be, mm_scratch_b, b, b.by_k ? d->k : d->n, b.by_k ? d->n : d->k);
    }
    if (be->error.code) return;
    j.widen = b.dtype != mm_dtype_f32;
    j.b_type = b.dtype;
    j.p.a = a.data, j.p.lda = a.ld;
    j.p.b = b.data, j.p.ldb = b.ld;
    product(be, &j);
}

static struct mm_dense dense_of(struct mm_view y, struct mm_view x, struct mm_view w) {
    return (struct mm_dense){.c = y.data,
                             .ldc = y.ld,
                             .m = x.shape[0],
                             .n = w.shape[0],
                             .k = mm_view_cols(x),
                             .a = {x.data, x.dtype, x.ld, false},
                             .b = {w.data, w.dtype, w.ld, false},
                             .accumulate = y.data != NULL};
}

bool mm_ffn_product(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                    struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    const bool quantized = mm_dtype_quantized(w1.dtype);
    const bool bf16 = w1.dtype == mm_dtype_bf16 && mm_isa_bf16(mm_cpu_isa(be));
    if (!quantized && !bf16) return false;
    if (y.data != x.data) mm_copy_cpu(be, y, x);
    if (quantized) {
        mm_quant_ffn(be, y, h, w1, w3, w2);
        return true;
    }
    const struct mm_view between = mm_view2(NULL, mm_dtype_f32, h.shape[0], w1.shape[0]);
    const struct mm_dense gate = dense_of(MM_NONE, h, w1), up = dense_of(MM_NONE, h, w3),
                          down = dense_of(y, between, w2);
    mm_tiles_bf16_ffn(be, &gate, &up, &down);
    return true;
}

enum mm_code mm_products_open(struct mm_cpu *cpu, int n_threads, struct mm_error *err) {
    (void)n_threads, (void)err;
    if (cpu->isa < mm_isa_best()) mm_dnnl_limit(cpu->isa);
    return mm_code_ok;
}

void mm_products_close(struct mm_cpu *cpu) {
    (void)cpu;
}
