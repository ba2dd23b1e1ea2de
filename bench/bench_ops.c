// Time of the operations of the mixer and of attention, for the cases that matter: training on many
// short packed sequences, a piece of a prompt with its state, and one long sequence.
//     build/bench/bench_ops [TOKENS_OF_THE_LONG_CASE] [THREADS]...
// A line: operation, threads, milliseconds (best of several; of one thread the processor's time, so
// that other programs count little), GFLOP/s of the products it does and how much that is of the
// processor's f32 rate, GB/s of the operands it must read or write once. The ceilings are measured
// in the same run. "mixer, one pass": what answers use where there are tiles, all between a mixer's
// projections, with operands rounded or in halves. The share: what convolution, dt, recurrence and
// norm take of a block's time when its dense products, with a feed-forward part of four times the
// width, run at 88% of the bf16 rate.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "base/rng.h"
#include "ops/cpu/ssd.h"

struct bench {
    struct mm_backend *be;
    int64_t t, h, g, p, n_seqs, chan;
    int32_t *start;
    struct mm_segs segs;
    struct mm_view x, conv, w, bias, dconv, dw, dbias;  // convolution; conv holds v, k, q
    struct mm_view dt_raw, dt, ddt, head, dhead;
    double ceiling[3];  // f32, bf16, bytes read a second
    struct mm_view past_k, past_v, z, conv_state, ffn_a, ffn_b, ffn_y, width, pos;
    int64_t n_past;
    bool one_pass;  // the backend has mm_mamba2_fwd
    struct mm_view a_log, y, dy, dvkq, o, gate, dgate, norm, dnorm, rinv, stats, state;
};

enum { short_past = 32768, long_past = 100000 };  // rows of the cache that attention_step sees

static double now(bool of_thread) {
    struct timespec t;
    clock_gettime(of_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct mm_view matrix(struct bench *b, int64_t rows, int64_t cols, float lo, float hi) {
    float *p = malloc((size_t)(rows * cols) * sizeof *p);
    if (!p) {
        fprintf(stderr, "bench_ops: out of memory\n");
        exit(1);
    }
    struct mm_rng rng = mm_rng_make(1, (uint64_t)(rows * 131 + cols));
    for (int64_t i = 0; i < rows * cols; i++) {
        p[i] = lo + (hi - lo) * (i < 65536 ? mm_rng_f32(&rng) : (p[i - 65536] - lo) / (hi - lo));
    }
    (void)b;
    return mm_view2(p, mm_dtype_f32, rows, cols);
}

static struct mm_view as_vector(struct mm_view v) {
    return mm_view1(v.data, mm_dtype_f32, v.shape[1]);
}

static void setup(struct bench *b) {
    const int64_t t = b->t, c = b->chan, hp = b->h * b->p;
    b->x = matrix(b, t, c, -1, 1), b->conv = matrix(b, t, c, -0.3f, 0.3f);
    b->dconv = matrix(b, t, c, -1, 1), b->dvkq = matrix(b, t, c, -1, 1);
    b->w = matrix(b, c, 2, -1, 1), b->dw = matrix(b, c, 2, 0, 1);
    b->bias = as_vector(matrix(b, 1, c, -1, 1)), b->dbias = as_vector(matrix(b, 1, c, 0, 1));
    b->dt_raw = matrix(b, t, b->h, -5, -2), b->dt = matrix(b, t, b->h, 0.001f, 0.1f);
    b->ddt = matrix(b, t, b->h, 0, 1);
    b->head = as_vector(matrix(b, 1, b->h, -1, 1));
    b->dhead = as_vector(matrix(b, 1, b->h, -1, 1));
    b->a_log = as_vector(matrix(b, 1, b->h, 0.5f, 1.5f));
    b->y = mm_view_split(matrix(b, t, hp, -1, 1), b->h, b->p);
    b->dy = mm_view_split(matrix(b, t, hp, -1, 1), b->h, b->p);
    b->o = mm_view_split(matrix(b, t, hp, -1, 1), b->h, b->p);
    b->gate = matrix(b, t, hp, -3, 3), b->dgate = matrix(b, t, hp, -1, 1);
    b->norm = as_vector(matrix(b, 1, b->p, 0, 1)), b->dnorm = as_vector(matrix(b, 1, b->p, 0, 1));
    b->rinv = matrix(b, t, b->h, 0.5f, 1), b->stats = matrix(b, t, 2 * b->h, 0.5f, 1);
    b->past_k = matrix(b, long_past, b->g * b->p, -1, 1);
    b->past_v = matrix(b, long_past, b->g * b->p, -1, 1);
    b->z = matrix(b, t, c + hp + b->h, -1, 1);
    b->conv_state = matrix(b, b->n_seqs, c, -1, 1);
    b->ffn_a = matrix(b, t, 4 * hp, -3, 3), b->ffn_b = matrix(b, t, 4 * hp, -3, 3);
    b->ffn_y = matrix(b, t, 4 * hp, -3, 3);
    b->width = as_vector(matrix(b, 1, hp, 0, 1));
    b->pos = mm_view1(calloc((size_t)t, sizeof(int32_t)), mm_dtype_i32, t);
    if (!b->pos.data) exit(1);
    b->state = matrix(b, b->n_seqs, b->h * b->p * b->p, -1, 1);
    b->start = malloc((size_t)(b->n_seqs + 1) * sizeof *b->start);
    for (int64_t s = 0; s <= b->n_seqs; s++) {
        b->start[s] = (int32_t)(t * s / b->n_seqs);
    }
    b->segs = (struct mm_segs){b->n_seqs, b->start, b->start};
}

static void tear_down(struct bench *b) {
    struct mm_view *const all[] = {
        &b->x,      &b->conv,  &b->w,     &b->bias,   &b->dconv,  &b->dw,    &b->dbias,
        &b->dt_raw, &b->dt,    &b->ddt,   &b->head,   &b->dhead,  &b->a_log, &b->y,
        &b->dy,     &b->dvkq,  &b->o,     &b->gate,   &b->dgate,  &b->norm,  &b->dnorm,
        &b->rinv,   &b->stats, &b->state, &b->past_k, &b->past_v, &b->z,     &b->conv_state};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]->data);
    }
    free(b->start);
}

