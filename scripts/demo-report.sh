#!/usr/bin/env bash
# What the demonstration found, in words, bars, a picture and a page; scripts/demo.sh calls it.
#   scripts/demo-report.sh line OUT NAME    one line: a model's scores
#   scripts/demo-report.sh all OUT          table, questions, memory, times, OUT/report.html
set -euo pipefail
verb=$1 out=$2
benches="pope mme textvqa sqa gqa"
models="start stage1 stage2 stage3 hybrid ${DEMO_FINISHED:-} teacher"

title() {
    case $1 in
        pope) echo "is it there (POPE)" ;;
        mme) echo "pairs of yes/no (MME)" ;;
        textvqa) echo "read the word (TextVQA)" ;;
        sqa) echo "choice of four (ScienceQA)" ;;
        gqa) echo "where, what (GQA)" ;;
        start) echo "start" ;;
        stage?) echo "stage ${1#stage}" ;;
        *) echo "$1" ;;
    esac
}

# score NAME BENCH: 0..100 by the benchmark's own rules. MME counts points, 200 a kind of question at most.
score() {
    local points most=100
    points=$(sed -nE 's/.*"headline": *(-?[0-9.]+).*/\1/p' "$out/scores/$1.$2.json" | head -n 1)
    if [ "$2" = mme ]; then
        most=$(awk -F'\t' 'NR > 1 && !seen[$5]++ { n++ } END { print 200 * n }' "$out/world/MME.tsv")
    fi
    awk -v p="$points" -v m="$most" 'BEGIN { printf "%.1f", 100 * p / m }'
}

line() {
    local bench
    printf '%-11s' "$(title "$1")"
    for bench in $benches; do printf '  %s %s%%' "$(title "$bench" | sed 's/.*(\(.*\))/\1/')" "$(score "$1" "$bench")"; done
    printf '\n'
}

# results.tsv: a row a kind of question, a column a model; last the mean over the kinds.
collect() {
    local bench model
    {
        printf 'score, 0 to 100'
        for model in $models; do printf '\t%s' "$(title "$model")"; done
        printf '\n'
        for bench in $benches; do
            printf '%s' "$(title "$bench")"
            for model in $models; do printf '\t%s' "$(score "$model" "$bench")"; done
            printf '\n'
        done
    } >"$out/results.part"
    awk -F'\t' '{ print } NR > 1 { for (i = 2; i <= NF; i++) sum[i] += $i }
        END { printf "mean"; for (i = 2; i <= NF; i++) printf "\t%.1f", sum[i] / (NR - 1); print "" }' \
        "$out/results.part" >"$out/results.tsv"
    rm "$out/results.part"
}

table() {
    awk -F'\t' '{ printf "%-28s", $1; for (i = 2; i <= NF; i++) printf (i > 6 && i < NF ? "%13s" : "%9s"), $i; print "" }' \
        "$out/results.tsv"
    printf '\nthe linear student as a share of its teacher\n'
    awk -F'\t' 'NR > 1 {
        share[0] = 2; share[1] = 3; share[2] = 4; share[3] = 5
        for (s = 0; s < 4; s++) {
            p = $NF > 0 ? 100 * $(share[s]) / $NF : 0
            bar = ""
            for (i = 0; i < 40; i++) bar = bar (i < p * 0.4 ? "#" : ".")
            printf "%-28s%-8s %s %4.0f%%\n", s ? "" : $1, s ? "stage " s : "start", bar, p
        }
    }' "$out/results.tsv"
}

# The picture's questions and right answers, out of the one line of its jsonl: "question<TAB>answer".
questions() {
    sed -E 's/.*"conversations": \[//' "$out/sample/train.jsonl" | grep -oE '"value": "([^"\\]|\\.)*"' |
        sed -E 's/^"value": "(.*)"$/\1/; s/^<image>\\n//' | paste - -
}

ask() {
    "${MMAMBA:-build/mmamba}" chat "$1" -i "$out/sample/images/train/000/000000.png" \
        -p "$(printf '%b' "$2")" --max-new-tokens 48 --quiet | tr '\n\t' '  '
}

# answers.tsv: question, right answer, teacher's, linear student's, hybrid's.
ask_all() {
    local question right
    printf 'question\tright\tteacher\tlinear student\thybrid\n' >"$out/answers.tsv"
    while IFS=$'\t' read -r question right; do
        printf '%s\t%s\t%s\t%s\t%s\n' \
            "$(printf '%s' "$question" | sed -E 's/(\\n| *)(Answer the question using|Answer with the option).*//; s/\\n/ /g')" \
            "$right" "$(ask "$DEMO_TEACHER" "$question")" "$(ask "$out/run/model" "$question")" \
            "$(ask "$out/run-hybrid/model" "$question")" >>"$out/answers.tsv"
    done < <(questions)
}

