#!/usr/bin/env bash
# `distill` in parts: every subset of stages, every start, every reduction, recomputed activations;
# a disk that fills up; recipes that do not fit.
#   test_run_parts.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
. tests/train/run_lib.sh

run 0 train --config "$dir/config" --out "$dir/teacher" --recipe "$dir/f32.json" "${data[@]}"
teacher=$dir/teacher/model

# what is written, and that it loads
inits=(scratch inherit mimic)
n=0
for stages in 1 2 3 1,2 1,3 2,3 1,2,3; do
    out=$dir/stages-$stages
    keep=()
    [[ $stages != *3* ]] || keep=(--keep 1)
    run 0 distill "$teacher" "$out" --recipe "$dir/f32.json" --stages $stages "${data[@]}" \
        --init "${inits[n % 3]}" "${keep[@]}"
    for s in 1 2 3; do
        if [[ $stages = *$s* ]]; then
            [ -s "$out/stage$s.safetensors" ] || complain "no stage$s.safetensors"
        else
            [ ! -e "$out/stage$s.safetensors" ] || complain "stage $s was run"
        fi
    done
    [ "$(sed -E 's/.*"stage":([0-9]).*/\1/' "$out/log.jsonl" | sort -u | tr '\n' ',')" = \
        "$stages," ] || complain "log.jsonl has other stages"
    words=$(grep -o '"mamba2"\|"mha"' "$out/model/config.json" | tr -d '\n"')
    want=mamba2mamba2mamba2mamba2
    [[ $stages != *3* ]] || want=mamba2mhamamba2mamba2
    [ "$words" = $want ] || complain "the student's blocks are $words"
    run 0 probe forward --model "$out/model" --input "$golden/text_long/expected.safetensors" \
        --output "$dir/o"
    n=$((n + 1))
done

# each stage trains what its list names, and nothing else
one=$dir/stages-1,2,3
for s in 1 2 3; do
    "$st" list $one/stage$s.safetensors >"$dir/list"
    [ "$(grep -c g_proj.weight "$dir/list")" = $((s == 3 ? 3 : 4)) ] ||
        complain "stage$s.safetensors lacks blocks"
done
"$st" get "$dir/stages-1/stage1.safetensors" embedding_model.encoder.0.attention.q_proj.weight \
    >"$dir/q1"
"$st" get "$one/stage2.safetensors" embedding_model.encoder.0.attention.q_proj.weight >"$dir/q2"
cmp -s "$dir/q1" "$dir/q2" && complain "stage 2 did not train q_proj"

# finished but for its last file: the folder cannot be made, then it can
out=$dir/late
mkdir "$out"
touch "$out/model"
run 1 distill "$teacher" "$out" --recipe "$dir/f32.json" --stages 1 "${data[@]}" --quiet
one_error "late/model"
rm "$out/model"
run 0 distill "$teacher" "$out" --recipe "$dir/f32.json" --stages 1 "${data[@]}" --resume
same=$dir/plain
run 0 distill "$teacher" "$same" --recipe "$dir/f32.json" --stages 1 "${data[@]}"
same_run "$same" "$out"

# recomputation changes no bit; sums that take several tiles would show it
tiny_config 48 200 1 >"$dir/config/config.json"
run 0 train --config "$dir/config" --out "$dir/wide" --recipe "$dir/f32.json" --steps 2 "${data[@]}"
tiny_config 16 24 2 >"$dir/config/config.json"
for how in always never; do
    sed "s/{/{\"recompute\": \"$how\", /" "$dir/bf16.json" >"$dir/$how.json"
    sed -i '2,$s/"recompute": "[a-z]*", //' "$dir/$how.json"
    run 0 distill "$dir/wide/model" "$dir/$how" --recipe "$dir/$how.json" --stages 3 "${data[@]}"
    run 0 train --model "$teacher" --out "$dir/$how-train" --recipe "$dir/$how.json" "${data[@]}"
done
same_run "$dir/always" "$dir/never"
same_run "$dir/always-train" "$dir/never-train"

