// The two tables of the CPU backend.
#include "ops/cpu/cpu.h"

#define MM_OPS_REF(name, params, args) .name = mm_##name##_ref,
const struct mm_ops mm_ops_cpu_ref = {MM_OPS_TABLE(MM_OPS_REF)};

#define MM_OPS_FAST(name, params, args) .name = mm_##name##_cpu,
const struct mm_ops mm_ops_cpu = {MM_OPS_TABLE(MM_OPS_FAST)};
