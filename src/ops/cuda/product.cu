// cuBLASLt behind one function. What it chooses for a shape is kept: asking costs more than a small
// product. The choice is its first one, never a measured one, so that two runs give the same bits.
#include "ops/cuda/product.cuh"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

enum { table_size = 512, workspace_bytes = 64 << 20 };

// What a choice depends on; compared byte by byte, so padding is zero.
struct key {
    int64_t m, n, k, lda, ldb, ldc, ldd;
    int32_t ta, tb, in, out, add;
    int32_t align;  // the least alignment of the four pointers, in bytes, at most 256
};

struct choice {
    struct key key;
    bool used;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c, d;
    cublasLtMatmulAlgo_t algo;
};

struct mm_cuda_products {
    cublasLtHandle_t lt;
    void *workspace;
    int n;
    struct choice table[table_size];
};

static void forget(struct choice *c) {
    if (c->desc) (void)cublasLtMatmulDescDestroy(c->desc);
    cublasLtMatrixLayout_t layouts[] = {c->a, c->b, c->c, c->d};
    for (cublasLtMatrixLayout_t l : layouts)
        if (l) (void)cublasLtMatrixLayoutDestroy(l);
    memset(c, 0, sizeof *c);
}

void mm_cuda_products_close(struct mm_cuda *cuda) {
    struct mm_cuda_products *p = cuda->products;
    if (!p) return;
    for (struct choice &c : p->table)
        forget(&c);
    if (p->lt) (void)cublasLtDestroy(p->lt);
    (void)cudaFree(p->workspace);
    free(p);
    cuda->products = NULL;
}

// Opened with the first product.
static struct mm_cuda_products *products_of(struct mm_backend *be) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    if (cuda->products) return cuda->products;
    cuda->products = (struct mm_cuda_products *)calloc(1, sizeof *cuda->products);
    struct mm_cuda_products *p = cuda->products;
    if (!p) {
        mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for products");
        return NULL;
    }
    struct mm_error why = {};
    if (mm_cuda_blas_ok(be, cublasLtCreate(&p->lt), "cublasLtCreate")) {
        p->workspace = mm_cuda_take(be, workspace_bytes, "what products work in", &why);
    }
    if (!p->workspace) {
        if (!be->error.code) be->error = why;
        mm_cuda_products_close(cuda);
        return NULL;
    }
    be->scratch_bytes += workspace_bytes;
    return p;
}

static uint64_t hash_of(const struct key *k) {
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < sizeof *k; i++)
        h = (h ^ ((const unsigned char *)k)[i]) * 1099511628211u;
    return h;
}

static bool describe(struct mm_backend *be, struct choice *c) {
    const struct key *k = &c->key;
    const cudaDataType_t in = (cudaDataType_t)k->in, out = (cudaDataType_t)k->out;
    const cublasOperation_t ta = (cublasOperation_t)k->ta, tb = (cublasOperation_t)k->tb;
    const uint64_t m = (uint64_t)k->m, n = (uint64_t)k->n, d = (uint64_t)k->k;
    const bool at = ta == CUBLAS_OP_T, bt = tb == CUBLAS_OP_T;
    static const char what[] = "describing a matrix product";
    return mm_cuda_blas_ok(be, cublasLtMatmulDescCreate(&c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                           what) &&
           mm_cuda_blas_ok(
               be,
               cublasLtMatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta),
               what) &&
           mm_cuda_blas_ok(
               be,
               cublasLtMatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb),
               what) &&
           mm_cuda_blas_ok(
               be, cublasLtMatrixLayoutCreate(&c->a, in, at ? d : m, at ? m : d, k->lda), what) &&
           mm_cuda_blas_ok(
               be, cublasLtMatrixLayoutCreate(&c->b, in, bt ? n : d, bt ? d : n, k->ldb), what) &&
           mm_cuda_blas_ok(be, cublasLtMatrixLayoutCreate(&c->c, out, m, n, k->ldc), what) &&
           mm_cuda_blas_ok(be, cublasLtMatrixLayoutCreate(&c->d, out, m, n, k->ldd), what);
}

