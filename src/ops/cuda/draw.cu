// Drawing tokens (ops/draw.h): a block a row of logits, which it meets some times over, from the
// L2. The tokens that top-k and top-p leave are found by their logits' bits as whole numbers,
// eleven bits at a time: how many there are, or what they weigh, in each of 2048 ranges, then the
// same within the range where the limit falls.
#include "ops/cuda/cuda.h"
#include "ops/cuda/largest.cuh"

extern "C" {
#include "ops/draw.h"
}

enum { threads = 1024, warps = threads / 32, bins = 2048, bin_bits = 11 };

// What a row's kernel needs of struct mm_draw.
struct draw {
    double top_p, penalty;
    int64_t top_k;
    uint64_t bits, least;  // least: of min_p
    float inverse;         // 1 / temperature
    int greedy, last, banned[2];
};

// Of the rows of a launch, as its arguments: a copy from pageable memory may wait for the kernels
// before it, and steps are to be begun ahead of them.
enum { most_rows = 48 };
struct draws {
    struct draw row[most_rows];
};

// What stops a sequence.
struct stopping {
    int32_t *stopped;  // NULL: nothing does
    float *kept;
    int64_t kept_ld;
    struct mm_draw_stops at;
};

struct limits {
    uint32_t low, high;  // keys [low, high] are in
};

// One row as all passes see it.
struct row {
    const float *logits;
    const uint32_t *seen;
    struct draw d;
    int V;
    float top;
    uint32_t key;  // tokens with this key come up to id `last`; those above it all; 0: no limit
    int last;

    __device__ float logit(int i) const {
        float l = logits[i];
        if (seen && seen[i / 32] >> (i % 32) & 1) l = mm_draw_penalized(l, d.penalty);
        return i == d.banned[0] || i == d.banned[1] ? -INFINITY : l;
    }
    __device__ uint64_t weight(float l) const {
        return mm_draw_weight(__fadd_rn(l, -top), d.inverse);
    }
    __device__ bool kept(uint32_t k, int i) const {
        return k > key || (k == key && i <= last);
    }
};

struct shared {
    uint32_t low[bins], high[bins];  // of the sums of 64 bits
    uint64_t sum[warps];
    int place;
    uint64_t found[4];
};

// f(id, logit) for the ids of this thread; a warp's ids are neighbours, warps follow each other.
template <class F>
__device__ static void each(const struct row &w, const F &f) {
    const int whole = (w.V + threads - 1) / threads * 32, warp = threadIdx.x / 32;
    const int from = warp * whole + (int)threadIdx.x % 32, to = min(w.V, (warp + 1) * whole);
#pragma unroll 4
    for (int i = from; i < to; i += 32)
        f(i, w.logit(i));
}

