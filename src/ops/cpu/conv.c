// conv_silu: depthwise causal convolution of width K inside each sequence, then silu.
//   z[t] = bias + sum_j w[:, j] x[t-K+1+j],   y = silu(z)
// Rows are shared among the threads; the taps are laid out as rows of channels first.
#include <string.h>
#include "ops/cpu/conv.h"

enum { max_width = mm_conv_width_max, strip = 256 };  // strip: channels at a time in the backward

bool mm_conv_open(struct mm_backend *be, struct mm_conv *f, struct mm_view x, struct mm_view w,
                  struct mm_view bias, struct mm_view state, struct mm_segs segs) {
    *f = (struct mm_conv){.kern = mm_mixer_kernels(be), .x = x, .state = state, .segs = segs};
    f->n_chan = w.shape[0], f->width = w.shape[1];
    const int64_t n = f->n_chan, width = f->width;
    float *taps = mm_cpu_scratch(be, mm_scratch_d, (size_t)((width + 1) * n) * sizeof *taps);
    f->bias = mm_cpu_vector(be, mm_scratch_e, bias);
    if (!taps || !f->bias) return false;
    const float *from = w.data;
    for (int64_t c = 0; c < n; c++) {
        for (int64_t j = 0; j < width; j++) {
            taps[j * n + c] = from[c * w.ld + j];
        }
    }
    memset(taps + width * n, 0, (size_t)n * sizeof *taps);
    f->w = taps, f->zero = taps + width * n;
    return true;
}

struct conv {
    struct mm_conv c;
    struct mm_view y, dx, dy;
    struct mm_blocks blocks;
    float *partial;  // (blocks, K + 1, C): dw tap by tap, then dbias
};

// The sequence of row t.
static int64_t seq_of(struct mm_segs segs, int64_t t) {
    int64_t lo = 0, hi = segs.n;  // start[lo] <= t < start[hi]
    while (hi - lo > 1) {
        const int64_t mid = (lo + hi) / 2;
        if (segs.start[mid] <= t) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    return lo;
}

// Row t of sequence s, which begins at `first`; t may lie up to K-1 before it.
static const float *row_at(const struct mm_conv *f, int64_t s, int64_t first, int64_t t) {
    if (t >= first) return (const float *)f->x.data + t * f->x.ld;
    if (!f->state.data) return f->zero;
    return (const float *)f->state.data + s * f->state.ld + (f->width - 1 + t - first) * f->n_chan;
}

static void taps_of(const struct mm_conv *f, const float **taps, int64_t s, int64_t first,
                    int64_t t, int64_t chan) {
    for (int64_t j = 0; j < f->width; j++) {
        taps[j] = row_at(f, s, first, t - f->width + 1 + j) + chan;
    }
}

void mm_conv_rows(const struct mm_conv *f, float *y, int64_t ldy, int64_t s, int64_t t, int64_t n,
                  int64_t chan, int64_t n_chan) {
    const float *taps[max_width];
    for (int64_t i = 0; i < n; i++, y += ldy) {
        taps_of(f, taps, s, f->segs.start[s], t + i, chan);
        const float *next = (const float *)f->x.data + (t + i + 16) * f->x.ld + chan;
        for (int64_t c = 0; i + 16 < n && c < n_chan; c += 16)
            __builtin_prefetch(next + c, 0, 2);
        f->kern->conv_fwd(y, taps, f->w + chan, f->n_chan, f->bias + chan, f->width, n_chan);
    }
}

static void some_rows(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct conv *f = arg;
    const struct mm_segs segs = f->c.segs;
    int64_t s = seq_of(segs, begin);
    while (begin < end) {
        while (begin >= segs.start[s + 1]) {
            s++;
        }
        const int64_t to = end < segs.start[s + 1] ? end : segs.start[s + 1];
        mm_conv_rows(&f->c, (float *)f->y.data + begin * f->y.ld, f->y.ld, s, begin, to - begin, 0,
                     f->c.n_chan);
        begin = to;
    }
}

// The last K-1 rows of sequence s, [first, end), become its state. Oldest first: a row of the old
// state is read before it is overwritten.
static void keep_rows(const struct mm_conv *f, int64_t s, int64_t first, int64_t end) {
    const int64_t n_past = f->width - 1;
    float *to = (float *)f->state.data + s * f->state.ld;
    if (first == end) return;
    for (int64_t j = 0; j < n_past; j++, to += f->n_chan) {
        memcpy(to, row_at(f, s, first, end - n_past + j), (size_t)f->n_chan * sizeof *to);
    }
}

void mm_conv_keep(const struct mm_conv *f) {
    for (int64_t s = 0; f->state.data && s < f->segs.n; s++) {
        keep_rows(f, s, f->segs.start[s], f->segs.start[s + 1]);
    }
}

void mm_conv_silu_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                          struct mm_view w, struct mm_view bias, struct mm_view state,
                          struct mm_segs segs) {
    if (w.shape[1] > max_width) {
        mm_conv_silu_fwd_ref(be, y, x, w, bias, state, segs);
        return;
    }
    struct conv f = {.y = y};
    if (!mm_conv_open(be, &f.c, x, w, bias, state, segs)) return;
    mm_parallel_for(be->pool, x.shape[0], 8, some_rows, &f);
    mm_conv_keep(&f.c);
}

