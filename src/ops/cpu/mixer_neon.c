// The mixer's inner loops for AArch64. The loops themselves are in kernel_ssd.h and kernel_rows.h.
#include "ops/cpu/mixer.h"
#include <math.h>
#include <string.h>
#include "ops/cpu/vmath.h"
#include "ops/cpu/sigmoid.h"

#define LANES 4
#define ROW_VECS 4
#define ZIP_LOW 0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#include "ops/cpu/kernel_ssd.h"
#include "ops/cpu/kernel_rows.h"

const struct mm_mixer_kernels mm_mixer_neon =
    MM_MIXER_KERNELS(gemm, 64, NULL, NULL, NULL, conv_fwd, gated_norm_fwd);
