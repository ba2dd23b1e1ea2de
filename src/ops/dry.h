// A backend that does nothing: with a dry arena, the code that computes is also the code that
// counts what it will need.
#ifndef MM_OPS_DRY_H
#define MM_OPS_DRY_H

#include "ops/ops.h"

// *dry behaves like `be` but every operation and copy is skipped. It owns nothing.
void mm_backend_dry(struct mm_backend *dry, const struct mm_backend *be);
bool mm_backend_is_dry(const struct mm_backend *be);

#endif
