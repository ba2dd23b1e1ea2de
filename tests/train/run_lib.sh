# A model, a tokenizer and data of a few pictures for tests of runs; sourced after tests/cli/lib.sh.
#   $dir/config: config.json and tokenizer   $dir/data/meta.json   $dir/recipe.json, $dir/bf16.json
golden=$PWD/tests/golden
st="$build/tests/st_tool"
mkdir -p "$dir/config" "$dir/data"
cp "$golden"/tokenizer/{tokenizer.model,added_tokens.json,tokenizer_config.json} "$dir/config"

# tiny_config D F BLOCKS: two stacks of BLOCKS with 2 heads and one group, tiles of 28 pixels
tiny_config() {
    local stack='"hidden_size": '$1', "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": '$2', "num_hidden_layers": '$3', "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 512, "rope_scaling": null'
    cat <<END
{"model_type": "internvl_chat", "torch_dtype": "${4:-bfloat16}", "dynamic_image_size": true,
 "use_thumbnail": true, "max_dynamic_patch": 3, "force_image_size": 28,
 "embedding_config": {"model_type": "holistic_embedding", $stack, "image_size": 28,
    "patch_size": 14, "downsample_ratio": 0.5, "pixel_shuffle_loc": "post",
    "special_token_maps": {}, "llm_vocab_size": 905, "img_context_token_id": 904},
 "llm_config": {"model_type": "internlm2", $stack, "vocab_size": 905}}
END
}
tiny_config 16 24 2 >"$dir/config/config.json"

i=0
for picture in photo.jpg tall.jpg gray.png rgba.png lossless.webp "" prog.jpg palette.png tiny.png; do
    image="\"image\": \"$picture\", "
    question="<image>\\nWhat is picture $i?"
    [ -n "$picture" ] || image= question="Say $i."
    echo "{${image}\"conversations\": [{\"from\": \"human\", \"value\": \"$question\"}," \
        "{\"from\": \"gpt\", \"value\": \"A red bus and $i blue stars.\"}]}"
    i=$((i + 1))
done >"$dir/data/a.jsonl"
cat >>"$dir/data/a.jsonl" <<END
{"image": "none.jpg", "conversations": [{"value": "<image>"}, {"value": "Skipped: no such file."}]}
{"conversations": [{"value": "n"}, {"value": "$(printf 'Too long. %.0s' {1..99})"}]}
END
sed 's/red/green/' "$dir/data/a.jsonl" | head -n 5 >"$dir/data/b.jsonl"
cat >"$dir/data/meta.json" <<END
{"a": {"root": "$golden/images", "annotation": "a.jsonl", "repeat_time": 2},
 "b": {"root": "$golden/images", "annotation": "b.jsonl", "data_augment": true}}
END
# tiny_recipe COMPUTE [MORE]
tiny_recipe() {
    local stage='"batch": 2, "accumulate": 2, "lr": 2e-3'
    echo "{\"compute\": \"$1\", \"max_length\": 256, \"seed\": 3, \"checkpoint_every\": 3,
 \"supervised\": {$stage, \"steps\": 14}, \"stage1\": {$stage, \"steps\": 7},
 \"stage2\": {$stage, \"steps\": 8}, \"stage3\": {$stage, \"steps\": 8${2:-}}}"
}
tiny_recipe f32 >"$dir/f32.json"
tiny_recipe bf16 >"$dir/bf16.json"
data=(--data "$dir/data/meta.json" --threads 2)

# As one_sentence, beside warnings: of samples that nobody can use, of a picture that did not fit.
one_error() {
    sed -i '/warning: .*\(is skipped\|loss.png\)/d' "$dir/err"
    one_sentence "$1"
}

# The log without what depends on the clock.
steady_log() {
    sed -E 's/,"tokens_per_s":[^,]*//; s/,"seconds":[^,}]*//' "$1/log.jsonl"
}

# Everything that a run leaves is the same to the bit, except for the clock and run.json's paths.
same_run() {
    local file
    for file in "$1"/stage*.safetensors "$1"/model/* "$1/loss.png"; do
        [ -e "$file" ] || continue
        cmp -s "$file" "$2/${file#"$1/"}" || complain "${file#"$1/"} differs"
    done
    diff <(cd "$1" && find . -type f | sort) <(cd "$2" && find . -type f | sort) >"$dir/diff" ||
        complain "other files: $(tr '\n' ' ' <"$dir/diff")"
    diff <(steady_log "$1") <(steady_log "$2") >"$dir/diff" ||
        complain "log.jsonl differs: $(head -n 2 "$dir/diff" | cut -c 1-300)"
}
