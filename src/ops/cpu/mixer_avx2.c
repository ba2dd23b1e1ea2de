// The mixer's inner loops for AVX2 and FMA (CMakeLists.txt says so to the compiler). The loops
// themselves are in kernel_ssd.h and kernel_rows.h.
#include "ops/cpu/mixer.h"
#include <math.h>
#include <string.h>
#include "ops/cpu/vmath.h"
#include "ops/cpu/sigmoid.h"

#define LANES 8
#define ROW_VECS 2
#define ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#include "ops/cpu/kernel_ssd.h"
#include "ops/cpu/kernel_rows.h"

const struct mm_mixer_kernels mm_mixer_avx2 =
    MM_MIXER_KERNELS(gemm, 64, NULL, NULL, NULL, conv_fwd, gated_norm_fwd);