__device__ static uint64_t warp_sum(uint64_t x) {
    for (int i = 16; i > 0; i >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

// The sum of f(id, logit) over the row, in every thread; sh.sum has that of each warp's ids.
template <class F>
__device__ static uint64_t total_of(const struct row &w, struct shared &sh, const F &f) {
    uint64_t sum = 0;
    each(w, [&](int i, float l) { sum += f(i, l); });
    sum = warp_sum(sum);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sh.sum[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < warps; i++)
        sum += sh.sum[i];
    return sum;
}

// The first id up to which f sums to more than `spot`, after total_of the same f; spot must be
// below the total.
template <class F>
__device__ static int place_of(const struct row &w, struct shared &sh, uint64_t spot, const F &f) {
    const int whole = (w.V + threads - 1) / threads * 32, lane = threadIdx.x % 32;
    int warp = 0;
    while (spot >= sh.sum[warp])
        spot -= sh.sum[warp++];
    if ((int)threadIdx.x / 32 == warp) {
        uint64_t before = 0;
        for (int base = warp * whole;; base += 32) {
            const int i = base + lane;
            uint64_t x = i < w.V ? f(i, w.logit(i)) : 0;
            for (int k = 1; k < 32; k *= 2) {
                const uint64_t other = __shfl_up_sync(0xffffffffu, x, k);
                if (lane >= k) x += other;
            }
            const unsigned over = __ballot_sync(0xffffffffu, before + x > spot);
            if (over) {
                if (lane == 0) sh.place = base + __ffs((int)over) - 1;
                break;
            }
            before += __shfl_sync(0xffffffffu, x, 31);
        }
    }
    __syncthreads();
    const int id = sh.place;
    __syncthreads();
    return id;
}

__device__ static void add_to(struct shared &sh, int bin, uint64_t x) {
    const uint32_t low = (uint32_t)x;
    uint32_t high = (uint32_t)(x >> 32);
    if (atomicAdd(&sh.low[bin], low) + low < low) high++;  // it went over
    if (high) atomicAdd(&sh.high[bin], high);
}

// One warp: the first bin up to which the bins sum to `wanted` at least (there is one), what is
// before it, and what is in it.
__device__ static void find_bin(struct shared &sh, uint64_t wanted) {
    enum { each_lane = bins / 32 };
    const int lane = threadIdx.x;
    uint64_t mine = 0;
    for (int i = 0; i < each_lane; i++) {
        const int b = lane * each_lane + i;
        mine += (uint64_t)sh.high[b] << 32 | sh.low[b];
    }
    uint64_t up_to = mine;
    for (int k = 1; k < 32; k *= 2) {
        const uint64_t other = __shfl_up_sync(0xffffffffu, up_to, k);
        if (lane >= k) up_to += other;
    }
    const unsigned over = __ballot_sync(0xffffffffu, up_to >= wanted);
    if (lane != __ffs((int)over) - 1) return;
    uint64_t before = up_to - mine;
    for (int b = lane * each_lane;; b++) {
        const uint64_t in = (uint64_t)sh.high[b] << 32 | sh.low[b];
        if (before + in >= wanted) {
            sh.found[0] = (uint64_t)b, sh.found[1] = before, sh.found[2] = in;
            return;
        }
        before += in;
    }
}

// The key up to which, from the largest down, f(logit) of the keys within `in` sums to `wanted` at
// least. *before: the sum of those above it; *at: of those that have it.
template <class F>
__device__ static uint32_t key_where(const struct row &w, struct shared &sh, struct limits in,
                                     uint64_t wanted, const F &f, uint64_t *before, uint64_t *at) {
    *before = 0;
    for (;;) {
        const uint32_t span = in.high - in.low;
        const int bits = 32 - __clz((int)span), shift = bits > bin_bits ? bits - bin_bits : 0;
        for (int b = threadIdx.x; b < bins; b += threads)
            sh.low[b] = sh.high[b] = 0;
        __syncthreads();
        each(w, [&](int, float l) {
            const uint32_t k = mm_float_key(l);
            if (k < in.low || k > in.high) return;
            const uint64_t x = f(l);
            if (x) add_to(sh, (int)((in.high - k) >> shift), x);
        });
        __syncthreads();
        if (threadIdx.x < 32) find_bin(sh, wanted - *before);
        __syncthreads();
        const uint32_t bin = (uint32_t)sh.found[0];
        *before += sh.found[1];
        *at = sh.found[2];
        __syncthreads();
        in.high -= bin << shift;
        if (shift == 0) return in.high;
        const uint32_t width = ((uint32_t)1 << shift) - 1;
        if (in.high - in.low > width) in.low = in.high - width;
    }
}

// Where many are alike, only the first m of them by id.
__device__ static void limit(struct row &w, struct shared &sh, uint32_t key, uint64_t m) {
    const auto alike = [=](int, float l) { return (uint64_t)(mm_float_key(l) == key); };
    const uint64_t n = total_of(w, sh, alike);
    w.last = m < n ? place_of(w, sh, m - 1, alike) : INT32_MAX;
    w.key = key;
}

__device__ static void cut(struct row &w, struct shared &sh) {
    struct limits in = {mm_float_key(-INFINITY) + 1, mm_float_key(w.top)};
    const auto weight = [&](float l) { return w.weight(l); };
    const auto one = [&](float l) { return (uint64_t)(w.weight(l) > 0); };
    uint64_t before = 0, at = 0, total = 0, most = UINT64_MAX;
    if (w.d.top_k > 0 && w.d.top_k < w.V) {
        const uint64_t n = total_of(w, sh, [&](int, float l) { return one(l); });
        if ((uint64_t)w.d.top_k < n) {
            const uint32_t key = key_where(w, sh, in, (uint64_t)w.d.top_k, one, &before, &at);
            most = (uint64_t)w.d.top_k - before;
            in.low = key;
            limit(w, sh, key, most);
        }
    }
    if (w.d.top_p >= 1.0) return;
    total = total_of(w, sh,
                     [&](int i, float l) { return w.kept(mm_float_key(l), i) ? w.weight(l) : 0; });
    const uint64_t wanted = mm_draw_part(w.d.top_p, total);
    const uint32_t key = key_where(w, sh, in, wanted, weight, &before, &at);
    // all that have this key weigh the same
    const float l = mm_key_float(key);
    const uint64_t each_one = w.weight(l);
    uint64_t m = (wanted - before + each_one - 1) / each_one;
    if (w.key == key && m > most) m = most;
    limit(w, sh, key, m);
}

__device__ static struct row row_of(const float *logits, int V, const uint32_t *seen,
                                    const struct draw &d) {
    struct row w = {};
    w.logits = logits, w.V = V, w.d = d;
    w.seen = d.penalty != 1.0 ? seen : NULL;
    return w;
}

// The largest logit of every span of the rows.
static __global__ void __launch_bounds__(mm_largest_threads)
    largest_logits(uint64_t *words, const float *logits, int64_t ld, int V, const uint32_t *seen,
                   int64_t seen_ld, const __grid_constant__ struct draws how,
                   const int32_t *stopped) {
    const int64_t r = blockIdx.y;
    if (stopped && stopped[r]) return;
    const struct row w = row_of(logits + r * ld, V, seen ? seen + r * seen_ld : NULL, how.row[r]);
    const uint64_t word = mm_largest_of_span(V, [&](int i) { return w.logit(i); });
    if (threadIdx.x == 0) words[r * gridDim.x + blockIdx.x] = word;
}

static __global__ void __launch_bounds__(threads)
    draw_rows(int32_t *y, int64_t y_ld, const uint64_t *words, int spans, const float *logits,
              int64_t ld, int V, uint32_t *seen, int64_t seen_ld,
              const __grid_constant__ struct draws how,
              const __grid_constant__ struct stopping stop) {
    __shared__ struct shared sh;
    const int64_t r = blockIdx.x;
    if (stop.stopped && stop.stopped[r]) {  // the same for all threads: it is set at the end
        if (threadIdx.x == 0) y[r * y_ld] = -1;
        return;
    }
    struct row w = row_of(logits + r * ld, V, seen ? seen + r * seen_ld : NULL, how.row[r]);
    const uint64_t word = mm_largest_of_spans(words + r * spans, spans);
    w.top = mm_largest_value(word);
    int id = isfinite(w.top) ? mm_largest_column(word) : -1;
    if (id >= 0 && !w.d.greedy) {
        cut(w, sh);
        const auto weight = [&](int i, float l) -> uint64_t {
            if (!w.kept(mm_float_key(l), i)) return 0;
            const uint64_t x = w.weight(l);
            return x < w.d.least ? 0 : x;
        };
        const uint64_t total = total_of(w, sh, weight);
        id = place_of(w, sh, mm_draw_spot(w.d.bits, total), weight);
    }
    if (stop.stopped) {
        bool ends = id < 0 || w.d.last;
        for (int i = 0; i < stop.at.n; i++)
            ends = ends || stop.at.ids[i] == id;
        for (int i = threadIdx.x; ends && stop.kept && i < V; i += threads)
            stop.kept[r * stop.kept_ld + i] = w.logits[i];
        __syncthreads();  // all have looked at the flag
        if (ends && threadIdx.x == 0) stop.stopped[r] = 1;
    }
    if (threadIdx.x) return;
    y[r * y_ld] = id;
    if (w.seen && id >= 0) seen[r * seen_ld + id / 32] |= (uint32_t)1 << id % 32;
}

void mm_draw_tokens_cuda(struct mm_backend *be, struct mm_view y, struct mm_view logits,
                         struct mm_view seen, struct mm_view stopped, struct mm_view kept,
                         const struct mm_draw *how, const struct mm_draw_stops *stops) {
    const int64_t n = logits.shape[0];
    const int V = (int)mm_view_cols(logits), spans = mm_largest_spans(V);
    uint64_t *words = (uint64_t *)mm_cuda_scratch(
        be, mm_cuda_slot_a, (size_t)most_rows * (size_t)spans * sizeof *words);
    if (!words) return;
    for (int64_t from = 0; from < n; from += most_rows) {
        struct draws all = {};
        const int64_t some = n - from < most_rows ? n - from : most_rows;
        for (int64_t i = 0; i < some; i++) {
            const struct mm_draw *d = &how[from + i];
            const bool greedy = d->temperature == 0.0;
            all.row[i] = {d->top_p,
                          d->penalty,
                          d->top_k,
                          d->bits,
                          greedy ? 0 : mm_draw_least(d),
                          greedy ? 0.0f : mm_draw_inverse(d),
                          greedy,
                          d->last,
                          {d->banned[0], d->banned[1]}};
        }
        const bool any = seen.data != NULL;
        struct stopping stop = {};
        if (stopped.data) stop.stopped = (int32_t *)mm_view_at(stopped, from, 0);
        if (kept.data) stop.kept = (float *)mm_view_at(kept, from, 0), stop.kept_ld = kept.ld;
        if (stops) stop.at = *stops;
        uint32_t *tokens = any ? (uint32_t *)mm_view_at(seen, from, 0) : NULL;
        const float *x = (const float *)mm_view_at(logits, from, 0);
        MM_LAUNCH(be, largest_logits, dim3((unsigned)spans, (unsigned)some), mm_largest_threads, 0,
                  words, x, logits.ld, V, tokens, seen.ld, all, stop.stopped);
        MM_LAUNCH(be, draw_rows, (unsigned)some, threads, 0, (int32_t *)mm_view_at(y, from, 0),
                  y.ld, words, spans, x, logits.ld, V, tokens, seen.ld, all, stop);
    }
}
