// How fast a token step walks through the weights of blocks of HoVLE-2.6B's sizes, against how fast
// the same threads read the same memory, measured in turns.
//     build/bench/bench_step [BLOCKS] [THREADS] [REPEATS]
// A line: format, mixer, sequences, microseconds of a step, GB/s of weights, the fraction of the
// read bandwidth, and what the step takes when its weights are in the cache (all matrices the same
// memory).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/buf.h"
#include "base/rng.h"
#include "ops/ops.h"

enum { D = 2048, H = 16, G = 8, P = 128, F = 8192, K = 2, channels = (2 * G + H) * P, cap = 256 };

// Of one thread its processor time, which leaves out the time that others had the core.
static clockid_t watch = CLOCK_MONOTONIC;

static double now(void) {
    struct timespec t;
    clock_gettime(watch, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *memory(struct mm_backend *be, size_t bytes) {
    void *p;
    struct mm_error err;
    if (be->alloc(be, bytes, &p, &err)) {
        fprintf(stderr, "bench_step: %s\n", err.text);
        exit(1);
    }
    return p;
}

static int64_t row_bytes(enum mm_dtype type, int64_t k) {
    return mm_dtype_quantized(type) ? mm_quant_row_bytes(type, k)
                                    : k * (int64_t)mm_dtype_bytes(type);
}

// Weights one behind the other; `same`: all at the beginning.
struct pile {
    char *at, *begin;
    int64_t bytes;
    bool same;
};

static struct mm_view matrix(struct pile *p, enum mm_dtype type, int64_t n, int64_t k) {
    const struct mm_view v = mm_view2(p->at, type, n, k);
    p->bytes += n * row_bytes(type, k);
    if (!p->same) p->at += (n * row_bytes(type, k) + 63) / 64 * 64;
    return v;
}

static struct mm_view vector(struct mm_backend *be, int64_t n, float value) {
    float *p = memory(be, (size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        p[i] = value;
    return mm_view1(p, mm_dtype_f32, n);
}

static void fill_block(struct mm_step_block *b, struct pile *p, enum mm_dtype type) {
    const bool quantized = mm_dtype_quantized(type);
    b->in[0] = matrix(p, type, channels + (b->attention || quantized ? 0 : H * P + H), D);
    b->in[1] = MM_NONE;
    if (quantized && !b->attention) b->in[1] = matrix(p, mm_dtype_bf16, H * P + H, D);
    b->wo = matrix(p, type, D, H * P);
    b->w1 = matrix(p, type, F, D);
    b->w3 = matrix(p, type, F, D);
    b->w2 = matrix(p, type, D, F);
}

static void make_block(struct mm_backend *be, struct mm_step_block *b, bool attention) {
    *b = (struct mm_step_block){
        .attention = attention, .H = H, .G = G, .P = P, .F = F, .eps = 1e-5f, .pos_scale = 1.0f};
    b->attention_norm = vector(be, D, 1), b->ffn_norm = vector(be, D, 1);
    b->conv_w = mm_view2(vector(be, channels * K, 0.5f).data, mm_dtype_f32, channels, K);
    b->conv_b = vector(be, channels, 0), b->dt_bias = vector(be, H, -3);
    b->a_log = vector(be, H, 1), b->g_norm = vector(be, P, 1);
}

struct reading {
    const char *from;
    uint64_t sum[64];
};

static void read_range(void *arg, int64_t begin, int64_t end, int thread) {
    struct reading *r = arg;
    typedef uint64_t wide __attribute__((vector_size(64)));
    wide a = {0}, b = {0}, c = {0}, d = {0};
    for (int64_t i = begin; i < end; i++) {  // of 256 bytes
        const wide *p = (const wide *)(r->from + i * 256);
        for (int j = 0; j < 4; j++)
            __builtin_prefetch((const char *)(p + j) + 4096, 0, 3);
        a ^= p[0], b ^= p[1], c ^= p[2], d ^= p[3];
    }
    a ^= b ^ c ^ d;
    r->sum[thread % 8 * 8] += a[0] ^ a[3] ^ a[7];
}

static double read_time(struct mm_backend *be, const void *from, int64_t bytes) {
    struct reading r = {.from = from};
    const double t = now();
    mm_parallel_for(be->pool, bytes / 256, 1, read_range, &r);
    return now() - t;
}

int main(int argc, char **argv) {
    const int n_blocks = argc > 1 ? atoi(argv[1]) : 4, repeats = argc > 3 ? atoi(argv[3]) : 50;
    enum { most_seqs = 8 };
    struct mm_backend *be;
    struct mm_error err;
    if (n_blocks < 1 || mm_backend_open_cpu(&be, argc > 2 ? atoi(argv[2]) : 0, &err)) {
        fprintf(stderr, "bench_step: %s\n", n_blocks < 1 ? "BLOCKS must be at least 1" : err.text);
        return 2;
    }
    if (mm_pool_size(be->pool) == 1) watch = CLOCK_PROCESS_CPUTIME_ID;
    printf("%s, %d blocks\n", be->device, n_blocks);
    const size_t most = (size_t)n_blocks * 2 * 68000000;
    uint16_t *weights = memory(be, most);
    for (size_t i = 0; i < most / 2; i++)  // finite whatever it is taken for, and small
        weights[i] = (uint16_t)(0x0c00 + (i * 2654435761u >> 20) % 0x300);
    struct mm_step_block *blocks = mm_xcalloc((size_t)n_blocks, sizeof *blocks);
    struct mm_step_seq seqs[most_seqs];
    for (int t = 0; t < most_seqs; t++) {
        seqs[t] = (struct mm_step_seq){
            mm_xcalloc((size_t)n_blocks, sizeof(struct mm_block_state)), {100, 100}, {1e4f, 1e4f}};
        for (int i = 0; i < n_blocks; i++) {
            struct mm_block_state *b = &seqs[t].blocks[i];
            b->S = mm_view4(memory(be, H * P * P * 4), mm_dtype_f32, 1, H, P, P);
            b->conv = mm_view3(memory(be, channels * 4), mm_dtype_f32, 1, K - 1, channels);
            b->k = mm_view3(memory(be, cap * G * P * 4), mm_dtype_f32, cap, G, P);
            b->v = mm_view3(memory(be, cap * G * P * 4), mm_dtype_f32, cap, G, P);
        }
    }
    struct mm_view x = mm_view2(memory(be, most_seqs * D * 4), mm_dtype_f32, most_seqs, D);
    struct mm_view hidden = mm_view2(memory(be, most_seqs * D * 4), mm_dtype_f32, most_seqs, D);
    const struct mm_view norm = vector(be, D, 1);
    const enum mm_dtype types[] = {mm_dtype_bf16, mm_dtype_q8, mm_dtype_q4};
    for (int v = 0; v < 15; v++) {
        const enum mm_dtype type = types[v / 5];
        static const int counts[] = {1, 2, 4, 8, 1};
        const int n = counts[v % 5];
        double best[3] = {1e9, 1e9, 1e9};
        struct pile p = {0};
        for (int i = 0; i < n_blocks; i++)
            make_block(be, &blocks[i], v % 5 == 4);
        for (int r = 0; r < 2 * repeats; r++) {
            const bool same = r >= repeats;
            p = (struct pile){(char *)weights, (char *)weights, 0, same};
            for (int i = 0; i < n_blocks; i++)
                fill_block(&blocks[i], &p, type);
            for (int i = 0; i < n * D; i++)
                ((float *)x.data)[i] = (float)(i % 17) - 8.0f;
            const struct mm_step s = {.blocks = blocks,
                                      .n_blocks = n_blocks,
                                      .l2_before = -1,
                                      .norm = norm,
                                      .eps = 1e-5f,
                                      .seqs = seqs,
                                      .n_seqs = n,
                                      .x = mm_view_rows(x, 0, n),
                                      .hidden = mm_view_rows(hidden, 0, n)};
            if (!same) {
                const double took = read_time(be, weights, p.bytes);
                best[0] = took < best[0] ? took : best[0];
            }
            const double t = now();
            mm_decode_step(be, &s);
            const double took = now() - t;
            best[1 + same] = took < best[1 + same] ? took : best[1 + same];
        }
        const double bytes = (double)p.bytes;
        printf("  %-4s %-9s S %d  %8.0f us  %5.1f GB/s  %5.1f%% of %5.1f   cached %8.0f us\n",
               mm_dtype_name(type), v % 5 == 4 ? "attention" : "mamba2", n, best[1] * 1e6,
               bytes / best[1] * 1e-9, 100 * best[0] / best[1], bytes / best[0] * 1e-9,
               best[2] * 1e6);
        fflush(stdout);
    }
    mm_backend_close(be);
    return 0;
}
