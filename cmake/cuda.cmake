# The GPU plug-in (make cuda). CI compiles it where nvcc is installed; nothing else needs it.
option(MMAMBA_CUDA "build libmmamba_cuda.so" OFF)
set(MMAMBA_CUDA_ARCHITECTURES "80-real;89-real;90-real;90a-real;90-virtual" CACHE STRING
  "what the plug-in is compiled for; the last is also there as PTX for newer cards")
if(NOT MMAMBA_CUDA)
  return()
endif()
if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
  set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
endif()
set(CMAKE_CUDA_ARCHITECTURES ${MMAMBA_CUDA_ARCHITECTURES})
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
file(GLOB MMAMBA_CUDA_SOURCES CONFIGURE_DEPENDS src/ops/cuda/*.cu)
add_library(mmamba_cuda MODULE ${MMAMBA_CUDA_SOURCES})
set_target_properties(mmamba_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
  POSITION_INDEPENDENT_CODE ON CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
target_include_directories(mmamba_cuda PRIVATE src)
# The warnings are C's; of C++ only what tells of mistakes. 20012 and 177 are nvcc's own templates.
set_property(TARGET mmamba_cuda PROPERTY COMPILE_OPTIONS --extended-lambda -Xcompiler=-Wall)
target_link_libraries(mmamba_cuda PRIVATE CUDA::cublas CUDA::cublasLt)
install(TARGETS mmamba_cuda LIBRARY DESTINATION lib/mmamba)
