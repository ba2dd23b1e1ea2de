#!/usr/bin/env bash
# `mmamba probe tiles` from outside: what it prints, writes and refuses.  test_probe_tiles.sh MMAMBA
set -u
mmamba=$1
images=tests/golden/images
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0

fail() {
    echo "FAILED: $*"
    failed=1
}

# refused STATUS TEXT ARGUMENT...: that exit status, one line on standard error with TEXT, no file.
refused() {
    local status=$1 text=$2 got
    shift 2
    "$mmamba" probe tiles "$@" >"$out/stdout" 2>"$out/stderr"
    got=$?
    [ $got -eq "$status" ] || fail "$*: exit $got, wanted $status"
    grep -qF -- "$text" "$out/stderr" || fail "$*: says '$(cat "$out/stderr")', wanted '$text'"
    [ "$(wc -l <"$out/stderr")" -eq 1 ] || fail "$*: more than one line"
    [ -z "$(ls "$out" | grep -v -x -e stdout -e stderr)" ] || fail "$*: left a file behind"
}

rest=(--image-size 56 --max-tiles 12 --output "$out/o.st")
refused 1 "none.png" --image none.png "${rest[@]}"
refused 1 "not a picture" --image "$images/tiles.json" "${rest[@]}"
refused 2 "--image is missing" "${rest[@]}"
refused 2 "--output is missing" --image "$images/rgb.png" --image-size 56 --max-tiles 12
refused 2 "--image-size" --image "$images/rgb.png" --image-size 0 --max-tiles 12 --output "$out/o.st"
refused 2 "--max-tiles" --image "$images/rgb.png" --image-size 5 --max-tiles 0 --output "$out/o.st"
refused 2 "--threads" --image "$images/rgb.png" "${rest[@]}" --threads 2
refused 2 "surplus" --image "$images/rgb.png" "${rest[@]}" surplus
refused 1 "/nonexistent/o.st" --image "$images/rgb.png" --image-size 5 --max-tiles 1 \
    --output /nonexistent/o.st

printed=$("$mmamba" probe tiles --image "$images/rgb.png" "${rest[@]}" --json 2>/dev/null) ||
    fail "rgb.png: exit $?"
wanted='{"tiles": 13, "cols": 4, "rows": 3, "image_size": 56}'
[ "$printed" = "$wanted" ] || fail "rgb.png: printed '$printed', wanted '$wanted'"
grep -qaE '"dtype": ?"U8"' "$out/o.st" || fail "o.st: no U8 tensor"
grep -qaE '"shape": ?\[13, ?56, ?56, ?3\]' "$out/o.st" || fail "o.st: another shape"
# The tensor's bytes are the golden ones: both files hold them as they are.
golden=$images/tiles.safetensors
bytes=$((13 * 56 * 56 * 3))
begin=$(head -c 65536 "$golden" | grep -aoE '"rgb_png\.s56\.m12\.u8": ?\{[^}]*\}' |
    grep -oE 'data_offsets": ?\[[0-9]+' | grep -oE '[0-9]+$')
header=$(od -An -tu8 -N8 "$golden" | tr -d ' ')
if [ -z "$begin" ]; then
    fail "$golden: no rgb_png.s56.m12.u8"
else
    cmp -s <(tail -c "$bytes" "$out/o.st") \
        <(tail -c +$((8 + header + begin + 1)) "$golden" | head -c "$bytes") ||
        fail "o.st: its tiles are not the golden ones"
fi
exit $failed
