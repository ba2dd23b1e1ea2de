// Multiplication of codes on AVX2: codes of 16 bits. Products of bytes would need the sign of one
// side moved to the other for every pair of vectors, which costs what they save.
#include <immintrin.h>

#define VECTOR_BYTES 32
#define fvec __m256
#define ROWS 4
#define F_LOAD(p) _mm256_loadu_ps(p)
#define F_STORE(p, v) _mm256_storeu_ps(p, v)
#define F_SPREAD(x) _mm256_set1_ps(x)
#define F_MUL(a, b) _mm256_mul_ps(a, b)
#define F_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)

#define QUANT 1
#define BLOCK_TILES 4
#define ivec __m256i
#define NAME mm_avx2_int16_multiply
#define LOAD(p) _mm256_load_si256((const __m256i *)(const void *)(p))
#define SPREAD(p) _mm256_broadcastd_epi32(_mm_loadu_si32(p))
#define DOT(sum, a, b) (sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)))
#define START(i) _mm256_set1_epi32(i)
#define TO_FLOAT(v) _mm256_cvtepi32_ps(v)
#include "ops/cpu/kernel_tiles.h"
