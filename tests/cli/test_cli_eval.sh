#!/usr/bin/env bash
# `eval` and `eval score` from outside.
set -uo pipefail
. tests/cli/lib.sh
export TMPDIR=$dir/tmp
mkdir "$TMPDIR"

printf 'index\timage\tquestion\tanswer\tcategory\n0\tx\tq\tdog\tk\n1\tx\tq\tred\tk\n' >"$dir/GQA.tsv"
printf '{"index": 0, "prediction": "Dog."}\n{"index": 1, "prediction": "blue"}\n' >"$dir/p"
good=(eval score --bench gqa --data "$dir/GQA.tsv" --predictions "$dir/p")
run 0 "${good[@]}" --json
json_answer bench questions headline scores unresolved missing_images seconds
grep -q '"bench": "gqa", "questions": 2, "headline": 50.0, "scores": {"Accuracy": 50.0, ' "$dir/out" ||
    complain "other scores: $(cat "$dir/out")"
quiet_answer
run 0 "${good[@]}"
quiet_answer
grep -q '^GQA .* 50\.00$' "$dir/out" || complain "no headline: $(cat "$dir/out")"
run 0 "${good[@]}" --limit 1 --json
grep -q '"headline": 100.0' "$dir/out" || complain "--limit has no effect"

run 0 eval score --help
quiet_answer
run 2 eval score
one_sentence "--bench is missing"
run 2 eval score --bench gqa --data "$dir/GQA.tsv"
one_sentence "--predictions is missing"
run 2 eval score --bench vqa --data "$dir/GQA.tsv" --predictions "$dir/p"
one_sentence "--bench is 'vqa', must be mme, mmbench"
run 2 "${good[@]}" --threads 2
one_sentence "--threads has no effect here"
run 2 "${good[@]}" --judge "$dir/p"
one_sentence "--judge has no effect here"
run 2 "${good[@]}" stray
one_sentence "stray"
run 2 "${good[@]}" --images "$dir"
one_sentence "unknown option --images"
run 1 eval score --bench gqa --data "$dir/none.tsv" --predictions "$dir/p"
one_sentence "none.tsv: .*No such file"
run 1 eval score --bench gqa --data "$dir/GQA.tsv" --predictions "$dir/none"
one_sentence "/none: .*No such file"
run 1 eval score --bench sqa --data "$dir" --predictions "$dir/p"
one_sentence "is a folder"
run 1 eval score --bench pope --data "$dir" --predictions "$dir/p"
one_sentence "llava_pope_test.jsonl: .*No such file"
printf 'index\tquestion\tanswer\n0\tq\ta\tb\n' >"$dir/long.tsv"
run 1 eval score --bench gqa --data "$dir/long.tsv" --predictions "$dir/p"
one_sentence "long.tsv: line 2, column 4: the row has 4 cells, the header 3"

# A judge's affairs.
printf 'index\timage\tquestion\tanswer\tcategory\n0\tx\tq\ta\tocr\n' >"$dir/MMVet.tsv"
printf '{"index": 0, "prediction": "hm"}\n' >"$dir/v"
run 0 eval score --bench mmvet --data "$dir/MMVet.tsv" --predictions "$dir/v" --json \
    --export "$dir/judge.tsv" --unresolved "$dir/unresolved"
grep -q '"headline": null' "$dir/out" || complain "a headline before there are grades"
[ "$(wc -l <"$dir/judge.tsv")" = 2 ] || complain "nothing exported"
grep -q '"prediction": "hm"' "$dir/unresolved" || complain "nothing put down as unresolved"
printf 'index\tscore\n0\t0.7\n' >"$dir/grades"
run 0 eval score --bench mmvet --data "$dir/MMVet.tsv" --predictions "$dir/v" --json --judge "$dir/grades"
grep -q '"headline": 70.0' "$dir/out" || complain "other grades: $(cat "$dir/out")"

# Several models side by side.
report=(eval report --data "gqa=$dir/GQA.tsv" --predictions "one/gqa=$dir/p")
printf '{"index": 1, "prediction": "red"}\n' >"$dir/p2"
printf '{"index": 0, "prediction": "dog"}\n' >"$dir/p3"
run 0 "${report[@]}" --predictions "two/gqa=$dir/p2" --predictions "two/gqa=$dir/p3" --json \
    --teacher two --published
json_answer teacher draws results published published_speed
grep -q '"percent_of_teacher": 50.0' "$dir/out" || complain "other percents: $(cat "$dir/out")"
run 0 "${report[@]}"
quiet_answer
grep -q '^one  *50\.00$' "$dir/out" || complain "no row of its own: $(cat "$dir/out")"
printf 'index\timage_path\tquestion\tanswer\n0\ttiny.png\tq\tdog\n1\tnone.png\tq\tred\n' >"$dir/files.tsv"
run 0 eval report --data "gqa=$dir/files.tsv" --predictions "one/gqa=$dir/p" --markdown \
    --html "$dir/page.html" --images gqa=tests/golden/images
grep -q 'data:image/png;base64,' "$dir/page.html" || complain "no picture on the page"
grep -q '^| one | 50.00 |$' "$dir/out" || complain "no markdown: $(cat "$dir/out")"
grep -q '"said": "blue"' "$dir/page.html" || complain "the answer is not on the page"
run 2 "${report[@]}" --html-questions 3
one_sentence "--html-questions has no effect here"
run 2 "${report[@]}" --markdown --json
one_sentence "--markdown has no effect here"
run 2 eval report --data "gqa=$dir/GQA.tsv"
one_sentence "--predictions is missing"
run 2 "${report[@]}" --teacher nobody
one_sentence "--teacher is 'nobody'"
run 1 eval report --data "gqa=$dir/GQA.tsv" --predictions "one/gqa=$dir/none"
one_sentence "/none: .*No such file"

# A model.
run 2 eval
one_sentence "wanted one MODEL"
run 2 eval "$dir"
one_sentence "--bench is missing"
run 1 eval "$dir" --bench gqa --data "$dir/GQA.tsv"
one_sentence "No such file"
mkdir "$dir/run"
echo '{}' >"$dir/run/run.json"
run 1 eval "$dir/run" --bench gqa --data "$dir/GQA.tsv"
one_sentence "is a run that has not ended.*mmamba export"
# Pictures that are not there: the first are named, all are counted, the others are asked.
{
    printf 'index\timage_path\tquestion\tanswer\n0\ttiny.png\tq\tdog\n'
    for i in 1 2 3 4 5 6 7; do printf '%d\tnone%d.png\tq\tred\n' $i $i; done
} >"$dir/gone.tsv"
run 0 eval models/pico --bench gqa --data "$dir/gone.tsv" --images tests/golden/images --json
grep -q '"questions": 1, .*"missing_images": 7' "$dir/out" || complain "not counted: $(cat "$dir/out")"
[ "$(grep -c 'is left out: .*none[1-5].png' "$dir/err")" = 5 ] || complain "not the first five named"
grep -q '2 more questions are left out for want of their picture' "$dir/err" ||
    complain "the others are not counted"
[ -z "$(ls "$TMPDIR")" ] || complain "a temporary file was left behind"
finish
