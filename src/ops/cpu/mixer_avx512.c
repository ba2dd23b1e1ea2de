// The mixer's inner loops for AVX-512 (CMakeLists.txt says so to the compiler). The loops
// themselves are in kernel_ssd.h and kernel_rows.h.
#include "ops/cpu/mixer.h"
#include <math.h>
#include <string.h>
#include "ops/cpu/vmath.h"
#include "ops/cpu/sigmoid_avx512.h"

#define LANES 16
#define ROW_VECS 4
#define ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#include "ops/cpu/kernel_ssd.h"
#include "ops/cpu/kernel_rows.h"

const struct mm_mixer_kernels mm_mixer_avx512 =
    MM_MIXER_KERNELS(gemm, 64, NULL, NULL, NULL, conv_fwd, gated_norm_fwd);
const struct mm_mixer_kernels mm_mixer_amx =
    MM_MIXER_KERNELS(mm_gemm_amx, 128, mm_attend_halves, mm_attend_room_halves, &mm_chunks_halves,
                     conv_fwd, gated_norm_fwd);
const struct mm_mixer_kernels mm_mixer_amx_rounded =
    MM_MIXER_KERNELS(mm_gemm_amx, 128, mm_attend_rounded, mm_attend_room_halves, &mm_chunks_rounded,
                     mm_conv_fwd_rounded, mm_gated_norm_fwd_rounded);
