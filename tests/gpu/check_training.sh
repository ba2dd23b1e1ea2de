#!/usr/bin/env bash
# Distillation of models/pico with real data on a GPU, where activations are bf16: losses beside the
# CPU's over the same steps, from checkpoints of the CPU's run and by itself; two runs with the same bits,
# and a run that a fault ends goes on to the same bits, too. (tests/train/test_run_resume.sh, which run.sh
# runs there as well, kills runs of all kinds.)
#   check_training.sh MMAMBA BUILD
# OTHER_ISA=avx512bf16 (or another level of MMAMBA_ISA): no GPU; the CPU with these instructions takes its
# place, and the injected fault is left out. JOBS: pieces side by side (4).
set -uo pipefail
. tests/cli/lib.sh
. tests/train/run_lib.sh

steps=12,12,30 every=2
world=$dir/world
"$(dirname "$mmamba")/scenes" --out "$world" --things 40 --words short:20 --pictures 300 --test 0 --seed 5 -q \
    --table tools/scenes/things.tsv ${SCENES_FONTS:-} >"$dir/out" 2>"$dir/err" || { shown=scenes; complain "no world"; }
sed "s/\"checkpoint_every\": [0-9]*/\"checkpoint_every\": $every/" models/pico/demo-recipe.json >"$dir/often.json"
how=(--steps "$steps" --data "$world/meta.json" --threads 4 --json -q)
other=("$mmamba") there=cuda
[ -z "${OTHER_ISA:-}" ] || { other=(env MMAMBA_ISA="$OTHER_ISA" "$mmamba") there=cpu; }

# distil STATUS OUT [OPTION]...: the other way
distil() {
    local wanted=$1 out=$2 status
    shift 2
    shown="distill to $out $*"
    timeout 120 "${other[@]}" distill models/pico "$dir/$out" --recipe models/pico/demo-recipe.json "${how[@]}" \
        --backend $there "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
    [ $status = "$wanted" ] || complain "exit status $status, must be $wanted"
}

# ---- the CPU's run, and its checkpoints ----------------------------------------------------------
# A checkpoint is written beside the old one and renamed: a second name of the file keeps it whole, and is
# taken at once.
mkdir "$dir/kept"
keep_checkpoints() {
    local from=$dir/cpu/checkpoint.safetensors n=0
    while [ -e "$dir" ] && [ ! -e "$dir/cpu.ended" ]; do
        if [ -e "$from" ] && { [ $n = 0 ] || [ ! "$from" -ef "$dir/kept/$n" ]; }; then
            ln "$from" "$dir/kept/$((n + 1))" 2>/dev/null && n=$((n + 1))
        fi
        sleep 0.02
    done
}
keep_checkpoints &
keeper=$!
(
    timeout 150 "$mmamba" distill models/pico "$dir/cpu" --recipe "$dir/often.json" "${how[@]}" --backend cpu \
        >"$dir/cpu.out" 2>&1 </dev/null
    status=$?
    touch "$dir/cpu.ended"
    exit $status
) &
cpu=$!

# ---- runs by themselves --------------------------------------------------------------------------
distil 0 first
distil 0 again
same_run "$dir/first" "$dir/again"

if [ $there = cuda ]; then
    MMAMBA_CUDA_FAULT=launch:9000 distil 1 broken
    grep -q "^mmamba: .*illegal memory access" "$dir/err" || complain "the fault is not told: $(head -c 300 "$dir/err")"
    echo "the fault came at step $(wc -l <"$dir/broken/log.jsonl")"
    distil 0 broken --resume
    same_run "$dir/first" "$dir/broken"
fi
wait $cpu || complain "no run on the CPU: $(head -c 300 "$dir/cpu.out")"
wait $keeper

