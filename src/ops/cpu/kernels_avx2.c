// The inner loops for AVX2 and FMA; the loops themselves are in kernel_math.h
// and kernel_attend.h.
#include "ops/cpu/kernels.h"
#include <math.h>
#include <string.h>
#include "ops/cpu/vmath.h"
#include "ops/cpu/sigmoid.h"

#define LANES 8
#include "ops/cpu/kernel_math.h"
#include "ops/cpu/kernel_attend.h"

const struct mm_kernels mm_kernels_avx2 = MM_KERNELS;
