// See cuda_runtime.h beside this.
#ifndef MM_TESTS_GPU_STAND_IN_CUBLAS_H
#define MM_TESTS_GPU_STAND_IN_CUBLAS_H
enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0 };
static inline const char *cublasGetStatusString(cublasStatus_t) {
    return "no cuBLAS here";
}
#endif
