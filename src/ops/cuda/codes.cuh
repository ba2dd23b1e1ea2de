// Activations that meet quantized weights, as codes (base/quant.h).
#ifndef MM_OPS_CUDA_CODES_CUH
#define MM_OPS_CUDA_CODES_CUH

#include <stdint.h>

__device__ __forceinline__ uint32_t mm_code(float x) {
    return (uint32_t)__float2int_rn(x) & 255;
}

// A block of 128 columns, 4 of them a lane: its codes, and the block's scale for all lanes.
struct mm_four_codes {
    uint32_t four;
    float scale;
};

__device__ __forceinline__ struct mm_four_codes mm_codes_of(float4 v) {
    // the bits of numbers that are not negative have their order
    const float top = __uint_as_float(__reduce_max_sync(
        0xffffffffu,
        __float_as_uint(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))))));
    const float inverse = top > 1e-36f ? 127.0f / top : 0.0f;
    return {mm_code(v.x * inverse) | mm_code(v.y * inverse) << 8 | mm_code(v.z * inverse) << 16 |
                mm_code(v.w * inverse) << 24,
            top / 127.0f};
}

#endif
