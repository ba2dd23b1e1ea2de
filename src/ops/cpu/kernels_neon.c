// The inner loops for AArch64; the loops themselves are in kernel_math.h
// and kernel_attend.h.
#include "ops/cpu/kernels.h"
#include <math.h>
#include <string.h>
#include "ops/cpu/vmath.h"
#include "ops/cpu/sigmoid.h"

#define LANES 4
#include "ops/cpu/kernel_math.h"
#include "ops/cpu/kernel_attend.h"

const struct mm_kernels mm_kernels_neon = MM_KERNELS;
