#!/usr/bin/env bash
# Debian packages this program needs: looks which are missing, and installs them when it may.
#   scripts/setup.sh [GROUP]...     groups: build (the default), fuzz, format, fresh, arm
# Quick when nothing is missing, so `make` runs it every time.
set -euo pipefail

build=(gcc libc6-dev make git cmake ninja-build pkg-config
    libdnnl-dev libjansson-dev libpng-dev libturbojpeg0-dev libwebp-dev libutf8proc-dev
    libfreetype-dev libxxhash-dev libcairo2-dev libcmocka-dev libedit-dev
    sentencepiece fonts-noto-color-emoji fonts-dejavu-core)
# Dense products are oneDNN's on x86-64 only (docs/DEPENDENCIES.md).
[ "$(uname -m)" = x86_64 ] || build=(${build[@]/libdnnl-dev/})
fuzz=(clang libclang-rt-14-dev)
format=(clang-format)
fresh=(debootstrap)
arm=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user mmdebstrap)

wanted=()
for group in "${@:-build}"; do
    case $group in
        build) wanted+=("${build[@]}") ;;
        fuzz) wanted+=("${fuzz[@]}") ;;
        format) wanted+=("${format[@]}") ;;
        fresh) wanted+=("${fresh[@]}") ;;
        arm) wanted+=("${arm[@]}") ;;
        *)
            echo "setup.sh: there is no group '$group'; build, fuzz, format, fresh or arm" >&2
            exit 2
            ;;
    esac
done

if ! command -v dpkg-query >/dev/null; then
    # Another system: CMake will say which library it misses.
    exit 0
fi

installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null || true)
missing=()
for package in "${wanted[@]}"; do
    case $'\n'$installed$'\n' in
        *$'\n'"$package installed"$'\n'*) ;;
        *) missing+=("$package") ;;
    esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=(env)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n env)
else
    echo "setup.sh: Debian packages are missing and only root can install them; run this line, then make again:" >&2
    echo "    sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
install=("${apt[@]}" install -y -q --no-install-recommends "${missing[@]}")
echo "setup.sh: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Without package lists, or with old ones, the first try fails: then they are fetched.
if ! "${install[@]}" >"$log" 2>&1 </dev/null; then
    if ! { "${apt[@]}" update -q && "${install[@]}"; } >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        echo "setup.sh: apt-get could not install the packages; its last lines stand above" >&2
        exit 1
    fi
fi
