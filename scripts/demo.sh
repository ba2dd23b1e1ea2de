#!/usr/bin/env bash
# The demonstration: composes a small world, measures the bundled teacher, carves it, distils it in
# three stages, measures after each and the bundled students as well, asks teacher and students about
# a picture, writes a report.
#   scripts/demo.sh [--recipe FILE] [--steps N,N,N]
# The published recipe, shorter: scripts/demo.sh --recipe recipes/paper.json --steps 40,40,200
# Everything goes to out/demo. What is finished there is not done again, so an interrupted
# demonstration goes on when it is started again; `make demo-clean` forgets it.
# Variables: DEMO_OUT (folder), DEMO_TEACHER (model folder), DEMO_STUDENTS (folders of finished students
# that are measured, too: a linear one and a hybrid; by default those bundled with models/pico),
# DEMO_TINY=1 (a run of seconds that shows that every part works, and nothing else), BUILD, MMAMBA,
# SCENES, BARS (what was built).
set -euo pipefail
cd "$(dirname "$0")/.."

build=${BUILD:-build}
mmamba=${MMAMBA:-$build/mmamba}
scenes=${SCENES:-$build/scenes}
bars=${BARS:-$build/bars}
out=${DEMO_OUT:-out/demo}
teacher=${DEMO_TEACHER:-models/pico}
students=${DEMO_STUDENTS-}
[ -n "${DEMO_TEACHER:-}${DEMO_STUDENTS+set}" ] || students="models/pico-linear models/pico-hybrid"
recipe=models/pico/demo-recipe.json
steps= hybrid_steps=60,60,250
pictures=10000 questions=150 things=120 words=short:40
sample_seed=15  # of the one picture they are asked about
benches="pope mme textvqa sqa gqa"

fail() {
    echo "demo: $1" >&2
    exit 1
}

tiny=${DEMO_TINY:-}
if [ -n "$tiny" ]; then
    pictures=64 questions=6 steps=2,2,3 hybrid_steps=1,1,2
fi
while [ $# -gt 0 ]; do
    case $1 in
        --recipe) recipe=${2:?--recipe needs a file} hybrid_steps=$steps && shift ;;
        --steps) steps=${2:?--steps needs three numbers} hybrid_steps=$2 && shift ;;
        *)
            echo "demo: '$1' is not understood; there are --recipe FILE and --steps N,N,N" >&2
            exit 2
            ;;
    esac
    shift
done

for program in "$mmamba" "$scenes" "$bars"; do
    [ -x "$program" ] || fail "$program is missing; run make first"
done
[ -f "$recipe" ] || fail "there is no recipe $recipe"
[ -f "$teacher/config.json" ] || fail "$teacher holds no config.json; DEMO_TEACHER names a model folder"
[ -n "$tiny" ] || [ -f "$teacher/model.safetensors" ] || [ -f "$teacher/model.safetensors.index.json" ] ||
    fail "$teacher holds no weights (model.safetensors)"
for student in $students; do
    [ -f "$student/model.safetensors" ] || fail "$student holds no model.safetensors; DEMO_STUDENTS names model folders"
done
mkdir -p "$out" || fail "cannot make the folder $out"
if [ -n "$tiny" ]; then
    sed 's/"batch": 16/"batch": 2/' "$recipe" >"$out/tiny-recipe.json"
    recipe=$out/tiny-recipe.json
fi

