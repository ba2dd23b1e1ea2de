#!/usr/bin/env bash
# `bench`: what it answers and what it refuses.
#   test_cli_bench.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
pico=models/pico
says() { grep -qF -e "$1" "$dir/out" || complain "the answer has no '$1': $(head -c 300 "$dir/out")"; }

run 0 bench $pico --keep none --prompt 20,200,4000k --tiles 1 --max-seconds 1 --new 2 --repeat 1 \
    --plot "$dir/b.png" --json -q
json_answer version backend device threads ceilings rows skipped interrupted
for field in '"mixers": "linear"' '"dtype": "bf16"' '"read_GBps"' '"decode_ratio"' \
    '"visual_tokens": 16' '"prompt": 4000000, "why": "'; do
    says "$field"
done
[ "$(head -c 8 "$dir/b.png" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] || complain "no PNG"

run 0 bench --config $pico --random-weights --mixers attention,hybrid --keep 0,4 --dtype f32 \
    --lengths 16:64:4 --new 1 --repeat 1 --threads 1 -q
[ -s "$dir/err" ] && complain "standard error is not empty"
says "attention f32        16"
says "hybrid    f32        64"

run 1 bench $pico --prompt 4000k --max-seconds 1 --new 1 -q
one_sentence "no row could be measured"
run 1 bench "$dir/none"
one_sentence "not a model folder"
run 1 bench --config "$dir/none.json" --random-weights
one_sentence "none.json"
run 2 bench
one_sentence "wanted one MODEL"
run 2 bench $pico --config $pico --random-weights
one_sentence "wanted one MODEL"
run 2 bench $pico --random-weights
one_sentence "needs the sizes"
run 2 bench --config $pico
one_sentence "add --random-weights"
for bad in 0 5x 1,,2 1, 2kM 17M -1; do
    run 2 bench $pico "--prompt=$bad"
    one_sentence "--prompt is '$bad'"
done
for bad in 5 5: 0:5 9:5 5:9:1 5:9:2:3; do
    run 2 bench $pico --lengths $bad
    one_sentence "--lengths is '$bad'"
done
run 2 bench $pico --lengths 1:8 --prompt 3
one_sentence "give one"
run 2 bench $pico --mixers linear,linear
one_sentence "each once"
run 2 bench $pico --mixers lin
one_sentence "wanted some of linear"
run 2 bench $pico --mixers linear --keep 0
one_sentence "asks for no hybrid"
run 2 bench $pico --mixers hybrid --keep all -q
one_sentence "is no hybrid"
run 2 bench $pico --keep 9
one_sentence "numbers from 0 to 7"
run 2 bench $pico --dtype i32
one_sentence "wanted f32, bf16, q8 or q4"
run 2 bench $pico --skip-prefill --tiles 1
one_sentence "nothing is read"

run 0 carve $pico "$dir/s" -q
run 0 bench "$dir/s" --prompt 8 --new 1 --repeat 1 --json -q
says '"mixers": "linear"'
run 2 bench "$dir/s" --keep 0
one_sentence "is carved already"
run 2 bench "$dir/s" --mixers attention -q
one_sentence "is carved already"
run 0 quantize "$dir/s" "$dir/q8" --type q8 -q
run 0 bench "$dir/q8" --prompt 8 --new 1 --batch 3 --repeat 1 --json -q
says '"dtype": "q8"'
says '"batch": 3'
run 2 bench "$dir/q8" --dtype q4 -q
one_sentence "is quantized already, to q8"

# Interrupted: what was measured until then, and 130.
shown="mmamba bench, interrupted"
"$mmamba" bench $pico --keep none --prompt 8,2000k --max-seconds 0 --new 1 --json >"$dir/out" \
    2>"$dir/err" &
pid=$!
for _ in $(seq 300); do
    grep -q "2000000 tokens: about" "$dir/err" && break
    sleep 0.1
done
kill -INT $pid
wait $pid
[ $? = 130 ] || complain "exit status is not 130"
json_answer rows interrupted
says '"interrupted": true'
says '"prompt": 8'
finish