static struct mm_view part(const struct bench *b, struct mm_view all, char which) {
    const int64_t gp = b->g * b->p;
    if (which == 'v') return mm_view_split(mm_view_cut(all, 0, gp), b->g, b->p);
    if (which == 'k') return mm_view_split(mm_view_cut(all, gp, gp), b->g, b->p);
    return mm_view_split(mm_view_cut(all, 2 * gp, b->h * b->p), b->h, b->p);
}
#define VKQ(all) part(b, all, 'v'), part(b, all, 'k'), part(b, all, 'q')

static void rmsnorm_fwd(struct bench *b) {
    mm_rmsnorm_fwd(b->be, mm_view_flat(b->o), MM_NONE, mm_view_flat(b->y), b->width, 1e-5f);
}
static void add(struct bench *b) {
    mm_add(b->be, mm_view_flat(b->o), mm_view_flat(b->dy), mm_view_flat(b->y));
}
static void swiglu_fwd(struct bench *b) {
    mm_swiglu_fwd(b->be, b->ffn_y, b->ffn_a, b->ffn_b);
}
static void rope_fwd(struct bench *b) {
    mm_qkv_rope_fwd(b->be, b->dy, part(b, b->dvkq, 'k'), part(b, b->dvkq, 'v'), b->x, b->pos, 1e4f,
                    1.0f);
}

