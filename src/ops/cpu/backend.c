// The CPU as a backend: its memory is the process's own, its operations run on the pool before
// they return. MMAMBA_ISA picks the instruction set; without it, the best there is.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/buf.h"
#include "base/memory.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gauge.h"
#include "ops/cpu/product.h"

static enum mm_code choose_isa(enum mm_isa *isa, struct mm_error *err) {
    const enum mm_isa best = mm_isa_best();
    *isa = best;
    const char *wanted = getenv("MMAMBA_ISA");
    if (!wanted || !*wanted) return mm_code_ok;
    char names[64] = "";
    for (int i = 0; i <= (int)best; i++) {
        if (!strcmp(wanted, mm_isa_name((enum mm_isa)i))) {
            *isa = (enum mm_isa)i;
            return mm_code_ok;
        }
        const size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", mm_isa_name((enum mm_isa)i));
    }
    for (int i = (int)best + 1; i < mm_isa_count; i++) {
        if (strcmp(wanted, mm_isa_name((enum mm_isa)i))) continue;
        return mm_fail(err, mm_code_unsupported,
                       "MMAMBA_ISA is '%s', which this processor does not have; it has: %s", wanted,
                       names);
    }
    return mm_fail(err, mm_code_usage, "MMAMBA_ISA is '%s', must be one of: %s", wanted, names);
}

// ---- memory ----

// The largest page that a kernel of our architectures may use (AArch64: 4, 16 or 64 KiB).
enum { page_bytes = 65536, huge_bytes = 2 << 20 };

static size_t whole_pages(size_t bytes) {
    return bytes ? (bytes + page_bytes - 1) / page_bytes * page_bytes : page_bytes;
}

// Fresh pages are zero. Large blocks start at a huge page, so that all of them can be huge.
static void *map_pages(size_t bytes) {
    if (bytes > SIZE_MAX - 2 * huge_bytes) {
        errno = ENOMEM;
        return NULL;
    }
    const size_t whole = whole_pages(bytes);
    const size_t extra = whole >= (size_t)huge_bytes ? huge_bytes : 0;
    unsigned char *p =
        mmap(NULL, whole + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (!extra) return p;
    const size_t before = (huge_bytes - (uintptr_t)p % huge_bytes) % huge_bytes;
    if (before) munmap(p, before);
    if (extra > before) munmap(p + before + whole, extra - before);
    madvise(p + before, whole, MADV_HUGEPAGE);  // a hint: kernels without it go on with small ones
    return p + before;
}

static enum mm_code cpu_alloc(struct mm_backend *be, size_t bytes, void **out,
                              struct mm_error *err) {
    (void)be;
    *out = map_pages(bytes);
    if (*out) return mm_code_ok;
    return mm_fail(err, mm_code_memory, "cannot get %.1f MiB of memory: %s",
                   (double)bytes / 1048576.0, strerror(errno));
}

static void cpu_release(struct mm_backend *be, void *p, size_t bytes) {
    (void)be;
    if (p) munmap(p, whole_pages(bytes));
}

static void cpu_move(struct mm_backend *be, void *dst, const void *src, size_t bytes) {
    if (be->error.code || !bytes) return;
    memmove(dst, src, bytes);
}

void *mm_cpu_scratch(struct mm_backend *be, enum mm_scratch slot, size_t bytes) {
    struct mm_cpu *cpu = be->impl;
    if (cpu->scratch[slot] && bytes <= cpu->scratch_bytes[slot]) return cpu->scratch[slot];
    void *fresh = map_pages(bytes);
    if (!fresh) {
        mm_fail(&be->error, mm_code_memory, "cannot get %.1f MiB of scratch memory: %s",
                (double)bytes / 1048576.0, strerror(errno));
        return NULL;
    }
    const size_t had = cpu->scratch[slot] ? whole_pages(cpu->scratch_bytes[slot]) : 0;
    if (had) munmap(cpu->scratch[slot], had);
    cpu->scratch[slot] = fresh;
    cpu->scratch_bytes[slot] = whole_pages(bytes);
    be->scratch_bytes += cpu->scratch_bytes[slot] - had;
    return fresh;
}

enum mm_isa mm_cpu_isa(const struct mm_backend *be) {
    return ((const struct mm_cpu *)be->impl)->isa;
}

const float *mm_cpu_vector(struct mm_backend *be, enum mm_scratch slot, struct mm_view v) {
    if (!v.data || v.dtype == mm_dtype_f32) return v.data;
    float *out = mm_cpu_scratch(be, slot, (size_t)mm_view_count(v) * sizeof *out);
    if (out) mm_to_f32(out, v.data, v.dtype, mm_view_count(v));
    return out;
}

// ---- life ----

static void name_device(struct mm_backend *be, enum mm_isa isa) {
    char model[64];
    mm_isa_processor(model, sizeof model);
    const int n = mm_pool_size(be->pool);
    snprintf(be->device, sizeof be->device, "%s, %s, %d thread%s", model, mm_isa_name(isa), n,
             n == 1 ? "" : "s");
}

static int64_t cpu_available(struct mm_backend *be) {
    (void)be;
    return mm_memory_available();
}

static enum mm_code cpu_sync(struct mm_backend *be, struct mm_error *err) {
    if (be->error.code && err) *err = be->error;
    return be->error.code;
}

static void cpu_close(struct mm_backend *be) {
    struct mm_cpu *cpu = be->impl;
    mm_products_close(cpu);
    for (int i = 0; i < mm_scratch_count; i++) {
        if (cpu->scratch[i]) munmap(cpu->scratch[i], whole_pages(cpu->scratch_bytes[i]));
    }
    mm_team_free(cpu->team);
    mm_pool_free(be->pool);
    free(cpu);
    free(be);
}

enum mm_code mm_backend_open_cpu(struct mm_backend **out, int n_threads, struct mm_error *err) {
    *out = NULL;
    enum mm_isa isa;
    MM_TRY(choose_isa(&isa, err));
    struct mm_pool *pool;
    MM_TRY(mm_pool_new(&pool, n_threads, err));
    struct mm_backend *be = mm_xcalloc(1, sizeof *be);
    struct mm_cpu *cpu = mm_xcalloc(1, sizeof *cpu);
    *be = (struct mm_backend){
        .ops = isa == mm_isa_plain ? &mm_ops_cpu_ref : &mm_ops_cpu,
        .gauges = &mm_gauges_cpu,
        .name = "cpu",
        .pool = pool,
        .impl = cpu,
        .product = mm_dtype_f32,
        .activations = mm_dtype_f32,
        .mamba2_fwd = isa == mm_isa_plain ? NULL : mm_mamba2_fwd_cpu,
        .piece_tokens = 1024,
        .alloc = cpu_alloc,
        .release = cpu_release,
        .upload = cpu_move,
        .download = cpu_move,
        .move = cpu_move,
        .sync = cpu_sync,
        .available = cpu_available,
        .close = cpu_close,
        .host_memory = true,
    };
    cpu->isa = isa;
    name_device(be, isa);
    const enum mm_code made = mm_team_new(&cpu->team, pool, err);
    if (made != mm_code_ok) {
        cpu_close(be);
        return made;
    }
    if (isa != mm_isa_plain) {
        const enum mm_code code = mm_products_open(cpu, mm_pool_size(pool), err);
        if (code != mm_code_ok) {
            cpu_close(be);
            return code;
        }
    }
    *out = be;
    return mm_code_ok;
}
