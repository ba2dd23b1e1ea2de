#!/usr/bin/env bash
# The command line's promises that hold for every verb: exit status, one sentence on standard error,
# nothing but the answer on standard output.
#   test_cli.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh

run 2
one_sentence "a verb is missing"
run 2 porbe
one_sentence "did you mean 'probe'"
run 2 --jsno
one_sentence "no verb"
run 2 $'bad\nverb\e[31m'
one_sentence "no verb 'bad?verb?"
run 0 --version
quiet_answer
grep -qE '^mmamba [0-9]+\.[0-9]+\.[0-9]+$' "$dir/out" || complain "no version"
run 0 --help
quiet_answer
verbs=$(sed -nE 's/^  ([a-z]+) .*/\1/p' "$dir/out")
[ -n "$verbs" ] || complain "--help lists no verb"
if [ -e /dev/full ]; then
    shown="mmamba --help >/dev/full"
    "$mmamba" --help >/dev/full 2>"$dir/err"
    [ $? = 1 ] || complain "a full disk goes unnoticed"
fi

for verb in $verbs; do
    run 0 "$verb" --help
    quiet_answer
    grep -q "^usage: mmamba $verb" "$dir/out" || complain "no usage line"
    run 2 "$verb"
    one_sentence ""
    run 2 "$verb" --no-such-option
    one_sentence ""
done
run 0 probe --help
for kind in $(sed -nE 's/^  ([a-z]+) .*/\1/p' "$dir/out"); do
    run 0 probe "$kind" --help
    quiet_answer
    run 2 probe "$kind"
    one_sentence ""
    run 2 probe "$kind" --no-such-option
    one_sentence "unknown option --no-such-option"
done
run 2 probe fowrard
one_sentence "no probe 'fowrard'"

echo verbs checked: $verbs
finish
