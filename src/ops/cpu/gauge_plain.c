// Loops of plain C, for MMAMBA_ISA=plain: what a compiler makes of the simplest code.
#include "ops/cpu/gauge.h"

// Sums that nobody could fold: each starts elsewhere, and all of them are written out at the end.
static void f32_plain(int64_t rounds) {
    enum { n = 32 };
    float sum[n];
    for (int i = 0; i < n; i++)
        sum[i] = (float)i;
    for (int64_t r = 0; r < rounds; r++) {
        for (int i = 0; i < n; i++)
            sum[i] = sum[i] * 0.999f + 1.0f;
        __asm__ volatile("" ::: "memory");
    }
    volatile float out = 0.0f;
    for (int i = 0; i < n; i++)
        out = out + sum[i];
}

static void int8_plain(int64_t rounds) {
    enum { n = 64 };
    int8_t a[n];
    int32_t sum = 0;
    for (int i = 0; i < n; i++)
        a[i] = (int8_t)i;
    for (int64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : : "r"(a) : "memory");
        for (int i = 0; i < n; i++)
            sum += (int32_t)a[i] * (int32_t)a[i];
    }
    volatile int32_t out = sum;
    (void)out;
}

struct mm_peak_loop mm_peak_loop_plain(enum mm_ceiling which) {
    if (which == mm_ceiling_f32) return (struct mm_peak_loop){f32_plain, 64, "plain C"};
    if (which == mm_ceiling_int8) return (struct mm_peak_loop){int8_plain, 128, "plain C"};
    return (struct mm_peak_loop){NULL, 0, NULL};
}

uint64_t mm_read_loop_plain(const void *from, int64_t bytes, int streams, bool ahead) {
    const int64_t each = bytes / streams;
    const char *base = from;
    uint64_t sum[8] = {0};
    for (int64_t at = 0; at < each; at += 64) {
        for (int i = 0; i < streams; i++) {
            const uint64_t *p = (const void *)(base + i * each + at);
            if (ahead) __builtin_prefetch(p + 24 * 8);
            for (int k = 0; k < 8; k++)
                sum[k] += p[k];
        }
    }
    uint64_t all = 0;
    for (int k = 0; k < 8; k++)
        all += sum[k];
    return all;
}
