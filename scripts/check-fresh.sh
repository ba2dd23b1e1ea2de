#!/usr/bin/env bash
# Proves the two commands on a bare Debian 12: debootstrap (minbase) in a scratch folder outside the
# tree, the committed state of this repository cloned inside, `make demo` and `make test` there.
#   scripts/check-fresh.sh [--keep] [TARGET]...      TARGET: make targets, default: demo test
# FRESH_DIR names the scratch folder (default: a new one under TMPDIR); it is removed afterwards
# unless --keep or a failure leaves it to be looked at. Needs root, for chroot.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

keep=
targets=()
for word in "$@"; do
    case $word in
        --keep) keep=1 ;;
        *) targets+=("$word") ;;
    esac
done
[ ${#targets[@]} -gt 0 ] || targets=(demo test)
if [ "$(id -u)" != 0 ]; then
    echo "check-fresh.sh: a chroot needs root; run: sudo $0 $*" >&2
    exit 1
fi
if [ -n "$(git status --porcelain)" ]; then
    echo "check-fresh.sh: note: what is not committed is not checked"
fi

scratch=${FRESH_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/mmamba-fresh-XXXXXX")}
root=$scratch/root
mkdir -p "$root"
log=$scratch/log
: >"$log"

unmount() {
    for where in dev/shm dev/pts dev proc; do
        if mountpoint -q "$root/$where"; then umount "$root/$where" || umount -l "$root/$where"; fi
    done
}
finish() {
    status=$?
    unmount
    if [ "$status" != 0 ]; then
        tail -n 40 "$log" >&2
        echo "check-fresh.sh: failed; the whole log is $log, the system $root (remove it with rm -rf --one-file-system)" >&2
    elif [ -z "$keep" ]; then
        # Only when nothing of the host is mounted beneath any more.
        if grep -q " $root/" /proc/mounts; then
            echo "check-fresh.sh: something is still mounted in $root; not removed" >&2
        else
            rm -rf --one-file-system "$scratch"
        fi
    else
        echo "kept: $root, log $log"
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The mirror the host uses, of either form of its sources.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources \
    2>/dev/null | grep -v '^#' | grep -oE '(https?|file)://[^ ]*debian/?( |$)' | head -n 1 | tr -d ' ' || true)
mirror=${mirror:-http://deb.debian.org/debian}

seconds() {
    local begin=$SECONDS name=$1
    shift
    "$@" >>"$log" 2>&1
    printf '%-28s %4d s\n' "$name" $((SECONDS - begin))
}
inside() {
    # A user's environment, not the host's; a proxy is part of the network.
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8 \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        ${no_proxy:+no_proxy="$no_proxy"} chroot "$root" "$@" </dev/null
}

echo "bare Debian 12 in $root, from $mirror"
certificates=
case $mirror in https:*) certificates=--include=ca-certificates ;; esac
seconds "debootstrap" debootstrap --variant=minbase $certificates bookworm "$root" "$mirror"

# How the host reaches its packages: sources, keys, proxies and resolver.
rm -rf "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d"
for item in sources.list sources.list.d apt.conf apt.conf.d trusted.gpg trusted.gpg.d keyrings auth.conf \
    auth.conf.d; do
    if [ -e "/etc/apt/$item" ]; then cp -aL "/etc/apt/$item" "$root/etc/apt/"; fi
done
# Sources that need keys the new system has not are not Debian's.
find "$root/etc/apt/sources.list.d" -type f ! -name '*debian*' -delete 2>/dev/null || true
cp -L /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
if [ -d /usr/local/share/ca-certificates ]; then
    mkdir -p "$root/usr/local/share/ca-certificates"
    cp -aL /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
fi

mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
# Terminals are a file system of their own, which a plain bind leaves out.
if mountpoint -q /dev/pts; then mount --bind /dev/pts "$root/dev/pts"; fi
mkdir -p "$root/dev/shm"
mountpoint -q "$root/dev/shm" || mount -t tmpfs tmpfs "$root/dev/shm"
git clone -q --bare "$repository" "$root/src.git"

seconds "apt-get update" inside apt-get update
seconds "apt-get install make git" inside apt-get install -y --no-install-recommends make git
seconds "git clone" inside git clone -q /src.git /root/mmamba
total=$SECONDS
for target in "${targets[@]}"; do
    seconds "make $target" inside make -C /root/mmamba --no-print-directory "$target"
    if [ "$target" = test ]; then tail -n 1 "$log"; fi
done
echo "the commands took $((SECONDS - total)) s on $(nproc) cores"
