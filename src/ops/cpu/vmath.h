// exp, sigmoid, silu and softplus of one float, written so that a plain loop over them
// vectorises (with the options CMakeLists.txt gives to src/ops/cpu): no branches, no calls, no
// tables. Include it after `#pragma GCC target`, or call it from functions with a target
// attribute: it is inlined and compiled for the caller's instruction set. The error of exp is
// below 1.5 ulp, of the others below 3, with fused multiply-add or without; a test walks the
// floats. NaN stays NaN; what is smaller than half the smallest denormal is 0.
#ifndef MM_OPS_CPU_VMATH_H
#define MM_OPS_CPU_VMATH_H

#include <stdint.h>
#include <string.h>

#define MM_VINLINE static inline __attribute__((always_inline, unused))

MM_VINLINE float mm_v_from_bits(int32_t i) {
    float f;
    memcpy(&f, &i, sizeof f);
    return f;
}
MM_VINLINE int32_t mm_v_bits(float f) {
    int32_t i;
    memcpy(&i, &f, sizeof i);
    return i;
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2)/2, exp(r) by the polynomial of Cephes.
// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. 2^n is applied in two
// factors, so that both ends (denormals, and infinity from 88.73 on) come out right.
MM_VINLINE float mm_v_exp(float x) {
    const float shift = 12582912.0f;
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const float z = x * 1.44269504088896341f + shift;
    const float n = z - shift;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    const int32_t k = mm_v_bits(z) - 0x4b400000;
    const int32_t half = k >> 1;
    const uint32_t low = (uint32_t)(half + 127) << 23, high = (uint32_t)(k - half + 127) << 23;
    return p * mm_v_from_bits((int32_t)low) * mm_v_from_bits((int32_t)high);
}

// A decay: exp(min(x, 0)), and 0 below -80, so that neither it nor what it multiplies becomes a
// denormal (those are a hundred times slower). The range allows adding n to the exponent's bits.
MM_VINLINE float mm_v_decay(float x) {
    const float shift = 12582912.0f;
    const float y = x < 0.0f ? x : 0.0f;
    const float z = y * 1.44269504088896341f + shift;
    const float n = z - shift;
    const float r = (y - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    const uint32_t bits = (uint32_t)mm_v_bits(p) + ((uint32_t)mm_v_bits(z) << 23);
    return y > -80.0f ? mm_v_from_bits((int32_t)bits) : 0.0f;
}

MM_VINLINE float mm_v_sigmoid(float x) {
    return 1.0f / (1.0f + mm_v_exp(-x));
}

MM_VINLINE float mm_v_silu(float x) {
    return x / (1.0f + mm_v_exp(-x));
}

// d silu(x) / dx, given s = sigmoid(x).
MM_VINLINE float mm_v_silu_slope(float x, float s) {
    return s + x * s * (1.0f - s);
}

// log(1 + u) for 0 <= u <= 1, as 2 atanh(s), s = u / (2 + u) <= 1/3. The polynomial
// interpolates (atanh(s)/s - 1)/s^2 at Chebyshev points; its own error is 4e-10.
MM_VINLINE float mm_v_log1p01(float u) {
    const float s = u / (2.0f + u);
    const float q = s * s;
    float p = 0.11612164f;
    p = p * q + 0.10853288f;
    p = p * q + 0.14296179f;
    p = p * q + 0.19999853f;
    p = p * q + 0.33333334f;
    return 2.0f * s + 2.0f * s * q * p;
}

// log(1 + exp(x)), without overflow.
MM_VINLINE float mm_v_softplus(float x) {
    const float top = x > 0.0f ? x : 0.0f;
    const float away = x > 0.0f ? -x : x;
    return top + mm_v_log1p01(mm_v_exp(away));
}

#endif
