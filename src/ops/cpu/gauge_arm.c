// Loops at the peak of a 64-bit ARM processor.
#include <arm_neon.h>
#include "ops/cpu/gauge.h"

#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define MATRICES __attribute__((target("arch=armv8.2-a+i8mm+bf16")))

// clang-format off
#define SUMS_24(X)                                          \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)                 \
    X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)           \
    X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)
// clang-format on
#define CLEAR(i) "movi v" #i ".4s, #0\n\t"
#define FMLA(i) "fmla v" #i ".4s, v24.4s, v25.4s\n\t"
#define SDOT(i) "sdot v" #i ".4s, v24.16b, v25.16b\n\t"
#define SMMLA(i) "smmla v" #i ".4s, v24.16b, v25.16b\n\t"
#define BFMMLA(i) "bfmmla v" #i ".4s, v24.8h, v25.8h\n\t"
#define CLOBBER                                                                                    \
    "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", \
        "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "cc"
#define LOOP(sums)                                                                     \
    __asm__ volatile(SUMS_24(CLEAR) CLEAR(24)                                          \
                         CLEAR(25) "1:\n\t" SUMS_24(sums) "subs %0, %0, #1\n\tb.ne 1b" \
                     : "+r"(rounds)                                                    \
                     :                                                                 \
                     : CLOBBER)

static void f32_neon(int64_t rounds) {
    LOOP(FMLA);
}
DOTPROD static void int8_sdot(int64_t rounds) {
    LOOP(SDOT);
}
MATRICES static void int8_smmla(int64_t rounds) {
    LOOP(SMMLA);
}
MATRICES static void bf16_bfmmla(int64_t rounds) {
    LOOP(BFMMLA);
}

struct mm_peak_loop mm_peak_loop_of(enum mm_isa isa, enum mm_ceiling which) {
    if (isa == mm_isa_plain) return mm_peak_loop_plain(which);
    if (which == mm_ceiling_f32) return (struct mm_peak_loop){f32_neon, 24 * 4 * 2, "NEON fmla"};
    if (which == mm_ceiling_bf16 && isa >= mm_isa_neon_bf16) {
        return (struct mm_peak_loop){bf16_bfmmla, 24 * 16 * 2, "NEON bfmmla"};
    }
    if (which == mm_ceiling_int8 && isa >= mm_isa_neon_bf16) {
        return (struct mm_peak_loop){int8_smmla, 24 * 32 * 2, "NEON smmla"};
    }
    if (which == mm_ceiling_int8 && isa >= mm_isa_neon_dotprod) {
        return (struct mm_peak_loop){int8_sdot, 24 * 16 * 2, "NEON sdot"};
    }
    return (struct mm_peak_loop){NULL, 0, NULL};
}

static uint64_t read_neon(const void *from, int64_t bytes, int streams, bool ahead) {
    const int64_t each = bytes / streams;
    const char *base = from;
    uint64x2_t s0 = vdupq_n_u64(0), s1 = s0, s2 = s0, s3 = s0;
    for (int64_t at = 0; at < each; at += 64) {
        for (int i = 0; i < streams; i++) {
            const uint64_t *p = (const void *)(base + i * each + at);
            if (ahead) __builtin_prefetch(p + 24 * 8);
            s0 = vaddq_u64(s0, vld1q_u64(p));
            s1 = vaddq_u64(s1, vld1q_u64(p + 2));
            s2 = vaddq_u64(s2, vld1q_u64(p + 4));
            s3 = vaddq_u64(s3, vld1q_u64(p + 6));
        }
    }
    return vaddvq_u64(vaddq_u64(vaddq_u64(s0, s1), vaddq_u64(s2, s3)));
}

mm_read_loop *mm_read_loop_of(enum mm_isa isa) {
    return isa == mm_isa_plain ? mm_read_loop_plain : read_neon;
}
