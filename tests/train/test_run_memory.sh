#!/usr/bin/env bash
# What a run says that it will take at most is what it takes: samples that fill max_length, and the
# peak of the process held against the plan. A model that does not fit is refused.
#   test_run_memory.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
. tests/train/run_lib.sh

# shuffled before the blocks: then a plan for any pictures is not far from one for these
tiny_config 192 384 2 float32 | sed 's/: 28/: 112/; s/"post"/"pre"/' >"$dir/config/config.json"
for ((i = 0; i < 8; i++)); do
    echo '{"image": "photo.jpg", "conversations": [{"value": "<image>\nWhat is this?"},' \
        '{"value": "A red bus and many blue stars."}]}'
done >"$dir/data/a.jsonl"
echo "{\"a\": {\"root\": \"$golden/images\", \"annotation\": \"a.jsonl\"}}" >"$dir/data/meta.json"
recipe() { # recipe COMPUTE MAX_LENGTH RECOMPUTE
    local stage='"batch": 4, "accumulate": 1, "steps": 2'
    echo "{\"compute\": \"$1\", \"max_length\": $2, \"recompute\": \"$3\",
 \"supervised\": {$stage}, \"stage1\": {$stage}, \"stage2\": {$stage}, \"stage3\": {$stage}}"
}
# The sanitizers take memory of their own, several times the program's.
sanitized=
grep -qE '^MMAMBA_(ASAN|TSAN):BOOL=ON' "$build/CMakeCache.txt" && sanitized=1
field() {
    sed -E "s/.*\"$1\": ([0-9]+).*/\1/" "$dir/out"
}

recipe f32 512 auto >"$dir/r.json"
run 0 train --config "$dir/config" --out "$dir/first" --recipe "$dir/r.json" "${data[@]}"
length=$(($(sed -nE '1s/.*"tokens":([0-9]+).*/\1/p' "$dir/first/log.jsonl") / 4))
held() { # held PATH-OF-RUN ARGS...: runs, and looks at what was said and taken
    run 0 "$@" "${data[@]}" --json
    local planned peak
    planned=$(field planned_bytes) peak=$(field peak_bytes)
    [ -z "$sanitized" ] || return
    # the allocator's and the products' own memory is the tenth that is allowed
    [ "$peak" -le $((planned * 11 / 10)) ] || complain "said $planned bytes, took $peak"
    [ "$planned" -le $((peak * 2)) ] || complain "said $planned bytes, took only $peak"
    echo "said $((planned >> 20)) MiB, took $((peak >> 20)): $1 $(basename "${!#}")"
}
for compute in f32 bf16; do
    for recompute in never always; do
        recipe $compute "$length" $recompute >"$dir/r.json"
        name=$compute-$recompute
        held train --config "$dir/config" --out "$dir/train-$name" --recipe "$dir/r.json"
        held distill "$dir/first/model" "$dir/distill-$name" --recipe "$dir/r.json"
    done
done

# weights that no machine holds: refused before anything is taken
sed -i 's/"hidden_size": 192/"hidden_size": 65536/g; s/: 384/: 262144/g
    s/"num_attention_heads": 2/"num_attention_heads": 512/g
    s/"num_hidden_layers": 2/"num_hidden_layers": 128/g' "$dir/config/config.json"
run 1 train --config "$dir/config" --out "$dir/huge" --recipe "$dir/r.json" "${data[@]}" --quiet
one_sentence "weights .*GiB"
[ ! -e "$dir/huge" ] || complain "a refused run left a folder"
# and a batch that none holds

tiny_config 192 384 2 float32 | sed 's/: 28/: 112/; s/"post"/"pre"/' >"$dir/config/config.json"
sed 's/"max_length": [0-9]*/"max_length": 16000000/' "$dir/r.json" \
    >"$dir/long.json"
run 1 train --config "$dir/config" --out "$dir/long" --recipe "$dir/long.json" "${data[@]}" --quiet
one_sentence "lower 'batch' or 'max_length'"
finish
