#!/usr/bin/env bash
# `probe tokens`: both directions, --json, and what each wrong call is answered.
#   test_cli_probe_tokens.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh

model=tests/golden/tokenizer
answer() {
    printf '%s\n' "$1" | cmp -s - "$dir/out" || complain "wanted '$1', got '$(cat "$dir/out")'"
}

run 0 probe tokens --model $model --text "Is there a red bus in the picture?"
quiet_answer
answer "[1, 318, 268, 265, 367, 814, 287, 358, 283, 262, 314, 817]"
run 0 probe tokens --model $model --text "" --json
quiet_answer
answer '{"ids": [1]}'
run 0 probe tokens --model $model --ids 901,803,821,342,422,13,900
quiet_answer
answer "<|im_start|>system
<|im_end|>"
run 0 probe tokens --model $model --ids 231,192,163 --json
answer '{"text": "你"}'
run 0 probe tokens --model $model --ids 231,192 # half of a character
answer $'\xEF\xBF\xBD\xEF\xBF\xBD'

run 2 probe tokens --text a
one_sentence "--model"
run 2 probe tokens --model $model
one_sentence "exactly one of --text and --ids"
run 2 probe tokens --model $model --text a --ids 1
one_sentence "exactly one of --text and --ids"
for ids in "" "1,,2" "1 2" "x" "-1" "1," "99999999999999999999"; do
    run 2 probe tokens --model $model --ids="$ids"
    one_sentence "--ids"
done
run 2 probe tokens --model $model --text a --threads 2
one_sentence "--threads"
run 2 probe tokens --model $model --text a extra
one_sentence "extra"
run 1 probe tokens --model $model --ids 905
one_sentence "token id 905"
run 1 probe tokens --model tests/golden/images --text a
one_sentence "tokenizer.model"
finish
