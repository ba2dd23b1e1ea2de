// The levels of instructions of this architecture: their names, which of them this machine has, and
// what the operations ask of them. isa_x86.c and isa_arm.c know the rest.
#ifndef MM_OPS_CPU_ISA_H
#define MM_OPS_CPU_ISA_H

#include <stdbool.h>
#include <stddef.h>

// Each includes the ones before it. The names are those of MMAMBA_ISA.
#if defined(__x86_64__)
enum mm_isa {
    mm_isa_plain,       // the reference
    mm_isa_avx2,        // AVX2, FMA, F16C (x86-64-v3)
    mm_isa_avx512,      // AVX-512 F, BW, DQ, VL
    mm_isa_avx512bf16,  // and BF16, VNNI, VBMI: products of bf16 pairs and of int8
    mm_isa_amx,         // and tiles of bf16 and int8
    mm_isa_count,
};
#elif defined(__aarch64__)
enum mm_isa {
    mm_isa_plain,         // the reference
    mm_isa_neon,          // ASIMD: every AArch64
    mm_isa_neon_dotprod,  // and products of four int8 (ARMv8.4)
    mm_isa_neon_bf16,     // and matrix products of bf16 and int8 (ARMv8.6)
    mm_isa_count,
};
#else
#error "mmamba is written for x86-64 and AArch64"
#endif

const char *mm_isa_name(enum mm_isa isa);
enum mm_isa mm_isa_best(void);  // the most this processor and kernel support

// Whether products round f32 to bf16 because the processor multiplies bf16.
static inline bool mm_isa_bf16(enum mm_isa isa) {
#if defined(__x86_64__)
    return isa >= mm_isa_avx512bf16;
#else
    return isa >= mm_isa_neon_bf16;
#endif
}

// What the processor calls itself.
void mm_isa_processor(char *out, size_t room);

#endif
