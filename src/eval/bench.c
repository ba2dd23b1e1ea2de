// The benchmarks by name.
#include "eval/bench.h"

static const struct mm_bench *const all[] = {&mm_bench_mme,     &mm_bench_mmbench, &mm_bench_pope,
                                             &mm_bench_seed,    &mm_bench_mmmu,    &mm_bench_mmvet,
                                             &mm_bench_textvqa, &mm_bench_sqa,     &mm_bench_gqa};

enum mm_code mm_bench_find(const struct mm_bench **bench, const char *name, struct mm_error *err) {
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!strcmp(all[i]->name, name)) {
            *bench = all[i];
            return mm_code_ok;
        }
    }
    return mm_fail(
        err, mm_code_usage,
        "--bench is '%s', must be mme, mmbench, pope, seed, mmmu, mmvet, textvqa, sqa or "
        "gqa",
        name);
}
