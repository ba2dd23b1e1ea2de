#!/usr/bin/env bash
# The generator of worlds: the same bytes every time and with any number of threads, an interrupted
# world made anew, and everything in it read back by tests/tools/scenes_check.c.
. tests/cli/lib.sh
scenes=$build/scenes
check=$build/tests/scenes_check

# make STATUS ARGS...
make_world() {
    local wanted=$1 status
    shift
    shown="scenes $*"
    timeout 120 "$scenes" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
    [ "$status" = "$wanted" ] || complain "exit status $status, must be $wanted"
}
same() {
    diff -r -q "$1" "$2" >"$dir/diff" || complain "$1 and $2 differ: $(head -n 3 "$dir/diff")"
}

# Few things, so that every pair that may be seen together is.
small=(--things 14 --pictures 1500 --size 72 --test 48 --shapes 0.3)
make_world 0 --out "$dir/a" "${small[@]}" --seed 7 --threads 1 --dump-scenes "$dir/a.scenes"
make_world 0 --out "$dir/b" "${small[@]}" --seed 7 --threads 3 --dump-scenes "$dir/b.scenes"
same "$dir/a" "$dir/b"
same "$dir/a.scenes" "$dir/b.scenes"
shown="scenes_check"
"$check" "$dir/a" "$dir/a.scenes" models/pico >"$dir/out" 2>"$dir/err" ||
    complain "$(tail -n 12 "$dir/out")"

# A second world of every option, without what the first one has.
other=(--things 12 --pictures 700 --size 110 --grid 3 --test 36 --seed 8 --rotate 25 --clutter 9
    --words random)
make_world 0 --out "$dir/c" "${other[@]}" --dump-scenes "$dir/c.scenes"
"$check" "$dir/c" "$dir/c.scenes" models/pico >"$dir/out" 2>"$dir/err" ||
    complain "$(tail -n 12 "$dir/out")"
grep -q '"center"' "$dir/c.scenes" || complain "a grid of three has a center"
# Stamps, where they are installed, are more things with names.
if [ -d /usr/share/tuxpaint/stamps/animals ]; then
    make_world 0 --out "$dir/s" --things 8 --shapes 0 --pictures 40 --test 0 \
        --stamps /usr/share/tuxpaint/stamps --dump-scenes "$dir/s.scenes"
    names=$(grep -o '"name": "[a-z ]*"' "$dir/s.scenes" | sort -u | wc -l)
    [ "$names" -gt 30 ] || complain "$names names in the pictures: no stamps among them"
fi

# Complete: left alone. Without its meta.json it is not complete, and is made anew.
tiny=(--things 8 --pictures 20 --test 6 --jpeg 90)
make_world 0 --out "$dir/d" "${tiny[@]}"
[ "$(head -c 3 "$dir/d/images/train/000/000000.jpg" | od -An -tx1)" = " ff d8 ff" ] ||
    complain "not a JPEG"
cp -r "$dir/d" "$dir/kept"
before=$(stat -c %Y.%i "$dir/d/train.jsonl")
make_world 0 --out "$dir/d" "${tiny[@]}"
[ "$before" = "$(stat -c %Y.%i "$dir/d/train.jsonl")" ] || complain "a complete world was made anew"
rm "$dir/d/meta.json"
printf 'half' >"$dir/d/images/train/000/000007.jpg"
make_world 0 --out "$dir/d" "${tiny[@]}"
same "$dir/d" "$dir/kept"
# Other options: another world, in the same folder.
make_world 0 --out "$dir/d" "${tiny[@]}" --seed 9
cmp -s "$dir/d/train.jsonl" "$dir/kept/train.jsonl" && complain "another seed, the same questions"

# Killed in the middle: no meta.json.
shown="scenes, killed"
"$scenes" --out "$dir/e" --pictures 1000000 --test 0 >/dev/null 2>&1 &
job=$!
for ((i = 0; i < 600; i++)); do
    [ -e "$dir/e/images/train/000/000003.png" ] && break
    sleep 0.1
done
kill -KILL "$job"
wait "$job" 2>/dev/null
[ -e "$dir/e/images/train/000/000003.png" ] || complain "not begun within a minute"
[ ! -e "$dir/e/meta.json" ] || complain "an interrupted world looks complete"

# What is refused, in one sentence.
mkdir "$dir/taken" && touch "$dir/taken/letter.txt"
make_world 1 --out "$dir/taken"
one_sentence "holds other files"
make_world 2 --things 1999 --out "$dir/x"
one_sentence "has words for"
make_world 2 --things 3 --out "$dir/x"
one_sentence "at least 8"
make_world 2 --words long:5 --out "$dir/x"
one_sentence "short:N"
make_world 2 --size 72 --grid 3 --out "$dir/x"
one_sentence "cells of 24 pixels"
make_world 2
one_sentence "\-\-out"
make_world 1 --out "$dir/x" --emoji-font /nowhere/font.ttf
one_sentence "apt install fonts-noto-color-emoji"
make_world 1 --out "$dir/x" --fonts /nowhere
one_sentence "apt install fonts-dejavu-core"
make_world 1 --out "$dir/x" --stamps /nowhere
one_sentence "tuxpaint-stamps-default"
printf 'code\tname\tword\trank\tgroup\nzz\tdog\n' >"$dir/table"
make_world 1 --out "$dir/x" --table "$dir/table"
one_sentence "line 2"
[ ! -e "$dir/x" ] || complain "a refused run left a folder"

# The table in the repository is what the script makes, where its source is installed.
if [ -r /usr/share/unicode/emoji/emoji-test.txt ]; then
    sh tools/scenes/make_things.sh "$scenes" >"$dir/table" 2>"$dir/err" || complain "make_things.sh"
    cmp -s "$dir/table" tools/scenes/things.tsv || complain "things.tsv is not what its script makes"
fi
finish
