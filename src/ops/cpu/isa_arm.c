// The levels of AArch64, and the inner loops that each takes. The levels differ in the products of
// matrices only (see product_neon.c and its neighbours), so the loops are one set.
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include "ops/cpu/gemv.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/mixer.h"

static const char *const names[mm_isa_count] = {"plain", "neon", "neon-dotprod", "neon-bf16"};

const char *mm_isa_name(enum mm_isa isa) {
    return names[isa];
}

enum mm_isa mm_isa_best(void) {
    const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
    if (!(one & HWCAP_ASIMD)) return mm_isa_plain;
    if (!(one & HWCAP_ASIMDDP)) return mm_isa_neon;
    if (!(two & HWCAP2_BF16) || !(two & HWCAP2_I8MM)) return mm_isa_neon_dotprod;
    return mm_isa_neon_bf16;
}

// A board says what it is; a server only who made its cores.
void mm_isa_processor(char *out, size_t room) {
    snprintf(out, room, "AArch64 processor");
    FILE *f = fopen("/proc/device-tree/model", "r");
    char line[256];
    const size_t n = f ? fread(line, 1, sizeof line - 1, f) : 0;
    if (f) fclose(f);
    line[n] = '\0';
    if (*line) {
        snprintf(out, room, "%s", line);
        return;
    }
    char maker[16] = "", part[16] = "";
    f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        sscanf(line, "CPU implementer : %15s", maker);
        sscanf(line, "CPU part : %15s", part);
    }
    if (f) fclose(f);
    if (*maker && *part) snprintf(out, room, "AArch64 processor %s %s", maker, part);
}

const struct mm_kernels *mm_kernels_of(const struct mm_backend *be) {
    (void)be;
    return &mm_kernels_neon;
}

const struct mm_mixer_kernels *mm_mixer_kernels(const struct mm_backend *be) {
    assert(mm_cpu_isa(be) > mm_isa_plain);  // a plain backend has the table of the reference
    (void)be;
    return &mm_mixer_neon;
}

struct mm_gemv_kernels mm_gemv_kernels_of(const struct mm_backend *be) {
    const bool dot = mm_cpu_isa(be) >= mm_isa_neon_dotprod;
    return (struct mm_gemv_kernels){&mm_gemv_floats_neon,
                                    dot ? &mm_gemv_quant_neondot : &mm_gemv_quant_neon};
}
