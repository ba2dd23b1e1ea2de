#!/usr/bin/env bash
# The demonstration from end to end, with few pictures and steps: every part runs, what is finished
# is not done again, what is missing is made again, and another demonstration is refused.
set -u
. tests/cli/lib.sh
# A random teacher, whatever is bundled.
mkdir "$dir/bare"
cp models/pico/*.json models/pico/tokenizer.model "$dir/bare"
export DEMO_TEACHER=$dir/bare MMAMBA=$mmamba SCENES=$build/scenes BARS=$build/bars DEMO_TINY=1 DEMO_OUT=$dir/demo
# Two models in the place of finished students.
for name in finished-linear finished-hybrid; do
    keep=none
    [ $name = finished-linear ] || keep=head-interleaved:2
    run 0 carve models/pico "$dir/$name" --keep $keep -q
done
export DEMO_STUDENTS="$dir/finished-linear $dir/finished-hybrid"
models="teacher start stage1 stage2 stage3 hybrid finished-linear finished-hybrid"

# demo STATUS [OPTION]...
demo() {
    local wanted=$1 status
    shift
    shown="demo.sh $*"
    scripts/demo.sh "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
    [ "$status" = "$wanted" ] || complain "exit status $status, must be $wanted"
}

says() {
    grep -q -e "$1" "$dir/out" || complain "standard output does not say '$1'"
}

demo 0
[ "$failures" = 0 ] || finish
says "^mean  "
says "^stage 3: 3 steps"
says "^100000 "
for model in $models; do
    for bench in pope mme textvqa sqa gqa; do
        [ "$(wc -l <"$DEMO_OUT/scores/$model.$bench.jsonl")" = 6 ] ||
            complain "$model has not answered the 6 questions of $bench"
    done
done
[ "$(awk -F'\t' '{ print NF }' "$DEMO_OUT/results.tsv" | sort -u)" = 9 ] || complain "results.tsv has not 9 columns"
[ "$(wc -l <"$DEMO_OUT/results.tsv")" = 7 ] || complain "results.tsv has not 7 rows"
[ "$(wc -l <"$DEMO_OUT/answers.tsv")" -ge 4 ] || complain "answers.tsv has not 3 questions"
# The picture with the bars, the loss, the sample and the world.
[ "$(grep -c 'src="data:image/png;base64,iVBOR' "$DEMO_OUT/report.html")" = 4 ] || complain "report.html has not 4 pictures"
# A cache grows, a state does not.
awk -F'\t' 'NR == 2 { t = $2; l = $3 } NR == 5 { exit !($2 + 0 > 100 * t && $3 == l) }' "$DEMO_OUT/memory.tsv" ||
    complain "memory.tsv: the teacher's must grow, the student's must not"

# What was just carved talks on; it is cut off where it is told to be.
for n in 2 8; do
    run 0 eval "$DEMO_OUT/start" --bench gqa --data "$DEMO_OUT/world/GQA.tsv" --out "$dir/cut$n" \
        --max-new-tokens $n --json
done
[ "$(wc -c <"$dir/cut2")" -lt "$(wc -c <"$dir/cut8")" ] || complain "answers are not cut off"

# Again: nothing is done again, except what has been lost.
cp -p "$DEMO_OUT/run/model/model.safetensors" "$dir/student"
rm "$DEMO_OUT/scores/stage2.gqa.json" "$DEMO_OUT/report.html"
sed -i '/^eval stage 2/d' "$DEMO_OUT/times"
demo 0
[ "$DEMO_OUT/run/model/model.safetensors" -nt "$dir/student" ] && complain "distilled again"
[ -f "$DEMO_OUT/scores/stage2.gqa.json" ] || complain "what was lost was not made again"
[ -f "$DEMO_OUT/report.html" ] || complain "no report the second time"

# A demonstration of another kind does not go into the same folder.
demo 1 --steps 3,3,3
grep -q "make demo-clean" "$dir/err" || complain "standard error does not say what to do"
demo 2 --what
DEMO_TEACHER=$dir/nothing demo 1
grep -q "holds no config.json" "$dir/err" || complain "standard error does not say what is missing"
DEMO_STUDENTS=$dir/nothing demo 1
grep -q "holds no model.safetensors" "$dir/err" || complain "standard error does not say what is missing"
finish
