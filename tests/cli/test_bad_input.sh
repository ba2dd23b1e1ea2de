#!/usr/bin/env bash
# Every kind of broken file, through the program: one sentence on standard error, exit status 1,
# nothing half-written.
#   test_bad_input.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
. tests/train/run_lib.sh

good=$dir/good
mkdir "$good"
cp "$golden/text_long/teacher.safetensors" "$good/model.safetensors"
cp "$golden/text_long/teacher_config.json" "$good/config.json"
input=$golden/text_long/expected.safetensors
weights=$good/model.safetensors

# refused PATTERN: every verb that reads the model in $dir/bad refuses it
refused() {
    local pattern=$1 verb
    for verb in "inspect $dir/bad" "carve $dir/bad $dir/x" "export $dir/bad $dir/x" \
        "probe forward --model $dir/bad --input $input --output $dir/x" \
        "probe grad --teacher $dir/bad --stage 1 --input $input --output $dir/x"; do
        # shellcheck disable=SC2086
        run 1 $verb
        one_sentence "$pattern"
        nothing_left
    done
    n=$((n + 1))
}
n=0
# Neither the output x nor anything beside it that it was to become.
nothing_left() {
    [ -z "$(find "$dir" -maxdepth 1 -name '*x.*' -o -maxdepth 1 -name 'x*')" ] ||
        complain "a refused run left something"
    rm -rf "$dir"/x*
}

# ---- safetensors --------------------------------------------------------------------------------
# weights COMMAND...: $dir/bad is the good model, its weights through a command
bad_weights() {
    rm -rf "$dir/bad"
    cp -r "$good" "$dir/bad"
    "$@" <"$weights" >"$dir/bad/model.safetensors"
    cmp -s "$weights" "$dir/bad/model.safetensors" && complain "$* changes nothing"
}
size=$(stat -c %s "$weights")
header=$(od -An -t u8 -N 8 "$weights" | tr -d ' ')
for bytes in 0 7 8 100 $((header + 8)) $((size - 1)); do
    bad_weights head -c "$bytes"
    refused model.safetensors
