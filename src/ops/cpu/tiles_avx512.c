// Multiplication of tiles of codes on AVX-512 without VNNI: codes of 16 bits.
#include "ops/cpu/tiles_avx512.h"

#define NAME mm_avx512_int16_multiply
#define QUANT 1
#define BLOCK_TILES 4
#define ivec __m512i
#define LOAD(p) _mm512_load_si512(p)
#define SPREAD(p) _mm512_broadcastd_epi32(_mm_loadu_si32(p))
#define DOT(sum, a, b) (sum = _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)))
#define START(i) _mm512_set1_epi32(i)
#define TO_FLOAT(v) _mm512_cvtepi32_ps(v)
#include "ops/cpu/kernel_tiles.h"
