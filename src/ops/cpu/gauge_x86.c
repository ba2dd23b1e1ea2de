// Loops at the peak of an x86 processor: independent sums in registers or tiles, fed from registers
// alone; and reads of whole cache lines.
#include <cpuid.h>
#include <immintrin.h>
#include "ops/cpu/gauge.h"

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define TILES __attribute__((target("amx-tile,amx-bf16,amx-int8")))

// As many sums as hide an instruction's latency and fit in the registers. Assembly, since a
// compiler may merge, drop or spill sums that nobody reads.
#define SUMS_12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define SUMS_24(X) \
    SUMS_12(X) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)

#define CLEAR_Y(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n\t"
#define CLEAR_Z(i) "vpxorq %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n\t"
#define FMA_Y(i) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #i "\n\t"
#define FMA_Z(i) "vfmadd231ps %%zmm24, %%zmm25, %%zmm" #i "\n\t"
#define DP_BF16(i) "vdpbf16ps %%zmm24, %%zmm25, %%zmm" #i "\n\t"
#define DP_INT8(i) "vpdpbusd %%zmm24, %%zmm25, %%zmm" #i "\n\t"
// Three instructions, the sums of pairs saturating, as integer products go without VNNI.
#define MADD_Y(i)                              \
    "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n\t" \
    "vpmaddwd %%ymm14, %%ymm13, %%ymm14\n\t"   \
    "vpaddd %%ymm14, %%ymm" #i ", %%ymm" #i "\n\t"
#define MADD_Z(i)                              \
    "vpmaddubsw %%zmm24, %%zmm25, %%zmm26\n\t" \
    "vpmaddwd %%zmm26, %%zmm25, %%zmm26\n\t"   \
    "vpaddd %%zmm26, %%zmm" #i ", %%zmm" #i "\n\t"

#define CLOBBER_Y                                                                            \
    "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", \
        "ymm11", "ymm12", "ymm13", "ymm14", "cc"
#define CLOBBER_Z                                                                                 \
    "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10",      \
        "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", \
        "zmm21", "zmm22", "zmm23", "zmm24", "zmm25", "zmm26", "cc"

#define LOOP_Y(sums)                                                                         \
    __asm__ volatile(SUMS_12(CLEAR_Y) CLEAR_Y(12)                                            \
                         CLEAR_Y(13) "1:\n\t" SUMS_12(sums) "dec %0\n\tjnz 1b\n\tvzeroupper" \
                     : "+r"(rounds)                                                          \
                     :                                                                       \
                     : CLOBBER_Y)
#define LOOP_Z(sums)                                                                         \
    __asm__ volatile(SUMS_24(CLEAR_Z) CLEAR_Z(24)                                            \
                         CLEAR_Z(25) "1:\n\t" SUMS_24(sums) "dec %0\n\tjnz 1b\n\tvzeroupper" \
                     : "+r"(rounds)                                                          \
                     :                                                                       \
                     : CLOBBER_Z)

AVX2 static void f32_avx2(int64_t rounds) {
    LOOP_Y(FMA_Y);
}
AVX2 static void int8_avx2(int64_t rounds) {
    LOOP_Y(MADD_Y);
}
AVX512 static void f32_avx512(int64_t rounds) {
    LOOP_Z(FMA_Z);
}
AVX512 static void int8_avx512(int64_t rounds) {
    LOOP_Z(MADD_Z);
}
BF16 static void bf16_avx512(int64_t rounds) {
    LOOP_Z(DP_BF16);
}
VNNI static void int8_vnni(int64_t rounds) {
    LOOP_Z(DP_INT8);
}

