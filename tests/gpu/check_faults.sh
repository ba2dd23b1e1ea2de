#!/usr/bin/env bash
# Failures of a GPU: each ends the program with one sentence, whenever it comes, and what does not fit
# is refused with numbers. MMAMBA_CUDA_FAULT and MMAMBA_CUDA_MEMORY are told of in docs/TESTING.md.
# FEW=1: fewer faults of fewer verbs.
#   check_faults.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
. tests/train/run_lib.sh
jobs_at_once=${JOBS:-8}
FEW=${FEW:-0}

# The program ended with `status` after a failure: with success and nothing on standard error, or with
# status 1 and one sentence that matches.
judge() { # judge NAME STATUS PATTERN
    shown=$1
    cp "$dir/$1.err" "$dir/err"
    sed -i '/warning: /d; /^Fontconfig/d' "$dir/$1.err"
    if [ "$2" = 0 ]; then
        [ ! -s "$dir/$1.err" ] || complain "it ended well and complained"
    elif [ "$2" != 1 ]; then
        complain "exit status $2"
    else
        [ "$(wc -l <"$dir/$1.err")" = 1 ] || complain "standard error is not one line"
        grep -qE "^mmamba: .*$3" "$dir/$1.err" || complain "no sentence"
    fi
}

# sweep KIND PATTERN NAME ARGS...: with a fault at 1, 2, 5, 11, 24 ... until the program does not get there
sweep() {
    local kind=$1 pattern=$2 name=$3 n=1 at list=() status told=0 ended=0
    shift 3
    while [ $n -le 60000 ]; do
        list+=($n)
        n=$((FEW ? 6 * n + 1 : n * 21 / 10 + (n == 1 ? 0 : 1)))
    done
    for at in "${list[@]}"; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs_at_once" ]; do wait -n; done
        (
            rm -rf "$dir/$name.$kind.$at.run"
            MMAMBA_CUDA_FAULT=$kind:$at timeout 60 "$mmamba" "${@//OUT/$dir/$name.$kind.$at.run}" --backend cuda \
                -q >"$dir/$name.$kind.$at.out" 2>"$dir/$name.$kind.$at.err" </dev/null
            echo $? >"$dir/$name.$kind.$at.status"
        ) &
    done
    wait
    for at in "${list[@]}"; do
        status=$(cat "$dir/$name.$kind.$at.status")
        judge "$name.$kind.$at" "$status" "$pattern"
        if [ "$status" = 0 ]; then ended=$((ended + 1)); else told=$((told + 1)); fi
        rm -rf "$dir/$name.$kind.$at.run"
    done
    echo "$name, $kind: $told faults told, $ended runs ended before theirs"
    shown="$name, $kind"
    [ $told -ge $((FEW ? 2 : 5)) ] || complain "only $told faults met the program"
}
call="failed: unknown error"
launch="failed: (an illegal memory access|unspecified launch failure)"
chat=(chat models/pico -p "What is there?" --max-new-tokens 6)
sweep call "$call" chat "${chat[@]}"
sweep launch "$launch" chat "${chat[@]}"
train=(distill "$dir/teacher" OUT --recipe "$dir/bf16.json" --data "$dir/data/meta.json" --threads 2)
run 0 train --config "$dir/config" --out "$dir/one" --recipe "$dir/f32.json" --steps 2 "${data[@]}" -q
cp -r "$dir/one/model" "$dir/teacher"
sweep call "$call" distill "${train[@]}"
[ "$FEW" = 1 ] || sweep launch "$launch" distill "${train[@]}"
[ "$FEW" = 1 ] || sweep launch "$launch" bench bench models/pico --mixers linear --prompt 300 --new 8 --repeat 1
golden_in=tests/golden/text_long
[ "$FEW" = 1 ] || sweep launch "$launch" probe probe forward --chunk 7 --input $golden_in/expected.safetensors --output OUT \
    --model $golden_in/student_config.json:$golden_in/student.safetensors

# ---- what does not fit --------------------------------------------------------------------------
limit() { # limit MEMORY PATTERN ARGS...
    export MMAMBA_CUDA_MEMORY=$1
    local pattern=$2
    shift 2
    run 1 "$@" --backend cuda -q
    unset MMAMBA_CUDA_MEMORY
    sed -i '/warning: /d' "$dir/err"
    one_sentence "$pattern"
}
free="[0-9.]* GiB"
# what is asked for first depends on the card
some_more="\(needs $free of memory\|keys and values need $free of memory more\), $free are free"
limit 9M "weights take $free and $free of the memory of .* are free" "${chat[@]}"
limit 17M "$some_more" "${chat[@]}"
limit 19M "$some_more" "${chat[@]}"
limit 9M "weights take $free and $free" bench models/pico --prompt 100
limit 2500M "keys and values of [0-9]* tokens take $free and $free are free" bench models/pico --prompt 400k \
    --skip-prefill --batch 64 --new 2
limit 2500M "needs $free of memory, $free are free" bench models/pico --mixers linear --prompt 900k --dtype f32 \
    --new 2 --piece 1000000
limit 60M "this needs up to $free more .* and $free are free" "${train[@]//OUT/$dir/small}"
export MMAMBA_CUDA_MEMORY=lots
run 2 "${chat[@]}" --backend cuda
one_sentence "MMAMBA_CUDA_MEMORY is 'lots', wanted"
unset MMAMBA_CUDA_MEMORY
MMAMBA_CUDA_FAULT=call:x run 2 "${chat[@]}" --backend cuda
one_sentence "MMAMBA_CUDA_FAULT is 'call:x', wanted"
MMAMBA_CUDA_AS=7 run 2 "${chat[@]}" --backend cuda
one_sentence "MMAMBA_CUDA_AS is '7', wanted"
MMAMBA_CUDA_FEW=9 run 2 "${chat[@]}" --backend cuda
one_sentence "MMAMBA_CUDA_FEW is '9', wanted"
run 1 "${chat[@]}" --backend cuda:77
one_sentence "GPU 77 was asked for, there"
finish
