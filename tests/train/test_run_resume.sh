#!/usr/bin/env bash
# `train` and `distill` killed with -9 again and again, interrupted, and resumed: the end is the same
# to the bit. What does not fit a run is refused.
#   test_run_resume.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
. tests/train/run_lib.sh

seconds() {
    date +%s.%N
}

# killed KILLS LENGTH OUT ARGS...: runs ARGS and kills it KILLS times at random moments within about
# LENGTH seconds, then lets it finish.
killed() {
    local kills=$1 length=$2 out=$3 pid resume n=0
    shift 3
    while :; do
        resume=
        [ ! -e "$out/run.json" ] || resume=--resume
        shown="mmamba $* $resume (killed $n times)"
        "$mmamba" "$@" $resume >"$dir/out" 2>"$dir/err" </dev/null &
        pid=$!
        if [ "$n" -lt "$kills" ]; then
            sleep "$(awk -v r=$RANDOM -v l="$length" 'BEGIN {print l * r / 32768}')"
            kill -9 $pid 2>/dev/null
        fi
        wait $pid 2>/dev/null
        case $? in
        137) n=$((n + 1)) ;;
        0) break ;;
        *)
            complain "did not go on"
            return
            ;;
        esac
    done
    echo "killed $n times: $*"
}

# undisturbed, then killed: both must end alike. $length becomes the seconds of the first.
twice() {
    local name=$1 kills=${KILLS:-$2} started
    shift 2
    started=$(seconds)
    run 0 "${@//OUT/$dir/$name}" --json
    json_answer steps loss seconds tokens tokens_per_s peak_bytes skipped_samples
    killed "$kills" "$(awk -v a="$started" -v b="$(seconds)" 'BEGIN {print 0.4 * (b - a)}')" \
        "$dir/$name-killed" "${@//OUT/$dir/$name-killed}"
    same_run "$dir/$name" "$dir/$name-killed"
}

# on a GPU, where a start takes a while, KILLS says how often
RANDOM=${SEED:-$$}
twice teacher 8 train --config "$dir/config" --out OUT --recipe "$dir/f32.json" "${data[@]}"
twice teacher16 8 train --model "$dir/teacher/model" --out OUT --recipe "$dir/bf16.json" "${data[@]}"
teacher=$dir/teacher/model
hybrid=(--keep head-interleaved:1)
twice f32 14 distill "$teacher" OUT --recipe "$dir/f32.json" "${hybrid[@]}" "${data[@]}"
twice bf16 14 distill "$teacher" OUT --recipe "$dir/bf16.json" "${hybrid[@]}" "${data[@]}"
[ "$(wc -l <"$dir/f32/log.jsonl")" = 23 ] || complain "not a line a step"
run 0 distill "$teacher" "$dir/f32" --recipe "$dir/f32.json" "${hybrid[@]}" "${data[@]}" --resume
grep -q "this run is finished" "$dir/err" || complain "a finished run is not told"
same_run "$dir/f32-killed" "$dir/f32"

# interrupted twice, by both signals
for signal in INT TERM; do
    out=$dir/interrupted
    resume=
    [ ! -e "$out" ] || resume=--resume
    shown="distill, interrupted by $signal"
    lines=$(cat "$out/log.jsonl" 2>/dev/null | wc -l)
    "$mmamba" distill "$teacher" "$out" --recipe "$dir/f32.json" "${hybrid[@]}" "${data[@]}" \
        $resume --quiet >"$dir/out" 2>"$dir/err" </dev/null &
    pid=$!
    for ((i = 0; i < 1000; i++)); do
        [ "$(cat "$out/log.jsonl" 2>/dev/null | wc -l)" -lt $((lines + 2)) ] || break
        sleep 0.01
    done
    kill -$signal $pid
    wait $pid
    [ $? = 130 ] || complain "exit status is not 130"
    one_error "interrupted at step [0-9]* of stage [123]; --resume goes on"
done

# with other options
same=(distill "$teacher" "$dir/interrupted" --recipe "$dir/f32.json" "${data[@]}" --resume)
run 1 "${same[@]}" --keep none --quiet
one_sentence "another 'keep' (then \"head-interleaved:1\", now \"none\")"
run 1 "${same[@]}" "${hybrid[@]}" --init scratch --quiet
one_sentence "another 'init'"
run 1 "${same[@]}" --stages 1,2 --quiet
one_sentence "another 'stages'"
run 1 "${same[@]}" "${hybrid[@]}" --seed 4 --quiet
one_sentence "another 'recipe'"
run 1 "${same[@]}" "${hybrid[@]}" --steps 7,8,9 --quiet
one_sentence "another 'recipe'"
run 1 distill "$dir/teacher16/model" "${same[@]:2}" "${hybrid[@]}" --quiet
one_sentence "another 'model_hash'"
cp -r "$dir/data" "$dir/data2"
sed -i 's/stars/moons/' "$dir/data2/a.jsonl"
run 1 "${same[@]//$dir\/data\//$dir/data2/}" "${hybrid[@]}" --quiet
one_sentence "another 'data_hash'"
run 1 distill "$teacher" "$dir/interrupted" --recipe "$dir/f32.json" "${data[@]}" --quiet
one_sentence "holds a run already; --resume goes on with it"
run 1 distill "$teacher" "$dir/nowhere" --recipe "$dir/f32.json" "${data[@]}" --resume --quiet
one_sentence "no run to resume"
run 0 "${same[@]}" "${hybrid[@]}"
same_run "$dir/f32" "$dir/interrupted"
finish
