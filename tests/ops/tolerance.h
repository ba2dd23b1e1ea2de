// How far a fast operation may be from the reference, as a part of the largest value of the
// output, and why. The reference sums in double and rounds once; the fast paths sum in f32.
#ifndef MM_TESTS_OPS_TOLERANCE_H
#define MM_TESTS_OPS_TOLERANCE_H

// Copies, permutations, and single roundings of the same value.
static const double tol_exact = 0.0;
// A few f32 roundings an element: 2^-24 each, and exp within 1.5 ulp.
static const double tol_pointwise = 1e-6;
// f32 sums of up to some thousand terms of both signs: sqrt(n) 2^-24 of the sum of magnitudes,
// which is some ten times the largest result.
static const double tol_sum = 2e-5;
// A bf16 product of operands that bf16 holds exactly: the products are exact in f32, so only the
// sums round, as above; AMX and AVX512-BF16 also round pairs before they add them.
static const double tol_bf16_exact = 2e-5;
// A bf16 product may round the f32 operand: 2^-9 of each term, with random signs.
static const double tol_bf16_rounded = 8e-3;
// Softmax attention: sums of exponentials of sums, in tiles that are rescaled.
static const double tol_attention = 2e-5;
// A gradient from central differences of f32 outputs with step 1e-2: 2^-24 / 1e-2 of rounding and
// about 1e-4 of curvature, relative to the largest gradient.
static const double tol_difference = 2e-3;

#endif
