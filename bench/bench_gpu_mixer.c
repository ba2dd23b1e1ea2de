// The mixer's and attention's operations on a GPU, bf16 operands of HoVLE-2.6B's sizes, beside what
// their bytes and their operations would take at the speeds measured in the same run.
//     build/bench/bench_gpu_mixer [TOKENS | BEGINNING OF AN OPERATION'S NAME]...
// A line: operation, tokens, milliseconds (the median of several windows), milliseconds that its
// bytes would take at the copy's speed (every operand read or written once), milliseconds that its
// operations would take at the product's speed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/buf.h"
#include "base/rng.h"
#include "ops/ops.h"

enum { H = 16, G = 8, P = 128, K = 2, channels = (2 * G + H) * P, n_sets = 3, n_windows = 7 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void finish(struct mm_backend *be) {
    struct mm_error err;
    if (mm_backend_sync(be, &err)) {
        fprintf(stderr, "bench_gpu_mixer: %s\n", err.text);
        exit(1);
    }
}

static void *memory(struct mm_backend *be, size_t bytes) {
    void *p;
    struct mm_error err;
    if (be->alloc(be, bytes, &p, &err)) {
        fprintf(stderr, "bench_gpu_mixer: %s\n", err.text);
        exit(1);
    }
    return p;
}

// Random numbers between shift - scale and shift + scale: a block of them, over and over.
static struct mm_view random_rows(struct mm_backend *be, enum mm_dtype type, int64_t rows,
                                  int64_t cols, double scale, double shift) {
    enum { block = 1 << 20 };
    static float numbers[block];
    static char raw[block * sizeof(float)];
    struct mm_rng rng = mm_rng_make((uint64_t)rows, (uint64_t)cols);
    const int64_t n = rows * cols;
    for (int64_t i = 0; i < block && i < n; i++)
        numbers[i] = (float)mm_rng_uniform(&rng, shift - scale, shift + scale);
    mm_from_f32(raw, type, numbers, n < block ? n : block);
    const size_t size = mm_dtype_bytes(type);
    const struct mm_view v = mm_view2(memory(be, (size_t)n * size), type, rows, cols);
    for (int64_t at = 0; at < n; at += block)
        be->upload(be, mm_view_at(v, 0, at), raw, (size_t)(n - at < block ? n - at : block) * size);
    finish(be);
    return v;
}

// One set of operands; several, so that a short run does not find them in the cache.
struct set {
    struct mm_view x, dx;  // rows of [v|k|q|g|dt], as a mixer's projection leaves them
    struct mm_view vkq, dvkq, y, dy, o, rinv, dt, ddt, lse;
};

struct bench {
    struct mm_backend *be;
    struct set sets[n_sets];
    struct mm_view a_log, da_log, w, dw, bias, dbias, g_norm, dg_norm, state;
    struct mm_segs segs;
    int64_t tokens;
};

static struct mm_view cut(struct mm_view v, int64_t begin, int64_t heads) {
    return mm_view_split(mm_view_cut(v, begin * P, heads * P), heads, P);
}
static struct mm_view heads(struct mm_view v) {
    return mm_view_split(v, H, P);
}

static void ssd_fwd(struct bench *b, struct set *s) {
    mm_ssd_fwd(b->be, heads(s->y), cut(s->vkq, 0, G), cut(s->vkq, G, G), cut(s->vkq, 2 * G, H),
               s->dt, b->a_log, MM_NONE, MM_NONE, b->segs);
}
static void ssd_bwd(struct bench *b, struct set *s) {
    mm_ssd_bwd(b->be, cut(s->dvkq, 0, G), cut(s->dvkq, G, G), cut(s->dvkq, 2 * G, H), s->ddt,
               b->da_log, MM_NONE, heads(s->dy), cut(s->vkq, 0, G), cut(s->vkq, G, G),
               cut(s->vkq, 2 * G, H), s->dt, b->a_log, MM_NONE, b->segs);
}
static void ssd_both(struct bench *b, struct set *s) {
    ssd_fwd(b, s);
    ssd_bwd(b, s);
}
static void attention_fwd(struct bench *b, struct set *s) {
    mm_attention_fwd(b->be, heads(s->y), s->lse, cut(s->vkq, 2 * G, H), cut(s->vkq, G, G),
                     cut(s->vkq, 0, G), b->segs);
}
static void attention_bwd(struct bench *b, struct set *s) {
    mm_attention_bwd(b->be, cut(s->dvkq, 2 * G, H), cut(s->dvkq, G, G), cut(s->dvkq, 0, G),
                     heads(s->dy), heads(s->y), s->lse, cut(s->vkq, 2 * G, H), cut(s->vkq, G, G),
                     cut(s->vkq, 0, G), b->segs);
}
static void attention_both(struct bench *b, struct set *s) {
    attention_fwd(b, s);
    attention_bwd(b, s);
}
static void attention_piece(struct bench *b, struct set *s) {  // the last 1024 rows
    const int64_t n = b->tokens < 1024 ? b->tokens : 1024, past = b->tokens - n;
    mm_attention_step(b->be, heads(mm_view_rows(s->y, past, n)),
                      cut(mm_view_rows(s->vkq, past, n), 2 * G, H), cut(s->vkq, G, G),
                      cut(s->vkq, 0, G), past);
}
static void attention_token(struct bench *b, struct set *s) {
    mm_attention_step(b->be, heads(mm_view_rows(s->y, 0, 1)),
                      cut(mm_view_rows(s->vkq, 0, 1), 2 * G, H), cut(s->vkq, G, G),
                      cut(s->vkq, 0, G), b->tokens - 1);
}
static void conv_fwd(struct bench *b, struct set *s) {
    mm_conv_silu_fwd(b->be, s->vkq, mm_view_cut(s->x, 0, channels), b->w, b->bias, b->state,
                     b->segs);
}
static void conv_bwd(struct bench *b, struct set *s) {
    mm_conv_silu_bwd(b->be, mm_view_cut(s->dx, 0, channels), b->dw, b->dbias, s->dvkq,
                     mm_view_cut(s->x, 0, channels), b->w, b->bias, b->segs);
}
static void norm_fwd(struct bench *b, struct set *s) {
    mm_gated_norm_fwd(b->be, heads(s->o), s->rinv, heads(s->y), mm_view_cut(s->x, channels, H * P),
                      b->g_norm, 1e-5f);
}
static void norm_bwd(struct bench *b, struct set *s) {
    mm_gated_norm_bwd(b->be, heads(s->o), mm_view_cut(s->dx, channels, H * P), b->dg_norm,
                      heads(s->dy), heads(s->y), mm_view_cut(s->x, channels, H * P), b->g_norm,
                      s->rinv);
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Milliseconds of one call: the median of windows of about 20 ms.
static double measure(struct bench *b, void (*run)(struct bench *, struct set *)) {
    double took[n_windows];
    int repeats = 1;
    for (int i = 0; i < n_sets; i++)
        run(b, &b->sets[i]);
    finish(b->be);
    for (int w = -1; w < n_windows; w++) {
        const double t = now();
        for (int i = 0; i < repeats; i++)
            run(b, &b->sets[i % n_sets]);
        finish(b->be);
        const double ms = (now() - t) * 1e3 / repeats;
        if (w < 0) {
            repeats = ms > 20.0 ? 1 : (int)(20.0 / ms) + 1;
        } else {
            took[w] = ms;
        }
    }
    qsort(took, n_windows, sizeof *took, by_value);
    return took[n_windows / 2];
}

static double copy_rate, product_rate;  // bytes and operations a millisecond
static char **wanted;                   // beginnings of names; all operations if there are none
static int n_wanted;

static void ceilings(struct mm_backend *be) {
    const size_t bytes = (size_t)1 << 30;
    char *from = memory(be, bytes), *to = memory(be, bytes);
    const int64_t n = 8192;
    const struct mm_view x = random_rows(be, mm_dtype_bf16, n, n, 1.0, 0.0);
    const struct mm_view w = random_rows(be, mm_dtype_bf16, n, n, 1.0, 0.0);
    const struct mm_view y = mm_view2(memory(be, (size_t)(n * n) * 4), mm_dtype_f32, n, n);
    for (int i = 0; i < 8; i++) {
        finish(be);
        double t = now();
        for (int k = 0; k < 4; k++)
            be->move(be, to, from, bytes);
        finish(be);
        const double copied = 8.0 * (double)bytes / ((now() - t) * 1e3);
        t = now();
        for (int k = 0; k < 4; k++)
            mm_linear_fwd(be, y, x, w, MM_NONE);
        finish(be);
        const double done = 8.0 * (double)n * (double)n * (double)n / ((now() - t) * 1e3);
        if (copied > copy_rate) copy_rate = copied;
        if (done > product_rate) product_rate = done;
    }
    printf("ceilings here: copy %.2f TB/s (read and written), bf16 product %.0f TFLOP/s\n",
           copy_rate * 1e-9, product_rate * 1e-9);
    be->release(be, from, bytes), be->release(be, to, bytes);
    be->release(be, x.data, mm_view_bytes(x)), be->release(be, w.data, mm_view_bytes(w));
    be->release(be, y.data, mm_view_bytes(y));
}

static void open_set(struct bench *b, struct set *s) {
    const int64_t t = b->tokens;
    const enum mm_dtype half = mm_dtype_bf16;
    s->x = random_rows(b->be, half, t, channels + H * P, 1.0, 0.0);
    s->vkq = random_rows(b->be, half, t, channels, 0.3, 0.0);
    s->dy = random_rows(b->be, half, t, H * P, 1.0, 0.0);
    s->y = random_rows(b->be, half, t, H * P, 1.0, 0.0);
    s->o = random_rows(b->be, half, t, H * P, 1.0, 0.0);
    s->dvkq = random_rows(b->be, half, t, channels, 1.0, 0.0);
    s->dx = random_rows(b->be, half, t, channels + H * P, 1.0, 0.0);
    s->dt = random_rows(b->be, mm_dtype_f32, t, H, 0.04, 0.05);
    s->ddt = random_rows(b->be, mm_dtype_f32, t, H, 1.0, 0.0);
    s->lse = random_rows(b->be, mm_dtype_f32, t, H, 1.0, 10.0);
    s->rinv = random_rows(b->be, mm_dtype_f32, t, H, 0.1, 1.0);
}

static void close_set(struct bench *b, struct set *s) {
    struct mm_view *const all[] = {&s->x,  &s->vkq, &s->dy,  &s->y,   &s->o,   &s->dvkq,
                                   &s->dx, &s->dt,  &s->ddt, &s->lse, &s->rinv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        b->be->release(b->be, all[i]->data, mm_view_bytes(*all[i]));
}

// Floors: bf16 elements moved and multiply-adds, a token.
static void line(struct bench *b, const char *name, void (*run)(struct bench *, struct set *),
                 double elements, double products) {
    bool run_it = n_wanted == 0;
    for (int i = 0; i < n_wanted; i++)
        run_it = run_it || !strncmp(name, wanted[i], strlen(wanted[i]));
    if (!run_it) return;
    const double ms = measure(b, run), n = (double)b->tokens;
    printf("%-22s %7lld  %9.3f ms   bytes %7.3f   operations %7.3f\n", name, (long long)b->tokens,
           ms, 2.0 * elements * n / copy_rate, 2.0 * products * n / product_rate);
    fflush(stdout);
}

static void run_all(struct bench *b, int64_t tokens) {
    const int32_t start[2] = {0, (int32_t)tokens};
    int32_t *dev = memory(b->be, sizeof start);
    b->be->upload(b->be, dev, start, sizeof start);
    b->segs = (struct mm_segs){1, start, dev};
    b->tokens = tokens;
    for (int i = 0; i < n_sets; i++)
        open_set(b, &b->sets[i]);
    const double head = P * P, kv = 2.0 * G * P, q = H * P;
    // The recurrence as a recurrence: a product of S with q, one of v with k; chunks do more.
    line(b, "ssd fwd", ssd_fwd, kv + 2 * q, 2.0 * H * head);
    line(b, "ssd bwd", ssd_bwd, 2 * kv + 3 * q, 5.0 * H * head);
    line(b, "ssd both", ssd_both, 3 * kv + 5 * q, 7.0 * H * head);
    const double seen = 0.5 * (double)tokens * H * P;
    line(b, "attention fwd", attention_fwd, kv + 2 * q, 2.0 * seen);
    line(b, "attention both", attention_both, 3 * kv + 6 * q, 7.0 * seen);
    line(b, "attention 1024 rows", attention_piece, kv, 4.0 * seen * 1024.0 / (double)tokens);
    line(b, "attention 1 row", attention_token, kv, 4.0 * seen / (double)tokens);
    line(b, "conv + silu fwd", conv_fwd, 2.0 * channels, 0.0);
    line(b, "conv + silu bwd", conv_bwd, 3.0 * channels, 0.0);
    line(b, "gated norm fwd", norm_fwd, 3 * q, 0.0);
    line(b, "gated norm bwd", norm_bwd, 5 * q, 0.0);
    for (int i = 0; i < n_sets; i++)
        close_set(b, &b->sets[i]);
    b->be->release(b->be, dev, sizeof start);
}

int main(int argc, char **argv) {
    struct bench b = {0};
    struct mm_error err;
    if (mm_backend_open_cuda(&b.be, 0, 1, &err)) {
        fprintf(stderr, "bench_gpu_mixer: %s\n", err.text);
        return 2;
    }
    printf("%s\n", b.be->device);
    ceilings(b.be);
    b.a_log = mm_view1(random_rows(b.be, mm_dtype_f32, H, 1, 0.5, 0.5).data, mm_dtype_f32, H);
    b.da_log = mm_view1(random_rows(b.be, mm_dtype_f32, H, 1, 0.5, 0.5).data, mm_dtype_f32, H);
    b.w = random_rows(b.be, mm_dtype_f32, channels, K, 1.0, 0.0);
    b.dw = random_rows(b.be, mm_dtype_f32, channels, K, 1.0, 0.0);
    b.bias = mm_view1(random_rows(b.be, mm_dtype_f32, channels, 1, 1.0, 0.0).data, mm_dtype_f32,
                      channels);
    b.dbias = mm_view1(random_rows(b.be, mm_dtype_f32, channels, 1, 1.0, 0.0).data, mm_dtype_f32,
                       channels);
    b.g_norm = mm_view1(random_rows(b.be, mm_dtype_f32, P, 1, 1.0, 0.0).data, mm_dtype_f32, P);
    b.dg_norm = mm_view1(random_rows(b.be, mm_dtype_f32, P, 1, 1.0, 0.0).data, mm_dtype_f32, P);
    b.state = random_rows(b.be, mm_dtype_f32, K - 1, channels, 1.0, 0.0);
    b.state = mm_view3(b.state.data, mm_dtype_f32, 1, K - 1, channels);
    static const int64_t usual[] = {4096, 16384};
    int64_t tokens[16];
    int n_tokens = 0;
    wanted = mm_xcalloc((size_t)argc, sizeof *wanted);
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] < '0' || argv[i][0] > '9') {
            wanted[n_wanted++] = argv[i];
        } else if (n_tokens < 16 && atoll(argv[i]) > 0) {
            tokens[n_tokens++] = atoll(argv[i]);
        }
    }
    for (int i = 0; i < (n_tokens ? n_tokens : 2); i++)
        run_all(&b, n_tokens ? tokens[i] : usual[i]);
    free(wanted);
    mm_backend_close(b.be);
    return 0;
}
