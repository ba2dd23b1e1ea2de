#!/usr/bin/env bash
# What of the GPU side needs no GPU: the plug-in's host side on a device made of host memory
# (tests/gpu/stand_in), whose memory nobody else can touch. Sessions and models live there; memory is
# counted and limited; failures come whenever they like. Skipped where there is no C++ compiler.
#   test_stand_in.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
[ -e "$build/stand_in/libmmamba_cuda.so" ] || exit 77
# a search for leaks would read what nobody may touch
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
export LD_LIBRARY_PATH=$build/stand_in${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

for t in cuda_device api session snapshot batch ahead engine carve ops_rows; do
    shown=test_$t
    MMAMBA_TEST_STAND_IN=1 MMAMBA_TEST_BACKEND=cuda timeout 200 "$build/tests/test_$t" >"$dir/out" 2>"$dir/err" || complain "failed"
    grep -q "SKIPPED" "$dir/out" && complain "was skipped"
done
FEW=1 JOBS=2 bash tests/gpu/check_faults.sh "$build/stand_in/mmamba" "$build" >"$dir/out" 2>&1 ||
    { shown=check_faults.sh; complain "$(cat "$dir/out")"; }
mmamba=$build/stand_in/mmamba
run 0 inspect models/pico --device
grep -q "^cuda:0 .*Stand-in.*6.0 GiB of memory free of 6.0" "$dir/out" || complain "$(cat "$dir/out")"
MMAMBA_CUDA_MEMORY=9M run 0 inspect models/pico --device
grep -q "weights 0.02 GiB do not fit" "$dir/out" || complain "$(cat "$dir/out")"
finish
