// How far a number may be from the one it is held against, as a part of the largest value of its
// tensor, and why. The reference operations sum in double and round once; the fast paths sum in
// f32.
#ifndef MM_TESTS_TOLERANCE_H
#define MM_TESTS_TOLERANCE_H

// ---- one operation, fast against reference ----

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
// The same with products of bf16 halves (AMX), which leave out some 2^-17 of each term.
static const double tol_attention_halves = 4e-5;
// The same with operands rounded to bf16 (scan_rounds), on tiles: 2^-9 of each of two factors of a
// term, with random signs, and of the scores, of which the exponential makes as much; values are
// some times larger than what a softmax leaves of them.
static const double tol_attention_rounded = 2e-2;
// A result that is rounded to bf16: at most 2^-8 of the value, which is at most the largest one.
// Where it is rounded before a bias is added and again after, twice that.
static const double tol_halves = 4e-3;
// Recurrence and attention on bf16 operands: terms inside (scores, weights, states between chunks)
// may be rounded to bf16 before they are multiplied, 2^-9 of each on average and with random signs,
// some of them larger than the result.
static const double tol_halves_mixer = 1e-2;
// The recurrence in chunks: sums of f32, or of halves, as above.
static const double tol_scan = 2e-5;
// The same with operands rounded to bf16 (scan_rounds): 2^-9 of each of some factors in a row, with
// random signs.
static const double tol_scan_rounded = 8e-3;
// Both after the gated norm, which divides by the norm of a head: where that is small, what was
// lost is several times larger (most in heads of five elements, which no model has).
static const double tol_scan_normed = 5e-5;
static const double tol_scan_rounded_normed = 4e-2;
// The gradients of dt and a_log of the recurrence, made of operands in two halves, which leave out
// 2^-17 of each term; a part of the sum of magnitudes where a tensor's entries are small by chance.
static const double tol_halves_dt = 1e-4;
// A token through five blocks and a small model's worth of norms: sums, in turn normed and summed.
static const double tol_step = 1e-4;
// The same where products round their other operand to bf16 (the GPU), which is 2^-9 / sqrt(3) of
// each term with random signs: some twenty such products one after the other, and the largest of
// thousands of results, three deviations out.
static const double tol_step_bf16_rounded = 1.5e-2;
// The same of up to 65 sequences and their states, against a reference that rounds to bf16 where
// the GPU does. What differs by 2^-22 still tips some roundings over, and each that is tipped tips
// more after it: on an H100 the models of this test come out 0.4 to 1.0e-2 apart (one of
// them 3.2e-2 where the reference rounds nothing).
static const double tol_step_many_rounded = 1.5e-2;
// The same with quantized weights: the sums of integers are exact, but a rounding of 2^-24 before
// them can tip an activation's code over, by 1/127 of the largest in its block.
static const double tol_step_quantized = 2e-2;
// The same of many sequences and a model of four taps: each code that is tipped tips more after it,
// until what differs is what codes round away. On a CPU the models of this test come out 1.2 to
// 3.4e-2 from the reference, with AVX2 and AVX-512 alike. One product by itself is held to the
// next line.
static const double tol_step_many_quantized = 4e-2;
// A block of attention over some hundred keys, of which one is rounded to bf16, and roundings that
// this tips over: on an H100 the models of this test come out 0.8 to 1.1e-3 apart.
static const double tol_new_key_rounded = 2e-3;
// One product of codes: one of them is tipped, 4 / 127 of x's spread times 4 / sqrt(K) of w's.
static const double tol_code_tipped = 1e-3;
// A gradient from central differences of f32 outputs with step 1e-2: 2^-24 / 1e-2 of rounding and
// about 1e-4 of curvature, relative to the largest gradient.
static const double tol_difference = 2e-3;

// ---- whole models ----

// Outputs against tests/golden, which are f32 themselves: what docs/MODEL.md promises.
static const double tol_golden = 1e-4;
// Gradients against tests/golden: as promised.
static const double tol_golden_grad = 1e-3;
// The one exception. Stage 3 of pre_hybrid is ill-conditioned: g_norm divides by a small norm in
// some heads, so roundings of 2^-24 come out of the backward pass some thousand times larger. The
// golden numbers, being f32, are themselves 8e-4 away from sums in double (which the reference
// path makes, and which are the better numbers); a fast path is off by as much again, in another
// direction: 8e-4 with vectors of 8 or 16, 1.3e-3 with those of 4, whose lanes sum more terms. So
// in this one case the reference is held to golden, and fast paths to the reference.
#ifdef __aarch64__
static const double tol_ill_conditioned = 2e-3;
#else
static const double tol_ill_conditioned = 1e-3;
#endif
// The same sequence in pieces, or token by token: the same sums in another order.
static const double tol_pieces = 1e-4;
// The same with weights in bf16, whose products may round the other operand to bf16 or not: root
// mean square over that of the logits. A row read alone and in a batch takes different ways.
static const double tol_pieces_product = 1e-2;
// The same with activations of bf16, against themselves and against f32: some ten roundings of 2^-9
// a block.
static const double tol_halves_model = 3e-2;
// The same of a quantized model: where two orders of sums leave an activation on two sides of the
// middle between codes, its code differs by one, 1/127 of the largest of its block.
static const double tol_code_flips = 2e-2;
// A directional derivative of a whole model's loss by four points, relative to the length of the
// gradient: an f32 loss of 5 moves by some thousandths and is known to 1e-7; LayerNorm over four
// values (use_qknorm) is so curved that the step must be smaller than that likes.
static const double tol_model_difference = 1e-2;

#endif
