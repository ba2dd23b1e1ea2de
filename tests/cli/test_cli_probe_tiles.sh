#!/usr/bin/env bash
# `probe tiles` from outside.
set -uo pipefail
. tests/cli/lib.sh

photo=tests/golden/images/photo.jpg
good=(probe tiles --image $photo --image-size 112 --max-tiles 6)
run 0 "${good[@]}" --output "$dir/t" --json
json_answer
[ -s "$dir/t" ] || complain "no file was written"
run 0 "${good[@]}" --output "$dir/q" --quiet
[ ! -s "$dir/err" ] || complain "--quiet is not quiet"
cmp -s "$dir/t" "$dir/q" || complain "two runs differ"

run 2 "${good[@]}" --output "$dir/x" --threads 2
one_sentence "--threads has no effect here"
run 2 "${good[@]}" --output "$dir/x" --backend cpu
one_sentence "--backend has no effect here"
run 2 "${good[@]}" --output "$dir/x" stray
one_sentence "stray"
run 2 "${good[@]}"
one_sentence "--output is missing"
run 2 "${good[@]}" --max-tiles 7 --output "$dir/x"
one_sentence "--max-tiles is given twice"
for bad in 0 -1 x 99999999999; do
    run 2 probe tiles --image $photo --image-size "$bad" --max-tiles 6 --output "$dir/x"
    one_sentence "--image-size is '\?$bad'\?, must be"
done
run 1 probe tiles --image "$dir/none" --image-size 112 --max-tiles 6 --output "$dir/x"
one_sentence "/none: .*No such file"
run 1 probe tiles --image "$dir" --image-size 112 --max-tiles 6 --output "$dir/x"
one_sentence "is a folder"
head -c 1000 $photo >"$dir/cut.jpg"
run 1 probe tiles --image "$dir/cut.jpg" --image-size 112 --max-tiles 6 --output "$dir/x"
one_sentence "cut.jpg: "
[ ! -e "$dir/x" ] || complain "a refused run left a file"
run 1 "${good[@]}" --output "$dir/no/such/folder"
one_sentence "no/such/folder"
if [ -w /dev/full ]; then
    shown="probe tiles --json >/dev/full"
    "$mmamba" "${good[@]}" --output "$dir/f" --json >/dev/full 2>"$dir/err"
    [ $? = 1 ] || complain "a full disk goes unnoticed"
fi
finish
