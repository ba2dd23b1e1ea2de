// Memory that grows where it lies (struct mm_parts): addresses are reserved once, for as much as
// the device has, and memory is put behind them as it is needed. So growing neither copies nor
// needs room for two, and pointers stay. Keys and values of kept attention live here.
#include "ops/cuda/cuda.h"

#include <cuda.h>
#include <stdlib.h>
#include <string.h>

// The driver's functions, found at run time: the plug-in does not link it.
struct driver {
    decltype(&cuMemGetAllocationGranularity) granularity;
    decltype(&cuMemAddressReserve) reserve;
    decltype(&cuMemAddressFree) free_addresses;
    decltype(&cuMemCreate) create;
    decltype(&cuMemRelease) release;
    decltype(&cuMemMap) map;
    decltype(&cuMemUnmap) unmap;
    decltype(&cuMemSetAccess) access;
    size_t page;
    bool ok;
};

// What one growth added to every part: from `from` on, `bytes` each.
struct layer {
    struct layer *before;
    size_t from, bytes;
    CUmemGenericAllocationHandle memory[1];  // (n)
};

static CUmemAllocationProp kind_of(struct mm_backend *be) {
    CUmemAllocationProp prop = {};
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = mm_cuda_of(be)->device;
    return prop;
}

template <class F>
static bool find(F *f, const char *name) {
    cudaDriverEntryPointQueryResult found;
    void *p = NULL;
    if (cudaGetDriverEntryPointByVersion(name, &p, 12000, cudaEnableDefault, &found) !=
            cudaSuccess ||
        found != cudaDriverEntryPointSuccess) {
        (void)cudaGetLastError();  // not sticky
        return false;
    }
    *f = (F)p;
    return true;
}

static const struct driver *driver_of(struct mm_backend *be) {
    static struct driver d;
    static bool asked;
    if (asked) return &d;
    asked = true;
    int can = 0;
    const CUmemAllocationProp prop = kind_of(be);
    d.ok = cudaDeviceGetAttribute(
               &can, (enum cudaDeviceAttr)CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
               mm_cuda_of(be)->device) == cudaSuccess &&
           can && find(&d.granularity, "cuMemGetAllocationGranularity") &&
           find(&d.reserve, "cuMemAddressReserve") && find(&d.free_addresses, "cuMemAddressFree") &&
           find(&d.create, "cuMemCreate") && find(&d.release, "cuMemRelease") &&
           find(&d.map, "cuMemMap") && find(&d.unmap, "cuMemUnmap") &&
           find(&d.access, "cuMemSetAccess") &&
           d.granularity(&d.page, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM) == CUDA_SUCCESS;
    return &d;
}

bool mm_cuda_can_grow(struct mm_backend *be) {
    return driver_of(be)->ok;
}

static char *part_at(const struct mm_parts *p, int64_t i) {
    return (char *)p->at + (size_t)i * p->room;
}

// Takes back what the first n parts got of a layer.
static void drop_layer(struct mm_backend *be, struct mm_parts *p, struct layer *l, int64_t n) {
    const struct driver *d = driver_of(be);
    bool gone = true;
    for (int64_t i = 0; i < n; i++) {
        gone &= d->unmap((CUdeviceptr)(part_at(p, i) + l->from), l->bytes) == CUDA_SUCCESS &&
                d->release(l->memory[i]) == CUDA_SUCCESS;
    }
    if (!gone) mm_cuda_ok(be, cudaErrorUnknown, "giving memory of a cache back");
    mm_cuda_count(be, -(int64_t)((size_t)n * l->bytes));
    free(l);
}

