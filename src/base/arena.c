// Arenas over anonymous pages. Under AddressSanitizer what was not taken is poisoned, so that a
// kernel that runs past its operand is caught even though its neighbour lies in the same block.
#include "base/arena.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define MM_ARENA_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MM_ARENA_POISON 1
#endif
#endif
#ifdef MM_ARENA_POISON
#include <sanitizer/asan_interface.h>
#define poison(p, n) __asan_poison_memory_region((p), (n))
#define unpoison(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define poison(p, n) ((void)0)
#define unpoison(p, n) ((void)0)
#endif

enum { huge_page = 2 << 20 };

static size_t round_up(size_t bytes, size_t unit) {
    return bytes + (unit - bytes % unit) % unit;
}

enum mm_code mm_arena_init(struct mm_arena *a, size_t bytes, struct mm_error *err) {
    *a = (struct mm_arena){0};
    if (bytes > SIZE_MAX - huge_page) {
        return mm_fail(err, mm_code_memory, "%zu bytes are more than an address space holds",
                       bytes);
    }
    const size_t cap = round_up(bytes ? bytes : 1, mm_arena_align);
    void *p = mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return mm_fail_errno(err, "cannot reserve %.1f MiB of memory", (double)cap / 1048576.0);
    }
    // Half of a memory-bound kernel's stalls are address translation: ask for large pages. Not
    // getting them is no failure.
    if (cap >= huge_page) (void)madvise(p, cap, MADV_HUGEPAGE);
    *a = (struct mm_arena){.base = p, .cap = cap, .owned = true};
    poison(a->base, a->cap);
    return mm_code_ok;
}

void mm_arena_init_dry(struct mm_arena *a) {
    *a = (struct mm_arena){.cap = SIZE_MAX};
}

void mm_arena_init_over(struct mm_arena *a, void *base, size_t bytes) {
    assert((uintptr_t)base % mm_arena_align == 0);
    *a = (struct mm_arena){.base = base, .cap = bytes - bytes % mm_arena_align};
}

void mm_arena_deinit(struct mm_arena *a) {
    if (a->owned) {
        unpoison(a->base, a->cap);
        munmap(a->base, a->cap);
    }
    *a = (struct mm_arena){0};
}

void *mm_arena_take(struct mm_arena *a, size_t bytes) {
    const size_t padded = round_up(bytes, mm_arena_align);
    assert(padded >= bytes && padded <= a->cap - a->used &&
           "more was taken from an arena than was planned");
    unsigned char *p = a->base ? a->base + a->used : NULL;
    if (a->owned) {
        unpoison(p, bytes);
        // What a released operand left open behind this one.
        poison(p + bytes, padded - bytes);
    }
    a->used += padded;
    if (a->used > a->peak) a->peak = a->used;
    return p;
}
