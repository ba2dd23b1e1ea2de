// The CUDA operations on host memory: before each one its operands are copied to the device, after
// it what changed is copied back. Slow, and the way in which the tests of operations, which look at
// both sides, and the whole program can be run against the CPU's reference (MMAMBA_CUDA_MIRROR=1).
// Operands lie in one piece of memory with gaps of 0xff between them, NaN to who reads there; an
// operation that writes there is told. MMAMBA_CUDA_MIRROR=exact gives each an allocation of its
// own, for tools that know where allocations end.
#include "ops/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

bool mm_cuda_mirror_room(struct mm_backend *be, size_t bytes) {
    struct mm_cuda_mirror *m = &mm_cuda_of(be)->mirrored;
    if (bytes <= m->bytes) return true;
    mm_cuda_mirror_close(mm_cuda_of(be));
    const size_t size = bytes + bytes / 2;
    if (!mm_cuda_ok(be, cudaMalloc((void **)&m->dev, size), "cudaMalloc of operands") ||
        !mm_cuda_ok(be, cudaMallocHost((void **)&m->host, size), "cudaMallocHost of operands"))
        return false;
    m->bytes = size;
    return true;
}

void mm_cuda_mirror_close(struct mm_cuda *cuda) {
    struct mm_cuda_mirror *m = &cuda->mirrored;
    if (m->dev) (void)cudaFree(m->dev);
    if (m->host) (void)cudaFreeHost(m->host);
    m->dev = m->host = NULL;
    m->bytes = 0;
}

namespace {

struct span {
    char *begin, *end;
    char *dev;  // where begin is on the device
    size_t at;  // of begin, in the piece of all
};
enum { line = 256, gap = 256 };

// The operands' memory: overlapping operands share one span, as they do on the host.
struct mirror {
    struct mm_backend *be;
    struct span *spans = nullptr;
    int n = 0, cap = 0;
    size_t bytes = 0;  // of the piece of all

    ~mirror() {
        free(spans);
    }

