// Included by kernels_<isa>.c and mixer_<isa>.c: sigmoid(x) and silu(x) of a strip, compiled as
// they stand. sigmoid_avx512.h has them without the division.
MM_VINLINE void sigmoids(float *restrict s, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        s[i] = mm_v_sigmoid(x[i]);
}

MM_VINLINE void silus(float *restrict s, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        s[i] = mm_v_silu(x[i]);
}
