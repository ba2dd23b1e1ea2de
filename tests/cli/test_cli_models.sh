#!/usr/bin/env bash
# `carve`, `export` and `inspect`: what they answer, what they refuse, and that a folder is written
# whole or not at all.
#   test_cli_models.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh

# teacher NAME FOLDER: a golden teacher as a model folder with a tokenizer.
teacher() {
    mkdir -p "$2"
    cp "tests/golden/$1/teacher.safetensors" "$2/model.safetensors"
    cp "tests/golden/$1/teacher_config.json" "$2/config.json"
    cp tests/golden/tokenizer/{tokenizer.model,added_tokens.json,tokenizer_config.json} "$2"
    echo '{"eos_token_id": 2}' >"$2/generation_config.json"
}
same() { cmp -s "$1" "$2" || complain "$1 and $2 differ"; }
has() { [ -e "$1" ] || complain "$1 is missing"; }
lacks() { [ ! -e "$1" ] || complain "$1 is there"; }
says() { grep -qF -e "$1" "$dir/out" || complain "the answer has no '$1': $(head -c 300 "$dir/out")"; }
silent() { [ ! -s "$dir/out" ] || complain "standard output is not empty"; }

t=$dir/teacher
teacher pre_hybrid "$t"

# ---- carve --------------------------------------------------------------------------------------
run 0 carve "$t" "$dir/s" --keep 0,4
silent
for file in tokenizer.model added_tokens.json tokenizer_config.json generation_config.json; do
    same "$t/$file" "$dir/s/$file"
done
[ "$(ls -A "$dir/s" | wc -l)" = 6 ] || complain "more files than wanted: $(ls -A "$dir/s")"
run 0 inspect "$dir/s" --json
quiet_answer
says '"model_type": "mmMamba_chat"'
says '"blocks": ["mha", "mamba2", "mamba2", "mamba2", "mha", "mamba2"]'
run 0 carve "$t" "$dir/s2" --keep 0,4 --json --quiet
quiet_answer
json_answer carved kept parameters dtype
says '"carved": 4, "kept": 2'
same "$dir/s/model.safetensors" "$dir/s2/model.safetensors"
run 0 carve "$t" "$dir/s2" --keep 0,4 --seed 2 -q
cmp -s "$dir/s/model.safetensors" "$dir/s2/model.safetensors" && complain "--seed changes nothing"
for init in scratch inherit mimic; do
    run 0 carve "$t" "$dir/i.$init" --init $init -q
done
cmp -s "$dir/i.scratch/model.safetensors" "$dir/i.inherit/model.safetensors" &&
    complain "scratch and inherit are the same"
run 0 carve "$t/config.json:$t/model.safetensors" "$dir/pair" -q
same "$dir/i.mimic/model.safetensors" "$dir/pair/model.safetensors"
run 0 carve "$t" "$dir/all" --keep all -q

run 2 carve "$t"
one_sentence "wanted TEACHER and OUT"
run 2 carve "$t" "$dir/x" extra
one_sentence "got 3 arguments"
run 2 carve "$t" "$dir/x" --init mimics
one_sentence "--init is 'mimics', wanted scratch, inherit or mimic"
run 2 carve "$t" "$dir/x" --keep 0,6
one_sentence "numbers from 0 to 5"
run 2 carve "$t" "$dir/x" --keep all --init mimic
one_sentence "--init has no effect here"
run 2 carve "$t" "$dir/x" --keep all --seed 3
one_sentence "--seed has no effect here"
run 2 carve "$t" "$t/."
one_sentence "is the folder that is read"
run 1 carve "$dir/s" "$dir/x"
one_sentence "block 1 is already a Mamba-2 block"
run 1 carve "$dir/none" "$dir/x"
one_sentence "not a model folder"
lacks "$dir/x"