done
longer() {
    cat
    head -c 64 /dev/zero
}
bad_weights longer
refused model.safetensors
# le64 N: eight bytes
le64() {
    local i v=$1
    for i in 1 2 3 4 5 6 7 8; do
        # shellcheck disable=SC2059
        printf "\\x$(printf %02x $((v & 255)))"
        v=$((v >> 8))
    done
}
# a file of this header and so many bytes
made() {
    le64 ${#1}
    printf %s "$1"
    head -c "$2" /dev/zero
}
huge() {
    le64 9223372036854775807
    tail -c +9
}
bad_weights huge
refused "header"
one='{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
for text in '' '{' '[]' '{"a":1}' 'null' "{\"a\":$one,\"a\":$one}" \
    '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}' \
    '{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}' \
    '{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}' \
    '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}' \
    '{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}' \
    '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,1e30]}}' \
    "{\"a\":$one,\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}" \
    "{\"a\":$one,\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}" \
    "{\"a\":$one,\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,1000]}}"; do
    bad_weights made "$text" 8
    refused model.safetensors
done
bad_weights made "{\"a\":$one}" 8 # nothing wrong with it, but no tensor of a model
refused "is missing"
bad_weights sed 's/ffn_norm.weight/ffn_nrom.weight/'
refused "'embedding_model.encoder.0.ffn_norm.weight' is missing"
bad_weights sed 's/"F32", "shape": \[32, 48\]/"I32", "shape": [32, 48]/'
refused "weights are F32, F16 or BF16"
bad_weights sed 's/"shape": \[32, 48\]/"shape": [48, 32]/'
refused "has shape (48, 32), the config wants (32, 48)"
rm -rf "$dir/bad"
cp -r "$good" "$dir/bad"
rm "$dir/bad/model.safetensors"
refused model.safetensors
mkdir "$dir/bad/model.safetensors"
refused "folder"
rmdir "$dir/bad/model.safetensors"
echo '{"weight_map": {"language_model.model.norm.weight": "../good/model.safetensors"}}' \
    >"$dir/bad/model.safetensors.index.json"
refused "index.json"
echo '{"weight_map": {"language_model.model.norm.weight": "none.safetensors"}}' \
    >"$dir/bad/model.safetensors.index.json"
refused "none.safetensors"

# ---- config.json --------------------------------------------------------------------------------
# bad_config SED: the good model, its config through an edit that must change it
bad_config() {
    rm -rf "$dir/bad"
    cp -r "$good" "$dir/bad"
    sed -E "$1" "$good/config.json" >"$dir/bad/config.json"
    cmp -s "$good/config.json" "$dir/bad/config.json" && complain "'$1' changes nothing"
}
for field in model_type embedding_config llm_config num_hidden_layers hidden_size \
    num_attention_heads num_key_value_heads intermediate_size patch_size image_size rope_theta \
    rms_norm_eps llm_vocab_size img_context_token_id max_position_embeddings vocab_size; do
    bad_config "s/\"$field\":/\"was_$field\":/"
    refused "config.json: .*'$field'"
done
for field in num_hidden_layers hidden_size num_attention_heads num_key_value_heads \
    intermediate_size patch_size image_size llm_vocab_size vocab_size max_position_embeddings; do
    for value in -1 0 99999999999999999999 4000000000 1.5 '"8"' null; do
        bad_config "s/\"$field\": *[0-9]+/\"$field\": $value/"
        refused "config.json"
    done
done
for field in rope_theta rms_norm_eps; do
    for value in -1 0 1e300 '"x"'; do
        bad_config "s/\"$field\": *[0-9.e-]+/\"$field\": $value/"
        refused "config.json: .*'$field'"
    done
done
bad_config 's/"pixel_shuffle_loc": *"pre"/"pixel_shuffle_loc": "mid"/'
refused "'pixel_shuffle_loc'"
bad_config 's/"internvl_chat"/"mmMamba_chat"/'
refused "config.json"
bad_config 's/"internvl_chat"/"llama"/'
refused "'model_type'"
bad_config 's/"hidden_size": *32/"hidden_size": 33/'
refused "config.json"
for text in '' '{' '[]' '"x"' '{"model_type": 1}' $'\xff\xfe{}' "$(head -c 100000 /dev/zero |
    tr '\0' '[')"; do
    printf %s "$text" >"$dir/bad/config.json"
    refused "config.json"
done
rm "$dir/bad/config.json"
refused "config.json"
mkdir "$dir/bad/config.json"
refused "config.json: .*folder"

# ---- the tokenizer and the model do not belong together -----------------------------------------
model=$dir/model
run 0 train --config "$dir/config" --out "$dir/run" --recipe "$dir/f32.json" "${data[@]}" --steps 1
cp -r "$dir/run/model" "$model"
small=$dir/small
cp -r "$dir/config" "$small"
sed -i 's/905/900/; s/: 905/: 900/g; s/: 904/: 899/' "$small/config.json"
run 1 train --config "$small" --out "$dir/x" --recipe "$dir/f32.json" "${data[@]}" --quiet
one_sentence "the tokenizer has ids up to 904.*, the model's vocabulary has 900"
sed -i 's/: 900/: 905/g; s/: 899/: 903/' "$small/config.json"
run 1 train --config "$small" --out "$dir/x" --recipe "$dir/f32.json" "${data[@]}" --quiet
one_sentence "IMG_CONTEXT"
for file in tokenizer.model added_tokens.json tokenizer_config.json; do
    for how in empty cut noise folder; do
        rm -rf "$dir/bad"
        cp -r "$model" "$dir/bad"
        rm "$dir/bad/$file"
        case $how in
        empty) touch "$dir/bad/$file" ;;
        cut) head -c $(($(stat -c %s "$model/$file") / 2)) "$model/$file" >"$dir/bad/$file" ;;
        noise) head -c 5000 /dev/urandom >"$dir/bad/$file" ;;
        folder) mkdir "$dir/bad/$file" ;;
        esac
        run 1 chat "$dir/bad" -p "What is this?" --max-new-tokens 1
        one_sentence "$file"
        run 1 distill "$dir/bad" "$dir/x" --recipe "$dir/f32.json" "${data[@]}" --quiet
        one_sentence "$file"
        nothing_left
    done
