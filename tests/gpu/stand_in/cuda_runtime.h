// The part of CUDA's runtime that the host side of the GPU plug-in uses (src/ops/cuda/backend.cu,
// memory.cu, mirror.cu, fault.cu), for a device made of host memory: stand_in.cc.
#ifndef MM_TESTS_GPU_STAND_IN_CUDA_RUNTIME_H
#define MM_TESTS_GPU_STAND_IN_CUDA_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#define __global__
#define __device__
#define __host__

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719,
    cudaErrorUnknown = 999,
};
typedef struct stand_in_stream *cudaStream_t;
enum { cudaMemcpyDefault = 4, cudaStreamNonBlocking = 1 };
struct cudaDeviceProp {
    char name[256];
    int multiProcessorCount, major, minor;
    size_t sharedMemPerBlockOptin;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a) : x(a), y(1), z(1) {
    }
};

const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t s);
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t s);

#endif
