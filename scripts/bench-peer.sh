#!/usr/bin/env bash
# Holds `mmamba bench` against llama.cpp on this machine, in turns, at HoVLE-2.6B's sizes with random
# weights, and prints the ratios.
#   scripts/bench-peer.sh [--work FOLDER] [--threads N] [--rounds N] [--types "bf16 q8 q4"]
#                         [--models "mixed attention mamba2"] [--prompt N] [--depth N]
#
# llama.cpp comes from PyPI's source package llama-cpp-python and is built in the work folder
# (default: ${TMPDIR:-/tmp}/mmamba-peer; about ten minutes and 2 GB; models of up to 6 GB come and
# go). Needs pip, cmake, ninja and a C++ compiler; nothing of it is part of the product. Two changes to
# its source: an assertion that allows only mixers twice as wide as the model is taken out, and where
# it sets up AMX tiles gcc 12 is told that the whole configuration is read (it crashes otherwise).
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.3.36
work=${TMPDIR:-/tmp}/mmamba-peer
threads=$(nproc)
rounds=3
types="bf16 q8 q4"
models="mixed attention"
prompt=512
depth=0
usage() {
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit "$1"
}
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage 0 ;;
        --work | --threads | --rounds | --types | --models | --prompt | --depth)
            [ $# -ge 2 ] || usage 2
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        *) usage 2 ;;
    esac
done
mmamba=build/mmamba
[ -x $mmamba ] || {
    echo "bench-peer: $mmamba is missing; run make first" >&2
    exit 1
}
mkdir -p "$work"

# ---- the other engine ----------------------------------------------------------------------------
bench=$work/build/bin/llama-bench
if [ ! -x "$bench" ]; then
    python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python -d "$work" \
        "llama-cpp-python==$version" || {
        echo "bench-peer: pip cannot get llama-cpp-python $version" >&2
        exit 1
    }
    tar xzf "$work/llama_cpp_python-$version.tar.gz" -C "$work"
    source=$work/llama_cpp_python-$version/vendor/llama.cpp
    sed -i '/GGML_ASSERT(2 \* n_embd == d_inner);/d' "$source/src/models/granite-hybrid.cpp"
    amx='__asm__ volatile("" : : "r"(\&tc) : "memory");'
    sed -i "s/^ *_tile_loadconfig(&tc);/$amx _tile_loadconfig(\&tc);/" \
        "$source/ggml/src/ggml-cpu/amx/mmq.cpp"
    cmake -S "$source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF \
        >"$work/cmake.log" 2>&1
    nice -n 10 ninja -C "$work/build" -j "$threads" llama-bench >"$work/build.log" 2>&1 || {
        tail -n 20 "$work/build.log" >&2
        echo "bench-peer: llama.cpp does not build: $work/build.log" >&2
        exit 1
    }
fi

# ---- both, in turns ------------------------------------------------------------------------------
rm -f "$work"/*.jsonl
peer() { # MODEL TYPE ROUND FILE
    "$bench" -m "$4" -t "$threads" -lm none -fa off -p "$prompt" -n 64 -d "$depth" -r 1 -o jsonl \
        2>>"$work/peer.log" | sed "s/^{/{\"peer_model\": \"$1\", \"type\": \"$2\", /" \
        >>"$work/peer.jsonl"
}
ours() { # MODEL TYPE
    local mixers=linear length=$prompt
    [ "$1" != attention ] || mixers=attention
    [ "$depth" = 0 ] || length=$depth
    $mmamba bench --config tests/golden/hovle-2.6b.config.json --random-weights --mixers $mixers \
        --dtype "$2" --prompt "$length" --new 64 --repeat 1 --threads "$threads" --json --quiet |
        sed "s/^{/{\"peer_model\": \"$1\", /" >>"$work/ours.jsonl"
}
for type in $types; do
    case $type in q8) name=q8_0 ;; q4) name=q4_0 ;; *) name=$type ;; esac
    for model in $models; do
        file=$work/$model-$name.gguf
        [ -s "$file" ] || python3 scripts/peer_gguf.py "$model" "$name" "$file"
        for round in $(seq "$rounds"); do
            echo "bench-peer: $model $type, round $round of $rounds" >&2
            peer "$model" "$type" "$round" "$file"
            ours "$model" "$type"
        done
        rm -f "$file"
    done
done

# ---- the ratios ----------------------------------------------------------------------------------
python3 - "$work" <<'P'
import json, statistics, sys
from collections import defaultdict
work = sys.argv[1]
peer, ours = defaultdict(list), defaultdict(list)
read, high = [], False
for line in open(work + "/peer.jsonl"):
    o = json.loads(line)
    what = "prefill" if o["n_prompt"] else "decode"
    peer[o["peer_model"], o["type"], what].append(o["avg_ts"])
    peer[o["peer_model"], o["type"], "bytes"].append(o["model_size"])
for line in open(work + "/ours.jsonl"):
    o = json.loads(line)
    read.append(o["ceilings"]["read_GBps"])
    for row in o["rows"]:
        high |= row["load"]["high"]
        key = o["peer_model"], row["dtype"]
        ours[key + ("prefill",)].append(row["prefill_tok_s"])
        ours[key + ("decode",)].append(row["decode_tok_s"])
        ours[key + ("bytes",)].append(row["step_bytes"])
m = statistics.median
print(f"read ceiling of the memory: {m(read):.1f} GB/s, best {max(read):.1f}, least {min(read):.1f}")
print("model      type  prefill tok/s: ours / llama.cpp ratio   decode tok/s: ours / llama.cpp ratio"
      "   GB/s of weights: ours / llama.cpp ratio")
for model, kind, what in sorted(k for k in ours if k[2] == "decode"):
    a, b = ours, peer
    p = m(a[model, kind, "prefill"]), m(b[model, kind, "prefill"])
    d = m(a[model, kind, "decode"]), m(b[model, kind, "decode"])
    g = (d[0] * m(a[model, kind, "bytes"]) * 1e-9, d[1] * m(b[model, kind, "bytes"]) * 1e-9)
    print(f"{model:10} {kind:4} {p[0]:13.1f} / {p[1]:9.1f} {p[0] / p[1]:6.2f}"
          f" {d[0]:19.2f} / {d[1]:9.2f} {d[0] / d[1]:6.2f}"
          f" {g[0]:21.1f} / {g[1]:9.1f} {g[0] / g[1]:6.2f}")
print("llama.cpp's bytes are those of its whole file, the table of embeddings included.")
if high:
    print("The machine was busy while this ran: not to be quoted.")
P
