#include "base/wait.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    spin_min_ns = 1000,
    spins_per_look = 64,  // looks at the word between two looks at the clock
    waits_per_probe = 16,
};

static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool look(_Atomic uint32_t *word, uint32_t value, bool equals) {
    for (int i = 0; i < spins_per_look; i++) {
        if ((atomic_load_explicit(word, memory_order_acquire) == value) == equals) return true;
        cpu_relax();
    }
    return false;
}

bool mm_spin(_Atomic uint32_t *word, uint32_t value, bool equals, struct mm_patience *p) {
    if (look(word, value, equals)) return true;  // most waits, and no clock is read
    const bool probe = p->waits++ % waits_per_probe == 0;
    const int64_t end = now_ns() + (probe ? mm_spin_max_ns : p->ns);
    do {
        if (look(word, value, equals)) {
            p->ns += (mm_spin_max_ns - p->ns + 3) / 4;
            return true;
        }
    } while (now_ns() < end);
    p->ns -= (p->ns - spin_min_ns) / 4;
    return false;
}

void mm_futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void mm_futex_wake(_Atomic uint32_t *word, int n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}