# The same folder must not mix two demonstrations.
settings="pictures $pictures, questions $questions, steps ${steps:-as in the recipe}, hybrid $hybrid_steps
teacher $(cat "$teacher"/config.json "$teacher"/*.safetensors 2>/dev/null | cksum)
recipe $(cksum <"$recipe")
students $(for student in $students; do cat "$student/config.json" "$student/model.safetensors"; done | cksum)"
if [ -f "$out/settings" ] && [ "$(cat "$out/settings")" != "$settings" ]; then
    fail "$out holds a demonstration of another teacher, recipe or size; run make demo-clean first"
fi
echo "$settings" >"$out/settings"
touch "$out/times"
if [ -s "$out/times" ]; then echo "demo: goes on in $out; make demo-clean forgets what is there"; fi

# part NAME COMMAND...: runs a part that is not finished yet and notes how long it took.
part() {
    local name=$1 begin=$EPOCHREALTIME status=0
    shift
    if grep -q "^$name	" "$out/times"; then return; fi
    "$@" || status=$?
    if [ "$status" = 130 ]; then
        echo "demo: interrupted; make demo goes on from here" >&2
        exit 130
    fi
    [ "$status" = 0 ] || fail "'$name' did not work; its message stands above"
    printf '%s\t%s\n' "$name" "$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')" \
        >>"$out/times"
}

say() {
    printf '\n== %s\n' "$1"
}

make_world() {
    "$scenes" --out "$out/world" --things "$things" --words "$words" --pictures "$pictures" --test "$questions" &&
        "$scenes" --sheet "$out/world.png" --things "$things" --quiet &&
        "$scenes" --out "$out/sample" --things "$things" --words "$words" --pictures 1 --test 0 --seed "$sample_seed" --quiet
}

# Of no use but to show that the parts work.
random_teacher() {
    [ -f "$out/random/model/config.json" ] && return
    rm -rf "$out/random"
    printf '{"supervised": {"batch": 4, "accumulate": 1}, "max_length": 160}\n' >"$out/random.json"
    "$mmamba" train --config "$teacher" --data "$out/world/meta.json" --out "$out/random" --steps 1 \
        --recipe "$out/random.json" --quiet
}

test_of() {
    case $1 in
        pope) echo POPE.tsv ;;
        mme) echo MME.tsv ;;
        textvqa) echo TextVQA_VAL.tsv ;;
        sqa) echo ScienceQA_TEST.tsv ;;
        gqa) echo GQA.tsv ;;
    esac
}

# evaluate NAME MODEL: every test; answers, scores and warnings (that MME has other kinds of
# question, too; that a student says neither yes nor no) go to scores/NAME.*
evaluate() {
    local name=$1 model=$2 bench at
    mkdir -p "$out/scores"
    for bench in $benches; do
        at=$out/scores/$name.$bench
        [ -f "$at.json" ] && continue
        # The right answers are short; a student that was just carved would talk on and on.
        "$mmamba" eval "$model" --bench "$bench" --data "$out/world/$(test_of "$bench")" \
            --out "$at.jsonl" --max-new-tokens 16 --json --quiet >"$at.json.part" 2>"$at.log" || {
            local status=$?
            cat "$at.log" >&2
            return "$status"
        }
        mv "$at.json.part" "$at.json"
    done
}

# distil RUN OPTION...: a run that is there goes on.
distil() {
    local run=$1 how=()
    shift
    [ ! -f "$run/run.json" ] || how=(--resume)
    "$mmamba" distill "$teacher" "$run" --data "$out/world/meta.json" --recipe "$recipe" --stages 1,2,3 \
        "${how[@]}" "$@"
}

distil_linear() {
    distil "$out/run" ${steps:+--steps "$steps"} && for stage in 1 2 3; do
        rm -rf "$out/stage$stage"
        "$mmamba" export "$out/run" "$out/stage$stage" --stage "$stage" --quiet || return
    done
}

carve() {
    rm -rf "$out/start"
    "$mmamba" carve "$teacher" "$out/start" --quiet
}

distil_hybrid() {
    distil "$out/run-hybrid" --keep head-interleaved:2 ${hybrid_steps:+--steps "$hybrid_steps"}
}

say "A world of $pictures pictures with questions and answers"
part world make_world
echo "two dozen of them, with questions and answers: $out/world.png"
if [ -n "$tiny" ] && [ ! -f "$teacher/model.safetensors" ]; then
    part "random teacher" random_teacher
    teacher=$out/random/model
fi

say "The teacher: a vision-language Transformer"
part "eval teacher" evaluate teacher "$teacher"
scripts/demo-report.sh line "$out" teacher

say "Carved: every attention becomes a Mamba-2 mixer that starts from its q, k and v"
part carve carve
part "eval start" evaluate start "$out/start"
scripts/demo-report.sh line "$out" start

say "Distilled in three stages: new parameters, whole mixers, end to end"
part distil distil_linear
for stage in 1 2 3; do
    part "eval stage $stage" evaluate "stage$stage" "$out/stage$stage"
    scripts/demo-report.sh line "$out" "stage$stage"
done

say "The same with two of eight attentions kept, in fewer steps"
part "distil hybrid" distil_hybrid
part "eval hybrid" evaluate hybrid "$out/run-hybrid/model"
scripts/demo-report.sh line "$out" hybrid

finished=
if [ -n "$students" ]; then
    say "Students that took the same road for longer, on a GPU: $students"
    for student in $students; do
        finished="$finished $(basename "$student")"
        part "eval $(basename "$student")" evaluate "$(basename "$student")" "$student"
        scripts/demo-report.sh line "$out" "$(basename "$student")"
    done
fi

export DEMO_FINISHED=$finished
export MMAMBA=$mmamba BARS=$bars DEMO_TEACHER=$teacher DEMO_RECIPE=$recipe
scripts/demo-report.sh all "$out"
