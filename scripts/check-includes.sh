#!/usr/bin/env bash
# Includes go down only: cli > serve, eval > train, infer > model > ops, io > base. Folders of one
# level (ops and io; train and infer; serve, eval and bench) do not know each other, and nobody but ops
# looks inside a backend (ops/cpu, ops/cuda). Run by the build; prints each wrong line, exit 1.
set -euo pipefail
cd "$(dirname "$0")/.."

find src \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -print0 | sort -z |
    xargs -0 grep -nHE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' | awk '
BEGIN {
    level["base"] = 0
    level["io"] = level["ops"] = 1
    level["model"] = 2
    level["train"] = level["infer"] = 3
    level["eval"] = level["serve"] = level["bench"] = 4
    level["cli"] = 5
}
function wrong(why) {
    printf "%s:%s: includes \"%s\": %s\n", file, line, target, why
    bad = 1
}
{
    split($0, part, ":"); file = part[1]; line = part[2]
    target = $0; sub(/^[^"]*"/, "", target); sub(/".*/, "", target)
    split(file, path, "/"); from = path[2]
    if (!(from in level)) { wrong("src/" from " has no level in scripts/check-includes.sh"); next }
    n = split(target, into, "/"); to = into[1]
    if (target == "mmamba.h") {  # the public face: written by infer, used by those above
        if (level[from] < level["infer"] || from == "train") wrong("only infer and what stands above it see the public header")
        next
    }
    if (target ~ /(^|\/)\.\.?\//) { wrong("name it from src/ downwards"); next }
    if (n == 1) { wrong("name it with its folder"); next }
    if (!(to in level)) { wrong("src/" to " has no level in scripts/check-includes.sh"); next }
    if (to == from) next
    if (level[to] >= level[from]) wrong(from " must not know " to)
    else if (to == "ops" && n > 2) wrong("only ops looks inside a backend")
}
END { exit bad }'
