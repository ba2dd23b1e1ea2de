#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, everything that is to be known of the GPU side, by one command: every
# operation against the CPU's reference, the golden numbers, gradients, whole models and the program on
# the device, failures, compute-sanitizer, a soak, and then, with nothing beside them, the benchmarks.
# Ends with one table: name, verdict or number, what it must be.
#   tests/gpu/run.sh [PACK.tar.xz | BUILD] [LOGS] [OPTION]...
#     PACK            of tests/gpu/pack.sh; BUILD: a build folder with the plug-in (default: `make cuda`)
#     --only A,B      of parity, golden, program, training, faults, sanitize, soak, bench (default: all)
#     --tests A,B     of the operations and of whole models (halves), in parity and sanitize (default: all)
#     --soak SECONDS      of the soak, which runs beside most of the others (170; 600 is a soak to quote)
#     --sanitize SECONDS  for each tool on each test, at most (600); three times that for token steps
#                         and whole models
#     --tools A,B         of compute-sanitizer (memcheck,racecheck,initcheck)
#     --jobs N        tests side by side (as many as there are processors)
# Exit 0: nothing failed. A number that misses what it must be is told, and is no failure.
set -uo pipefail
cd "$(dirname "$0")/../.."
sections=parity,golden,program,training,faults,sanitize,soak,bench
only_tests= soak_seconds=170 sanitize_seconds=600 tools=memcheck,racecheck,initcheck jobs=$(nproc)
places=() alone=() at_work=()
while [ $# -gt 0 ]; do
    case $1 in
    --only) sections=$2 && shift ;;
    --tests) only_tests=$2 && shift ;;
    --soak) soak_seconds=$2 && shift ;;
    --sanitize) sanitize_seconds=$2 && shift ;;
    --tools) tools=$2 && shift ;;
    --jobs) jobs=$2 && shift ;;
    --*) echo "run.sh: '$1' is no option" && exit 2 ;;
    *) places+=("$1") ;;
    esac
    shift
done
for s in ${sections//,/ }; do
    case ,parity,golden,program,training,faults,sanitize,soak,bench, in
    *,$s,*) ;;
    *) echo "run.sh: '$s' is no section" && exit 2 ;;
    esac
done
wants() { [[ ,$sections, = *,$1,* ]]; }