static void conv_silu_fwd(struct bench *b) {
    mm_conv_silu_fwd(b->be, b->dconv, b->x, b->w, b->bias, MM_NONE, b->segs);
}
static void conv_silu_bwd(struct bench *b) {
    mm_conv_silu_bwd(b->be, b->dconv, b->dw, b->dbias, b->conv, b->x, b->w, b->bias, b->segs);
}
static void softplus_fwd(struct bench *b) {
    mm_softplus_fwd(b->be, b->ddt, b->dt_raw, b->head);
}
static void softplus_bwd(struct bench *b) {
    mm_softplus_bwd(b->be, b->ddt, b->dhead, b->dt, b->dt_raw, b->head);
}
static void ssd_fwd(struct bench *b) {
    mm_ssd_fwd(b->be, b->y, VKQ(b->conv), b->dt, b->a_log, MM_NONE, MM_NONE, b->segs);
}
static void ssd_bwd(struct bench *b) {
    mm_ssd_bwd(b->be, VKQ(b->dvkq), b->ddt, b->dhead, MM_NONE, b->dy, VKQ(b->conv), b->dt, b->a_log,
               MM_NONE, b->segs);
}
static void ssd_step(struct bench *b) {
#define FIRST(v) mm_view_rows(v, 0, b->n_seqs)
    struct mm_view state = mm_view4(b->state.data, mm_dtype_f32, b->n_seqs, b->h, b->p, b->p);
    mm_ssd_step(b->be, FIRST(b->y), FIRST(part(b, b->conv, 'v')), FIRST(part(b, b->conv, 'k')),
                FIRST(part(b, b->conv, 'q')), FIRST(b->dt), b->a_log, MM_NONE, state);
}
static void ssd_piece(struct bench *b) {
    struct mm_view state = mm_view4(b->state.data, mm_dtype_f32, b->n_seqs, b->h, b->p, b->p);
    mm_ssd_fwd(b->be, b->y, VKQ(b->conv), b->dt, b->a_log, MM_NONE, state, b->segs);
}
static void mixer_fwd(struct bench *b) {
    const struct mm_mamba2 m = {
        .G = b->g,
        .H = b->h,
        .P = b->p,
        .z = b->z,
        .conv_w = b->w,
        .conv_b = b->bias,
        .dt_bias = b->head,
        .a_log = b->a_log,
        .norm_w = b->norm,
        .eps = 1e-5f,
        .conv = mm_view3(b->conv_state.data, mm_dtype_f32, b->n_seqs, 1, b->chan),
        .S = mm_view4(b->state.data, mm_dtype_f32, b->n_seqs, b->h, b->p, b->p),
        .segs = b->segs};
    b->one_pass = mm_mamba2_fwd(b->be, b->o, &m);
}
static void attention_fwd(struct bench *b) {
    mm_attention_fwd(b->be, b->y, b->rinv, part(b, b->conv, 'q'), part(b, b->conv, 'k'),
                     part(b, b->conv, 'v'), b->segs);
}
static void attention_bwd(struct bench *b) {
    mm_attention_bwd(b->be, part(b, b->dvkq, 'q'), part(b, b->dvkq, 'k'), part(b, b->dvkq, 'v'),
                     b->dy, b->y, b->rinv, part(b, b->conv, 'q'), part(b, b->conv, 'k'),
                     part(b, b->conv, 'v'), b->segs);
}
static void attention_step(struct bench *b) {
    mm_attention_step(b->be, FIRST(b->y), FIRST(part(b, b->conv, 'q')),
                      mm_view_rows(mm_view_split(b->past_k, b->g, b->p), 0, b->n_past),
                      mm_view_rows(mm_view_split(b->past_v, b->g, b->p), 0, b->n_past),
                      b->n_past - b->n_seqs);
}
static void head_norm_fwd(struct bench *b) {
    mm_head_norm_fwd(b->be, b->o, b->stats, b->y, b->norm, b->norm, 1e-5f);
}
static void head_norm_bwd(struct bench *b) {
    mm_head_norm_bwd(b->be, b->o, b->dnorm, MM_NONE, b->dy, b->y, b->norm, b->stats);
}
static void gated_norm_fwd(struct bench *b) {
    mm_gated_norm_fwd(b->be, b->o, b->rinv, b->y, b->gate, b->norm, 1e-5f);
}
static void gated_norm_bwd(struct bench *b) {
    mm_gated_norm_bwd(b->be, b->o, b->dgate, b->dnorm, b->dy, b->y, b->gate, b->norm, b->rinv);
}

