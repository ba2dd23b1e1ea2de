// Products with the few rows of a decoding step: y (T, N) = x (T, K) w (N, K)^T for T = 1..8, a
// walk through the weight, as it lies in memory, at the speed of memory.
//
// Every element is one sum in one order that depends on neither T, nor the threads, nor where a
// range of rows begins: a sequence gets the same numbers alone and among others.
#ifndef MM_OPS_CPU_GEMV_H
#define MM_OPS_CPU_GEMV_H

#include "ops/cpu/cpu.h"

enum {
    mm_gemv_most = 8,    // rows of x that one walk takes
    mm_gemv_sums = 5,    // of a block of x: of each group, and -128 times all
    mm_gemv_super = 16,  // blocks of quantized weights whose scales are prepared at once
};

// The other operand, as the weights want it: rows of floats; for quantized weights codes and scales
// of its blocks, and the sums of the codes of each group of 32.
struct mm_gemv_x {
    const float *x;  // (T, ld)
    int64_t ld;      // floats
    int8_t *codes;   // (T, blocks * 128)
    float *r;        // (T, ld_blocks), zeros from `blocks` on
    float *sums;     // (T, mm_gemv_sums ld_blocks), likewise; their order is the kernels' own
    int64_t k, blocks, ld_blocks;
};

// The inner loops, for each instruction set: gemv_<isa>.c compile kernel_gemv_floats.h and
// kernel_gemv_quant.h.
// y[t * ldy + i] = x[t] w[begin + i], i < end - begin, in the vectors of that set.
typedef void mm_gemv_rows_fn(float *y, int64_t ldy, const struct mm_gemv_x *x, struct mm_view w,
                             int64_t begin, int64_t end);
struct mm_gemv_floats {
    mm_gemv_rows_fn *rows[3][mm_gemv_most];  // by dtype (f32, bf16, f16) and T - 1
};
struct mm_gemv_quant {
    mm_gemv_rows_fn *rows[2][mm_gemv_most];  // by dtype (q8, q4) and T - 1
    // mm_quantize_x of one row. Sums: (super blocks, mm_gemv_sums, mm_gemv_super), the blocks of a
    // group together.
    void (*code_row)(int8_t *codes, float *r, float *sums, const float *x, int64_t k);
};
struct mm_gemv_kernels {
    const struct mm_gemv_floats *floats;
    const struct mm_gemv_quant *quant;
};
extern const struct mm_gemv_floats mm_gemv_floats_avx2, mm_gemv_floats_avx512;
extern const struct mm_gemv_floats mm_gemv_floats_neon;
extern const struct mm_gemv_quant mm_gemv_quant_avx2, mm_gemv_quant_avx512vnni;
extern const struct mm_gemv_quant mm_gemv_quant_neon, mm_gemv_quant_neondot;
struct mm_gemv_kernels mm_gemv_kernels_of(const struct mm_backend *be);

static inline mm_gemv_rows_fn *mm_gemv_rows_of(const struct mm_gemv_kernels *k, enum mm_dtype type,
                                               int64_t t_dim) {
    return mm_dtype_quantized(type) ? k->quant->rows[type - mm_dtype_q8][t_dim - 1]
                                    : k->floats->rows[type][t_dim - 1];
}

// How weights are best walked through here (docs/PERFORMANCE.md, "Decoding"): on AMD's processors
// in other numbers of rows, by whether x leaves them room in the first cache. Sums are the same.
enum mm_gemv_way { mm_gemv_usual, mm_gemv_amd_small, mm_gemv_amd_large };
static inline enum mm_gemv_way mm_gemv_way_of(int64_t k) {
#ifdef __x86_64__
    if (__builtin_cpu_is("amd")) return k <= 4096 ? mm_gemv_amd_small : mm_gemv_amd_large;
#endif
    (void)k;
    return mm_gemv_usual;
}

// Bytes that codes, scales and sums of n rows of K elements take, and the places in them.
size_t mm_gemv_x_bytes(int64_t n, int64_t k);
struct mm_gemv_x mm_gemv_x_at(void *room, int64_t n, int64_t k);
// Writes row t from x (K) f32.
void mm_gemv_x_code(const struct mm_gemv_kernels *g, const struct mm_gemv_x *to, int64_t t,
                    const float *x);
// The same operand from row t on.
static inline struct mm_gemv_x mm_gemv_x_from(struct mm_gemv_x x, int64_t t) {
    if (x.x) x.x += t * x.ld;
    if (x.codes) {
        x.codes += t * x.blocks * mm_quant_block;
        x.r += t * x.ld_blocks;
        x.sums += t * x.ld_blocks * mm_gemv_sums;
    }
    return x;
}

// The operation: bias (N) f32 or NULL. Any T; the weight is read from memory once.
void mm_gemv(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view w,
             const float *bias);

#endif
