#!/usr/bin/env bash
# Builds for AArch64 on another machine, into build-arm/, and runs the tests under qemu-user.
#   scripts/build-arm.sh [build|test|all]     all (the default): build, then test
# TESTS: a regular expression of tests to run instead of all but the slow ones.
# The arm64 libraries are Debian's own packages, unpacked into build-arm/sysroot and never installed:
# the system's own packages stay as they are. Needs no root once scripts/setup.sh has its tools.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
case $what in
    build | test | all) ;;
    *)
        echo "build-arm.sh: there is no '$what'; build, test or all" >&2
        exit 2
        ;;
esac
build=build-arm
sysroot=$PWD/$build/sysroot

# What scripts/setup.sh calls build, as far as it is linked; products of matrices are our own here.
packages=libc6-dev,linux-libc-dev,libjansson-dev,libpng-dev,libturbojpeg0-dev,libwebp-dev
packages+=,libutf8proc-dev,libfreetype-dev,libxxhash-dev,libcairo2-dev,libcmocka-dev,libedit-dev

make_sysroot() {
    if [ "$(cat "$sysroot.packages" 2>/dev/null)" = "$packages" ]; then return; fi
    rm -rf "$sysroot" "$sysroot.packages"
    mkdir -p "$build"
    echo "build-arm.sh: unpacking arm64 packages into $build/sysroot"
    local log=$build/sysroot.log mode=unshare
    [ "$(id -u)" != 0 ] || mode=root
    if ! mmdebstrap --mode=$mode --variant=extract --architectures=arm64 --include="$packages" \
        bookworm "$sysroot" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        echo "build-arm.sh: mmdebstrap could not get the packages; its last lines stand above" >&2
        exit 1
    fi
    # The emulator looks there first, and a terminal opened by way of those nodes is no terminal.
    rm -rf "$sysroot/dev"
    # Links from the root of that system must stay inside it.
    find "$sysroot" -type l -lname '/*' -printf '%p\t%l\n' | while IFS=$'\t' read -r link target; do
        ln -sfnr "$sysroot$target" "$link"
    done
    echo "$packages" >"$sysroot.packages"
}

if [ "$what" != test ]; then
    scripts/setup.sh build arm
    make_sysroot
    cmake -S . -B $build -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake ${CMAKE_FLAGS:-} >/dev/null
    ninja -C $build ${NINJA_FLAGS:-}
fi
if [ "$what" != build ]; then
    # An emulated processor takes 10 to 50 times as long.
    export TEST_TIMEOUT=${TEST_TIMEOUT:-1500}
    if [ -n "${TESTS:-}" ]; then
        scripts/test.sh $build -R "$TESTS"
    else
        scripts/test.sh $build -LE slow_emulated
    fi
fi
