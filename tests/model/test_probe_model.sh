#!/usr/bin/env bash
# `probe forward` and `probe grad` from outside: what they write (names and shapes; the numbers are
# test_golden's), weights in half precision, and what each wrong call is answered.
#   test_probe_model.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh

golden=tests/golden/post_gqa
teacher=$golden/teacher_config.json:$golden/teacher.safetensors
student=$golden/student_config.json:$golden/student.safetensors
st="$build/tests/st_tool"

# Complains unless the tensors of FILE are exactly those of the lines on standard input.
tensors() {
    sort >"$dir/wanted"
    "$st" list "$1" | sort >"$dir/list"
    diff "$dir/wanted" "$dir/list" >"$dir/diff" || complain "other tensors: $(cat "$dir/diff")"
}
near() { # near A B TOLERANCE: every tensor of B within TOLERANCE of its largest value in A
    local said
    said=$("$st" near "$@") || complain "$said"
}

in=$golden/expected.safetensors
for who in teacher student; do
    run 0 probe forward --model "${!who}" --input $in --output "$dir/$who"
    tensors "$dir/$who" <<END
layer_00.out F32 1 51 64
layer_01.out F32 1 51 64
layer_02.out F32 1 27 64
layer_03.out F32 1 27 64
layer_04.out F32 1 27 64
logits F32 1 27 256
END
    "$st" rename "$in" "$dir/want" "$who."
    near "$dir/$who" "$dir/want" 1e-4
    for how in "--chunk 1" "--chunk 7" "--step-from 0" "--chunk 5 --step-from 12"; do
        run 0 probe forward --model "${!who}" --input $in --output "$dir/pieces" $how --threads 2
        near "$dir/pieces" "$dir/$who" 1e-4
    done
done

# a folder in half precision: bf16 rounds a weight by up to 2^-9, f16 by 2^-12, which five blocks
# make some ten times larger
for dtype in bf16:6e-2 f16:8e-3; do
    folder=$dir/${dtype%:*}
    mkdir "$folder"
    cp $golden/student_config.json "$folder/config.json"
    "$st" cast $golden/student.safetensors "$folder/model.safetensors" "${dtype%:*}"
    run 0 probe forward --model "$folder" --input $in --output "$dir/half"
    near "$dir/half" "$dir/student" "${dtype#*:}"
    "$st" near "$dir/half" "$dir/student" 1e-5 >/dev/null && complain "weights were not rounded"
done

for stage in 1 2 3; do
    run 0 probe grad --teacher $teacher --student $golden/distill_stage$stage.safetensors \
        --stage $stage --input $in --output "$dir/grad$stage"
    "$st" rename $in "$dir/want" "stage$stage."
    "$st" list "$dir/want" | tensors "$dir/grad$stage"
    near "$dir/grad$stage" "$dir/want" 1e-3
done
pre=tests/golden/pre_hybrid
run 0 probe grad --teacher $pre/teacher_config.json:$pre/teacher.safetensors --keep 0,4 --stage 3 \
    --student $pre/distill_stage3.safetensors --input $pre/expected.safetensors \
    --output "$dir/hybrid"
"$st" rename $pre/expected.safetensors "$dir/want" stage3.
"$st" list "$dir/want" | tensors "$dir/hybrid"
# ill-conditioned (tests/tolerance.h): golden itself is 8e-4 away from sums in double, which the
# CPU's reference makes and a GPU does not
near "$dir/hybrid" "$dir/want" "${PROBE_ILL_CONDITIONED:-1e-3}"
# mean per token: the sum divided by the number of positions instead of the number of sequences
run 0 probe grad --teacher $teacher --student $golden/distill_stage3.safetensors --stage 3 \
    --kl-reduction token --input $in --output "$dir/token"
[ "$("$st" get "$dir/token" loss)" != "$("$st" get "$dir/grad3" loss)" ] || complain "no reduction"

# wrong calls
run 2 probe forward --input $in --output "$dir/x"
one_sentence "\-\-model is missing"
run 2 probe grad --teacher $teacher --stage 4 --input $in --output "$dir/x"
one_sentence "\-\-stage"
run 2 probe grad --teacher $teacher --stage 1 --kl-reduction token --input $in --output "$dir/x"
one_sentence "\-\-kl-reduction"
run 2 probe grad --teacher $teacher --stage 3 --kl-reduction mean --input $in --output "$dir/x"
one_sentence "'mean', wanted batchmean, token or completion"
run 1 probe grad --teacher $teacher --stage 3 --kl-reduction completion --input $in \
    --output "$dir/x"
one_sentence "'labels'"
run 1 probe grad --teacher $student --stage 1 --input $in --output "$dir/x"
one_sentence "already a Mamba-2 block"
run 2 probe grad --teacher $teacher --stage 3 --keep 0,9 --input $in --output "$dir/x"
one_sentence "9"
run 1 probe grad --teacher $teacher --stage 3 --student $pre/distill_stage3.safetensors \
    --input $in --output "$dir/x"
one_sentence "has shape"
run 1 probe forward --model $teacher --input $golden/teacher.safetensors --output "$dir/x"
one_sentence "'input_ids' is missing"
run 1 probe forward --model $teacher --input $pre/expected.safetensors --output "$dir/x"
one_sentence "pixel_values"
run 1 probe forward --model $golden --input $in --output "$dir/x"
one_sentence "config.json"
[ ! -e "$dir/x" ] || complain "a refused run left a file"
finish
