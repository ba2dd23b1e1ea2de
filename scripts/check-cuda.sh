#!/usr/bin/env bash
# No CUDA call and no launch goes unchecked: in every file of src/ops/cuda (or those named) a call of
# the runtime, the driver or cuBLAS is an argument of mm_cuda_ok or mm_cuda_blas_ok, or compared,
# assigned or returned, or cast to (void), which says that its failure does not matter; and a launch is
# followed by mm_cuda_launched (or a read of the last error) before its function ends. Prints each wrong
# statement, exit 1. Run by the tests; `scripts/check-cuda.sh FILE...` looks at other files.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- src/ops/cuda/*.cu src/ops/cuda/*.cuh src/ops/cuda/cuda.h

awk '
function wrong(line, why, text) {
    gsub(/[ \t]+/, " ", text)
    printf "%s:%d: %s: %s\n", file, line, why, substr(text, 1, 90)
    bad = 1
}
# One statement, whitespace squeezed, without comments, strings and lines of the preprocessor.
function look(text, line,    at, before, name) {
    if (text ~ /<<</) { launch = line; launched = text }
    if (text ~ /mm_cuda_launched *\(|cudaGetLastError *\(/) launch = 0
    at = match(text, /(^|[^A-Za-z0-9_])(cuda[A-Z][A-Za-z0-9_]*|cublas[A-Z][A-Za-z0-9_]*|cu[A-Z][a-z][A-Za-z0-9_]*) *(<[^<>;]*>)? *\(/)
    if (!at) return
    before = substr(text, 1, at)
    name = substr(text, at, RLENGTH)
    sub(/^[^A-Za-z_]/, "", name)
    if (name ~ /^(cudaGetErrorString|cublasGetStatusString)/) return
    if (before ~ /\(void\) *$/) return
    if (text ~ /mm_cuda(_blas)?_ok *\(/) return
    if (before ~ /(=|\?|:) *$/ || before ~ /(^|[^A-Za-z_])return[^A-Za-z_]/) return
    if (text ~ /(==|!=) *(cudaSuccess|CUBLAS_STATUS_SUCCESS|CUDA_SUCCESS)/) return
    wrong(line, "nobody looks at what this returns", text)
}
function finish() {
    if (launch) wrong(launch, "nobody asks whether this was launched", launched)
    launch = 0
}
FNR == 1 { if (NR > 1) finish(); file = FILENAME; depth = 0; statement = ""; quoted = comment = 0 }
{
    text = $0
    gsub(/\\./, "", text)                      # in strings
    gsub(/"[^"]*"/, "", text)
    gsub(/\047[^\047]*\047/, "", text)
    if (comment) { if (!sub(/^.*\*\//, "", text)) next; comment = 0 }
    gsub(/\/\*[^*]*\*\//, "", text)
    if (sub(/\/\*.*$/, "", text)) comment = 1
    sub(/\/\/.*$/, "", text)
    sub(/\\$/, "", text)
    if (text ~ /^[ \t]*#[ \t]*define[ \t]/) {   # its body is code
        finish()
        sub(/^[ \t]*#[ \t]*define[ \t]+[A-Za-z_0-9]+(\([^)]*\))?/, "", text)
    } else if (text ~ /^[ \t]*#/) {
        next
    }
    while (match(text, /[;{}]/)) {
        part = substr(text, 1, RSTART - 1)
        mark = substr(text, RSTART, 1)
        text = substr(text, RSTART + 1)
        if (statement ~ /^[ \t]*$/) from = FNR
        look(statement " " part, from)
        statement = ""
        if (mark == "{") depth++
        if (mark == "}" && depth > 0 && --depth == 0) finish()
        if (mark == "}" && FNR > 0 && $0 ~ /^}/) { finish(); depth = 0 }
    }
    if (statement ~ /^[ \t]*$/) from = FNR
    statement = statement " " text
}
END { finish(); exit bad }' "$@"
