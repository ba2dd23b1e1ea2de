#!/usr/bin/env bash
# bench_soak on the CPU for some seconds: memory stays as it is, and where it does not, that is told.
# tests/gpu/run.sh runs it for longer, on a GPU.
#   test_soak.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh

soak() { # soak STATUS WORDS ARGS...
    local wanted=$1 words=$2 status
    shift 2
    shown="bench_soak models/pico $*"
    timeout 250 "$build/bench/bench_soak" models/pico "$@" >"$dir/out" 2>"$dir/err"
    status=$?
    [ "$status" = "$wanted" ] || complain "exit status $status, must be $wanted: $(tail -n 1 "$dir/out")"
    tail -n 1 "$dir/out" | grep -q "^soak: .*$words" || complain "$(tail -n 1 "$dir/out")"
}
soak 0 "ok$" 4
sanitizers=$(nm "$build/bench/bench_soak" 2>/dev/null | grep -cE "__(asan|tsan)_init")
if [ "$sanitizers" = 0 ]; then
    soak 1 "heap +[0-9.]* MiB (GROWS).*FAILED$" 4 cpu leak
fi
finish
