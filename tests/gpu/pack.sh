#!/usr/bin/env bash
# Packs what a GPU machine without Debian's libraries and without a network needs to run
# tests/gpu/run.sh: the program, the GPU plug-in, the tests, and the shared libraries they use
# (not the C library's own, which every machine has).
#   tests/gpu/pack.sh BUILD OUT.tar.xz
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1 out=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/bin" "$dir/lib" "$dir/tests" "$dir/fonts"
cp "$build/mmamba" "$build/scenes" "$build/libmmamba_cuda.so" "$dir/bin/"
cp "$build"/bench/bench_{gpu_block,gpu_mixer,soak} "$dir/bin/"
for t in $(tests/gpu/op_tests.sh) golden halves gradcheck carve api session snapshot batch ahead engine; do
    cp "$build/tests/test_$t" "$dir/tests/"
done
cp "$build"/tests/{st_tool,json_check,json_rows} "$dir/tests/"
for f in "$dir"/bin/mmamba "$dir"/bin/scenes "$dir"/tests/*; do
    ldd "$f" | awk '$3 ~ /^\// {print $3}'
done | sort -u | grep -vE '/(libc|libm|libpthread|libdl|librt|libgcc_s|libstdc\+\+)\.so' |
    while read -r lib; do cp -L "$lib" "$dir/lib/"; done
cp /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf "$dir/fonts/" 2>/dev/null || true
cp -r /usr/share/fonts/truetype/dejavu "$dir/fonts/" 2>/dev/null || true
find "$dir/bin" "$dir/tests" -type f -exec strip {} + 2>/dev/null || true
# the tests are linked with the same library: a dictionary that reaches from one to the next
tar -C "$dir" --sort=name -cf - . | xz -T1 --lzma2=preset=4,dict=128MiB >"$out.part"
mv "$out.part" "$out"
ls -l "$out"
