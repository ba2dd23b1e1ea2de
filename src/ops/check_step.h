// The operands of a token step.
#ifndef MM_OPS_CHECK_STEP_H
#define MM_OPS_CHECK_STEP_H

#include "ops/ops.h"

// NULL, or the condition that does not hold.
const char *mm_check_step(const struct mm_backend *be, const struct mm_step *s);

#endif
