#!/usr/bin/env bash
# The bundled models know the whole world: pictures that nobody trained on, every form of question, the
# students nearly as well as their teacher (models/README.md has the numbers of 600 questions each), and
# what has the layers it says. 60 questions: bounds leave room for some bad luck.
set -u
. tests/cli/lib.sh
"$build/scenes" --out "$dir/world" --things 0 --words random --pictures 1 --test 60 --seed 11 --quiet \
    2>"$dir/err" || complain "no world"

# at_least MODEL BENCH FILE LIMIT
at_least() {
    local score
    run 0 eval "$1" --bench "$2" --data "$dir/world/$3" --max-new-tokens 16 --batch 8 --json --quiet
    score=$(sed -nE 's/.*"headline": *(-?[0-9.]+).*/\1/p' "$dir/out")
    awk -v is="${score:--1}" -v limit="$4" 'BEGIN { exit !(is >= limit) }' ||
        complain "$2 is ${score:-missing}, must be $4 at least"
}
for model in pico pico-linear pico-hybrid; do
    at_least models/$model pope POPE.tsv 95
    at_least models/$model mme MME.tsv 740
    at_least models/$model textvqa TextVQA_VAL.tsv 85
    at_least models/$model sqa ScienceQA_TEST.tsv 88
    at_least models/$model gqa GQA.tsv 83
    at_least models/$model gqa heldout_GQA.tsv 80
done

blocks() {
    run 0 inspect "models/$1" --json
    grep -qF "\"blocks\": [$2]" "$dir/out" || complain "its blocks are others"
}
a='"mha"' m='"mamba2"'
blocks pico "$a, $a, $a, $a, $a, $a, $a, $a"
blocks pico-linear "$m, $m, $m, $m, $m, $m, $m, $m"
blocks pico-hybrid "$a, $m, $m, $m, $a, $m, $m, $m"
for student in pico-linear pico-hybrid; do
    for file in tokenizer.model tokenizer_config.json added_tokens.json special_tokens_map.json generation_config.json; do
        cmp -s "models/pico/$file" "models/$student/$file" || { shown=$student; complain "$file is not the teacher's"; }
    done
done
# In git all three stay below 64 MB.
bytes=$(cat models/pico/model.safetensors models/pico-linear/model.safetensors models/pico-hybrid/model.safetensors | wc -c)
shown=models
[ "$bytes" -lt 64000000 ] || complain "$bytes bytes of weights"
finish
