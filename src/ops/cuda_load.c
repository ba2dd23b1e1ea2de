// The GPU backend is a plug-in, libmmamba_cuda.so, found beside the program (or library), in
// ../lib/mmamba or mmamba/ from there, else where the loader of shared libraries looks. The program
// itself needs neither a GPU nor a driver.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "ops/ops.h"

#define PLUGIN "libmmamba_cuda.so"

// What the plug-in exports (src/ops/cuda/backend.cu).
struct plugin {
    const char *(*build)(void);
    size_t (*contract)(void);
    int (*list)(char *out, size_t n);
    enum mm_code (*fill)(struct mm_backend *be, int device, bool mirror, struct mm_error *err);
};

static const char anchor;  // its address tells which file this code was loaded from

static void *open_from(const char *under) {
    Dl_info info;
    if (!dladdr(&anchor, &info) || !info.dli_fname) return NULL;
    const char *slash = strrchr(info.dli_fname, '/');
    char path[4096];
    const int n =
        snprintf(path, sizeof path, "%.*s/%s%s", slash ? (int)(slash - info.dli_fname) : 1,
                 slash ? info.dli_fname : ".", under, PLUGIN);
    return n > 0 && (size_t)n < sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

// dlsym gives an object pointer, which ISO C does not let one cast to a function's.
static bool find(void *lib, const char *name, void *to) {
    void *p = dlsym(lib, name);
    memcpy(to, &p, sizeof p);
    return p != NULL;
}

// Loaded once and never unloaded: CUDA's runtime does not survive it.
static enum mm_code load(struct plugin *p, struct mm_error *err) {
    void *lib = open_from("");
    if (!lib) lib = open_from("mmamba/");
    if (!lib) lib = open_from("../lib/mmamba/");
    if (!lib) lib = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        return mm_fail(err, mm_code_unsupported,
                       "--backend cuda: the GPU part is not here (build it with 'make cuda'): %s",
                       dlerror());
    }
    if (!find(lib, "mm_cuda_build", &p->build) || !find(lib, "mm_cuda_contract", &p->contract) ||
        !find(lib, "mm_cuda_list", &p->list) || !find(lib, "mm_cuda_fill", &p->fill)) {
        return mm_fail(err, mm_code_unsupported, "--backend cuda: %s is not mmamba's", PLUGIN);
    }
    const size_t contract = sizeof(struct mm_ops) * 65536 + sizeof(struct mm_backend);
    if (strcmp(p->build(), MMAMBA_VERSION) != 0 || p->contract() != contract) {
        return mm_fail(
            err, mm_code_unsupported,
            "--backend cuda: %s is of another build (version %s, this is %s); build both "
            "together",
            PLUGIN, p->build(), MMAMBA_VERSION);
    }
    return mm_code_ok;
}

// The device's own close has ended with its memory; the pool and the struct are ours.
struct opened {
    struct mm_backend be;
    void (*device_close)(struct mm_backend *be);
};

static void close_opened(struct mm_backend *be) {
    struct opened *o = (struct opened *)be;
    if (o->device_close) o->device_close(be);
    mm_pool_free(be->pool);
    free(o);
}

enum mm_code mm_backend_open_cuda(struct mm_backend **out, int device, int n_threads,
                                  struct mm_error *err) {
    *out = NULL;
    struct plugin p;
    MM_TRY(load(&p, err));
    struct opened *o = mm_xcalloc(1, sizeof *o);
    enum mm_code code = mm_pool_new(&o->be.pool, n_threads, err);
    // Operands in host memory, copied there and back around each operation: for tests.
    const char *mirror = getenv("MMAMBA_CUDA_MIRROR");
    if (!code) code = p.fill(&o->be, device, mirror && *mirror && *mirror != '0', err);
    o->device_close = o->be.close;  // set as soon as there is something to close
    o->be.close = close_opened;
    if (code) {
        close_opened(&o->be);
        return code;
    }
    *out = &o->be;
    return mm_code_ok;
}

enum mm_code mm_backend_list_cuda(char *out, size_t n, int *count, struct mm_error *err) {
    struct plugin p;
    *count = 0;
    MM_TRY(load(&p, err));
    *count = p.list(out, n);
    return mm_code_ok;
}
