// oneDNN, called from each thread of our pool for its own part, never with threads of its own.
//
// f32 goes through dnnl_sgemm. bf16 goes through matmul primitives whose sizes and strides are
// given at run time: one primitive for each way the operands lie, made once. Primitives of fixed
// sizes are up to twice as fast here, but take 0.5 to 3 ms each to generate, and T is another in
// every batch of packed sequences.
#include "ops/cpu/dnnl.h"
#include <dnnl.h>
#include <stdlib.h>
#include "base/buf.h"

// oneDNN asks OpenMP for its threads. Set to one in each thread that calls it (the setting is the
// thread's own), it never starts a team.
extern void omp_set_num_threads(int n);

enum { n_layouts = 3, n_kinds = 2 * n_layouts };  // plain, A transposed, B transposed

struct mm_dnnl {
    dnnl_engine_t engine;
    dnnl_primitive_t matmul[n_kinds];  // NULL without bf16
    int n_streams;
    dnnl_stream_t *streams;  // one a thread
};

static int kind_of(bool trans_a, bool trans_b, bool accumulate) {
    return (trans_a ? 1 : trans_b ? 2 : 0) + (accumulate ? n_layouts : 0);
}

static dnnl_status_t describe(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, int64_t ld,
                              bool transposed, dnnl_data_type_t type) {
    const dnnl_dims_t dims = {rows, cols}, plain = {ld, 1}, turned = {1, ld};
    return dnnl_memory_desc_init_by_strides(md, 2, dims, type, transposed ? turned : plain);
}

static dnnl_status_t make_matmul(struct mm_dnnl *g, bool trans_a, bool trans_b, bool accumulate) {
    const int64_t any = DNNL_RUNTIME_DIM_VAL;
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s = describe(&a, any, any, any, trans_a, dnnl_bf16);
    if (!s) s = describe(&b, any, any, any, trans_b, dnnl_bf16);
    if (!s) s = describe(&c, any, any, any, false, dnnl_f32);
    if (!s) s = dnnl_matmul_desc_init(&desc, &a, &b, NULL, &c);
    if (!s) s = dnnl_primitive_attr_create(&attr);
    // Scratch of the library's own would be shared by the threads that run the primitive.
    if (!s) s = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!s && accumulate) {
        s = dnnl_post_ops_create(&post);
        if (!s) s = dnnl_post_ops_append_sum(post, 1.0f);
        if (!s) s = dnnl_primitive_attr_set_post_ops(attr, post);
    }
    if (!s) s = dnnl_primitive_desc_create(&pd, &desc, attr, g->engine, NULL);
    if (!s) {
        const dnnl_memory_desc_t *pad =
            dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        if (pad && dnnl_memory_desc_get_size(pad) > 0) s = dnnl_unimplemented;
    }
    if (!s) s = dnnl_primitive_create(&g->matmul[kind_of(trans_a, trans_b, accumulate)], pd);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (post) dnnl_post_ops_destroy(post);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return s;
}

static dnnl_cpu_isa_t limit_of(enum mm_isa isa) {
    switch (isa) {
        case mm_isa_avx2:
            return dnnl_cpu_isa_avx2;
        case mm_isa_avx512:
            return dnnl_cpu_isa_avx512_core_vnni;
        case mm_isa_avx512bf16:
            return dnnl_cpu_isa_avx512_core_bf16;
        default:
            return dnnl_cpu_isa_all;
    }
}

enum mm_code mm_dnnl_new(struct mm_dnnl **out, enum mm_isa isa, bool limit, int n_threads,
                         struct mm_error *err) {
    omp_set_num_threads(1);
    if (limit) dnnl_set_max_cpu_isa(limit_of(isa));  // refused after the first use: see the header
    struct mm_dnnl *g = mm_xcalloc(1, sizeof *g);
    g->streams = mm_xcalloc((size_t)n_threads, sizeof *g->streams);
    dnnl_status_t s = dnnl_engine_create(&g->engine, dnnl_cpu, 0);
    for (int i = 0; i < n_threads && !s; i++) {
        s = dnnl_stream_create(&g->streams[i], g->engine, dnnl_stream_default_flags);
        if (!s) g->n_streams++;
    }
    for (int acc = 0; isa >= mm_isa_avx512bf16 && acc < 2; acc++) {
        if (!s) s = make_matmul(g, false, false, acc);
        if (!s) s = make_matmul(g, true, false, acc);
        if (!s) s = make_matmul(g, false, true, acc);
    }
    if (!s) {
        *out = g;
        return mm_code_ok;
    }
    mm_dnnl_free(g);
    return mm_fail(err, mm_code_unsupported, "oneDNN has no %s product here (its status is %d)",
                   mm_isa_name(isa), (int)s);
}

void mm_dnnl_free(struct mm_dnnl *g) {
    if (!g) return;
    for (int i = 0; i < n_kinds; i++) {
        if (g->matmul[i]) dnnl_primitive_destroy(g->matmul[i]);
    }
    for (int i = 0; i < g->n_streams; i++)
        dnnl_stream_destroy(g->streams[i]);
    if (g->engine) dnnl_engine_destroy(g->engine);
    free(g->streams);
    free(g);
}

bool mm_dnnl_f32(const struct mm_product *p) {
    omp_set_num_threads(1);
    return dnnl_sgemm(p->trans_a ? 'T' : 'N', p->trans_b ? 'T' : 'N', p->m, p->n, p->k, 1.0f, p->a,
                      p->lda, p->b, p->ldb, p->accumulate ? 1.0f : 0.0f, p->c,
                      p->ldc) == dnnl_success;
}

static dnnl_status_t make_memory(struct mm_dnnl *g, dnnl_memory_t *out, int64_t rows, int64_t cols,
                                 int64_t ld, bool transposed, dnnl_data_type_t type,
                                 const void *data) {
    dnnl_memory_desc_t md;
    dnnl_status_t s = describe(&md, rows, cols, ld, transposed, type);
    // oneDNN takes every handle without const; it does not write to inputs.
    void *handle;
    memcpy(&handle, &data, sizeof handle);
    if (!s) s = dnnl_memory_create(out, &md, g->engine, handle);
    return s;
}

bool mm_dnnl_bf16(struct mm_dnnl *g, const struct mm_product *p, int thread) {
    omp_set_num_threads(1);
    dnnl_memory_t a = NULL, b = NULL, c = NULL;
    dnnl_status_t s = make_memory(g, &a, p->m, p->k, p->lda, p->trans_a, dnnl_bf16, p->a);
    if (!s) s = make_memory(g, &b, p->k, p->n, p->ldb, p->trans_b, dnnl_bf16, p->b);
    if (!s) s = make_memory(g, &c, p->m, p->n, p->ldc, false, dnnl_f32, p->c);
    if (!s) {
        const dnnl_exec_arg_t args[3] = {
            {DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}};
        s = dnnl_primitive_execute(g->matmul[kind_of(p->trans_a, p->trans_b, p->accumulate)],
                                   g->streams[thread], 3, args);
    }
    if (a) dnnl_memory_destroy(a);
    if (b) dnnl_memory_destroy(b);
    if (c) dnnl_memory_destroy(c);
    return s == dnnl_success;
}
