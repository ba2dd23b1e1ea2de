// Matrix-vector products with quantized weights for AArch64 with products of four int8
// (CMakeLists.txt says so to the compiler).
#define QUANT mm_gemv_quant_neondot
#include "ops/cpu/gemv_neon_quant.h"