static bool put_behind(struct mm_backend *be, struct mm_parts *p, struct layer *l, int64_t i) {
    const struct driver *d = driver_of(be);
    const CUmemAllocationProp prop = kind_of(be);
    const CUdeviceptr at = (CUdeviceptr)(part_at(p, i) + l->from);
    if (d->create(&l->memory[i], l->bytes, &prop, 0) != CUDA_SUCCESS) return false;
    if (d->map(at, l->bytes, 0, l->memory[i], 0) != CUDA_SUCCESS) {
        (void)d->release(l->memory[i]);
        return false;
    }
    CUmemAccessDesc access = {};
    access.location = prop.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    if (d->access(at, l->bytes, &access, 1) != CUDA_SUCCESS) {
        (void)d->unmap(at, l->bytes);
        (void)d->release(l->memory[i]);
        return false;
    }
    mm_cuda_count(be, (int64_t)l->bytes);
    return true;
}

static enum mm_code no_room(struct mm_backend *be, size_t wanted, size_t left,
                            struct mm_error *err) {
    return mm_cuda_fail(err, mm_code_memory,
                        "%s: keys and values need %.3f GiB of memory more, %.3f GiB are free",
                        be->device, (double)wanted / 1073741824.0, (double)left / 1073741824.0);
}

static enum mm_code reserve(struct mm_backend *be, struct mm_parts *p, struct mm_error *err) {
    const struct driver *d = driver_of(be);
    size_t left = 0, total = 0;
    if (!mm_cuda_ok(be, cudaMemGetInfo(&left, &total), "asking for the memory there is")) {
        if (err) *err = be->error;
        return be->error.code;
    }
    const size_t n = (size_t)p->n, room = (total / n / d->page + 1) * d->page;
    CUdeviceptr at = 0;
    if (d->reserve(&at, room * n, d->page, 0, 0) != CUDA_SUCCESS) {
        return mm_cuda_fail(err, mm_code_memory, "%s: no addresses for %.2f GiB", be->device,
                            (double)(room * n) / 1073741824.0);
    }
    p->at = (void *)at;
    p->room = room;
    return mm_code_ok;
}

enum mm_code mm_cuda_grow(struct mm_backend *be, struct mm_parts *p, size_t bytes,
                          struct mm_error *err) {
    const struct driver *d = driver_of(be);
    const size_t n = (size_t)p->n, left = (size_t)mm_cuda_available(be);
    if (be->error.code) {
        if (err) *err = be->error;
        return be->error.code;
    }
    if (bytes <= p->bytes) return mm_code_ok;
    // before any of it is taken
    if (bytes - p->bytes > left) return no_room(be, bytes - p->bytes, left, err);
    const size_t all = (bytes + d->page - 1) / d->page * d->page, more = all - p->bytes;
    if (more > left / n) return no_room(be, more * n, left, err);
    if (!p->at) {
        const enum mm_code code = reserve(be, p, err);
        if (code) return code;
    }
    struct layer *l =
        all <= p->room ? (struct layer *)calloc(1, sizeof *l + n * sizeof l->memory[0]) : NULL;
    if (!l) return no_room(be, more * n, left, err);
    l->before = (struct layer *)p->impl, l->from = p->bytes, l->bytes = more;
    for (int64_t i = 0; i < p->n; i++) {
        if (put_behind(be, p, l, i)) continue;
        drop_layer(be, p, l, i);  // somebody else took it meanwhile
        return no_room(be, more * n, left, err);
    }
    p->impl = l;
    p->bytes = all;
    for (int64_t i = 0; i < p->n; i++) {
        if (!mm_cuda_ok(be,
                        cudaMemsetAsync(part_at(p, i) + l->from, 0, more, mm_cuda_of(be)->stream),
                        "filling memory with zeros")) {
            if (err) *err = be->error;
            return be->error.code;
        }
    }
    return mm_code_ok;
}

void mm_cuda_release_parts(struct mm_backend *be, struct mm_parts *p) {
    if (p->at) {
        mm_cuda_ok(be, cudaStreamSynchronize(mm_cuda_of(be)->stream), "waiting");
        for (struct layer *l = (struct layer *)p->impl, *before; l; l = before) {
            before = l->before;
            drop_layer(be, p, l, p->n);
        }
        (void)driver_of(be)->free_addresses((CUdeviceptr)p->at, p->room * (size_t)p->n);
    }
    *p = mm_parts{};
}