// Floating point operations of the products over chunks, one head: n^2 a row pair inside a chunk
// (half of it is masked), and the products with states where there is one.
static double ssd_flops(const struct bench *b, bool backward) {
    double sum = 0.0;
    const double p = (double)b->p;
    for (int64_t s = 0; s < b->n_seqs; s++) {
        const int64_t len = b->start[s + 1] - b->start[s],
                      chunk = mm_ssd_chunk(mm_mixer_kernels(b->be), len);
        for (int64_t t = 0; t < len; t += chunk) {
            const double n = (double)(len - t < chunk ? len - t : chunk);
            const double inner = n * n * p, outer = 2.0 * n * p * p;
            const int before = t > 0, after = t + chunk < len;
            sum += backward ? 5 * inner + outer * (2 * before + 3 * after)
                            : 2 * inner + outer * (before + after);
        }
    }
    return sum * (double)b->h;
}

// Pairs of a query and a key it sees.
static double attention_pairs(const struct bench *b) {
    double sum = 0.0;
    for (int64_t s = 0; s < b->n_seqs; s++) {
        const double n = (double)(b->start[s + 1] - b->start[s]);
        sum += n * (n + 1) / 2;
    }
    return sum * (double)b->h;
}

static void check(struct bench *b) {
    struct mm_error err;
    if (mm_backend_sync(b->be, &err) == mm_code_ok) return;
    fprintf(stderr, "bench_ops: %s\n", err.text);
    exit(1);
}

// Seconds, the best of several.
static double measure(struct bench *b, const char *name, void (*run)(struct bench *), double flops,
                      double floats) {
    const bool one = mm_pool_size(b->be->pool) == 1;
    run(b);
    double best = 1e30;
    const double until = now(false) + 0.5;
    for (int i = 0; i < 2 || (i < 200 && now(false) < until); i++) {
        const double t = now(one);
        run(b);
        const double took = now(one) - t;
        best = took < best ? took : best;
    }
    check(b);
    printf("  %-15s %d threads %9.3f ms %8.1f GFLOP/s %6.1f%% %7.1f GB/s %6.1f%%\n", name,
           mm_pool_size(b->be->pool), best * 1e3, flops / best * 1e-9,
           100 * flops / best / b->ceiling[0], floats * 4e-9 / best,
           100 * floats * 4 / best / b->ceiling[2]);
    return best;
}

static void ceilings(struct bench *b) {
    static const enum mm_ceiling which[] = {mm_ceiling_f32, mm_ceiling_bf16, mm_ceiling_read};
    struct mm_error err;
    const char *how;
    for (int i = 0; i < 3; i++) {
        if (b->be->gauges->ceiling(b->be, which[i], 0.3, &b->ceiling[i], &how, &err) ==
            mm_code_ok) {
            continue;
        }
        fprintf(stderr, "bench_ops: %s\n", err.text);
        exit(1);
    }
    printf("  ceilings: f32 %.1f, bf16 %.1f GFLOP/s, read %.1f GB/s\n", b->ceiling[0] * 1e-9,
           b->ceiling[1] * 1e-9, b->ceiling[2] * 1e-9);
}

