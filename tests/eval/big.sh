#!/usr/bin/env bash
# Makes a large data set and predictions for measuring:
#   big.sh mcq|mmbench|textvqa|mme|pope|gqa|mmvet ROWS FOLDER [shuffled]
# FOLDER/KIND.tsv (a folder for pope and gqa) and FOLDER/KIND.jsonl; FOLDER/KIND.judge.jsonl has
# a judge's words or grades, in reverse. shuffled: predictions in an order of their own.
set -euo pipefail
kind=$1 rows=$2 folder=$3 order=${4:-}
mkdir -p "$folder"
data=$folder/$kind
case $kind in
    pope) mkdir -p "$data" && table=$data/llava_pope_test.jsonl ;;
    gqa) mkdir -p "$data" && table=$data/llava_gqa_testdev_balanced_qwen_format.jsonl ;;
    *) table=$data.tsv ;;
esac
awk -v n="$rows" -v kind="$kind" -v table="$table" -v data="$data" '
function one(list, count) { return list[1 + int(rand() * count)] }
function say(index_, answer) {
    printf "{\"index\": %s, \"prediction\": \"%s\"}\n", index_, answer >(data ".jsonl")
}
BEGIN {
    srand(1)
    for (i = 0; i < 100; i++) picture = picture "A"
    n_words = split("red car|blue car|dog|cat|green tree|two|None", word, "|")
    n_brands = split("nike|Nike.|adidas|the swoosh|it is", brand, "|")
    n_yes = split("Yes|No|no.|maybe", yes, "|")
    n_kinds = split("adversarial|popular|random", sort_of, "|")
    n_capabilities = split("ocr|ocr,math|rec|rec,gen|spat,know", capability, "|")
    if (kind == "mcq" || kind == "mmbench")
        head = "question\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit"
    if (kind == "textvqa") head = "question\tanswer"
    if (kind == "mme") head = "question\tanswer\tcategory\timage_path"
    if (kind == "mmvet") head = "question\tanswer\tcategory"
    if (head) print "index\timage\t" head >table
    m = int((n + 3) / 4)  # questions of mmbench, each in four rotations
    for (i = 0; i < n; i++) {
        if (kind == "pope") {
            k = sort_of[1 + i % 3]
            printf "{\"question_id\": %d, \"image\": \"COCO_%012d.jpg\", \"text\": \"Is there a dog in picture %d? Answer the question using a single word or phrase.\", \"category\": \"%s\"}\n", i, int(i / 6), i, k >table
            printf "{\"question_id\": %d, \"image\": \"COCO_%012d.jpg\", \"text\": \"Is there a dog?\", \"label\": \"%s\"}\n", i, int(i / 6), i % 2 ? "no" : "yes" >(data "/coco_pope_" k ".json")
            say(i, one(yes, n_yes))
            continue
        }
        if (kind == "gqa") {
            id = sprintf("\"%08d\"", (i * 7919) % 100000007)
            printf "{\"question_id\": %s, \"image\": \"data/gqa/images/n%d.jpg\", \"question\": \"What is in picture %d?\", \"answer\": \"dog\"}\n", id, int(i / 10), i >table
            gold[i] = id
            say(id, one(word, n_words))
            continue
        }
        index_ = kind == "mmbench" ? i % m + int(i / m) * 1000000 : i
        row = index_ "\t" picture "\tWhat is shown in picture " i "?\t"
        if (kind == "mcq" || kind == "mmbench") {
            k = int(rand() * n_words)
            for (c = 0; c < 4; c++) option[c] = word[1 + (k + c) % n_words]
            row = row "\t" option[0] "\t" option[1] "\t" option[2] "\t" option[3] "\t" \
                substr("ABCD", 1 + i % 4, 1) "\tc" i % 9 "\tl" i % 3 "\tdev"
            r = rand()
            right = kind == "mmbench" ? .7 : 0
            answer = r < right ? substr("ABCD", 1 + i % 4, 1) : \
                r < .4 ? substr("ABCD", 1 + int(rand() * 4), 1) : r < .8 ? "it is " option[0] : "hm"
        } else if (kind == "textvqa") {
            list = ""
            for (c = 0; c < 10; c++) list = list (c ? ", " : "") "\047" one(brand, n_brands) "\047"
            row = row "[" list "]"
            answer = one(brand, n_brands)
        } else if (kind == "mmvet") {
            row = row "a dog\t" one(capability, n_capabilities)
            answer = "It is " one(word, n_words) "."
        } else {
            row = row (i % 2 ? "No" : "Yes") "\tcount\timages/" int(i / 2) ".jpg"
            answer = one(yes, n_yes)
        }
        print row >table
        say(index_, answer)
    }
    for (i = n - 1; kind == "gqa" && i >= 0; i--)
        printf "%s%s: {\"semantic\": [{\"operation\": \"select\", \"argument\": \"dog (%d)\"}], \"answer\": \"%s\", \"isBalanced\": true, \"types\": {\"structural\": \"%s\", \"semantic\": \"obj\"}}%s", i == n - 1 ? "{" : ", ", gold[i], i, one(word, n_words), i % 3 ? "query" : "verify", i ? "" : "}\n" >(data "/testdev_balanced_questions.json")
    for (i = n - 1; kind == "mmvet" && i >= 0; i--)
        printf "{\"index\": %d, \"score\": %.1f}\n", i, rand() >(data ".judge.jsonl")
    for (i = n - 1; kind == "mcq" && i >= 0; i--)
        printf "{\"index\": %d, \"reply\": \"%s\"}\n", i, substr("ABCD", 1 + int(rand() * 4), 1) >(data ".judge.jsonl")
}'
if [ "$order" = shuffled ]; then
    sort -R --random-source=<(yes) "$data.jsonl" -o "$data.jsonl"
fi
