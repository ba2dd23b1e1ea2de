#!/usr/bin/env bash
# `make install` into a staging folder: what a packager finds there works from there.
#   test_install.sh MMAMBA BUILD
set -euo pipefail
build=$2
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cmake --install "$build" --prefix "$stage/usr" >/dev/null
"$stage/usr/bin/mmamba" --version

lib=$(dirname "$(find "$stage" -name libmmamba.so)")
export PKG_CONFIG_PATH=$lib/pkgconfig
pkg=(pkg-config --define-prefix "--define-variable=prefix=$stage/usr")
cat >"$stage/use.c" <<'C'
#include <mmamba.h>
int main(void) {
    return 0;
}
C
cc -std=c17 -Wall -Wextra -Wpedantic -Werror "$stage/use.c" -o "$stage/use" \
    $("${pkg[@]}" --cflags --libs mmamba)
LD_LIBRARY_PATH=$lib "$stage/use"
cc -std=c17 "$stage/use.c" -o "$stage/use_static" $("${pkg[@]}" --cflags mmamba) \
    "$lib/libmmamba.a" $("${pkg[@]}" --static --libs-only-l mmamba | sed 's/-lmmamba//')
"$stage/use_static"
# What the shared library offers is what the header declares, and it is all there.
nm -D --defined-only "$lib/libmmamba.so" | awk '$2 == "T" { print $3 }' | sort >"$stage/exported"
[ -s "$stage/exported" ] || { echo "libmmamba.so exports nothing"; exit 1; }
while read -r name; do
    grep -q "\b$name *(" include/mmamba.h || { echo "exported, not declared: $name"; exit 1; }
done <"$stage/exported"
for name in $(sed 's,//.*,,' include/mmamba.h | grep -oE '\bmm[a-z0-9_]*_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u); do
    grep -qx "$name" "$stage/exported" || { echo "declared, not exported: $name"; exit 1; }
done
