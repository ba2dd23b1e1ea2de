#!/usr/bin/env bash
# Runs the tests of a built tree; the last line is "N passed, N failed" whatever happened.
#   scripts/test.sh [BUILD [OPTION]...]     BUILD: build (the default), build-asan, build-tsan or
#                                           build-arm, made by make beforehand; OPTION: of ctest, which tests
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
shift || true

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# halt_on_error is the default for ASan; UBSan needs to be told to say where it was.
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$PWD/tests/lsan.supp:print_suppressions=0}
# A sleeping OpenMP thread (the dense products' library) must not hold up the test beside it.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

# gcc 12's ThreadSanitizer cannot live with the wide address randomisation of newer kernels.
fixed=()
if grep -q '^MMAMBA_TSAN:BOOL=ON' "$build/CMakeCache.txt" && setarch -R true 2>/dev/null; then
    fixed=(setarch -R)
fi
export TSAN_OPTIONS=${TSAN_OPTIONS:-exitcode=66:second_deadlock_stack=1}

"${fixed[@]}" ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$(nproc)" \
    --timeout "${TEST_TIMEOUT:-300}" "$@" </dev/null 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

summary=$(grep -E '^[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+' "$log" | tail -n 1)
failed=$(sed -E 's/.*, ([0-9]+) tests failed out of .*/\1/' <<<"$summary")
total=$(sed -E 's/.* out of ([0-9]+).*/\1/' <<<"$summary")
if [ -z "$summary" ]; then
    failed=1 total=1 status=1
fi
[ "$failed" = 0 ] || [ "$status" != 0 ] || status=1
echo "$((total - failed)) passed, $failed failed"
exit "$status"