static bool choose(struct mm_backend *be, struct mm_cuda_products *p, struct choice *c) {
    cublasLtMatmulPreference_t wish = NULL;
    const size_t room = workspace_bytes;
    const uint32_t align = (uint32_t)c->key.align;
    cublasLtMatmulHeuristicResult_t found = {};
    int n = 0;
    if (!describe(be, c) ||
        !mm_cuda_blas_ok(be, cublasLtMatmulPreferenceCreate(&wish), "choosing a product"))
        return false;
    const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasStatus_t s = cublasLtMatmulPreferenceSetAttribute(
        wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
    for (cublasLtMatmulPreferenceAttributes_t a : aligned) {
        if (s == CUBLAS_STATUS_SUCCESS) {
            s = cublasLtMatmulPreferenceSetAttribute(wish, a, &align, sizeof align);
        }
    }
    if (s == CUBLAS_STATUS_SUCCESS) {
        s = cublasLtMatmulAlgoGetHeuristic(p->lt, c->desc, c->a, c->b, c->c, c->d, wish, 1, &found,
                                           &n);
    }
    (void)cublasLtMatmulPreferenceDestroy(wish);
    if (s == CUBLAS_STATUS_SUCCESS && n == 0) s = CUBLAS_STATUS_NOT_SUPPORTED;
    c->algo = found.algo;
    return mm_cuda_blas_ok(be, s, "choosing how to compute a matrix product");
}

static struct choice *choice_for(struct mm_backend *be, struct mm_cuda_products *p,
                                 const struct key *k) {
    if (p->n > table_size / 2) {  // shapes come and go with the lengths of prompts
        for (struct choice &c : p->table)
            forget(&c);
        p->n = 0;
    }
    for (uint64_t i = hash_of(k);; i++) {
        struct choice *c = &p->table[i % table_size];
        if (c->used && memcmp(&c->key, k, sizeof *k) == 0) return c;
        if (c->used) continue;
        c->key = *k;
        c->used = choose(be, p, c);
        if (!c->used) {
            forget(c);
            return NULL;
        }
        p->n++;
        return c;
    }
}

static int32_t alignment(const void *a, const void *b, const void *c, const void *d) {
    const uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d | 256;
    return (int32_t)(all & (~all + 1));
}

static cudaDataType_t type_of(enum mm_dtype t) {
    return t == mm_dtype_bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

// y and add of one type, which the product can write.
static void run(struct mm_backend *be, cublasOperation_t ta, cublasOperation_t tb, int64_t k,
                struct mm_cuda_operand a, struct mm_cuda_operand b, enum mm_dtype type,
                struct mm_view add, struct mm_view y) {
    struct mm_cuda_products *p = products_of(be);
    if (!p) return;
    const bool adds = add.data != NULL;
    if (!adds) add = y;
    struct key key;
    memset(&key, 0, sizeof key);
    key.m = mm_view_cols(y), key.n = y.shape[0], key.k = k;
    key.lda = a.ld, key.ldb = b.ld, key.ldc = add.ld, key.ldd = y.ld;
    key.ta = ta, key.tb = tb, key.in = type_of(type), key.out = type_of(y.dtype), key.add = adds;
    key.align = alignment(a.p, b.p, add.data, y.data);
    const struct choice *c = choice_for(be, p, &key);
    if (!c) return;
    const float one = 1.0f, beta = adds ? 1.0f : 0.0f;
    mm_cuda_blas_ok(
        be,
        cublasLtMatmul(p->lt, c->desc, &one, a.p, c->a, b.p, c->b, &beta, add.data, c->c, y.data,
                       c->d, &c->algo, p->workspace, workspace_bytes, mm_cuda_of(be)->stream),
        "a matrix product");
    mm_cuda_launched(be, "a matrix product");
}

// The tensor cores take rows and sums of a multiple of eight; the vocabulary is none. What is over
// is a small product of its own, added after.
static void run_in_eights(struct mm_backend *be, cublasOperation_t ta, cublasOperation_t tb,
                          int64_t k, struct mm_cuda_operand a, struct mm_cuda_operand b,
                          enum mm_dtype type, struct mm_view add, struct mm_view y) {
    const int64_t cols = y.shape[1], whole = cols / 8 * 8, k_whole = k / 8 * 8;
    const bool large = type == mm_dtype_bf16 && y.shape[0] >= 64;
    if (large && cols % 8 && whole >= 1024) {
        const int64_t rest = cols - whole, step = ta == CUBLAS_OP_T ? a.ld : 1;
        const struct mm_cuda_operand tail = {(const __nv_bfloat16 *)a.p + whole * step, a.ld};
        const bool adds = add.data != NULL;
        run_in_eights(be, ta, tb, k, a, b, type, adds ? mm_view_cut(add, 0, whole) : add,
                      mm_view_cut(y, 0, whole));
        run(be, ta, tb, k, tail, b, type, adds ? mm_view_cut(add, whole, rest) : add,
            mm_view_cut(y, whole, rest));
    } else if (large && k % 8 && k_whole >= 1024 && (ta == CUBLAS_OP_T || tb == CUBLAS_OP_N)) {
        const int64_t a_step = ta == CUBLAS_OP_T ? 1 : a.ld, b_step = tb == CUBLAS_OP_T ? b.ld : 1;
        const struct mm_cuda_operand ra = {(const __nv_bfloat16 *)a.p + k_whole * a_step, a.ld};
        const struct mm_cuda_operand rb = {(const __nv_bfloat16 *)b.p + k_whole * b_step, b.ld};
        run(be, ta, tb, k_whole, a, b, type, add, y);
        run(be, ta, tb, k - k_whole, ra, rb, type, y, y);
    } else {
        run(be, ta, tb, k, a, b, type, add, y);
    }
}

void mm_cuda_product(struct mm_backend *be, cublasOperation_t ta, cublasOperation_t tb, int64_t k,
                     struct mm_cuda_operand a, struct mm_cuda_operand b, enum mm_dtype type,
                     struct mm_view add, struct mm_view y) {
    const int64_t rows = y.shape[0], cols = mm_view_cols(y);
    if (rows == 0 || cols == 0) return;
    const bool direct = type == mm_dtype_bf16 || y.dtype == mm_dtype_f32;
    if (direct && (!add.data || add.dtype == y.dtype)) {
        run_in_eights(be, ta, tb, k, a, b, type, add.data ? mm_view_flat(add) : add,
                      mm_view_flat(y));
        return;
    }
    // f32 operands have f32 results, and what is added has the type of the result
    const size_t bytes = (size_t)(rows * cols) * sizeof(float);
    float *room = (float *)mm_cuda_scratch(be, mm_cuda_slot_d, bytes);
    if (!room) return;
    const struct mm_view sum = mm_view2(room, mm_dtype_f32, rows, cols);
    run(be, ta, tb, k, a, b, type, MM_NONE, sum);
    if (add.data) {
        mm_add_cuda(be, mm_view_flat(y), mm_view_flat(add), sum);
    } else {
        mm_copy_cuda(be, mm_view_flat(y), sum);
    }
}
