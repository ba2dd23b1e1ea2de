// See cuda_runtime.h above this.
#ifndef MM_TESTS_GPU_STAND_IN_STEP_PLAN_CUH
#define MM_TESTS_GPU_STAND_IN_STEP_PLAN_CUH
static inline void mm_step_plan_free(struct mm_backend *) {
}
#endif