static void some_steps(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct conv *f = arg;
    const float *taps[max_width];
    for (int64_t s = begin; s < end; s++) {
        taps_of(&f->c, taps, s, s, s, 0);
        f->c.kern->conv_fwd((float *)f->y.data + s * f->y.ld, taps, f->c.w, f->c.n_chan, f->c.bias,
                            f->c.width, f->c.n_chan);
        if (f->c.state.data) keep_rows(&f->c, s, s, s + 1);
    }
}

void mm_conv_silu_step_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                           struct mm_view w, struct mm_view bias, struct mm_view state) {
    if (w.shape[1] > max_width) {
        mm_conv_silu_step_ref(be, y, x, w, bias, state);
        return;
    }
    struct conv f = {.y = y};
    if (!mm_conv_open(be, &f.c, x, w, bias, state, (struct mm_segs){0})) return;
    mm_parallel_for(be->pool, x.shape[0], 8, some_steps, &f);
}

// Channels [c, c + n) of the rows of a block, from the last to the first: dz of a row is computed
// once, and the K - 1 rows after it are still in the ring when dx needs them.
static void strip_bwd(const struct conv *f, float *partial, int64_t c, int64_t n, int64_t begin,
                      int64_t end) {
    const struct mm_conv *e = &f->c;
    const int64_t width = e->width, n_tokens = e->segs.start[e->segs.n];
    _Alignas(64) float ring[max_width][strip], dw[max_width * strip], db[strip];
    const float *taps[max_width], *later[max_width];
    memset(dw, 0, (size_t)(width * n) * sizeof *dw);
    memset(db, 0, (size_t)n * sizeof *db);
    const int64_t from = end + width - 1 < n_tokens ? end + width - 1 : n_tokens;
    int64_t s = from > 0 ? seq_of(e->segs, from - 1) : 0;
    for (int64_t t = from - 1; t >= begin; t--) {
        while (t < e->segs.start[s]) {
            s--;
        }
        const bool counts = t < end;  // else the next block's, here only for dx
        taps_of(e, taps, s, e->segs.start[s], t, c);
        e->kern->conv_bwd(ring[t % width], counts ? dw : NULL, db,
                          (const float *)f->dy.data + t * f->dy.ld + c, taps, e->w + c, e->n_chan,
                          e->bias + c, width, n);
        if (!counts) continue;
        for (int64_t j = 0; j < width; j++) {
            const int64_t u = t + width - 1 - j;
            later[j] = u < e->segs.start[s + 1] ? ring[u % width] : e->zero + c;
        }
        e->kern->conv_dx((float *)f->dx.data + t * f->dx.ld + c, later, e->w + c, e->n_chan, width,
                         n);
    }
    for (int64_t j = 0; j < width; j++) {
        memcpy(partial + j * e->n_chan + c, dw + j * n, (size_t)n * sizeof *dw);
    }
    memcpy(partial + width * e->n_chan + c, db, (size_t)n * sizeof *db);
}

static void some_blocks(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct conv *f = arg;
    for (int64_t b = begin; b < end; b++) {
        const int64_t row = b * f->blocks.rows, left = f->blocks.n_rows - row;
        const int64_t n_rows = left < f->blocks.rows ? left : f->blocks.rows;
        float *partial = f->partial + b * (f->c.width + 1) * f->c.n_chan;
        for (int64_t c = 0; c < f->c.n_chan; c += strip) {
            const int64_t n = f->c.n_chan - c < strip ? f->c.n_chan - c : strip;
            strip_bwd(f, partial, c, n, row, row + n_rows);
        }
    }
}

void mm_conv_silu_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                          struct mm_view dbias, struct mm_view dy, struct mm_view x,
                          struct mm_view w, struct mm_view bias, struct mm_segs segs) {
    if (w.shape[1] > max_width) {
        mm_conv_silu_bwd_ref(be, dx, dw, dbias, dy, x, w, bias, segs);
        return;
    }
    struct conv f = {.dx = dx, .dy = dy};
    if (!mm_conv_open(be, &f.c, x, w, bias, MM_NONE, segs)) return;
    const int64_t n = f.c.n_chan, width = f.c.width;
    f.blocks = mm_blocks_of(x.shape[0]);
    const int64_t total = f.blocks.n * (width + 1) * n;
    // One more row of (K + 1, C) holds the sums.
    f.partial =
        mm_cpu_scratch(be, mm_scratch_c, (size_t)(total + (width + 1) * n) * sizeof *f.partial);
    if (!f.partial) return;
    mm_parallel_for(be->pool, f.blocks.n, 1, some_blocks, &f);
    if (!dw.data) return;
    float *sum = f.partial + total;
    memset(sum, 0, (size_t)((width + 1) * n) * sizeof *sum);
    mm_blocks_add(sum, f.partial, (width + 1) * n, f.blocks.n, (width + 1) * n);
    for (int64_t c = 0; c < n; c++) {
        for (int64_t j = 0; j < width; j++) {
            ((float *)dw.data)[c * dw.ld + j] += sum[j * n + c];
        }
        if (dbias.data) ((float *)dbias.data)[c * dbias.ld] += sum[width * n + c];
    }
}