    void add(const void *p, int64_t size) {
        if (!p || size <= 0) return;
        struct span s = {(char *)p, (char *)p + size, nullptr, 0};
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
        if (n == cap) {
            cap = cap ? 2 * cap : 24;
            spans = (struct span *)realloc(spans, (size_t)cap * sizeof *spans);
            if (!spans) abort();  // a test machine without a few kilobytes
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
    // Operands keep their place inside a line: kernels may rely on how they are aligned.
    static size_t inside(const struct span &s) {
        return (uintptr_t)s.begin % line;
    }
    static size_t bytes_of(const struct span &s) {
        return (size_t)(s.end - s.begin);
    }
    bool place() {
        struct mm_cuda_mirror *m = &mm_cuda_of(be)->mirrored;
        if (m->exact) return place_exactly();
        bytes = gap;
        for (int i = 0; i < n; i++) {
            spans[i].at = bytes + inside(spans[i]);
            bytes = (spans[i].at + bytes_of(spans[i]) + gap + line - 1) / line * line;
        }
        if (n == 0) return true;
        if (!mm_cuda_mirror_room(be, bytes)) return false;
        memset(m->host, 0xff, bytes);
        for (int i = 0; i < n; i++) {
            spans[i].dev = m->dev + spans[i].at;
            memcpy(m->host + spans[i].at, spans[i].begin, bytes_of(spans[i]));
        }
        return copy(m->dev, m->host, bytes);
    }
    bool place_exactly() {
        for (int i = 0; i < n; i++) {
            char *p = nullptr;
            const size_t all = bytes_of(spans[i]) + inside(spans[i]);
            if (!mm_cuda_ok(be, cudaMalloc((void **)&p, all), "cudaMalloc")) return false;
            spans[i].dev = p + inside(spans[i]);
            if (!copy(spans[i].dev, spans[i].begin, bytes_of(spans[i]))) return false;
        }
        return true;
    }
    void *moved(const void *p) {
        for (int i = 0; i < n; i++)
            if ((const char *)p >= spans[i].begin && (const char *)p < spans[i].end)
                return spans[i].dev + ((const char *)p - spans[i].begin);
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
    // What did not change may be a mapped file, which cannot be written.
    static void take_back(const struct span &s, const char *now) {
        if (memcmp(now, s.begin, bytes_of(s)) != 0) memcpy(s.begin, now, bytes_of(s));
    }
    void back() {
        struct mm_cuda_mirror *m = &mm_cuda_of(be)->mirrored;
        if (m->exact) {
            back_exactly();
            return;
        }
        if (n == 0 || be->error.code || !copy(m->host, m->dev, bytes)) return;
        for (int i = 0; i < n; i++) {
            take_back(spans[i], m->host + spans[i].at);
            memset(m->host + spans[i].at, 0xff, bytes_of(spans[i]));
        }
        if (m->host[0] != (char)0xff || memcmp(m->host, m->host + 1, bytes - 1) != 0) {
            mm_cuda_ok(be, cudaErrorIllegalAddress, "an operation that writes beside its operands");
        }
    }
    void back_exactly() {
        for (int i = 0; i < n && spans[i].dev; i++) {
            const size_t size = bytes_of(spans[i]);
            char *now = !be->error.code ? (char *)malloc(size) : nullptr;
            if (now && copy(now, spans[i].dev, size)) take_back(spans[i], now);
            free(now);
            mm_cuda_ok(be, cudaFree(spans[i].dev - inside(spans[i])), "giving memory back");
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

// Calls f for every view of a block or a state, in place.
template <class F>
void each_view(struct mm_step_block &b, F f) {
    struct mm_view *views[] = {&b.attention_norm,
                               &b.ffn_norm,
                               &b.in[0],
                               &b.in[1],
                               &b.wo,
                               &b.w1,
                               &b.w3,
                               &b.w2,
                               &b.conv_w,
                               &b.conv_b,
                               &b.dt_bias,
                               &b.a_log,
                               &b.d,
                               &b.q_norm_w,
                               &b.q_norm_b,
                               &b.k_norm_w,
                               &b.k_norm_b,
                               &b.g_norm};
    for (struct mm_view *v : views)
        f(*v);
}
template <class F>
void each_view(struct mm_block_state &b, F f) {
    struct mm_view *views[] = {&b.S, &b.conv, &b.k, &b.v};
    for (struct mm_view *v : views)
        f(*v);
}
template <class F>
void each_view(struct mm_step &s, struct mm_step_block *blocks, struct mm_block_state *states,
               F f) {
    struct mm_view *views[] = {&s.norm, &s.x, &s.hidden, &s.output, &s.logits, &s.stopped};
    for (struct mm_view *v : views)
        f(*v);
    for (int64_t i = 0; i < s.n_blocks; i++)
        each_view(blocks[i], f);
    for (int64_t i = 0; i < s.n_blocks * s.n_seqs; i++)
        each_view(states[i], f);
}

}  // namespace

void mm_cuda_mirror_step(struct mm_backend *be, const struct mm_step *step,
                         void (*run)(struct mm_backend *, const struct mm_step *)) {
    const size_t L = (size_t)step->n_blocks, n = (size_t)step->n_seqs;
    struct mm_step s = *step;
    struct mm_step_block *blocks = (struct mm_step_block *)calloc(L + 1, sizeof *blocks);
    struct mm_block_state *states = (struct mm_block_state *)calloc(L * n + 1, sizeof *states);
    struct mm_step_seq *seqs = (struct mm_step_seq *)calloc(n + 1, sizeof *seqs);
    if (!blocks || !states || !seqs) abort();
    memcpy(blocks, step->blocks, L * sizeof *blocks);
    for (size_t t = 0; t < n; t++) {
        seqs[t] = step->seqs[t];
        memcpy(states + t * L, seqs[t].blocks, L * sizeof *states);
        seqs[t].blocks = states + t * L;
    }
    s.blocks = blocks, s.seqs = seqs;
    struct mirror m;
    m.be = be;
    each_view(s, blocks, states, [&](struct mm_view &v) { m.note(v); });
    if (m.place()) {
        each_view(s, blocks, states, [&](struct mm_view &v) { v = m.map(v); });
        run(be, &s);
    }
    m.back();
    free(blocks);
    free(states);
    free(seqs);
}

#define MM_OPS_ENTRY(name, params, args) \
    &around<decltype(&mm_##name##_cuda)>::run<&mm_##name##_cuda>,
extern const struct mm_ops mm_cuda_mirror_table;
const struct mm_ops mm_cuda_mirror_table = {MM_OPS_TABLE(MM_OPS_ENTRY)};
