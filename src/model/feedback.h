// The factor by which rounding passes errors on (GPTQ, Frantar et al. 2023): with H = X^T X of a
// linear layer's inputs, what rounding column i of a weight leaves over is best made up for by the
// columns behind it in the proportions of row i of U, where H^-1 = U^T U, U upper triangular.
#ifndef MM_MODEL_FEEDBACK_H
#define MM_MODEL_FEEDBACK_H

#include "ops/ops.h"

// h (K, K) f32, symmetric, becomes U, its lower triangle zero. The diagonal is raised by `damp`
// times its mean first, so that inputs that never varied do no harm. False when h holds no
// sensible numbers.
bool mm_feedback_factor(struct mm_backend *be, struct mm_view h, double damp);

#endif
