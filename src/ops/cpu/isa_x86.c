// The levels of x86-64, and the inner loops that each takes.
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "ops/cpu/amx.h"
#include "ops/cpu/gemv.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/mixer.h"

static const char *const names[mm_isa_count] = {"plain", "avx2", "avx512", "avx512bf16", "amx"};

const char *mm_isa_name(enum mm_isa isa) {
    return names[isa];
}

enum mm_isa mm_isa_best(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("f16c")) {
        return mm_isa_plain;
    }
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
        return mm_isa_avx2;
    }
    if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni") ||
        !__builtin_cpu_supports("avx512vbmi")) {
        return mm_isa_avx512;
    }
    return mm_amx_available() ? mm_isa_amx : mm_isa_avx512bf16;
}

void mm_isa_processor(char *out, size_t room) {
    char line[256];
    snprintf(out, room, "processor");
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "model name", 10) || !strchr(line, ':')) continue;
        const char *from = strchr(line, ':') + 1;
        from += strspn(from, " \t");
        snprintf(out, room, "%.*s", (int)strcspn(from, "\n"), from);
        break;
    }
    if (f) fclose(f);
}

const struct mm_kernels *mm_kernels_of(const struct mm_backend *be) {
    return mm_cpu_isa(be) >= mm_isa_avx512 ? &mm_kernels_avx512 : &mm_kernels_avx2;
}

const struct mm_mixer_kernels *mm_mixer_kernels(const struct mm_backend *be) {
    assert(mm_cpu_isa(be) > mm_isa_plain);  // a plain backend has the table of the reference
    if (mm_cpu_isa(be) >= mm_isa_amx && be->product == mm_dtype_bf16) {
        return be->scan_rounds ? &mm_mixer_amx_rounded : &mm_mixer_amx;
    }
    return mm_cpu_isa(be) >= mm_isa_avx512 ? &mm_mixer_avx512 : &mm_mixer_avx2;
}

struct mm_gemv_kernels mm_gemv_kernels_of(const struct mm_backend *be) {
    const enum mm_isa isa = mm_cpu_isa(be);
    struct mm_gemv_kernels k = {&mm_gemv_floats_avx2, &mm_gemv_quant_avx2};
    if (isa >= mm_isa_avx512) k.floats = &mm_gemv_floats_avx512;
    if (isa >= mm_isa_avx512bf16) k.quant = &mm_gemv_quant_avx512vnni;
    return k;
}