# ---- from the CPU's checkpoints -------------------------------------------------------------------
# piece N: goes on from the Nth checkpoint for a few steps; its log begins there. It reads the result of the
# stage before the checkpoint's, and never that of a later one.
piece() {
    local out=$dir/piece$1 pid status
    mkdir "$out"
    cp "$dir/cpu/run.json" "$out"
    ln "$dir"/cpu/stage[12].safetensors "$out"
    ln "$dir/kept/$1" "$out/checkpoint.safetensors"
    timeout 60 "${other[@]}" distill models/pico "$out" --recipe "$dir/often.json" "${how[@]}" --backend $there \
        --resume >"$out.out" 2>&1 </dev/null &
    pid=$!
    while kill -0 $pid 2>/dev/null && [ "$(cat "$out/log.jsonl" 2>/dev/null | wc -l)" -lt $every ]; do sleep 0.02; done
    kill -TERM $pid 2>/dev/null # timeout hands it on
    wait $pid
    status=$?
    rm -f "$out"/*.safetensors "$dir/kept/$1"
    case $status in 0 | 130) ;; *) echo "exit status $status: $(head -c 300 "$out.out")" >"$out.failed" ;; esac
}

pieces=$(find "$dir/kept" -type f | wc -l)
for ((n = 1; n <= pieces; n++)); do
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-4}" ]; do wait -n; done
    piece $n &
done
wait
shown=pieces
for failed in "$dir"/piece*.failed; do
    [ ! -e "$failed" ] || complain "$(basename "$failed" .failed): $(cat "$failed")"
done

# ---- losses ---------------------------------------------------------------------------------------
numbers() { sed -E 's/.*"stage":([0-9]+),"step":([0-9]+),"loss":([^,]*),.*/\1 \2 \3/' "$dir/$1/log.jsonl"; }

# bf16 rounds an activation by 2^-9 (0.2%) at most. The first step from a checkpoint is a forward pass of
# the same weights: what is left of many roundings in the mean over targets must be no more than two of the
# largest, 0.4%. The second has one update behind it, in which Adam makes small gradients of either sign
# into whole steps: 0.8%. Stages 1 and 2, whose losses are means of squares of activations: 0.1%, as below.
# Ways of the CPU (AMX against AVX-512 with bf16, AVX-512, AVX2) are at most 0.06% apart in stage 3's first
# step from a checkpoint, 0.13% in the second, 0.6% in the third, 0.7% in the fourth, and 6% in the sixth, which is
# why pieces end after the second; in stages 1 and 2 0.01%.
for ((n = 1; n <= pieces; n++)); do
    numbers "piece$n" 2>/dev/null | head -n $every | awk '{ print $0, NR }'
done >"$dir/pieces"
shown="from the CPU's checkpoints"
awk -v steps="$steps" '
    NR == FNR { cpu[$1, $2] = $3; next }
    { s = $1; k = $4; off = $3 / cpu[s, $2] - 1; if (off < 0) off = -off
      limit = s < 3 ? 0.001 : k == 1 ? 0.004 : 0.008
      if (!(off <= limit) || $3 !~ /^[0-9.e+-]+$/) { # awks differ in what they take "nan" for
          bad = 1; printf "stage %d step %d: %s, must be near the CPU\047s %s\n", s, $2, $3, cpu[s, $2] }
      n[s, k]++; all[s] += !seen[s, $2]++; sum[s, k] += off; allowed[s, k] = limit
      if (!(off <= worst[s, k])) { worst[s, k] = off; at[s, k] = $2 } }
    END {
        split(steps, total, ",")
        for (s = 1; s <= 3; s++) {
            for (k = 1; k <= 2; k++) {
                printf "stage %d: step %d from a checkpoint, %d times: at most %.4f%% from the CPU (step %d), ", s, k,
                    n[s, k], 100 * worst[s, k], at[s, k]
                printf "mean %.4f%%, allowed %g%%\n", 100 * sum[s, k] / (n[s, k] ? n[s, k] : 1), 100 * allowed[s, k]
            }
            # the first two steps begin at no checkpoint; one that was too short to be seen may be missed
            if (all[s] < total[s] - (s == 1 ? 4 : 2)) {
                bad = 1; printf "stage %d: %d steps of %d must be from a checkpoint\n", s, all[s], total[s] }
        }
        exit bad
    }' <(numbers cpu) "$dir/pieces" || complain "losses are not the CPU's"

# By itself, differences grow from step to step in stage 3 (two ways of the CPU come to be 14% apart in one step), so
# there only the beginning and the mean are held. Ways of the CPU are 0.01% apart in stages 1 and 2, 0.5% to 0.9% in
# the first five steps of stage 3, and 1% in its mean.
shown="by itself"
paste <(numbers cpu) <(numbers first) | awk '
    { off = ($6 - $3) / $3; if (off < 0) off = -off; n[$1]++; if (!(off <= worst[$1])) worst[$1] = off
      if ($1 == 3 && $2 <= 5 && !(off <= begin)) begin = off
      if ($6 !~ /^[0-9.e+-]+$/) bad = 1
      cpu[$1] += $3; gpu[$1] += $6
      from[$1] = n[$1] == 1 ? $3 : from[$1]; to[$1] = $6 }
    END {
        for (s = 1; s <= 3; s++) {
            printf "stage %d: %d steps, loss %.4g to %.4g, at most %.3f%% from the CPU, %s\n", s, n[s], from[s], to[s],
                100 * worst[s], s == 3 ? "which is not held" : "allowed 0.1%"
            if (s < 3 && !(worst[s] <= 0.001) || n[s] < 10 || !(to[s] < from[s])) bad = 1
        }
        mean = gpu[3] / cpu[3] - 1; if (mean < 0) mean = -mean
        printf "stage 3: first five steps at most %.3f%% from the CPU, allowed 1.2%%; mean %.3f%%, allowed 2%%\n",
            100 * begin, 100 * mean
        if (!(begin <= 0.012) || !(mean <= 0.02)) bad = 1
        exit bad
    }' || complain "losses are not the CPU's"
finish
