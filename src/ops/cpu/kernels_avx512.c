// The inner loops for AVX-512; the loops themselves are in kernel_math.h
// and kernel_attend.h.
#include "ops/cpu/kernels.h"
#include <math.h>
#include <string.h>
#include "ops/cpu/vmath.h"
#include "ops/cpu/sigmoid_avx512.h"

#define LANES 16
#include "ops/cpu/kernel_math.h"
#include "ops/cpu/kernel_attend.h"

const struct mm_kernels mm_kernels_avx512 = MM_KERNELS;