# A folder without a tokenizer is carved, with a warning.
mkdir "$dir/bare"
cp "$t/config.json" "$t/model.safetensors" "$dir/bare"
run 0 carve "$dir/bare" "$dir/bare.s" -q
grep -q 'warning: .*no tokenizer.model' "$dir/err" || complain "no warning"

# Python files travel when they are the code of this model, which a teacher's are not of a student.
teacher text_long "$dir/py"
sed -i 's/"model_type": "internvl_chat",/&"auto_map": {"AutoModel": "modeling_internvl_chat.X"},/' \
    "$dir/py/config.json"
touch "$dir/py/modeling_internvl_chat.py" "$dir/py/helper.py" "$dir/py/notes.txt"
run 0 export "$dir/py" "$dir/py.copy"
has "$dir/py.copy/modeling_internvl_chat.py"
has "$dir/py.copy/helper.py"
lacks "$dir/py.copy/notes.txt"
run 0 carve "$dir/py" "$dir/py.s"
lacks "$dir/py.s/modeling_internvl_chat.py"
grep -q "no modeling_mmMamba_chat.py" "$dir/err" || complain "does not say which code is missing"

# ---- nothing half-written -----------------------------------------------------------------------
shown="mmamba carve on a full disk"
(ulimit -f 100 && "$mmamba" carve "$t" "$dir/full" >"$dir/out" 2>"$dir/err")
[ $? = 1 ] || complain "exit status is not 1"
one_sentence "model.safetensors"
lacks "$dir/full"
cp -r "$dir/s" "$dir/kept"
(ulimit -f 100 && "$mmamba" carve "$t" "$dir/kept" >"$dir/out" 2>"$dir/err")
[ $? = 1 ] || complain "exit status is not 1"
diff -r "$dir/s" "$dir/kept" >/dev/null || complain "a failed carve changed the folder"
touch "$dir/file"
run 1 carve "$t" "$dir/file"
one_sentence "the folder cannot be made"
run 1 carve "$t" "$dir/file/below"
one_sentence "the folder cannot be made"

# As somebody who may not write there; root may write anywhere.
as=
[ "$(id -u)" != 0 ] || as="setpriv --reuid=65534 --clear-groups"
chmod 755 "$dir"
mkdir -m 555 "$dir/locked"
: >"$dir/err"
chmod 666 "$dir/out" "$dir/err"
if $as test -x "$mmamba" 2>/dev/null; then
    shown="mmamba carve where one may not write"
    $as "$mmamba" carve "$t" "$dir/locked" >"$dir/out" 2>"$dir/err"
    [ $? = 1 ] || complain "exit status is not 1"
    one_sentence "Permission denied"
    $as "$mmamba" carve "$t" "$dir/locked/below" >"$dir/out" 2>"$dir/err"
    [ $? = 1 ] || complain "exit status is not 1"
    one_sentence "Permission denied"
    [ -z "$(ls -A "$dir/locked")" ] || complain "something was left there"
fi

# Another model's weights do not stay beside the new ones; other files do.
mkdir -p "$dir/old/.partial-99999999"
touch "$dir/old/model-00001-of-00002.safetensors" "$dir/old/notes.txt" \
    "$dir/old/.partial-99999999/config.json" "$dir/old/model-1.safetensors"
echo '{}' >"$dir/old/model.safetensors.index.json"
run 0 carve "$t" "$dir/old" -q
lacks "$dir/old/model-00001-of-00002.safetensors"
lacks "$dir/old/model.safetensors.index.json"
lacks "$dir/old/.partial-99999999"
has "$dir/old/notes.txt"
has "$dir/old/model-1.safetensors"
run 0 inspect "$dir/old"

