#!/usr/bin/env bash
# No CUDA call and no launch goes unchecked (scripts/check-cuda.sh), and the check finds what it should.
#   test_cuda_checked.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh

shown="check-cuda.sh"
: >"$dir/err"
ls src/ops/cuda/*.cu src/ops/cuda/*.cuh src/ops/cuda/cuda.h | xargs scripts/check-cuda.sh \
    >"$dir/out" 2>&1 || complain "$(cat "$dir/out")"

# refused N TEXT: as the body of a function N statements are told
refused() {
    shown="check-cuda.sh on '$2'"
    printf 'static bool f(struct mm_backend *be) {\n    %s\n}\n' "$2" >"$dir/x.cu"
    printf 'static void after(void) {\n    mm_cuda_launched(be, "another");\n}\n' >>"$dir/x.cu"
    scripts/check-cuda.sh "$dir/x.cu" >"$dir/out" 2>&1
    local status=$? told
    told=$(grep -c "x.cu:[0-9]*: nobody" "$dir/out")
    [ "$told" = "$1" ] || complain "$told statements are told: $(cat "$dir/out")"
    [ "$status" = $(($1 > 0)) ] || complain "exit status $status"
}
refused 1 'cudaFree(p);'
refused 1 'if (p) cudaFree(p);'
refused 1 'for (int i = 0; i < n; i++) cudaFree(p[i]);'
refused 2 'cudaGetDevice(&d); int sms; cudaDeviceGetAttribute(&sms, what, d);'
refused 1 'cublasLtDestroy(lt);'
refused 1 'cuTensorMapEncodeTiled(map, 3, x);'
refused 1 'cudaMalloc<float>(&p, 4);'
refused 1 'kernel<<<1, 2, 3, stream>>>(a); return true;'
refused 1 'if (a) { kernel<<<1, 2>>>(a); } else { mm_other(be); }'
refused 1 'cudaMemsetAsync(p, 0,
        n, stream);  // mm_cuda_ok(be, would look)'
refused 0 'mm_cuda_ok(be, cudaFree(p), "cudaFree"); (void)cudaFree(q);'
refused 0 'const cudaError_t e = cudaMalloc(&p, n); return cudaGetDevice(&d) == cudaSuccess;'
refused 0 'if (a) { kernel<<<1, 2>>>(a); } else { other<<<1, 2>>>(a); } mm_cuda_launched(be, "both");'
refused 0 '// cudaFree(p);
    say("cudaFree(p);"); const cudaDataType_t t = (cudaDataType_t)k; die(cudaGetErrorString(e));'
finish