number() {  # MODEL TOKENS KEY
    "${MMAMBA:-build/mmamba}" inspect "$1" --tokens "$2" --json | sed -nE "s/.*\"$3\": *([0-9]+).*/\1/p" | head -n 1
}

# memory.tsv: bytes that one conversation keeps.
memory() {
    local tokens model bytes
    printf 'tokens\tteacher\tlinear student\thybrid\n' >"$out/memory.tsv"
    for tokens in 100 1000 10000 100000; do
        printf '%s' "$tokens"
        for model in "$DEMO_TEACHER" "$out/run/model" "$out/run-hybrid/model"; do
            bytes=$(($(number "$model" "$tokens" state_bytes) + $(number "$model" "$tokens" cache_bytes)))
            printf '\t%s.%02d MB' $((bytes / 1000000)) $((bytes / 10000 % 100))
        done
        printf '\n'
    done >>"$out/memory.tsv"
}

# How fast the stages went, from the run's log.
speed() {
    awk -F'[:,]' '{
        for (i = 1; i < NF; i++) { gsub(/[{" ]/, "", $i); field[$i] = $(i + 1) }
        s = field["stage"]; steps[s]++; tokens[s] += field["tokens"]; time[s] += field["tokens"] / field["tokens_per_s"]
    } END {
        for (s = 1; s <= 3; s++) if (steps[s])
            printf "stage %d: %d steps in %.1f s, %.0f tokens/s\n", s, steps[s], time[s], tokens[s] / time[s]
    }' "$out/run/log.jsonl"
}

in_columns() {
    awk -F'\t' -v first="$1" '{ printf "%-" first "s", $1; for (i = 2; i <= NF; i++) printf "%17s", $i; print "" }'
}

html_table() {
    sed 's/&/\&amp;/g; s/</\&lt;/g' "$1" | awk -F'\t' '
        BEGIN { print "<table>" }
        { cell = NR == 1 ? "th" : "td"; printf "<tr>"
          for (i = 1; i <= NF; i++) printf "<%s>%s</%s>", cell, $i, cell
          print "</tr>" }
        END { print "</table>" }'
}

picture() {  # FILE WIDTH
    if [ -f "$1" ]; then
        printf '<p><img width="%s" src="data:image/png;base64,%s">\n' "$2" "$(base64 -w0 "$1")"
    fi
}

page() {
    cat <<'HEAD'
<!doctype html><meta charset="utf-8"><title>mmamba: the demonstration</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ccc }
td:first-child, th:first-child { text-align: left }
</style>
<h1>A Transformer becomes a Mamba-2 model</h1>
<p>Test pictures are composed anew; none was trained on. Scores are those of each benchmark's rules (POPE: F1; MME: share of the points there are).
HEAD
    html_table "$out/results.tsv"
    picture "$out/results.png" 900
    echo "<h2>The same questions about one picture</h2>"
    picture "$out/sample/images/train/000/000000.png" 224
    html_table "$out/answers.tsv"
    echo "<h2>Memory that one conversation keeps, by its length in tokens</h2>"
    html_table "$out/memory.tsv"
    echo "<h2>Loss</h2>"
    picture "$out/run/loss.png" 900
    echo "<h2>The world</h2>"
    picture "$out/world.png" 900
    echo "<h2>The recipe</h2><pre>"
    sed 's/&/\&amp;/g; s/</\&lt;/g' "$DEMO_RECIPE"
    echo "</pre><h2>Seconds</h2>"
    html_table "$out/times"
}

all() {
    collect
    printf '\n== Scores by the rules of each benchmark, pictures that nobody trained on\n'
    table
    "${BARS:-build/bars}" "$out/results.png" <"$out/results.tsv"
    printf '\n== The same questions about one picture, %s\n' "$out/sample/images/train/000/000000.png"
    ask_all
    awk -F'\t' 'NR == 1 { for (i = 2; i <= NF; i++) name[i] = $i }
        NR > 1 { print $1; for (i = 2; i <= NF; i++) printf "    %-16s%s\n", name[i], $i }' "$out/answers.tsv"
    printf '\n== Memory that one conversation keeps, by its length in tokens\n'
    memory
    in_columns 12 <"$out/memory.tsv"
    printf '\n== Seconds\n'
    awk -F'\t' '{ printf "%-16s %7.1f\n", $1, $2; sum += $2 } END { printf "%-16s %7.1f\n", "all", sum }' "$out/times"
    speed
    page >"$out/report.part"
    mv "$out/report.part" "$out/report.html"
    printf '\nThe report: %s\n' "$out/report.html"
}

case $verb in
    line) line "$3" ;;
    all) all ;;
    *)
        echo "demo-report.sh: line or all, not '$verb'" >&2
        exit 2
        ;;
esac
