#!/usr/bin/env bash
# Distillation of models/pico with real data on a GPU, where activations are bf16: losses beside the
# CPU's over the same steps, two runs with the same bits, and a run that a fault ends goes on to the same
# bits, too. (tests/train/test_run_resume.sh, which run.sh runs there as well, kills runs of all kinds.)
#   check_training.sh MMAMBA BUILD
set -uo pipefail
. tests/cli/lib.sh
. tests/train/run_lib.sh

world=$dir/world
"$(dirname "$mmamba")/scenes" --out "$world" --things 40 --words short:20 --pictures 300 --test 0 --seed 5 -q \
    --table tools/scenes/things.tsv ${SCENES_FONTS:-} >"$dir/out" 2>"$dir/err" || { shown=scenes; complain "no world"; }
how=(--recipe models/pico/demo-recipe.json --steps 12,12,30 --data "$world/meta.json" --threads 4 --json -q)

distil() { # distil STATUS OUT BACKEND [OPTION]...
    local wanted=$1 out=$2 where=$3
    shift 3
    run "$wanted" distill models/pico "$dir/$out" "${how[@]}" --backend "$where" "$@"
}
timeout 150 "$mmamba" distill models/pico "$dir/cpu" "${how[@]}" --backend cpu >"$dir/cpu.out" 2>&1 </dev/null &
cpu=$!
distil 0 first cuda
distil 0 again cuda
same_run "$dir/first" "$dir/again"

MMAMBA_CUDA_FAULT=launch:9000 distil 1 broken cuda
grep -q "^mmamba: .*illegal memory access" "$dir/err" || complain "the fault is not told: $(head -c 300 "$dir/err")"
echo "the fault came at step $(wc -l <"$dir/broken/log.jsonl")"
distil 0 broken cuda --resume
same_run "$dir/first" "$dir/broken"
wait $cpu || complain "no run on the CPU: $(head -c 300 "$dir/cpu.out")"

# bf16 rounds an activation by 2^-9 at most, and layerwise losses are means of squares of differences of
# the same size as the activations. In stage 3 differences grow from step to step: two ways of the CPU
# (AMX, AVX-512) have losses that are 0.01% apart in stages 1 and 2, 0.6% in the first five steps of stage 3, 14% in one
# of the steps after, and 1% in their mean.
numbers() { sed -E 's/.*"stage":([0-9]+),"step":([0-9]+),"loss":([^,]*),.*/\1 \2 \3/' "$dir/$1/log.jsonl"; }
paste <(numbers cpu) <(numbers first) | awk '
    { off = ($6 - $3) / $3; if (off < 0) off = -off; n[$1]++; if (off > worst[$1]) worst[$1] = off
      if ($1 == 3 && $2 <= 5 && off > begin) begin = off
      cpu[$1] += $3; gpu[$1] += $6
      from[$1] = n[$1] == 1 ? $3 : from[$1]; to[$1] = $6 }
    END {
        for (s = 1; s <= 3; s++) {
            limit = s == 3 ? 0.05 : 0.001
            printf "stage %d: %d steps, loss %.4g to %.4g, at most %.3f%% from the CPU, allowed %g%%\n", s, n[s],
                from[s], to[s], 100 * worst[s], 100 * limit
            if (!(worst[s] <= limit) || n[s] < 10 || !(to[s] < from[s])) bad = 1
        }
        mean = gpu[3] / cpu[3] - 1; if (mean < 0) mean = -mean
        printf "stage 3: first five steps at most %.3f%% from the CPU, allowed 1.2%%; mean %.3f%%, allowed 2%%\n",
            100 * begin, 100 * mean
        if (!(begin <= 0.012) || !(mean <= 0.02)) bad = 1
        exit bad
    }' || complain "losses are not the CPU's"
finish