// In memory before the program starts: the compiler takes _tile_loadconfig to read 8 bytes, and may
// not have stored the rest.
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_config = {.palette = 1,
                 .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                 .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

TILES static void tiles_open(void) {
    _tile_loadconfig(&tile_config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
}

TILES static void bf16_amx(int64_t rounds) {
    tiles_open();
    for (int64_t i = 0; i < rounds; i++) {
        _tile_dpbf16ps(0, 6, 7);
        _tile_dpbf16ps(1, 6, 7);
        _tile_dpbf16ps(2, 6, 7);
        _tile_dpbf16ps(3, 6, 7);
        _tile_dpbf16ps(4, 6, 7);
        _tile_dpbf16ps(5, 6, 7);
    }
    _tile_release();
}

TILES static void int8_amx(int64_t rounds) {
    tiles_open();
    for (int64_t i = 0; i < rounds; i++) {
        _tile_dpbssd(0, 6, 7);
        _tile_dpbssd(1, 6, 7);
        _tile_dpbssd(2, 6, 7);
        _tile_dpbssd(3, 6, 7);
        _tile_dpbssd(4, 6, 7);
        _tile_dpbssd(5, 6, 7);
    }
    _tile_release();
}

static bool has_tiles_int8(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 25);
}

struct mm_peak_loop mm_peak_loop_of(enum mm_isa isa, enum mm_ceiling which) {
    const struct mm_peak_loop none = {NULL, 0, NULL};
    __builtin_cpu_init();
    switch (isa) {
        case mm_isa_avx2:
            if (which == mm_ceiling_f32) {
                return (struct mm_peak_loop){f32_avx2, 12 * 8 * 2, "AVX2 fma"};
            }
            if (which == mm_ceiling_int8) {
                return (struct mm_peak_loop){int8_avx2, 12 * 32 * 2, "AVX2 maddubs"};
            }
            return none;
        case mm_isa_avx512:
            if (which == mm_ceiling_f32) {
                return (struct mm_peak_loop){f32_avx512, 24 * 16 * 2, "AVX-512 fma"};
            }
            if (which == mm_ceiling_int8) {
                return (struct mm_peak_loop){int8_avx512, 24 * 64 * 2, "AVX-512 maddubs"};
            }
            return none;
        case mm_isa_avx512bf16:
            if (which == mm_ceiling_bf16) {
                return (struct mm_peak_loop){bf16_avx512, 24 * 32 * 2, "AVX-512 BF16"};
            }
            if (which == mm_ceiling_int8 && __builtin_cpu_supports("avx512vnni")) {
                return (struct mm_peak_loop){int8_vnni, 24 * 64 * 2, "AVX-512 VNNI"};
            }
            return none;
        case mm_isa_amx:
            if (which == mm_ceiling_bf16) {
                return (struct mm_peak_loop){bf16_amx, 6 * 16 * 16 * 32 * 2, "AMX bf16 tiles"};
            }
            if (which == mm_ceiling_int8 && has_tiles_int8()) {
                return (struct mm_peak_loop){int8_amx, 6 * 16 * 16 * 64 * 2, "AMX int8 tiles"};
            }
            return none;
        default:
            return mm_peak_loop_plain(which);
    }
}

// ---- reading ------------------------------------------------------------------------------------

enum { line = 64, ahead_lines = 24 };

AVX512 static uint64_t read_avx512(const void *from, int64_t bytes, int streams, bool ahead) {
    const int64_t each = bytes / streams;
    const char *base = from;
    __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
    for (int64_t at = 0; at < each; at += 4 * line) {
        for (int i = 0; i < streams; i++) {
            const char *p = base + i * each + at;
            if (ahead) {
                for (int k = 0; k < 4; k++)
                    _mm_prefetch(p + (ahead_lines + k) * line, _MM_HINT_T0);
            }
            s0 = _mm512_add_epi64(s0, _mm512_load_si512(p));
            s1 = _mm512_add_epi64(s1, _mm512_load_si512(p + line));
            s2 = _mm512_add_epi64(s2, _mm512_load_si512(p + 2 * line));
            s3 = _mm512_add_epi64(s3, _mm512_load_si512(p + 3 * line));
        }
    }
    s0 = _mm512_add_epi64(_mm512_add_epi64(s0, s1), _mm512_add_epi64(s2, s3));
    // lane by lane: the intrinsic's sum is of signed numbers, which must not overflow
    uint64_t lane[8], sum = 0;
    _mm512_storeu_si512(lane, s0);
    for (int i = 0; i < 8; i++)
        sum += lane[i];
    return sum;
}

AVX2 static uint64_t read_avx2(const void *from, int64_t bytes, int streams, bool ahead) {
    const int64_t each = bytes / streams;
    const char *base = from;
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    for (int64_t at = 0; at < each; at += 2 * line) {
        for (int i = 0; i < streams; i++) {
            const char *p = base + i * each + at;
            if (ahead) {
                _mm_prefetch(p + ahead_lines * line, _MM_HINT_T0);
                _mm_prefetch(p + (ahead_lines + 1) * line, _MM_HINT_T0);
            }
            for (int k = 0; k < 4; k++) {
                const __m256i v = _mm256_load_si256((const void *)(p + k * line / 2));
                s[k] = _mm256_add_epi64(s[k], v);
            }
        }
    }
    s[0] = _mm256_add_epi64(_mm256_add_epi64(s[0], s[1]), _mm256_add_epi64(s[2], s[3]));
    uint64_t sum[4];
    memcpy(sum, &s[0], sizeof sum);
    return sum[0] + sum[1] + sum[2] + sum[3];
}

mm_read_loop *mm_read_loop_of(enum mm_isa isa) {
    return isa >= mm_isa_avx512 ? read_avx512 : isa == mm_isa_avx2 ? read_avx2 : mm_read_loop_plain;
}