# ---- export of a model --------------------------------------------------------------------------
run 0 export "$dir/s" "$dir/e"
silent
same "$dir/s/model.safetensors" "$dir/e/model.safetensors"
same "$dir/s/config.json" "$dir/e/config.json"
same "$dir/s/generation_config.json" "$dir/e/generation_config.json"
for dtype in bf16 f16; do
    run 0 export "$dir/s" "$dir/e.$dtype" --dtype $dtype --json -q
    quiet_answer
    says "\"dtype\": \"$dtype\""
    run 0 inspect "$dir/e.$dtype" --json
    says "\"dtype\": \"$dtype\""
    says '"disk_bytes": 372848'
    run 0 export "$dir/e.$dtype" "$dir/e.back" --dtype f32 -q
    run 0 export "$dir/e.back" "$dir/e.again" --dtype $dtype -q
    same "$dir/e.$dtype/model.safetensors" "$dir/e.again/model.safetensors"
done
grep -q '"torch_dtype": "bfloat16"' "$dir/e.bf16/config.json" || complain "torch_dtype stays"
cp -r "$dir/s" "$dir/big"
printf '\x00\x24\x74\x49' | dd of="$dir/big/model.safetensors" bs=1 conv=notrunc status=none \
    seek=$(($(stat -c %s "$dir/big/model.safetensors") - 4)) # 1e6, the last weight
run 1 export "$dir/big" "$dir/x" --dtype f16
one_sentence "holds 1e+06, and f16 ends at 65504"
lacks "$dir/x"
run 0 export "$dir/big" "$dir/big16" --dtype bf16
run 2 export "$dir/s" "$dir/x" --dtype q8
one_sentence "--dtype is 'q8'"
run 2 export "$dir/s" "$dir/x" --stage 1
one_sentence "--stage has no effect here"
run 2 export "$dir/s" "$dir/x" --stage 4
one_sentence "--stage"
run 2 export "$dir/s" "$dir/s"
one_sentence "is the folder that is read"
run 1 export "$dir/none" "$dir/x"
one_sentence "not a model folder"
run 2 export "$dir/s"
one_sentence "wanted RUN or MODEL, and OUT"

# ---- export of a run ----------------------------------------------------------------------------
cat >"$dir/data.jsonl" <<X
{"conversations": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A bus."}]}
{"conversations": [{"from": "human", "value": "Is it red?"}, {"from": "gpt", "value": "Yes."}]}
X
echo '{"d": {"root": ".", "annotation": "'"$dir"'/data.jsonl"}}' >"$dir/meta.json"
one='{"batch": 1, "accumulate": 1}'
echo '{"supervised": '$one', "stage1": '$one', "stage2": '$one', "stage3": '$one',
    "max_length": 64, "workers": 0}' >"$dir/recipe.json"
data="--data $dir/meta.json --recipe $dir/recipe.json -q"
run 0 train --config models/pico $data --out "$dir/train" --steps 1
run 0 distill "$dir/train/model" "$dir/run" $data --steps 1,1,1 --keep 0,4
run 0 export "$dir/run" "$dir/r"
run 0 export "$dir/run" "$dir/r3" --stage 3
same "$dir/r/model.safetensors" "$dir/r3/model.safetensors"
same "$dir/r/config.json" "$dir/r3/config.json"
has "$dir/run/loss.png"
has "$dir/r/generation_config.json"
has "$dir/r3/tokenizer.model"
run 0 inspect "$dir/r" --json
says '"blocks": ["mha", "mamba2", "mamba2", "mamba2", "mha", "mamba2", "mamba2", "mamba2"]'
run 0 export "$dir/run" "$dir/r1" --stage 1 --dtype f32
run 0 inspect "$dir/r1" --json
says '"blocks": ["mamba2", "mamba2", "mamba2", "mamba2", "mamba2", "mamba2", "mamba2", "mamba2"]'
says '"dtype": "f32"'
run 0 export "$dir/train" "$dir/t"
same "$dir/train/model/model.safetensors" "$dir/t/model.safetensors"
run 1 export "$dir/train" "$dir/x" --stage 1
one_sentence "supervised training has no stage 1"
run 2 export "$dir/s" "$dir/run"
one_sentence "holds a run"
rm -r "$dir/run/model" "$dir/run/stage2.safetensors"
run 1 export "$dir/run" "$dir/x"
one_sentence "this run is not finished"
run 1 export "$dir/run" "$dir/x" --stage 2
one_sentence "stage2.safetensors"
lacks "$dir/x"