done
rm -rf "$dir/bad"
cp -r "$model" "$dir/bad"
rm "$dir/bad/tokenizer.model"
run 1 chat "$dir/bad" -p "What is this?" --max-new-tokens 1
one_sentence "tokenizer.model"

# ---- pictures -----------------------------------------------------------------------------------
pictures=$dir/pictures
mkdir "$pictures"
touch "$pictures/empty.jpg"
echo "not a picture" >"$pictures/text.png"
for file in photo.jpg prog.jpg rgb.png lossless.webp; do
    head -c $(($(stat -c %s "$golden/images/$file") / 2)) "$golden/images/$file" \
        >"$pictures/cut-$file"
    head -c 20 "$golden/images/$file" >"$pictures/stub-$file"
done
# a JPEG that says it is 65535 x 65535: the two numbers are behind the frame's marker
at=$(LC_ALL=C grep -obUaP '\xff\xc0' "$golden/images/photo.jpg" | head -n 1 | cut -d : -f 1)
{
    head -c $((at + 5)) "$golden/images/photo.jpg"
    printf '\xff\xff\xff\xff'
    tail -c +$((at + 10)) "$golden/images/photo.jpg"
} >"$pictures/bomb.jpg"
mkdir "$pictures/folder.jpg"
for picture in "$pictures"/* "$pictures/none.jpg"; do
    name=$(basename "$picture")
    run 1 probe tiles --image "$picture" --image-size 28 --max-tiles 3 --output "$dir/x"
    one_sentence "$name: "
    run 1 chat "$model" -i "$picture" -p "What is this?" --max-new-tokens 1
    one_sentence "$name: "
    nothing_left
done

# ---- data ---------------------------------------------------------------------------------------
mkdir "$dir/mixed"
{
    for picture in "$pictures"/*; do
        echo "{\"image\": \"$(basename "$picture")\", \"conversations\":" \
            '[{"value": "<image>"}, {"value": "yes"}]}'
    done
    printf '%s\n' '{' '[]' 'null' '{}' '{"conversations": 1}' '{"conversations": []}' \
        '{"conversations": [{"value": 1}, {"value": "a"}]}' $'{"conversations": "\xff"}' \
        '{"image": 7, "conversations": [{"value": "<image>"}, {"value": "a"}]}' \
        '{"conversations": [{"from": "human", "value": "cut off'
} >"$dir/mixed/bad.jsonl"
lines=$(wc -l <"$dir/mixed/bad.jsonl")
echo "{\"m\": {\"root\": \"$pictures\", \"annotation\": \"bad.jsonl\"}}" >"$dir/mixed/bad.json"
echo "{\"m\": {\"root\": \"$pictures\", \"annotation\": \"bad.jsonl\"},
 \"g\": {\"root\": \"$golden/images\", \"annotation\": \"$dir/data/b.jsonl\"}}" \
    >"$dir/mixed/meta.json"
run 0 train --config "$dir/config" --out "$dir/mixed/run" --recipe "$dir/f32.json" --quiet \
    --data "$dir/mixed/meta.json" --threads 2 --json
json_answer skipped_samples
# two epochs and more went by: each bad line was named once
for ((i = 1; i <= lines; i++)); do
    [ "$(grep -c "bad.jsonl line $i is skipped: " "$dir/err")" = 1 ] ||
        complain "line $i of bad.jsonl was not named once: $(sed -n ${i}p "$dir/mixed/bad.jsonl")"
done
[ "$(wc -l <"$dir/err")" = "$lines" ] || complain "more than the bad lines was warned of"
skipped=$(sed -E 's/.*"skipped_samples": ([0-9]+).*/\1/' "$dir/out")
[ "$skipped" -ge $((2 * lines)) ] || complain "skipped_samples is $skipped"
run 1 train --config "$dir/config" --out "$dir/mixed/none" --recipe "$dir/f32.json" --quiet \
    --data "$dir/mixed/bad.json" --threads 2