# ---- where things are ---------------------------------------------------------------------------
what=${places[0]:-build}
logs=${places[1]:-$(mktemp -d)}
mkdir -p "$logs"
if [ ${#places[@]} = 0 ]; then make cuda || exit 1; fi
if [ -d "$what" ]; then
    root=$(realpath "$what") bin=$root benches=$root/bench
else
    root=${GPU_PACK_DIR:-/tmp/mmamba-gpu}
    bin=$root/bin benches=$root/bin
    mkdir -p "$root"
    [ -e "$bin/mmamba" ] || xz -dc "$what" | tar -C "$root" -xf - || exit 1
    LD_LIBRARY_PATH=$root/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    if [ -d "$root/fonts/dejavu" ]; then
        export SCENES_FONTS="--emoji-font $root/fonts/NotoColorEmoji.ttf --fonts $root/fonts/dejavu"
        printf '<?xml version="1.0"?>\n<fontconfig><dir>%s</dir><cachedir>%s</cachedir></fontconfig>\n' \
            "$root/fonts" "$root/cache" >"$root/fonts.conf"
        export FONTCONFIG_FILE=$root/fonts.conf
    fi
fi
tests=$root/tests
for d in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib; do
    [ -d "$d" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$d
done
export LD_LIBRARY_PATH=$bin:${LD_LIBRARY_PATH:-} PATH=$PATH:/usr/local/cuda/bin
"$bin/mmamba" inspect --help >/dev/null || { echo "the program does not start here"; exit 1; }
"$bin/mmamba" inspect --device || exit 1
devices=$("$bin/mmamba" inspect --device --json)
grep -q '"cuda:0"' <<<"$devices" || { echo "there is no GPU to test"; exit 1; }

# ---- the table ----------------------------------------------------------------------------------
order=()
the_table() {
    local name verdict tenths passed=0 failed=0 table=
    for name in "${order[@]}"; do
        verdict=CUT tenths=0
        [ -e "$logs/$name.result" ] && read -r verdict tenths <"$logs/$name.result"
        if [ "$verdict" = ok ]; then passed=$((passed + 1)); else
            failed=$((failed + 1))
            echo "---- $name"
            grep -E 'FAIL|ERROR|off by|bug:|mmamba:|error|rror:|[cC]omplain|must be|GROWS|=== ' "$logs/$name.log" |
                head -n 12
        fi
        table+=$(printf '%-26s %-6s %5d.%d s' "$name" "$verdict" $((tenths / 10)) $((tenths % 10)))$'\n'
    done
    echo
    printf '%s' "$table" | paste - - | column -t -s $'\t' 2>/dev/null || printf '%s' "$table"
    wants soak && tail -n 1 "$logs/soak.log"
    wants bench && [ -e "$logs/bench.table" ] && cat "$logs/bench.table"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}
trap 'trap - TERM; the_table; kill 0; exit 1' TERM INT

# ---- jobs ---------------------------------------------------------------------------------------
rm -f "$logs"/*.result "$logs/bench.table"
began=$(date +%s)
# job NAME SECONDS COMMAND...: beside the others, at most so long
job() {
    local name=$1 limit=$2
    shift 2
    order+=("$name")
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    (
        from=$(date +%s%N)
        timeout "$limit" "$@" >"$logs/$name.log" 2>&1 </dev/null
        case $? in
        0) verdict=ok ;;
        124) verdict=SLOW ;;  # cut at its limit
        *) verdict=FAILED ;;
        esac
        echo "$verdict $((($(date +%s%N) - from) / 100000000))" >"$logs/$name.result"
    ) &
    at_work+=($!)
}
# all jobs are over; the soak may go on
jobs_over() {
    [ ${#at_work[@]} = 0 ] || wait "${at_work[@]}"
    at_work=()
}
# sanitized TOOL TEST SECONDS
sanitized() {
    local mirror=exact racecheck=0 # memcheck and initcheck know where allocations end
    [ "$1" = racecheck ] && mirror=1 racecheck=1
    on_cuda "$1.$2" "$3" env MMAMBA_TEST_FEW=1 MMAMBA_CUDA_MIRROR=$mirror MMAMBA_CUDA_RACECHECK=$racecheck \
        compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 20 "$tests/test_$2"
}
on_cuda() { job "$1" "$2" env MMAMBA_TEST_BACKEND=cuda "${@:3}"; }

# Blocks of a token step wait for each other, and hold the card while they do: beside others, each of these
# would take all the others' time, and its own many times over.
alone_one_by_one() {
    local one
    for one in "${alone[@]}"; do
        sanitized $one $((3 * sanitize_seconds))
        wait
    done
}

has_test() { [[ -z $only_tests || ,$only_tests, = *,$1,* ]]; }
ops=$(for t in $(tests/gpu/op_tests.sh); do has_test "$t" && echo "$t"; done)
for t in ${only_tests//,/ }; do
    [[ $'\n'$ops$'\n'halves$'\n' = *$'\n'"$t"$'\n'* ]] || { echo "run.sh: '$t' is no test of the GPU's" && exit 2; }
done
if wants sanitize; then
    for tool in ${tools//,/ }; do
        for t in $ops $(has_test halves && echo halves); do
            # writes of the copy engine are unknown to initcheck: cuBLAS's
            case $tool.$t in *.ops_step* | memcheck.halves | racecheck.halves) alone+=("$tool $t") ;; esac
        done
    done
    # a second card, where there is one and it may be used, has nothing else to do
    second=$(cut -s -d, -f2 <<<"${CUDA_VISIBLE_DEVICES:-0,1}")
    if [ -n "$second" ] && grep -q '"cuda:1"' <<<"$devices"; then
        (export CUDA_VISIBLE_DEVICES=$second && alone_one_by_one) &
        for one in "${alone[@]}"; do order+=("${one/ /.}"); done
        alone=()
    fi
fi
if wants soak; then
    order+=(soak)
    (
        from=$(date +%s%N)
        # at its end it waits for others to go, up to 720 s
        timeout $((soak_seconds + 780)) "$benches/bench_soak" models/pico "$soak_seconds" cuda \
            >"$logs/soak.log" 2>&1 && verdict=ok || verdict=FAILED
        echo "$verdict $((($(date +%s%N) - from) / 100000000))" >"$logs/soak.result"
    ) &
    # what the device holds is looked at before others come
    for ((i = 0; i < 60; i++)); do grep -q ^warm "$logs/soak.log" 2>/dev/null && break || sleep 1; done
fi
# Whole runs and the tests of `probe` with the GPU as the backend.
wrapper=$logs/mmamba-cuda
printf '#!/bin/sh\nexec "%s" "$@" --backend cuda\n' "$bin/mmamba" >"$wrapper"
chmod +x "$wrapper"
wants training && job resume 400 env KILLS=2 bash tests/train/test_run_resume.sh "$wrapper" "$root"
wants program && job program 400 bash tests/gpu/check_program.sh "$bin/mmamba" "$root"
if wants golden; then
    on_cuda golden 400 "$tests/test_golden"
    job probe 400 env PROBE_ILL_CONDITIONED=2e-3 bash tests/model/test_probe_model.sh "$wrapper" "$root"
    for t in gradcheck halves carve; do on_cuda $t 400 "$tests/test_$t"; done
    for t in api session snapshot batch ahead engine; do on_cuda device_$t 400 "$tests/test_$t"; done
fi
if wants parity; then
    for t in $ops; do on_cuda "$t" 400 "$tests/test_$t"; done
    # the paths of cards with less shared memory
    for t in mixer_halves halves_ssd halves_attention; do
        has_test $t || continue
        on_cuda "$t.as_8.9" 400 env MMAMBA_CUDA_AS=8.9 "$tests/test_$t"
    done
fi
# Sanitizers hold the card for long: beside them tests of token steps, whose blocks wait for each other,
# were not done in 400 s, where they take 62 and 101 alone.
jobs_over
if wants sanitize; then
    for tool in ${tools//,/ }; do
        for t in $ops; do
            # what is done alone; finite differences
            case $t in ops_step* | ops_grad | cuda_device) continue ;; esac
            sanitized $tool $t "$sanitize_seconds"
        done
    done
fi
wait
alone_one_by_one
# A kernel that writes where nothing is costs its process the card; whether others on it are safe then is
# not ours to say, so nothing runs beside these.
if wants training; then
    job training 300 bash tests/gpu/check_training.sh "$bin/mmamba" "$root"
    wait
fi
if wants faults; then
    JOBS=6 job faults 300 bash tests/gpu/check_faults.sh "$bin/mmamba" "$root"
    wait
fi
echo "checks: $(($(date +%s) - began)) s"

# ---- numbers ------------------------------------------------------------------------------------
if wants bench; then
    order+=(bench)
    (
        from=$(date +%s%N)
        bash tests/gpu/bench.sh "$bin/mmamba" "$benches" "$tests" "$logs" >"$logs/bench.table" 2>"$logs/bench.log" &&
            verdict=ok || verdict=FAILED
        echo "$verdict $((($(date +%s%N) - from) / 100000000))" >"$logs/bench.result"
    ) &
    wait
fi
trap - TERM INT
[ ${#order[@]} -gt 0 ] || { echo "run.sh: --only $sections has none of --tests $only_tests: nothing was run" && exit 2; }
the_table
