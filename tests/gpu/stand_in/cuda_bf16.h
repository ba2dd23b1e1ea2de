// See cuda_runtime.h beside this.
