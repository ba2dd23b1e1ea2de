#!/usr/bin/env bash
# `quantize`: what it writes and answers, what it refuses, what quantized folders can and cannot do,
# and that rounding models/pico costs as little as docs/QUANTIZATION.md says.
#   test_cli_quantize.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
says() { grep -qF -e "$1" "$dir/out" || complain "the answer has no '$1': $(head -c 300 "$dir/out")"; }
# below NAME LIMIT FIELDS...: the number behind the last of these keys of the answer is below LIMIT
below() {
    local name=$1 limit=$2 text
    shift 2
    text=$(cat "$dir/out")
    for key in "$@"; do text=${text#*\"$key\": }; done
    awk -v is="${text%%[,\}]*}" -v limit="$limit" 'BEGIN { exit !(is >= 0 && is < limit) }' ||
        complain "$name is ${text%%[,\}]*}, must be below $limit"
}

world=$dir/world
"$build/scenes" --out "$world" --things 40 --words short:20 --pictures 40 --test 10 --seed 3 \
    >"$dir/out" 2>"$dir/err" || complain "no world"

# ---- what it costs ------------------------------------------------------------------------------
for type in q8 q4; do
    scores=
    [ $type = q4 ] && scores="--check $world/GQA.tsv --bench gqa --limit 8"
    run 0 quantize models/pico "$dir/$type" --type $type --check "$world/meta.json" --samples 30 \
        $scores --json -q
    quiet_answer
    json_answer type weights bits_per_weight relative_error tensors source_bytes weight_bytes \
        quantized_bytes calibrated seconds peak_bytes kl scores
    if [ $type = q8 ]; then
        below "KL of an answer's token" 0.002 kl answers kl
        below "KL of a token" 0.002 kl all kl
    else
        below "KL of an answer's token" 0.05 kl answers kl
        below "KL of a token" 0.05 kl all kl
    fi
    [ $type = q8 ] || says '"bench": "gqa"'
done
kl() { sed 's/.*"all": {[^}]*"kl": \([^,}]*\).*/\1/' "$dir/out"; }
before=$(kl)
run 0 quantize models/pico "$dir/calibrated" --type q4 --calibrate "$world/meta.json" \
    --check "$world/meta.json" --samples 30 --json -q
quiet_answer
json_answer calibration
awk -v is="$(kl)" -v was="$before" 'BEGIN { exit !(is > 0 && is < 0.8 * was) }' ||
    complain "calibration: KL $(kl), $before without"
for type in q8 q4; do
    run 0 inspect "$dir/$type" --json
    quiet_answer
    says "\"dtype\": \"$type\""
    run 0 chat "$dir/$type" -p "What is there?" --max-new-tokens 4 --json -q
    quiet_answer
done
run 0 quantize models/pico "$dir/text" --type q8 -q
says "q8, "
says "tensors kept"
cmp -s "$dir/text/model.safetensors" "$dir/q8/model.safetensors" || complain "the second time is another"
for file in tokenizer.model added_tokens.json tokenizer_config.json generation_config.json; do
    cmp -s "models/pico/$file" "$dir/text/$file" || complain "$file is not the model's"
done
[ -z "$(ls -A "$dir/text" | grep partial)" ] || complain "a stage is left behind"
run 0 quantize models/pico "$dir/one" --type q4 --threads 1 -q
cmp -s "$dir/one/model.safetensors" "$dir/q4/model.safetensors" || complain "threads change the file"
run 0 inspect models/pico --dtype q4 --json
says '"dtype": "q4"'

# ---- a Mamba-2 model ----------------------------------------------------------------------------
run 0 carve models/pico "$dir/student" --keep 0,4 -q
run 0 quantize "$dir/student" "$dir/sq" --type q4 --json -q
quiet_answer
run 0 chat "$dir/sq" -p "What is there?" --max-new-tokens 4 -q
run 0 inspect "$dir/sq"
says "of them quantized"

# ---- refusals -----------------------------------------------------------------------------------
run 2 quantize models/pico
one_sentence "wanted MODEL and OUT"
run 2 quantize models/pico "$dir/x"
one_sentence "--type is missing"
run 2 quantize models/pico "$dir/x" --type q5
one_sentence "--type is 'q5', wanted q8 or q4"
run 2 quantize models/pico "$dir/x" --type q4 --samples 5
one_sentence "--samples"
run 2 quantize models/pico "$dir/x" --type q4 --check "$world/GQA.tsv"
one_sentence "has to name the benchmark"
run 2 quantize models/pico "$dir/x" --type q4 --check "$world/meta.json" --bench gqa
one_sentence "has no data"
run 1 quantize models/pico "$dir/x" --type q4 --check "$world/nothing.json"
one_sentence "nothing.json"
[ ! -e "$dir/x" ] || complain "a refused run left a folder"
run 2 quantize models/pico models/pico --type q8
one_sentence "is the folder that is read"
run 1 quantize "$dir/q8" "$dir/x" --type q4
one_sentence "rounding them again"
why="give the model it was made from"
run 1 carve "$dir/q4" "$dir/x"
one_sentence "$why"
run 1 export "$dir/q4" "$dir/x"
one_sentence "$why"
run 1 distill "$dir/q4" "$dir/x" --data "$world/meta.json"
grep -q "$why" "$dir/err" || complain "distill does not say why"
run 1 train --model "$dir/q4" --out "$dir/x" --data "$world/meta.json"
grep -q "$why" "$dir/err" || complain "train does not say why"
run 1 inspect "$dir/q4" --keep none
one_sentence "$why"
[ ! -e "$dir/x" ] || complain "a refused run left a folder"
finish
