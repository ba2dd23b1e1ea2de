#!/bin/sh
# Writes things.tsv, the table of all emoji that one code point reaches: Debian's emoji-test.txt
# (unicode-data) gives code point, name, group and subgroup; common.txt the everyday words; the
# dominant colour is measured from the font's bitmaps by the program itself.
#   sh tools/scenes/make_things.sh build/scenes > tools/scenes/things.tsv.new && mv tools/scenes/things.tsv.new tools/scenes/things.tsv
set -eu
scenes=${1:-build/scenes}
list=${EMOJI_TEST:-/usr/share/unicode/emoji/emoji-test.txt}
here=$(dirname "$0")
[ -r "$list" ] || { echo "make_things.sh: $list is missing: apt install unicode-data" >&2; exit 1; }
awk -v common="$here/common.txt" '
BEGIN {
    while ((getline line < common) > 0) {
        if (line ~ /^#/) continue
        split(line, f, / *\| */)
        if (f[1] in word) { print "common.txt: twice: " f[1] > "/dev/stderr"; exit 1 }
        word[f[1]] = f[2]; kind[f[1]] = f[3]; rank[f[1]] = ++n; taken[f[2]] = 1
    }
    # Kinds of whole subgroups, for things that common.txt does not name.
    split("animal-mammal animal animal-bird animal animal-amphibian animal animal-reptile animal " \
          "animal-bug animal plant-flower plant food-fruit fruit food-vegetable vegetable " \
          "food-sweet food food-prepared food food-asian food drink drink " \
          "place-building building place-religious building " \
          "musical-instrument instrument", k, " ")
    for (i = 1; i in k; i += 2) of[k[i]] = k[i + 1]
    OFS = "\t"
    print "code", "name", "word", "rank", "group", "subgroup", "kind"
}
/^# group: /    { group = substr($0, 10) }
/^# subgroup: / { subgroup = substr($0, 13) }
/; fully-qualified/ && !/^#/ {
    split($0, part, ";"); m = split(part[1], code, " ")
    if (m > 2 || (m == 2 && code[2] != "FE0F")) next
    name = $0; sub(/^.*# [^ ]+ E[0-9.]+ /, "", name)
    w = "-"; r = 0; d = "-"
    if (name in rank) {
        w = word[name]; r = rank[name]; d = kind[name]; seen[name] = 1
    } else if (group ~ /^(Animals & Nature|Food & Drink|Travel & Places|Activities|Objects)$/) {
        # One or two lower-case words, singular by its ending, and no second portrait or clock
        # face of a thing that has its own entry.
        if (name ~ /^[a-z]+( [a-z]+)?$/ && (name !~ /s$/ || name ~ /(ss|us)$/) &&
            name !~ / face$|^oncoming |^incoming |^chart |^speaker | pages? |moon$|^sun |^hot |umbrella/ &&
            name !~ /^(locked|unlocked|foggy|cooking|tennis|construction|camping|e-mail)$/ &&
            !(name in taken) &&
            name !~ /^(bird|bug|fly|mate|link|seat|knot|ice|fog|pick|hook|wing|herb|blossom|station|wedding|kaaba|cooked rice|white flower|game die|long drum|video game)$/ &&
            name !~ /^(star|ring|glowing star|shooting star|sport utility|performing arts)$/)
            w = name
        if (subgroup in of) d = of[subgroup]
    }
    print code[1], name, w, r, group, subgroup, d
}
END {
    for (name in rank) if (!(name in seen)) print "common.txt: no emoji " name > "/dev/stderr"
}' "$list" | "$scenes" --paint-table -
