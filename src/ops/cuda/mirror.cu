// The CUDA operations on host memory: before each one its operands are copied to the device, after
// it what changed is copied back. Slow, and the way in which the tests of operations, which look at
// both sides, and the whole program can be run against the CPU's reference
// (MMAMBA_CUDA_MIRROR=1).
#include "ops/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

namespace {

struct span {
    char *begin, *end;
    char *dev;
};

// The operands' memory: overlapping operands share one span, as they do on the host.
struct mirror {
    struct mm_backend *be;
    struct span spans[24];
    int n = 0;

    void add(const void *p, int64_t bytes) {
        if (!p || bytes <= 0) return;
        struct span s = {(char *)p, (char *)p + bytes, nullptr};
        for (int i = 0; i < n;) {
            if (s.begin < spans[i].end && spans[i].begin < s.end) {
                if (spans[i].begin < s.begin) s.begin = spans[i].begin;
                if (spans[i].end > s.end) s.end = spans[i].end;
                spans[i] = spans[--n];
                i = 0;
            } else {
                i++;
            }
        }
        spans[n++] = s;
    }
    void note(const struct mm_view &v) {
        if (!v.data || v.shape[0] <= 0) return;
        if (mm_dtype_quantized(v.dtype)) {
            add(v.data, v.shape[0] * mm_quant_row_bytes(v.dtype, mm_view_cols(v)));
        } else {
            add(v.data,
                ((v.shape[0] - 1) * v.ld + mm_view_cols(v)) * (int64_t)mm_dtype_bytes(v.dtype));
        }
    }
    void note(const struct mm_segs &s) {
        add(s.start, (s.n + 1) * (int64_t)sizeof *s.start);
    }
    template <class T>
    void note(const T &) {
    }

    bool copy(void *to, const void *from, size_t bytes) {
        return mm_cuda_ok(
                   be, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, mm_cuda_of(be)->stream),
                   "copying an operand") &&
               mm_cuda_ok(be, cudaStreamSynchronize(mm_cuda_of(be)->stream), "copying an operand");
    }
    bool place() {
        for (int i = 0; i < n; i++) {
            const size_t bytes = (size_t)(spans[i].end - spans[i].begin);
            // to the same place inside a line: kernels may rely on how operands are aligned
            if (!mm_cuda_ok(be, cudaMalloc((void **)&spans[i].dev, bytes + 256), "cudaMalloc"))
                return false;
            if (!copy(at(i), spans[i].begin, bytes)) return false;
        }
        return true;
    }
    char *at(int i) {
        return spans[i].dev + (uintptr_t)spans[i].begin % 256;
    }
    void *moved(const void *p) {
        for (int i = 0; i < n; i++)
            if ((const char *)p >= spans[i].begin && (const char *)p < spans[i].end)
                return at(i) + ((const char *)p - spans[i].begin);
        return nullptr;
    }
    struct mm_view map(struct mm_view v) {
        v.data = v.shape[0] > 0 ? moved(v.data) : nullptr;
        return v;
    }
    struct mm_segs map(struct mm_segs s) {
        s.dev = (const int32_t *)moved(s.start);
        return s;
    }
    template <class T>
    T map(T x) {
        return x;
    }
    void back() {
        for (int i = 0; i < n; i++) {
            const size_t bytes = (size_t)(spans[i].end - spans[i].begin);
            char *now = spans[i].dev && !be->error.code ? (char *)malloc(bytes) : nullptr;
            // what did not change may be a mapped file, which cannot be written
            if (now && copy(now, at(i), bytes) && memcmp(now, spans[i].begin, bytes) != 0) {
                memcpy(spans[i].begin, now, bytes);
            }
            free(now);
            cudaFree(spans[i].dev);
        }
    }
};

template <class F>
struct around;
template <class... A>
struct around<void (*)(struct mm_backend *, A...)> {
    template <void (*op)(struct mm_backend *, A...)>
    static void run(struct mm_backend *be, A... a) {
        struct mirror m;
        m.be = be;
        (m.note(a), ...);
        if (m.place()) op(be, m.map(a)...);
        m.back();
    }
};

}  // namespace

#define MM_OPS_ENTRY(name, params, args) \
    &around<decltype(&mm_##name##_cuda)>::run<&mm_##name##_cuda>,
extern const struct mm_ops mm_cuda_mirror_table;
const struct mm_ops mm_cuda_mirror_table = {MM_OPS_TABLE(MM_OPS_ENTRY)};
