#!/usr/bin/env bash
# A benchmark killed again and again, alone and in shards: the answers are those of a run that was
# left alone, none is lost and none is there twice.
set -uo pipefail
. tests/cli/lib.sh
pictures=(rgb.png photo.jpg gray.png palette.png tiny.png rgba.png)
{
    printf 'index\timage_path\tquestion\tA\tB\tanswer\n'
    for k in 0 1 2 3 4 5; do
        for i in "${!pictures[@]}"; do
            printf '%d\t%s\tQuestion %d: what is this?\tcat\tdog\tA\n' $((k * 1000000 + i)) \
                "${pictures[$i]}" $k
        done
    done
} >"$dir/rotations.tsv"
ask=(eval models/pico --bench mmbench --data "$dir/rotations.tsv" --images tests/golden/images
    --max-new-tokens 6 --threads 1)

run 0 "${ask[@]}" --out "$dir/whole.jsonl" --json
json_answer bench questions headline scores unresolved missing_images seconds
[ "$(wc -l <"$dir/whole.jsonl")" = 36 ] || complain "not a line a question"
grep -q '6 pictures read; 30 questions went on from a picture read before' "$dir/err" ||
    complain "a picture was read more than once: $(cat "$dir/err")"

lines() {
    cat "$dir/killed.jsonl" 2>/dev/null | wc -l
}
killed=0
for batch in 1 4; do
    rm -f "$dir/killed.jsonl"
    for _ in $(seq 400); do
        shown="a run that is killed, batch $batch"
        "$mmamba" "${ask[@]}" --batch $batch --out "$dir/killed.jsonl" >/dev/null 2>"$dir/err" &
        pid=$!
        # wait until it has written a line or two more, then kill it without warning
        before=$(lines)
        while kill -0 $pid 2>/dev/null; do
            now=$(lines)
            [ "$now" -le $((before + RANDOM % 5)) ] || break
        done
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null
        status=$?
        [ $status != 0 ] || break
        [ $status = 137 ] || complain "exit status $status"
        killed=$((killed + 1))
        # a line that the kill left half
        [ $((killed % 3)) != 0 ] || printf '{"index": 3, "predic' >>"$dir/killed.jsonl"
    done
    [ $status = 0 ] || complain "never came to its end"
    cmp -s "$dir/killed.jsonl" "$dir/whole.jsonl" ||
        complain "other answers: $(diff "$dir/killed.jsonl" "$dir/whole.jsonl" | head -n 4)"
done
shown="runs that are killed"
[ $killed -ge 4 ] || complain "only $killed kills met a run at work"

for i in 1 2 3; do
    run 0 "${ask[@]}" --out "$dir/shard$i.jsonl" --shard $i/3 --batch 3 --quiet
done
cat "$dir"/shard?.jsonl | sort >"$dir/all"
sort "$dir/whole.jsonl" | cmp -s - "$dir/all" || complain "shards do not make the whole"
score=(eval score --bench mmbench --data "$dir/rotations.tsv" --json)
run 0 "${score[@]}" --predictions "$dir/whole.jsonl"
sed 's/"seconds.*//' "$dir/out" >"$dir/one"
run 0 "${score[@]}" --predictions "$dir/shard3.jsonl" --predictions "$dir/shard1.jsonl" \
    --predictions "$dir/shard2.jsonl"
sed 's/"seconds.*//' "$dir/out" | cmp -s - "$dir/one" || complain "other scores: $(cat "$dir/out")"
run 2 "${ask[@]}" --shard 4/3
one_sentence "--shard is '4/3', must be I/N"
finish
