// Multiplication of tiles of bf16 on AVX-512 with BF16.
#include "ops/cpu/tiles_avx512.h"

#define NAME mm_avx512_bf16_multiply
#define QUANT 0
#define ivec __m512
#define LOAD(p) _mm512_castsi512_ps(_mm512_load_si512(p))
#define SPREAD(p) _mm512_broadcastss_ps(_mm_load_ss((const float *)(const void *)(p)))
// Not the intrinsic: gcc 12 copies the sums of a loop around it.
#define DOT(sum, a, b) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#include "ops/cpu/kernel_tiles.h"