# reductions: other losses
for how in batchmean token completion; do
    tiny_recipe f32 ", \"kl_reduction\": \"$how\"" >"$dir/$how.json"
    run 0 distill "$teacher" "$dir/kl-$how" --recipe "$dir/$how.json" --stages 3 "${data[@]}"
    head -n 1 "$dir/kl-$how/log.jsonl" | grep -o '"loss":[^,]*' >>"$dir/losses"
done
[ "$(sort -u "$dir/losses" | wc -l)" = 3 ] || complain "reductions give the same loss"

# a recipe that trains everything, and recipes that do not fit
tiny_recipe f32 ', "train": ["all"]' >"$dir/all.json"
run 0 distill "$teacher" "$dir/all" --recipe "$dir/all.json" --stages 3 --keep 0 "${data[@]}"
"$st" list "$dir/all/stage3.safetensors" | grep -q "language_model.output.weight F32 905 16" ||
    complain "the output did not train"
refuse() { # refuse TEXT PATTERN
    echo "$1" >"$dir/wrong.json"
    run 1 distill "$teacher" "$dir/wrong" --recipe "$dir/wrong.json" "${data[@]}" --quiet
    one_sentence "$2"
}
refuse '{"stage4": {}}' "unknown entry 'stage4'; known are supervised, stage1"
refuse '{"stage1": {"learning_rate": 1}}' "'stage1': unknown entry 'learning_rate'"
refuse '{"stage1": {"schedule": {"up": 1}}}' "unknown entry 'up'"
refuse '{"stage1": {"lr": -1}}' "'lr'"
refuse '{"stage1": {"batch": 0}}' "'batch'"
refuse '{"stage1": {"train": []}}' "'train' must be a list"
refuse '{"stage1": {"train": ["q_prj"]}}' "'q_prj'"
refuse '{"stage3": {"kl_reduction": "sum"}}' "'sum', wanted batchmean, token or completion"
refuse '{"compute": "f16"}' "'f16', wanted f32 or bf16"
refuse '{"recompute": "maybe"}' "'maybe', wanted auto, always or never"
refuse '{"max_length": 1}' ""
refuse '[1]' "not an object"
refuse '{"seed": 1' "wrong.json"
run 1 distill "$teacher" "$dir/wrong" --recipe "$dir/none.json" "${data[@]}" --quiet
one_sentence "none.json"
run 2 distill "$teacher" "$dir/x" "${data[@]}" --stages 2,1
one_sentence "must rise"
run 2 distill "$teacher" "$dir/x" "${data[@]}" --stages 1,2 --steps 5
one_sentence "1 numbers for 2 stages"
run 2 distill "$teacher" "$dir/x" "${data[@]}" --stages 1 --keep 0
one_sentence "\-\-keep has no effect"
run 2 distill "$teacher" "$dir/x" "${data[@]}" --init warm
one_sentence "'warm'"
[ ! -e "$dir/x" ] || complain "a refused run left a folder"

# the disk fills up: what was there stays, and the run goes on when there is room
out=$dir/full
run 0 distill "$teacher" "$dir/whole" --recipe "$dir/f32.json" "${data[@]}"
size=$(stat -c %s "$dir/whole/stage1.safetensors")
shown="distill with at most $((size / 1024 / 2)) KiB a file"
(
    ulimit -f $((size / 1024 / 2))
    exec "$mmamba" distill "$teacher" "$out" --recipe "$dir/f32.json" "${data[@]}" --quiet
) >"$dir/out" 2>"$dir/err" </dev/null
[ $? = 1 ] || complain "a full disk does not fail"
one_error "full/.*File too large"
[ -z "$(find "$out" -name '*.tmp.*' -o -name '*.safetensors')" ] || complain "half a file is left"
shown="distill with a full disk, later"
(
    ulimit -f $((size * 5 / 2 / 1024)) # a checkpoint has three values for one of a stage's file
    exec "$mmamba" distill "$teacher" "$out" --recipe "$dir/f32.json" "${data[@]}" --quiet --resume
) >"$dir/out" 2>"$dir/err" </dev/null
[ $? = 1 ] || complain "a full disk does not fail"
one_error "full/.*File too large"
run 0 distill "$teacher" "$out" --recipe "$dir/f32.json" "${data[@]}" --resume
same_run "$dir/whole" "$out"
finish
