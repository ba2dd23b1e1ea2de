// Multiplication of tiles of codes on AVX-512 VNNI. The instruction takes one side unsigned: the
// codes of B are larger by 128 here.
#include "ops/cpu/tiles_avx512.h"

#define NAME mm_vnni_int8_multiply
#define QUANT 1
#define BLOCK_TILES 2
#define ivec __m512i
#define LOAD(p) _mm512_load_si512(p)
#define SPREAD(p) _mm512_broadcastd_epi32(_mm_loadu_si32(p))
// Not the intrinsic: gcc 12 copies the sums of a loop around it.
#define DOT(sum, a, b) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(b), "v"(a))
#define START(i) _mm512_set1_epi32(i)
#define TO_FLOAT(v) _mm512_cvtepi32_ps(v)
#include "ops/cpu/kernel_tiles.h"
