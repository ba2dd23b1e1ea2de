# What tests of the command line share; sourced by tests/cli/test_*.sh, which get MMAMBA BUILD and
# end with `finish`.
mmamba=$1
build=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failures=0
shown=

complain() {
    echo "$shown: $1"
    sed 's/^/    stderr: /' "$dir/err" | head -n 5
    failures=$((failures + 1))
}

# run STATUS ARGS...: runs mmamba, leaves $dir/out and $dir/err, complains of another exit status.
run() {
    local wanted=$1 status
    shift
    shown="mmamba $*"
    timeout 120 "$mmamba" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
    [ "$status" = "$wanted" ] || complain "exit status $status, must be $wanted"
}

# Standard error is one line that matches the pattern; standard output is empty.
one_sentence() {
    [ "$(wc -l <"$dir/err")" = 1 ] || complain "standard error is not one line"
    grep -q -e "^mmamba: .*$1" "$dir/err" || complain "standard error does not say '$1'"
    [ ! -s "$dir/out" ] || complain "standard output is not empty"
}

# Something on standard output, nothing on standard error.
quiet_answer() {
    [ -s "$dir/out" ] || complain "standard output is empty"
    [ ! -s "$dir/err" ] || complain "standard error is not empty"
}

# Standard output is one JSON object with these keys.
json_answer() {
    local said
    said=$("$build/tests/json_check" "$@" <"$dir/out") || complain "$said"
}

finish() {
    [ "$failures" = 0 ] || {
        echo "$failures complaints"
        exit 1
    }
    exit 0
}
