#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: every operation against the CPU's reference, the golden numbers,
# whole models on the device; ends with a table. Needs a pack of tests/gpu/pack.sh, or a build folder
# with the plug-in.
#   tests/gpu/run.sh PACK.tar.xz|BUILD [LOGS]
# SANITIZE=SECONDS also runs compute-sanitizer over operations on halves, each tool and test for that
# long at most.
set -uo pipefail
cd "$(dirname "$0")/../.."
what=$1 logs=${2:-$(mktemp -d)}
mkdir -p "$logs"
if [ -d "$what" ]; then
    bin=$(realpath "$what") tests=$bin/tests
else
    pack=${GPU_PACK_DIR:-/tmp/mmamba-gpu}
    mkdir -p "$pack"
    [ -e "$pack/bin/mmamba" ] || xz -dc "$what" | tar -C "$pack" -xf -
    bin=$pack/bin tests=$pack/tests
    LD_LIBRARY_PATH=$pack/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
for d in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib; do
    [ -d "$d" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$d
done
export LD_LIBRARY_PATH=$bin:$LD_LIBRARY_PATH
passed=0 failed=0
table=
try() { # try NAME COMMAND...
    local name=$1 began end
    shift
    began=$(date +%s%N)
    if timeout 300 "$@" >"$logs/$name.log" 2>&1; then
        passed=$((passed + 1)) verdict=ok
    else
        failed=$((failed + 1)) verdict=FAILED
        echo "---- $name"
        grep -E 'FAIL|ERROR|off by|bug:|mmamba:|error|rror:' "$logs/$name.log" | head -n 12
    fi
    end=$(date +%s%N)
    table+=$(printf '%-28s %-7s %5d.%d s' "$name" "$verdict" $(((end - began) / 1000000000)) \
        $(((end - began) / 100000000 % 10)))$'\n'
}
"$bin/mmamba" inspect --help >/dev/null || { echo "the program does not start here"; exit 1; }
export MMAMBA_TEST_BACKEND=cuda
for t in ops_rows ops_linear ops_attention ops_loss ops_grad ops_step mixer_rows mixer_ssd ops_ffn \
    ops_halves mixer_halves halves_ssd halves_attention golden halves gradcheck carve layout; do
    try "$t" "$tests/test_$t"
done
if [ -n "${SANITIZE:-}" ]; then
    for t in ops_halves mixer_halves; do
        for tool in memcheck racecheck; do
            MMAMBA_TEST_FEW=1 try "${tool}_$t" timeout "$SANITIZE" compute-sanitizer --tool $tool \
                --error-exitcode 9 "$tests/test_$t"
        done
    done
fi
unset MMAMBA_TEST_BACKEND
# Whole models on device memory: the tests of `probe`, with the GPU as the backend.
wrapper=$logs/mmamba-cuda
printf '#!/bin/sh\nexec "%s" "$@" --backend cuda\n' "$bin/mmamba" >"$wrapper"
chmod +x "$wrapper"
PROBE_ILL_CONDITIONED=2e-3 try probe_on_device bash tests/model/test_probe_model.sh "$wrapper" "$(dirname "$tests")"
echo
printf '%s' "$table"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
