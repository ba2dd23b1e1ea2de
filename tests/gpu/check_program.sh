#!/usr/bin/env bash
# The program on a GPU from outside: what `inspect` says of it, quantized models from files, and that
# `chat`, `eval` and `bench` answer there as on the CPU.
#   check_program.sh MMAMBA BUILD          (BUILD: where tests/ is; scenes lies beside the program)
set -uo pipefail
. tests/cli/lib.sh
says() { grep -qE -e "$1" "$dir/out" || complain "the answer has no '$1': $(head -c 400 "$dir/out")"; }

world=$dir/world
"$(dirname "$mmamba")/scenes" --out "$world" --things 40 --words short:20 --pictures 40 --test 120 --seed 3 -q \
    --table tools/scenes/things.tsv ${SCENES_FONTS:-} >"$dir/out" 2>"$dir/err" || { shown=scenes; complain "no world"; }

# ---- inspect ------------------------------------------------------------------------------------
run 0 inspect --device
says "^cuda:0 +.*GiB of memory free of .*multiprocessors, compute capability [0-9.]*$"
run 0 inspect models/pico --device --json
json_answer devices weight_bytes tokens
says '"backend": "cuda:0".*"weights_fit": true'
MMAMBA_CUDA_MEMORY=9M run 0 inspect models/pico --device
says "weights 0.02 GiB do not fit"

# ---- the same answers as on the CPU ---------------------------------------------------------------
for type in q8 q4; do
    run 0 quantize models/pico "$dir/$type" --type $type -q
done
run 0 carve models/pico "$dir/student" --keep 0,4 -q
cp -r models/pico "$dir/bf16"
# answers NAME BENCH BACKEND BATCH
answers() {
    run 0 eval "$dir/$1" --bench "$2" --data "$world/$3" --out "$dir/$1.$2.$4.$5" --backend "$4" --batch "$5" \
        --json -q
    sed 's/, "run".*//' "$dir/$1.$2.$4.$5"
}
# same NAME BENCH FILE LEAST: at least LEAST of 100 answers are the CPU's, alone and eight at a time
same() {
    local all other batch
    answers "$1" "$2" "$3" cpu 4 >"$dir/cpu"
    all=$(wc -l <"$dir/cpu")
    for batch in 1 8; do
        answers "$1" "$2" "$3" cuda $batch | sort >"$dir/cuda"
        other=$(sort "$dir/cpu" | comm -23 - "$dir/cuda" | wc -l)
        echo "$1, $2, batch $batch: $other of $all answers are not the CPU's"
        [ "$all" -ge 60 ] || complain "$all answers"
        [ $((100 * (all - other))) -ge $(($4 * all)) ] ||
            complain "$1, $2, batch $batch: $other of $all answers are not the CPU's"
    done
}
same bf16 gqa GQA.tsv 98
same bf16 textvqa TextVQA_VAL.tsv 98
same q8 gqa GQA.tsv 97
same q4 gqa GQA.tsv 97
run 0 chat "$dir/bf16" -p "What is there?" --max-new-tokens 8 --backend cuda --json -q
quiet_answer
cp "$dir/out" "$dir/said"
run 0 chat "$dir/bf16" -p "What is there?" --max-new-tokens 8 --backend cpu --json -q
text() { sed 's/.*"text": \("[^"]*"\).*/\1/' "$1"; }
[ "$(text "$dir/out")" = "$(text "$dir/said")" ] ||
    complain "chat says $(text "$dir/said") on the GPU, $(text "$dir/out") on the CPU"
for type in q8 q4; do
    run 0 chat "$dir/$type" -p "What is there?" --max-new-tokens 8 --backend cuda -q
    run 0 bench "$dir/$type" --prompt 300,3000 --new 40 --batch 3 --repeat 1 --backend cuda -q
    says "attention.* $type +300 "
    run 0 bench models/pico --mixers linear,hybrid --dtype $type --prompt 300 --new 40 --repeat 1 --backend cuda -q
    says "linear +$type +300 "
done
run 0 bench "$dir/student" --prompt 300 --tiles 2 --new 40 --repeat 1 --backend cuda -q
says "hybrid +bf16 +332 "
finish