static void run_case(struct bench *b, const char *title, int n_threads, bool training) {
    struct mm_error err;
    if (mm_backend_open_cpu(&b->be, n_threads, &err) != mm_code_ok) {
        fprintf(stderr, "bench_ops: %s\n", err.text);
        exit(1);
    }
    b->be->product = mm_dtype_bf16;
    printf("%s: T %lld, S %lld, H %lld, G %lld, P = N %lld, %s\n", title, (long long)b->t,
           (long long)b->n_seqs, (long long)b->h, (long long)b->g, (long long)b->p, b->be->device);
    ceilings(b);
    const double c = (double)(b->t * b->chan), hp = (double)(b->t * b->h * b->p);
    const double th = (double)(b->t * b->h), st = (double)(b->n_seqs * b->h * b->p * b->p);
    const double gp = (double)(b->t * b->g * b->p), pairs = attention_pairs(b) * (double)b->p;
    double mixer = measure(b, "conv_silu_fwd", conv_silu_fwd, 4 * c, 2 * c);
    mixer += measure(b, "softplus_fwd", softplus_fwd, 0, 2 * th);
    mixer += measure(b, "ssd_fwd, state", ssd_piece, ssd_flops(b, false), c + hp + th + 2 * st);
    mixer += measure(b, "gated_norm_fwd", gated_norm_fwd, 0, 3 * hp);
    const double d = (double)(b->h * b->p);
    mixer_fwd(b);
    if (b->one_pass) {
        b->be->scan_rounds = true;
        mixer = measure(b, "mixer, one pass", mixer_fwd, ssd_flops(b, false), c + 3 * hp + th);
        b->be->scan_rounds = false;
        measure(b, "... of halves", mixer_fwd, ssd_flops(b, false), c + 3 * hp + th);
    }
    const double weights = d * ((double)b->chan + d + (double)b->h) + d * d + 12 * d * d;
    const double dense = 2 * weights * (double)b->t / (0.88 * b->ceiling[1]);
    printf("  share of the mixer in a block: %.1f%%\n", 100 * mixer / (mixer + dense));
    measure(b, "ssd_fwd", ssd_fwd, ssd_flops(b, false), c + hp + th);
    measure(b, "ssd_step", ssd_step, 5 * st, 2 * st);
    measure(b, "head_norm_fwd", head_norm_fwd, 0, 2 * hp);
    measure(b, "rmsnorm_fwd", rmsnorm_fwd, 0, 2 * hp);
    measure(b, "add", add, 0, 3 * hp);
    measure(b, "swiglu_fwd", swiglu_fwd, 0, 12 * hp);
    measure(b, "qkv_rope_fwd", rope_fwd, 0, 2 * c);
    measure(b, "attention_fwd", attention_fwd, 4 * pairs, 2 * gp + 2 * hp);
    for (int i = 0; i < 2; i++) {
        b->n_past = i ? long_past : short_past;
        measure(b, i ? "... 100k keys" : "attention_step", attention_step,
                4.0 * (double)(b->n_past * b->n_seqs) * d, 2.0 * (double)(b->n_past * b->g * b->p));
    }
    if (training) {
        measure(b, "conv_silu_bwd", conv_silu_bwd, 12 * c, 3 * c);
        measure(b, "softplus_bwd", softplus_bwd, 0, 3 * th);
        measure(b, "ssd_bwd", ssd_bwd, ssd_flops(b, true), 2 * c + hp + 2 * th);
        measure(b, "gated_norm_bwd", gated_norm_bwd, 0, 5 * hp);
        measure(b, "head_norm_bwd", head_norm_bwd, 0, 3 * hp);
        measure(b, "attention_bwd", attention_bwd, 10 * pairs, 4 * gp + 5 * hp);
    }
    mm_backend_close(b->be);
}

int main(int argc, char **argv) {
    const int64_t n_long = argc > 1 ? atoll(argv[1]) : 2048;
    int threads[16] = {1, 2}, n = 2;
    for (int i = 2; i < argc && i < 18; i++) {
        threads[i - 2] = atoi(argv[i]), n = i - 1;
    }
    struct bench cases[] = {{.t = 4800, .h = 4, .g = 2, .p = 64, .n_seqs = 64},
                            {.t = 512, .h = 16, .g = 8, .p = 128, .n_seqs = 1},
                            {.t = n_long, .h = 16, .g = 8, .p = 128, .n_seqs = 1}};
    const char *const titles[] = {"training", "a piece of a prompt", "a long sequence"};
    for (int i = 0; i < 3; i++) {
        struct bench *b = cases + i;
        if (b->t < b->n_seqs) {
            fprintf(stderr, "bench_ops: TOKENS is '%s', must be a positive number\n", argv[1]);
            return 2;
        }
        b->chan = (2 * b->g + b->h) * b->p;
        setup(b);
        for (int j = 0; j < n; j++) {
            run_case(b, titles[i], threads[j], i != 1);
        }
        tear_down(b);
    }
    return 0;
}
