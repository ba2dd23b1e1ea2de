// oneDNN, called from each thread of our pool for its own part, never with threads of its own.
#include "ops/cpu/dnnl.h"
#include <dnnl.h>

// oneDNN asks OpenMP for its threads. Set to one in each thread that calls it (the setting is the
// thread's own), it never starts a team.
extern void omp_set_num_threads(int n);

void mm_dnnl_limit(enum mm_isa isa) {
    // Refused after the first use: see the header.
    if (isa == mm_isa_avx2) dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    if (isa == mm_isa_avx512) dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_vnni);
    if (isa == mm_isa_avx512bf16) dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
}

bool mm_dnnl_f32(const struct mm_product *p) {
    omp_set_num_threads(1);
    return dnnl_sgemm(p->trans_a ? 'T' : 'N', p->trans_b ? 'T' : 'N', p->m, p->n, p->k, 1.0f, p->a,
                      p->lda, p->b, p->ldb, p->accumulate ? 1.0f : 0.0f, p->c,
                      p->ldc) == dnnl_success;
}