sed -i '/is skipped: /d' "$dir/err"
one_sentence "bad.json"
for text in '' '[]' '{}' '{"a": 1}' '{"a": {"root": "/"}}' \
    '{"a": {"root": "/", "annotation": "none.jsonl"}}' \
    '{"a": {"root": "/", "annotation": "bad.jsonl", "repeat_time": -1}}' \
    '{"a": {"root": 3, "annotation": "bad.jsonl"}}'; do
    printf %s "$text" >"$dir/mixed/wrong.json"
    run 1 train --config "$dir/config" --out "$dir/x" --recipe "$dir/f32.json" --quiet \
        --data "$dir/mixed/wrong.json" --threads 2
    one_sentence "wrong.json\|none.jsonl"
    nothing_left
done

# ---- nowhere to write ---------------------------------------------------------------------------
probe=(probe forward --model "$good" --input "$input")
grad=(probe grad --teacher "$good" --stage 1 --input "$input")
if [ -w /dev/full ]; then
    run 1 "${probe[@]}" --output /dev/full
    one_sentence "/dev/full"
    run 1 "${grad[@]}" --output /dev/full
    one_sentence "/dev/full"
    for verb in "inspect $good --json" "chat $model -p hello --max-new-tokens 2"; do
        shown="mmamba $verb >/dev/full"
        # shellcheck disable=SC2086
        "$mmamba" $verb >/dev/full 2>"$dir/err" </dev/null
        [ $? = 1 ] || complain "a full disk goes unnoticed"
    done
fi
# small ARGS...: no file may grow beyond 2 KiB
small() {
    shown="mmamba $* (ulimit -f 2)"
    (
        ulimit -f 2
        exec "$mmamba" "$@"
    ) >"$dir/out" 2>"$dir/err" </dev/null
    [ $? = 1 ] || complain "exit status is not 1"
    one_sentence "File too large"
    nothing_left
}
small "${probe[@]}" --output "$dir/x"
small "${grad[@]}" --output "$dir/x"
small carve "$good" "$dir/x"
small export "$good" "$dir/x"
small export "$dir/run" "$dir/x"
echo old >"$dir/kept"
(
    ulimit -f 2
    exec "$mmamba" "${probe[@]}" --output "$dir/kept"
) >"$dir/out" 2>"$dir/err" </dev/null
[ "$(cat "$dir/kept")" = old ] || complain "a failed write changed the old file"

# Without the right to write; root has every right, so it becomes somebody else.
drop=()
if [ "$(id -u)" = 0 ]; then
    drop=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
chmod 755 "$dir"
mkdir -m 555 "$dir/closed"
[ "$(id -u)" != 0 ] || chown 65534 "$dir/closed"
# A relative path runs the program even where the folder above cannot be entered (/root); a full one
# to the input would not do, so that is a copy.
cp "$input" "$dir/input.safetensors" && chmod 644 "$dir/input.safetensors"
mine=$input input=$dir/input.safetensors
probe=("${probe[@]/#$mine/$input}")
grad=("${grad[@]/#$mine/$input}")
if "${drop[@]}" "$mmamba" --version >/dev/null 2>&1 && "${drop[@]}" test -r "$input" &&
    "${drop[@]}" test -r "$weights"; then
    denied() {
        shown="mmamba $* (a closed folder)"
        "${drop[@]}" "$mmamba" "$@" >"$dir/out" 2>"$dir/err" </dev/null
        [ $? = 1 ] || complain "exit status is not 1"
        one_sentence "closed.*Permission denied"
        [ -z "$(ls -A "$dir/closed")" ] || complain "something is left"
    }
    denied "${probe[@]}" --output "$dir/closed/x"
    denied "${grad[@]}" --output "$dir/closed/x"
    denied carve "$good" "$dir/closed/x"
    denied export "$good" "$dir/closed/x"
    denied distill "$model" "$dir/closed/x" --recipe "$dir/f32.json" "${data[@]}" --quiet
    denied train --model "$model" --out "$dir/closed/x" --recipe "$dir/f32.json" "${data[@]}" \
        --quiet
else
    echo "the right to write was not taken away: nobody cannot read this tree"
fi
echo "models refused: $n"
finish
