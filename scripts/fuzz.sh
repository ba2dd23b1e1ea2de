#!/usr/bin/env bash
# Fuzzing by libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer.
#   scripts/fuzz.sh run [SECONDS] [NAME]...   each target (or the named ones) that long
#   scripts/fuzz.sh keep [NAME]...            merges what new coverage it found into the corpus
# Targets are tests/fuzz/fuzz_<name>.c, the corpus tests/fuzz/corpus/<name>/. Running changes
# nothing in the tree: new inputs go to build-fuzz/corpus/<name>, findings to build-fuzz/findings.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build-fuzz
verb=${1:-run}
shift || true
seconds=60
if [ "$verb" = run ] && [[ ${1:-} =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
fi

CC=clang cmake -S . -B $build -G Ninja -DMMAMBA_FUZZ=ON >/dev/null
ninja -C $build fuzz_targets

names=("$@")
if [ ${#names[@]} = 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do
        name=${source##*/fuzz_}
        names+=("${name%.c}")
    done
fi
export UBSAN_OPTIONS=print_stacktrace=1

found=()
for name in "${names[@]}"; do
    kept=tests/fuzz/corpus/$name
    fresh=$build/corpus/$name
    mkdir -p "$kept" "$fresh" "$build/findings"
    case $verb in
        run)
            echo "fuzz_$name: $seconds s"
            log=$build/$name.log
            words=()
            [ ! -e "tests/fuzz/$name.dict" ] || words=("-dict=tests/fuzz/$name.dict")
            # leaks are looked for at the end of the run as well as by the tests under ASan
            if "$build/tests/fuzz_$name" ${words[@]+"${words[@]}"} -max_total_time="$seconds" -timeout=10 \
                -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$build/findings/$name-" \
                "$fresh" "$kept" >"$log" 2>&1; then
                grep -E 'number_of_executed_units|new_units_added' "$log" | sed 's/^/    /'
            else
                tail -n 40 "$log"
                found+=("$name")
            fi
            ;;
        keep)
            "$build/tests/fuzz_$name" -merge=1 "$kept" "$fresh" 2>&1 | tail -n 1
            ;;
        *)
            echo "fuzz.sh: there is no '$verb'; run or keep" >&2
            exit 2
            ;;
    esac
done

if [ ${#found[@]} -gt 0 ]; then
    echo "fuzz.sh: findings in ${found[*]}; the inputs are in $build/findings. Mend it, then copy the input to tests/fuzz/corpus/<name>/" >&2
    exit 1
fi
[ "$verb" != run ] || echo "${#names[@]} targets, no finding"
