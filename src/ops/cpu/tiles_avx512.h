// Vectors of 64 bytes for kernel_tiles.h.
#ifndef MM_OPS_CPU_TILES_AVX512_H
#define MM_OPS_CPU_TILES_AVX512_H

#include <immintrin.h>

#define VECTOR_BYTES 64
#define ROWS 8
#define fvec __m512
#define F_LOAD(p) _mm512_loadu_ps(p)
#define F_STORE(p, v) _mm512_storeu_ps(p, v)
#define F_SPREAD(x) _mm512_set1_ps(x)
#define F_MUL(a, b) _mm512_mul_ps(a, b)
#define F_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)

#endif