# ---- inspect ------------------------------------------------------------------------------------
hovle=tests/golden/hovle-2.6b.config.json
fields="model_type blocks parameters trainable weight_bytes state_bytes cache_bytes_per_token tokens"
run 0 inspect $hovle
quiet_answer
says "2,606,327,808"
run 0 inspect $hovle --json
json_answer $fields
says '"model_type": "internvl_chat"'
says '"parameters": 2606327808'
says '"state_bytes": 0, "cache_bytes_per_token": 262144, "tokens": 4096'
run 0 inspect $hovle --keep none --json --tokens 103000
json_answer $fields
# 14.7% of 2.7B; 1 MiB of state and 16 KiB of convolution a block
says '"parameters": 2741992448, "trainable": {"1": 135664640, "2": 404100096, "3": 404099072}'
says '"state_bytes": 34078720, "cache_bytes_per_token": 0, "tokens": 103000'
run 0 inspect $hovle --keep head-interleaved:8 --json
# 11.2%: 24 blocks of 32
says '"parameters": 2708076288, "trainable": {"1": 135664640, "2": 404100096, "3": 303074304}'
says '"state_bytes": 25559040, "cache_bytes_per_token": 65536'
run 0 inspect $hovle --dtype f32 --json
says '"weight_bytes": 10425311232'
run 0 inspect "$t" --json
says '"weight_bytes": 702336'
run 0 inspect "$t" --keep 0,4 --json
cut -d' ' -f 3- "$dir/out" >"$dir/planned"
run 0 inspect "$dir/s" --json
cut -d' ' -f 3- "$dir/out" | cmp -s - "$dir/planned" || complain "differs from what --keep foretold"
run 0 inspect "$t/config.json:$t/model.safetensors" --json

echo '{"stage3": {"train": ["o_proj", "dt_bias"]}}' >"$dir/o.json"
run 0 inspect "$dir/s" --recipe "$dir/o.json" --json
says '"3": 9228' # four blocks of 48 x 48 and 3
echo '{"stage1": {"train": ["z_proj"]}}' >"$dir/z.json"
run 1 inspect "$dir/s" --recipe "$dir/z.json"
one_sentence "'z_proj'"
run 2 inspect "$dir/s" --keep none
one_sentence "--keep has no effect here"
run 2 inspect "$t" --keep head-interleaved:7
one_sentence "from 0 to 6"
run 2 inspect "$dir/s" --backend cpu
one_sentence "--backend has no effect here"
run 2 inspect "$dir/s" --tokens 0
one_sentence "--tokens"
run 2 inspect "$dir/s" --dtype int8
one_sentence "--dtype is 'int8'"
run 2 inspect
one_sentence "wanted one MODEL"

# what there is to compute on: always a CPU, and a GPU or why there is none
run 0 inspect --device
says "GiB of memory free"
run 0 inspect --device --json
json_answer devices
says '"backend": "cpu"'
run 0 inspect --device "$t" --tokens 100 --json
json_answer devices weight_bytes tokens
says '"weights_fit": true'
grep -qF '"sequences": 0}' "$dir/out" && complain "no sequence of a tiny model fits"
run 2 inspect --device --tokens 100
one_sentence "lists devices only"
run 1 inspect "$dir/none"
one_sentence "not a model folder"
run 1 inspect "$dir/none.json"
one_sentence "none.json"
echo '{' >"$dir/bad.json"
run 1 inspect "$dir/bad.json"
one_sentence "bad.json"
head -c 100000 "$t/model.safetensors" >"$dir/bare/model.safetensors"
run 1 inspect "$dir/bare"
one_sentence "model.safetensors"
finish
