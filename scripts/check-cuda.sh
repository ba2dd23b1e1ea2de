#!/usr/bin/env bash
# Compiles the GPU plug-in for one architecture (Hopper, whose instructions only it has), in
# build-cuda: what CI does where nvcc is installed. Elsewhere one sentence, and nothing has failed.
#   scripts/check-cuda.sh [ARCHITECTURE]
set -euo pipefail
cd "$(dirname "$0")/.."
architecture=${1:-90a}

nvcc=$(command -v nvcc || true)
[ -n "$nvcc" ] || [ ! -x /usr/local/cuda/bin/nvcc ] || nvcc=/usr/local/cuda/bin/nvcc
if [ -z "$nvcc" ]; then
    echo "the GPU plug-in was not compiled: there is no nvcc here"
    exit 0
fi
version=$("$nvcc" --version | sed -nE 's/.*release ([0-9]+)\..*/\1/p')
if [ "${version:-0}" -lt 13 ]; then
    echo "the GPU plug-in was not compiled: $nvcc is of CUDA ${version:-unknown}, it needs 13"
    exit 0
fi
start=$SECONDS
cmake -S . -B build-cuda -G Ninja -DMMAMBA_CUDA=ON -DCMAKE_CUDA_COMPILER="$nvcc" \
    -DMMAMBA_CUDA_ARCHITECTURES="$architecture-real" ${CMAKE_FLAGS:-} >/dev/null
ninja -C build-cuda ${NINJA_FLAGS:-} mmamba_cuda
echo "the GPU plug-in compiles for sm_$architecture with CUDA $version: $((SECONDS - start)) s"
