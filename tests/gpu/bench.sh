#!/usr/bin/env bash
# The numbers of a GPU at HoVLE-2.6B's sizes with random weights, beside what they must be on an H100 and
# what PyTorch with the mixer's published kernels reaches there (docs/PERFORMANCE.md). Run by
# tests/gpu/run.sh with nothing beside it; a line a number.
#   bench.sh MMAMBA BENCHES TESTS LOGS
set -uo pipefail
mmamba=$1 benches=$2 rows=$3/json_rows logs=$4
config=(--config tests/golden/hovle-2.6b.config.json --random-weights --backend cuda --json -q)
status=0
bench() { # bench NAME ARGS...: $logs/bench.NAME.json
    local name=$1
    shift
    echo "---- bench $*" >&2
    timeout 200 "$mmamba" bench "${config[@]}" "$@" >"$logs/bench.$name.json" || status=1
}
bench prompts --mixers linear,hybrid,attention --prompt 1024,8192,32k,103k --new 32
for type in bf16 q8 q4; do
    lengths=1k,103k
    [ $type = bf16 ] && lengths=1k,103k,1M
    bench $type --keep none --dtype $type --prompt $lengths --new 128 --skip-prefill
done
for type in bf16 q8 q4; do
    bench many.$type --keep none --dtype $type --prompt 1k --new 64 --batch 8,16,64 --skip-prefill
done
bench training --train 1,2,3 --prompt 4096
timeout 100 "$benches/bench_gpu_mixer" 4096 16384 ssd >"$logs/bench.mixer.txt" || status=1

printf '%-30s %10s %-8s %12s  %-8s %s\n' number is unit must "" "PyTorch"
# line NAME IS UNIT MUST (<N, >N or -) PYTORCH
line() {
    awk -v name="$1" -v is="$2" -v unit="$3" -v must="$4" -v other="$5" 'BEGIN {
        limit = substr(must, 2)
        if (must == "-") verdict = ""
        else if (is == "-" || is == "") verdict = "MISSING"
        else verdict = (must ~ /^</ ? is + 0 <= limit + 0 : is + 0 >= limit + 0) ? "ok" : "missed"
        printf "%-30s %10s %-8s %12s  %-8s %s\n", name, is, unit, must, verdict, other
    }'
}
say() { awk "BEGIN { printf \"$1\", $2 }"; }
declare -A must=([linear.1024]="<12" [linear.8192]="<70" [linear.103000]="<870" [hybrid.103000]="<1200"
    [attention.1024]="<12" [attention.8192]="<83" [attention.32000]="<504" [attention.103000]="<3176")
declare -A torch=([linear.1024]=50 [linear.8192]=96 [linear.32000]=365 [linear.103000]=1149
    [hybrid.1024]=47 [hybrid.8192]=91 [hybrid.32000]=396 [hybrid.103000]=1671
    [attention.1024]=12 [attention.8192]=83 [attention.32000]=504 [attention.103000]=3176)
declare -A steps=([linear.1024]=294 [linear.8192]=294 [linear.32000]=293 [linear.103000]=294
    [hybrid.1024]=307 [hybrid.8192]=295 [hybrid.32000]=277 [hybrid.103000]=228
    [attention.1024]=347 [attention.8192]=309 [attention.32000]=235 [attention.103000]=138)
while IFS=$'\t' read -r mixers n rate fraction peak; do
    key=$mixers.$n
    line "prefill $mixers $n" "$(say %.1f "1000 * $n / $rate")" ms "${must[$key]:--}" "${torch[$key]:-}"
    [ "$key" = linear.103000 ] && line "  its peak of memory" "$(say %.2f "$peak / 1e9")" GB "<6" 18.0
done < <("$rows" "$logs/bench.prompts.json" rows mixers prompt prefill_tok_s prefill_fraction peak_bytes)
while IFS=$'\t' read -r mixers n tok_s; do
    [ "$mixers" = linear ] && continue
    least=-
    [ "$mixers" = attention ] && least=">${steps[$mixers.$n]}"
    line "decode $mixers after $n" "$(say %.1f "$tok_s")" tok/s "$least" "${steps[$mixers.$n]:-}"
done < <("$rows" "$logs/bench.prompts.json" rows mixers prompt decode_tok_s)
declare -A step=([bf16]=">510" [q8]=">900" [q4]=">1400")
for type in bf16 q8 q4; do
    while IFS=$'\t' read -r n tok_s fraction ratio; do
        line "decode linear $type after $n" "$(say %.1f "$tok_s")" tok/s "${step[$type]}" \
            "$([ $type = bf16 ] && echo 294)"
        [ "$ratio" = - ] || line "  over that after 1000" "$(say %.3f "$ratio")" "" ">0.98" ""
    done < <("$rows" "$logs/bench.$type.json" rows prompt decode_tok_s decode_fraction decode_ratio)
done
for type in bf16 q8 q4; do
    while IFS=$'\t' read -r batch tok_s; do
        least=-
        [ "$type $batch" = "bf16 64" ] && least=">15000"
        line "decode, $batch sequences, $type" "$(say %.0f "$tok_s")" tok/s "$least" ""
    done < <("$rows" "$logs/bench.many.$type.json" rows batch decode_tok_s)
done
while IFS=$'\t' read -r stage tokens fraction tok_s peak; do
    least=-
    [ "$stage" = 3 ] && least=">40"
    line "stage $stage, $tokens tokens" "$(say %.1f "100 * $fraction")" "% of rate" "$least" ""
done < <("$rows" "$logs/bench.training.json" training stage tokens fraction_of_product tok_s peak_bytes)
mixer() { awk -v what="$1" -v n="$2" 'index($0, what) == 1 && $3 == n { print $4 }' "$logs/bench.mixer.txt"; }
line "mixer forward, 16384" "$(mixer "ssd fwd" 16384)" ms "<0.5" 1.06
line "  and backward" "$(mixer "ssd both" 16384)" ms "<2.0" 4.1
line "mixer forward, 4096" "$(mixer "ssd fwd" 4096)" ms - 0.79
line "  and backward" "$(mixer "ssd both" 4096)" ms - 3.6
"$rows" "$logs/bench.prompts.json" . device ceilings.read_GBps ceilings.product_GFLOPs.bf16 \
    ceilings.product_GFLOPs.int8 ceilings.product_GFLOPs.f32 |
    awk -F '\t' '{ printf "ceilings of this run, %s: copy %.0f GB/s, bf16 %.0f, int8 %.0f, f32 %.0f TFLOP/s\n", $1,
        $2, $3 / 1e3, $4 / 1e3, $5 / 1e3 }'
exit $status
