// Matrix-vector products with quantized weights for any AArch64.
#define QUANT mm_gemv_quant_neon
#include "ops/cpu/gemv_neon_quant.h"
